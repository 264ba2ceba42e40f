"""What a claim is measured with: every definition that its function reaches, in its own file and in all of the project."""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests import affected

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "interp_lab" / "weights"
Name = tuple[Path, str]  # a file, and a name in it
WHOLE = ""  # in place of a name: all of a file


def fingerprint(path: Path, function: str, options: str) -> str:
    """Of all code that a function of a file comes to, without comments and docstrings, and of the weights named beside it."""
    code = _reached(path, function)
    digest = hashlib.sha256("\n".join(sorted(dump for _, dump in code)).encode())
    named = options + " ".join(dump for file, dump in code if file.parent == path.parent)
    for weights in sorted(WEIGHTS.glob("*.safetensors")):
        if weights.stem in named:
            digest.update(weights.read_bytes())
    return digest.hexdigest()[:16]


def _reached(path: Path, function: str) -> set[tuple[Path, str]]:
    """The definitions that a function needs, as (file, code)."""
    code, seen, waiting = set(), {(path, function)}, [(path, function)]
    while waiting:
        file, name = waiting.pop()
        dumps, needed = _definition(file, name)
        code |= {(file, dump) for dump in dumps}
        waiting += needed - seen
        seen |= needed
    return code


@cache
def _definition(file: Path, name: str) -> tuple[list[str], set[Name]]:
    """The code that binds a name at the top of a file, and the names that are read in it."""
    definitions, imported = _module(file)
    if name not in definitions and name not in imported:  # all of the file, or something that was not found in it
        return [], {(file, each) for each in (*definitions, *imported)}
    needed = {place for dotted in imported.get(name, ()) for place in _places(dotted, "")}
    for statement in definitions.get(name, ()):
        here = _imported(statement, file)
        for root, rest in _references(statement):
            if root in definitions:
                needed.add((file, root))
            sources = imported.get(root, set()) | here.get(root, set())
            needed |= {place for dotted in sources for place in _places(dotted, rest)}
    return [ast.dump(statement) for statement in definitions.get(name, ())], needed


@cache
def _module(path: Path) -> tuple[dict[str, list[ast.stmt]], dict[str, set[str]]]:
    """The statements at the top of a file by the names that they bind, and what the names that it imports stand for."""
    definitions: dict[str, list[ast.stmt]] = {}
    imported: dict[str, set[str]] = {}
    for statement in _bare(ast.parse(path.read_text(encoding="utf-8"))).body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            definitions.setdefault(statement.name, []).append(statement)
            continue
        for name, dotted in _imported(statement, path).items():
            imported.setdefault(name, set()).update(dotted)
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                definitions.setdefault(node.id, []).append(statement)
    return definitions, imported


def _imported(statement: ast.stmt, path: Path) -> dict[str, set[str]]:
    """The names that imports anywhere in a statement bind, with the dotted names of what they stand for."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(statement):
        for name, dotted in affected.bound(node, affected.package_of(path)):
            found.setdefault(name, set()).add(dotted)
    return found


def _references(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Every name that is read, with the attributes that are read of it: ("networks", "load") and ("x", "")."""
    rest, inner = [], node
    while isinstance(inner, ast.Attribute):
        rest.append(inner.attr)
        inner = inner.value
    if isinstance(inner, ast.Name):
        if isinstance(inner.ctx, ast.Load):
            yield inner.id, ".".join(reversed(rest))
    else:
        for child in ast.iter_child_nodes(inner):
            yield from _references(child)


def _places(dotted: str, rest: str) -> Iterator[Name]:
    """Where the first attribute that is no module, of a dotted name, is defined; all of a module where it has none."""
    while rest and affected.module_file(dotted):
        first, _, rest = rest.partition(".")
        dotted += f".{first}"
    name = WHOLE if affected.module_file(dotted) else dotted.rpartition(".")[2]
    yield from ((ROOT / place, name) for place in affected.defined_in(dotted))


def _bare(tree: ast.Module) -> ast.Module:
    """Without docstrings, and without the decorator that says over which options a claim is measured."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = [d for d in node.decorator_list if not ast.unparse(d).startswith("claim(")]
    return tree
