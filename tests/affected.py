"""The files that a change reaches: the changed ones, and all that import them, however far away (`pytest --affected`).

Imports are read from the code. A name that a package hands on, such as ``interp_lab.lrp``, leads to the file that
defines it, so that a test of one method is not taken for a test of all.
"""

import ast
import re
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("interp_lab", "grader", "tests", "benchmarks", "solutions", "book")
EVERYTHING = {"conftest.py", "tests/conftest.py", "pyproject.toml", "requirements.txt", "interp_lab/__init__.py"}
IMPORT = re.compile(r"^ *(?:from +[\w.]+ +import +(?:\([^)]*\)|[^\n]+)|import +[\w., ]+)", re.M)


def changed(base: str | None = None) -> set[str]:
    """Files that differ from a commit; by default those not yet committed or, if there are none, those of the last commit."""

    def git(*arguments: str) -> set[str]:
        run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
        return set(run.stdout.splitlines())

    new = git("ls-files", "--others", "--exclude-standard")
    return git("diff", "--name-only", base or "HEAD") | new or git("diff", "--name-only", "HEAD~1")


def reached(files: Iterable[str]) -> set[str]:
    """These files and all that import them, as paths from the root; everything where a file that all stand on is among them."""
    found = set(files)
    if found & EVERYTHING:
        return {path.relative_to(ROOT).as_posix() for path in sources()}
    importers: dict[str, set[str]] = {}
    for path in sources():
        for read in imports(path):
            importers.setdefault(read, set()).add(path.relative_to(ROOT).as_posix())
    waiting = list(found)
    while waiting:
        new = importers.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


@cache
def sources() -> list[Path]:
    """All Python files, and the pages, whose code is read as text."""
    folders = [ROOT / package for package in PACKAGES]
    return [p for folder in folders for end in ("py", "md") for p in sorted(folder.rglob(f"*.{end}"))]


@cache
def imports(path: Path) -> frozenset[str]:
    """The files that a file imports from, with those of the names that packages hand on."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        text = "\n".join(statement.strip() for statement in IMPORT.findall(text))
    try:
        tree = ast.parse(text)
    except SyntaxError:  # prose that begins like an import
        return frozenset()
    return frozenset(place for name in _names(tree, package_of(path)) for place in defined_in(name))


def package_of(path: Path) -> str:
    """The dotted name of the package that a file is in, or of that which it is."""
    return ".".join(path.relative_to(ROOT).parent.parts)


def _names(tree: ast.AST, package: str) -> Iterator[str]:
    """The dotted names that are imported, and those read as attributes of an imported package."""
    aliases: dict[str, str] = {}
    nodes = [node for part in ast.iter_child_nodes(tree) if not _for_types(part) for node in ast.walk(part)]
    for node in nodes:
        for name, dotted in bound(node, package):
            if isinstance(node, ast.Import):
                aliases[name] = name if name == dotted.split(".")[0] else dotted
                if "." not in dotted:
                    continue
            yield dotted
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            yield f"{aliases[node.value.id]}.{node.attr}"


def bound(node: ast.AST, package: str) -> Iterator[tuple[str, str]]:
    """The names that an import in a file of a package binds, with the dotted name of what each stands for; else none."""
    if isinstance(node, ast.Import):
        yield from ((alias.asname or alias.name.split(".")[0], alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
        source = ".".join([*above, *([node.module] if node.module else [])])
        yield from ((alias.asname or alias.name, f"{source}.{alias.name}") for alias in node.names)


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@cache
def module_file(name: str) -> Path | None:
    """The file of a dotted name that is a module or a package, if it is one of the project."""
    module = ROOT.joinpath(*name.split("."))
    return next((file for file in (module.with_suffix(".py"), module / "__init__.py") if file.is_file()), None)


@cache
def defined_in(name: str) -> frozenset[str]:
    """The file of a dotted name: a module's own, or that in which a package found the name."""
    parts = name.split(".")
    if found := module_file(name):
        return frozenset([found.relative_to(ROOT).as_posix()])
    if len(parts) == 1 or parts[0] not in PACKAGES:
        return frozenset()
    file = ROOT.joinpath(*parts[:-1], "__init__.py")
    if not file.is_file():
        return defined_in(".".join(parts[:-1]))
    package = ".".join(parts[:-1])
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and any((a.asname or a.name) == parts[-1] for a in node.names):
            source = ".".join([package, *([node.module] if node.module else [])]) if node.level else str(node.module)
            return defined_in(f"{source}.{parts[-1]}")
    return frozenset([file.relative_to(ROOT).as_posix()])


if __name__ == "__main__":  # of the pages that a change reaches, the one with the least code
    pages = [path for path in sources() if path.suffix == ".md" and "{code-cell}" in path.read_text(encoding="utf-8")]
    ours = [path for path in pages if path.relative_to(ROOT).as_posix() in reached(changed())]
    print(min(ours or pages, key=lambda path: path.stat().st_size).relative_to(ROOT).as_posix())
