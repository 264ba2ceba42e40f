"""Mistakes at random: ``python -m tests.mutants.draw SEED COUNT [PREFIX] > rows.txt`` prints rows to judge and to run.

A line of a function is drawn, of any module in ``TESTS``, and one of the mistakes that can be made on it.
"""

import ast
import copy
import random
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from .__main__ import ROOT

LIBRARY, DECISION, BACKPROP = "interp_lab/explain_decision/", "tests/explain_decision/test_", "tests/backprop/test_"
TESTS = {
    "interp_lab/contract/gradients.py": "tests/contract tests/explain_decision/test_gradient_based.py",
    "interp_lab/contract/interception.py": f"tests/contract {BACKPROP}modified_backprop.py",
    "interp_lab/contract/replacement.py": f"{DECISION}removal.py tests/evaluate/test_selectivity.py",
    "interp_lab/contract/": "tests/contract",
    "interp_lab/backprop/decompositions.py": f"{BACKPROP}decompositions.py",
    "interp_lab/backprop/feature_maps.py": f"{BACKPROP}feature_maps.py {DECISION}grad_cam.py",
    "interp_lab/backprop/layers.py": f"{BACKPROP}layers.py {DECISION}lrp.py",
    "interp_lab/backprop/modified_backprop.py": f"{BACKPROP}modified_backprop.py",
    "interp_lab/backprop/relu_rules.py": f"{DECISION}deconvnet_and_guided_backprop.py",
    f"{LIBRARY}deconvnet_and_guided_backprop.py": f"{DECISION}deconvnet_and_guided_backprop.py",
    f"{LIBRARY}deep_taylor.py": f"{DECISION}lrp.py",
    f"{LIBRARY}deeplift.py": f"{DECISION}deeplift.py",
    f"{LIBRARY}grad_cam.py": f"{DECISION}grad_cam.py",
    f"{LIBRARY}gradient_based.py": f"{DECISION}gradient_based.py tests/contract/test_contract.py",
    f"{LIBRARY}lrp/": f"{DECISION}lrp.py {BACKPROP}layers.py",
    f"{LIBRARY}patterns.py": f"{DECISION}patterns.py",
    **{f"{LIBRARY}{name}.py": f"{DECISION}removal.py" for name in ("occlusion", "removal", "rise", "shapley")},
    f"{LIBRARY}rectgrad.py": f"{DECISION}deconvnet_and_guided_backprop.py",
    **{
        f"interp_lab/evaluate/{name}.py": f"tests/evaluate/test_{name}.py"
        for name in ("class_sensitivity", "coherence", "fragility", "imputation", "randomisation", "selectivity")
    },
    "interp_lab/evaluate/relevance.py": "tests/evaluate/test_coherence.py tests/evaluate/test_selectivity.py",
    "interp_lab/evaluate/similarity.py": "tests/evaluate/test_class_sensitivity.py",
    **{
        f"interp_lab/explain_model/{name}.py": f"tests/explain_model/test_{name}.py"
        for name in ("activation_maximisation", "priors", "prototypes")
    },
    "interp_lab/data/dataset.py": "tests/data",
    "interp_lab/data/digit_images.py": "tests/data/test_digits.py",
    "interp_lab/data/drawn_scenes.py": "tests/data/test_scenes.py",
    "interp_lab/data/photographs.py": "tests/data/test_photos.py",
    "interp_lab/check.py": "tests/test_check.py",
    "interp_lab/networks.py": "tests/test_networks.py",
}
OTHER = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip

SURE = (
    "getattr",
    "hasattr",
    "setattr",
    "isinstance",
    "min",
    "max",
    "map",
    "explaining",
)  # of the order of their arguments


def mistakes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What can be wrong with a node, and the node with it."""

    def changed(**values) -> ast.AST:
        other = copy.copy(node)
        vars(other).update(values)
        return other

    match node:
        case ast.Compare(ops=[operator, *more]):
            yield "another comparison", changed(ops=[OTHER[type(operator)](), *more])
        case ast.BoolOp(op=operator, values=values):
            yield "another connective", changed(op=OTHER[type(operator)]())
            for k in range(len(values)):
                rest = values[:k] + values[k + 1 :]
                yield "a condition left out", changed(values=rest) if len(rest) > 1 else rest[0]
        case ast.BinOp(op=operator, left=left, right=right) if type(operator) in OTHER:
            yield "another operation", changed(op=OTHER[type(operator)]())
            yield "a term left out", left
            yield "a term left out", right
        case ast.UnaryOp(operand=operand):
            yield "a sign left out", operand
        case ast.Constant(value=bool(value)):
            yield "the other truth value", changed(value=not value)
        case ast.Constant(value=int(value)):
            yield "off by one", changed(value=value + 1)
            yield "off by one", changed(value=value - 1)
        case ast.Constant(value=float(value)):
            yield "twice the constant", changed(value=2 * value or 1.0)
        case ast.Call(func=func, args=args, keywords=keywords):
            if (
                len(args) > 1
                and ast.unparse(func) not in SURE
                and not any(isinstance(a, ast.Starred) for a in args[:2])
            ):
                yield "arguments swapped", changed(args=[args[1], args[0], *args[2:]])
            for k in range(len(keywords)):
                yield "an option left out", changed(keywords=keywords[:k] + keywords[k + 1 :])
            if isinstance(func, ast.Attribute) and not isinstance(func.value, ast.Name | ast.Attribute | ast.Call):
                yield "a call left out", func.value
            if isinstance(func, ast.Attribute) and func.attr.startswith(("clamp", "abs", "relu", "clone", "detach")):
                yield "a call left out", func.value
        case ast.IfExp(body=body, orelse=orelse):
            yield "the other branch", body
            yield "the other branch", orelse
        case ast.If():
            yield "a check left out", ast.Constant(value=False)
        case ast.Expr() | ast.AugAssign() | ast.Raise():
            yield "a statement left out", ast.Pass()


def candidates(path: Path) -> Iterator[tuple[int, ast.AST, str, ast.AST]]:
    """Line, node, what is wrong, the node to put in its place; in functions, without annotations and messages."""

    def walk(node: ast.AST, inside: bool) -> Iterator[tuple[int, ast.AST, str, ast.AST]]:
        if isinstance(node, ast.FunctionDef) and node.name == "_main":
            return
        if inside and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            for what, other in mistakes(node):
                at = node.test if isinstance(node, ast.If) else node
                yield node.lineno, at, what, other
        skipped = (ast.Raise, ast.JoinedStr)
        parts = [node.args, *node.body] if isinstance(node, ast.FunctionDef) else ast.iter_child_nodes(node)
        for part in parts if not isinstance(node, skipped) else ():
            if isinstance(part, ast.arguments):
                parts = [default for default in (*part.defaults, *part.kw_defaults) if default is not None]
                for default in parts:
                    yield from walk(default, True)
            elif not (isinstance(node, ast.AnnAssign) and part is node.annotation):
                yield from walk(part, inside or isinstance(node, ast.FunctionDef | ast.Lambda))

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), False)


def written(path: Path, node: ast.AST, other: ast.AST) -> tuple[str, str]:
    """Whole lines of the file, before and after, of which the old ones are there once."""
    text = path.read_text(encoding="utf-8")
    lines = text.encode().splitlines(keepends=True)
    first, last = node.lineno - 1, node.end_lineno
    new = ast.unparse(ast.fix_missing_locations(other))
    if isinstance(other, ast.expr) and not isinstance(other, ast.Constant | ast.Name | ast.Call | ast.Attribute):
        new = f"({new})"
    line = lines[last - 1]
    ends = lines[first][: node.col_offset] + new.encode() + line[node.end_col_offset :]
    while True:
        old = b"".join(lines[first:last]).decode().rstrip("\n")
        if text.count(old) == 1:
            above = b"".join(lines[first : node.lineno - 1])
            return old, (above + ends).decode().rstrip("\n")
        first -= 1


def main(seed: int, count: int, prefix: str = "M") -> None:
    chance = random.Random(seed)
    by_line: dict[tuple[str, int], list] = defaultdict(list)
    for file in sorted((ROOT / "interp_lab").rglob("*.py")):
        name = file.relative_to(ROOT).as_posix()
        if any(map(name.startswith, TESTS)):
            for line, *candidate in candidates(file):
                by_line[name, line].append(candidate)
    shown = None
    for number, (name, line) in enumerate(sorted(chance.sample(sorted(by_line), count)), 1):
        node, what, other = chance.choice(by_line[name, line])
        old, new = written(ROOT / name, node, other)
        if name != shown:
            print(f"{name}: {TESTS[next(filter(name.startswith, TESTS))]}\n")
        shown = name
        changes = [f"- {part}" for part in old.split("\n")] + [f"+ {part}" for part in new.split("\n")]
        print("\n".join([f"{prefix}{number}: {what}", *changes]), end="\n\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), *map(int, sys.argv[2:3]), *sys.argv[3:])
