"""What a claim is measured with: of its own file what its function reaches, of the package the files that this names."""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests import affected

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "interp_lab" / "weights"
PACKAGE = "book.claims"
Source = tuple[str, str]  # a file, and the name in it


def fingerprint(path: Path, function: str, options: str) -> str:
    """Of all code that a function of a file comes to, without comments and docstrings, and of the weights named there."""
    code, files = _reached(path, function)
    digest = hashlib.sha256("\n".join([*code, *map(_code, sorted(_closure(files)))]).encode())
    named = options + " ".join(code)
    for weights in sorted(WEIGHTS.glob("*.safetensors")):
        if weights.stem in named:
            digest.update(weights.read_bytes())
    return digest.hexdigest()[:16]


def _reached(path: Path, function: str) -> tuple[list[str], frozenset[str]]:
    """The definitions that a function needs, of its file and of those beside it, and the other files that they import from."""
    code, files, seen, waiting = [], set(), {(path, function)}, [(path, function)]
    while waiting:
        file, name = waiting.pop()
        definitions, imported = _module(file)
        sources, needed = list(imported.get(name, ())), set()
        for statement in definitions.get(name, ()):
            code.append(ast.dump(_bare(statement)))
            needed |= {(file, node.id) for node in ast.walk(statement) if isinstance(node, ast.Name)}
            sources += [source for _, source in _imports(statement)]
        for place, original in sources:
            if (ROOT / place).parent == path.parent:
                needed.add((ROOT / place, original))
            else:
                files.add(place)
        waiting += needed - seen
        seen |= needed
    return sorted(code), frozenset(files)


@cache
def _module(path: Path) -> tuple[dict[str, list[ast.stmt]], dict[str, list[Source]]]:
    """The statements at the top of a file by the names that they bind, and where the names that it imports come from."""
    definitions: dict[str, list[ast.stmt]] = {}
    imported: dict[str, list[Source]] = {}
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            definitions.setdefault(statement.name, []).append(statement)
            continue
        for name, source in _imports(statement):
            imported.setdefault(name, []).append(source)
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                definitions.setdefault(node.id, []).append(statement)
    return definitions, imported


def _imports(statement: ast.stmt) -> Iterator[tuple[str, Source]]:
    """The names that imports anywhere in a statement bind, and the files of the project where these are defined."""
    for node in ast.walk(statement):
        for name, dotted in affected.bound(node, PACKAGE):
            for place in affected.defined_in(dotted):
                yield name, (place, dotted.rpartition(".")[2])


@cache
def _closure(files: frozenset[str]) -> frozenset[str]:
    """Files of the project and all that they import from, however far away."""
    found, waiting = files, list(files)
    while waiting:
        new = affected.imports(ROOT / waiting.pop()) - found
        found |= new
        waiting += new
    return found


@cache
def _code(file: str) -> str:
    return ast.dump(_bare(ast.parse((ROOT / file).read_text(encoding="utf-8"))))


def _bare(tree: ast.AST) -> ast.AST:
    """Without docstrings, and without the decorator that says over which options a claim is measured."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = [d for d in node.decorator_list if not ast.unparse(d).startswith("claim(")]
    return tree
