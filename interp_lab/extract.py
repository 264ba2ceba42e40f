"""What of a notebook is graded: the top-level statements that a function needs, up to the check of its question.

The grader and ``interp-lab check --as-graded`` both take a function from a notebook by this file. A notebook is not run
from top to bottom, which could take minutes of training for one function; what one function needs is found by reading:

- A statement **binds** the names that it assigns, imports or defines at the top level, whether under ``if``, ``for``,
  ``with`` or ``try``; it **reads** all other names in it, those inside its functions included.
- It **changes** a name by ``name[...] = ``, ``name.attribute = ``, ``+=`` or ``del``; by a method whose result is thrown
  away, or that is known to change its object (``append``, ``fill_``); by passing it to a function of the notebook that
  does one of these to its argument, or to any other function whose result is thrown away, unless that only shows it. A
  change through another name of the same object counts, so does one inside a called function or a decorator.
- A function needs every statement that binds or changes its name, or a name that such a statement reads. They run in the
  notebook's order, as far as they stand before the last check of the question; a check itself never runs. Where a
  notebook lacks one of the cells that were given out, the grader has it.

`code_cells` reads the file as JSON. All else handles the student's code, so the grader calls it inside the sandbox.
Standard library and IPython only: the sandbox imports this file on its own.
"""

import __future__

import ast
import contextlib
import json
import re
import symtable
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

MAX_SOURCE = 500_000  # characters of code in one notebook
MAX_CELLS = 2_000
COURSE = ("interp_lab", "interp_lab.networks", "interp_lab.data", "interp_lab.plot")  # not there while grading

# Methods that change their object, and functions that change an argument, although their result is used.
CHANGING = {
    *("append", "extend", "insert", "remove", "pop", "popitem", "clear", "update", "setdefault", "add", "discard"),
    *("sort", "reverse", "appendleft", "popleft", "extendleft", "rotate", "fill", "send"),
    *("step", "backward", "train", "eval", "load_state_dict"),
}
CHANGING_ARGUMENTS = {"next", "setattr", "delattr", "heappush", "heappop", "heapify", "shuffle"}
# Functions of a module that change what its other functions do.
SETTING = re.compile(r"set_\w+|manual_seed|seed|filterwarnings|simplefilter")
# Functions, and packages all of whose functions, that show an argument and leave it as it is.
SHOWING = {"print", "display", "help", "len", "pprint", "matplotlib", "interp_lab", "IPython", "time"}
# Calls whose result cannot be changed.
FIXED = {"device", "is_available", "device_count", "float", "int", "str", "bool", "range", "len"}
PYTHON_MAGICS = {"time", "capture", "prun"}  # IPython runs their code in the notebook's namespace


def code_cells(text: bytes, *, given: bool = False) -> dict[str, str]:
    """Sources of the code cells of an nbformat 4 notebook, by a name for messages such as "code cell 3".

    Args:
        given: leave out the cells that a student answers in (nbgrader's solution cells).

    Raises:
        ValueError: the bytes are no such notebook, or hold more code than ``MAX_SOURCE``.
    """
    try:
        notebook = json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"the file is not a notebook: it is no valid JSON ({type(error).__name__})") from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise ValueError("the file is not a notebook of format 4: it has no list of cells")
    cells: dict[str, str] = {}
    for cell in notebook["cells"]:
        if not isinstance(cell, dict) or cell.get("cell_type") != "code":
            continue
        metadata = cell.get("metadata")
        grader = metadata.get("nbgrader") if isinstance(metadata, dict) else None
        if given and isinstance(grader, dict) and grader.get("solution"):
            continue
        source = cell.get("source")
        if isinstance(source, list) and all(isinstance(line, str) for line in source):
            source = "".join(source)
        if isinstance(source, str):
            cells[f"{'given' if given else 'code'} cell {len(cells) + 1}"] = source
    if len(cells) > MAX_CELLS or sum(map(len, cells.values())) > MAX_SOURCE:
        raise ValueError(f"the notebook has more than {MAX_CELLS} code cells or {MAX_SOURCE} characters of code")
    return cells


@dataclass(frozen=True)
class Statement:
    """A top-level statement; ``check`` is the name of the question that it checks, if it is a check."""

    cell: str
    node: ast.stmt
    binds: frozenset[str]
    reads: frozenset[str]
    check: str = ""

    @property
    def place(self) -> str:
        return f"{self.cell}, line {self.node.lineno}"


def parse(cells: dict[str, str]) -> tuple[list[Statement], list[str]]:
    """The top-level statements, and what was wrong with cells that do not parse."""
    statements: list[Statement] = []
    problems: list[str] = []
    for cell, source in cells.items():
        try:
            statements += [Statement(cell, node, *_names(node), _checked(node)) for node in _python(source)]
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
            problems.append(f"{cell}{line} does not parse: {type(error).__name__}: {error}"[:300])
    return statements, problems


def before(statements: list[Statement], question: str, name: str) -> list[Statement]:
    """Those that stand before the last check of the question, or all if there is none.

    Of the given cells, which come first, also those up to the definition of ``name``: what is given out may ask for a
    graded function behind its check, to try a student's answers together.
    """
    kept: list[Statement] = []
    for given in (True, False):
        part = [s for s in statements if s.cell.startswith("given") == given]
        checks = [i for i, s in enumerate(part) if s.check and re.fullmatch(f"{re.escape(question)}[a-z]?", s.check)]
        bound = [i + 1 for i, s in enumerate(part) if given and name in s.binds]
        kept += part[: max(checks[-1:] + bound)] if checks else part
    return kept


def select(statements: list[Statement], name: str) -> list[Statement]:
    """Those that ``name`` needs, in order; see above."""
    touched = [s.binds | changed for s, changed in zip(statements, _changes(statements), strict=True)]
    needed, chosen, grown = {name, "*"}, set(), True
    while grown:
        grown = False
        for i, statement in enumerate(statements):
            if i not in chosen and not statement.check and touched[i] & needed:
                chosen.add(i)
                needed |= statement.reads
                grown = True
    return [statements[i] for i in sorted(chosen)]


def execute(statements: list[Statement], namespace: dict) -> list[str]:
    """Run the statements one by one in the namespace; what fails is left out and told."""
    problems, flags = [], 0
    namespace.setdefault("get_ipython", _Shell)
    for statement in statements:
        node = statement.node
        try:
            if isinstance(node, ast.ImportFrom) and node.module == "__future__":
                flags |= sum({getattr(__future__, alias.name).compiler_flag for alias in node.names})
            code = compile(ast.Module([node], []), f"<{statement.cell}>", "exec", flags, dont_inherit=True)
            exec(code, namespace)
        except BaseException as error:  # also SystemExit: it is student's code
            problems.append(f"{statement.place}: {describe(error)}")
    return problems


def prepare(statements: list[Statement], name: str, question: str) -> tuple[dict, list[str]]:
    """A namespace in which ``name`` is what it is at the check of the question, and what went wrong on the way."""
    namespace: dict = {"__name__": "__main__"}
    counted = before(statements, question, name)
    chosen = select(counted, name)
    execute([s for s in chosen if s.cell.startswith("given")], namespace)  # may use answers, so it comes again below
    problems = execute([s for s in chosen if not s.cell.startswith("given")], namespace)
    late = [s for s in statements if s not in counted and name in s.binds]
    late = [] if any(name in s.binds and s.cell.startswith("given") for s in counted) else late
    problems += [
        f"{s.place}: this {name} stands behind the check of question {question}, so it does not count" for s in late
    ]
    return namespace, problems


def describe(error: BaseException) -> str:
    """Type and message of an error, and the line of the notebook that it came from; never raises."""
    try:
        where, step = "", error.__traceback__
        while step is not None:
            if (file := step.tb_frame.f_code.co_filename).startswith(("<code cell", "<given cell")):
                where = f" ({file[1:-1]}, line {step.tb_lineno}, in {step.tb_frame.f_code.co_name})"
            step = step.tb_next
        return f"{type(error).__name__}: {error}{where}"[:2000]
    except BaseException:
        return "an error that cannot be printed"


class Absent(types.ModuleType):
    """Stands for the course's package: a notebook can import from it, and a call says that it is not there."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__name__ == "interp_lab.plot":
            return lambda *_, **__: None  # what it draws is not looked at
        return _missing(f"{self.__name__}.{name}")


@contextlib.contextmanager
def stand_in(check: types.ModuleType) -> Iterator[None]:
    """``import interp_lab`` gives `check` and placeholders for all else that the notebooks import from it."""
    there = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "interp_lab"}
    for name in there:
        del sys.modules[name]
    course: Any = Absent("interp_lab")
    course.__path__ = []
    sys.modules["interp_lab"] = course
    for name in COURSE[1:]:
        sys.modules[name] = Absent(name)
        setattr(course, name.split(".")[1], sys.modules[name])
    course.check = sys.modules["interp_lab.check"] = check
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "interp_lab"]:
            del sys.modules[name]
        sys.modules.update(there)


def _missing(name: str) -> Callable:
    def function(*_, **__):
        raise RuntimeError(f"{name} is not there while grading: a graded function has to do without it")

    return function


class _Shell:
    """Stands for IPython: magics and shell commands are passed over, and what they give is not there."""

    class Result:
        def __init__(self, what: str) -> None:
            self.__dict__["what"] = what

        def __getattr__(self, _: str):
            raise RuntimeError(f"{self.__dict__['what']} is not run while grading, so its result is not there")

        __iter__ = __len__ = __getitem__ = __float__ = __bool__ = lambda self, *_: self.result

    def run_line_magic(self, name: str, line: str = "", *_, **__) -> Result:
        return self.Result(f"%{name} {line}".strip()[:80])

    def run_cell_magic(self, name: str, *_) -> Result:
        return self.Result(f"%%{name}")

    def system(self, command: str) -> Result:
        return self.Result(f"!{command}"[:80])

    getoutput = system


def _python(source: str) -> list[ast.stmt]:
    """The statements of a cell as IPython reads it: with the code of the magics that run it in the notebook."""
    from IPython.core.inputtransformer2 import TransformerManager

    empty = len(source) - len(source.lstrip("\n \t"))
    lead = source[:empty].count("\n")
    body = []
    for node in ast.parse(TransformerManager().transform_cell(source)).body:
        ast.increment_lineno(node, lead)
        magic = _magic(node)
        if magic is None:
            body.append(node)
        elif (code := magic[1]) is not None:
            for inner in _python(code):
                body.append(ast.increment_lineno(inner, node.lineno - 1 + magic[0]))
    return body


def _magic(node: ast.stmt) -> tuple[int, str | None] | None:
    """Of a magic that stands alone: lines before its code, and the code if it runs in the notebook's namespace."""
    match node:
        case ast.Expr(ast.Call(ast.Attribute(ast.Call(ast.Name("get_ipython")), kind), arguments)):
            *words, code = [str(argument.value) for argument in arguments if isinstance(argument, ast.Constant)]
            lines = {"run_cell_magic": 1, "run_line_magic": 0}.get(kind)
            return (0, None) if lines is None or words[0] not in PYTHON_MAGICS else (lines, code)
    return None


def _checked(node: ast.stmt) -> str:
    """The name of the question that ``with check.question("2a"):`` checks."""
    match node:
        case ast.With(items=[ast.withitem(ast.Call(ast.Attribute(attr="question"), [ast.Constant(str(name))]))]):
            return name
    return ""


def _names(node: ast.stmt) -> tuple[frozenset[str], frozenset[str]]:
    """Names that a top-level statement binds, and names of the top level that it reads, as Python's compiler says."""
    binds: set[str] = set()
    reads = {n.target.id for n in _executed(node) if isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name)}
    if isinstance(node, ast.ImportFrom) and (node.module == "__future__" or node.names[0].name == "*"):
        binds.add("*")
    top = symtable.symtable(ast.unparse(node), "<cell>", "exec")
    waiting = [top]
    while waiting:
        table = waiting.pop()
        waiting += table.get_children()
        for symbol in table.get_symbols():
            if table is top and (symbol.is_assigned() or symbol.is_imported()):
                binds.add(symbol.get_name())
            if symbol.is_referenced() and (table is top or symbol.is_global()):
                reads.add(symbol.get_name())
    return frozenset(binds), frozenset(reads)


def _root(node: ast.AST) -> str:
    """The name at the left end of ``name.attribute[...]``, if there is one."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _shared(node: ast.AST | None) -> set[str]:
    """Names of objects that the value of an expression may be, hold or share memory with."""
    parts: list[Any] = []
    match node:
        case ast.Name():
            return {node.id}
        case ast.Attribute() | ast.Subscript() | ast.Starred() | ast.Await() | ast.NamedExpr():
            parts = [node.value]
        case ast.IfExp():
            parts = [node.body, node.orelse]
        case ast.BoolOp() | ast.Dict():
            parts = node.values
        case ast.Tuple() | ast.List() | ast.Set():
            parts = node.elts
        case ast.ListComp() | ast.SetComp() | ast.GeneratorExp():
            parts = [node.elt, *(each.iter for each in node.generators)]
        case ast.DictComp():
            parts = [node.value, *(each.iter for each in node.generators)]
        case ast.Call():
            parts = [*node.args, *(keyword.value for keyword in node.keywords)]
            parts += [node.func.value] if isinstance(node.func, ast.Attribute) else []
    return {name for part in parts for name in _shared(part)}


@dataclass
class _Function:
    """A function of the notebook, and which of its parameters and of the notebook's names it changes."""

    parameters: list[str]
    nodes: list[ast.AST]
    local: set[str]
    changed: set[str] = field(default_factory=set)


class _Effects:
    """What the statements change, with the functions and classes that they define taken into account."""

    def __init__(self, statements: list[Statement]) -> None:
        self.functions: dict[str, list[_Function]] = {}  # classes, too, by what their __init__ does
        self.methods: dict[str, list[_Function]] = {}
        self.packages: dict[str, str] = {}  # of imported names
        values: dict[str, list[Any]] = {}  # what each name is bound to; None: something else than an expression
        for node in (node for statement in statements for node in ast.walk(statement.node)):
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    self.functions.setdefault(node.name, []).append(_function(node.args, node.body))
                case ast.ClassDef():
                    for method in (m for m in node.body if isinstance(m, ast.FunctionDef)):
                        bound = _function(method.args, method.body)
                        self.methods.setdefault(method.name, []).append(bound)
                        if method.name == "__init__":
                            made = _Function(bound.parameters[1:], bound.nodes, bound.local)
                            self.functions.setdefault(node.name, []).append(made)
                case ast.Assign(targets=[ast.Name(name)], value=ast.Lambda() as value):
                    self.functions.setdefault(name, []).append(_function(value.args, [value.body]))
                case ast.Global():  # bound by a call, to anything
                    values |= {name: [None] for name in node.names}
                case ast.Import() | ast.ImportFrom():
                    for alias in node.names:
                        package = node.module or "" if isinstance(node, ast.ImportFrom) else alias.name
                        self.packages[alias.asname or alias.name.split(".")[0]] = package.split(".")[0]
        for statement in statements:
            for name in statement.binds:
                values.setdefault(name, []).extend(_values(statement.node, name))
        self.defined = {name for name, bound in values.items() if all(isinstance(v, str) for v in bound)}
        self.constant: set[str] = set()
        while fresh := {n for n, bound in values.items() if all(map(self._fixed, bound))} - self.constant:
            self.constant |= fresh
        self.same = [edge for s in statements for edge in self._edges(_executed(s.node))]
        known = [f for group in (self.functions, self.methods) for each in group.values() for f in each]
        growing = True
        while growing:
            growing = False
            for function in known:
                found = self._closed(self._direct(function.nodes), self._edges(function.nodes, function.local))
                found = (found & set(function.parameters)) | (found - function.local - self.constant)
                growing |= not found <= function.changed
                function.changed |= found

    def of(self, statement: Statement) -> set[str]:
        """Names of the top level that the statement changes."""
        return self._closed(self._direct(_executed(statement.node)), self.same) - self.constant

    def _fixed(self, value: Any) -> bool:
        """Whether the value of an expression is a number, a text or another object that never changes."""
        match value:
            case ast.Constant() | ast.JoinedStr() | ast.Compare():
                return True
            case ast.Name():
                return value.id in self.constant
            case ast.UnaryOp():
                return self._fixed(value.operand)
            case ast.BinOp():
                return self._fixed(value.left) and self._fixed(value.right)
            case ast.IfExp():
                return self._fixed(value.body) and self._fixed(value.orelse)
            case ast.BoolOp():
                return all(map(self._fixed, value.values))
            case ast.Tuple():
                return all(map(self._fixed, value.elts))
            case ast.Call(func=ast.Name(name) | ast.Attribute(attr=name)):
                return name in FIXED
        return False

    def _edges(self, nodes: Iterable[ast.AST], local: Iterable[str] = ()) -> list[tuple[str, set[str]]]:
        """Names that may be another name of the same object, or of a part of it, with the names of that."""
        pairs: list[tuple[ast.AST, ast.AST]] = []
        for node in nodes:
            match node:
                case ast.Assign():
                    pairs += [(target, node.value) for target in node.targets]
                case ast.AnnAssign(value=ast.expr() as value) | ast.NamedExpr(value=value):
                    pairs.append((node.target, value))
                case ast.For() | ast.AsyncFor() | ast.comprehension():
                    pairs.append((node.target, node.iter))
                case ast.withitem(value, ast.expr() as target):
                    pairs.append((target, value))
        lasting = (self.constant | self.defined).difference(local)
        shared = [(target, _shared(value) - lasting) for target, value in pairs]
        stored = [(each, names) for target, names in shared for each in ast.walk(target)]
        return [(each.id, names) for each, names in stored if isinstance(each, ast.Name) and names]

    def _closed(self, changed: set[str], edges: list[tuple[str, set[str]]]) -> set[str]:
        while more := {n for name, names in edges if name in changed for n in names} - changed:
            changed = changed | more
        return changed

    def _direct(self, nodes: Iterable[ast.AST]) -> set[str]:
        """Names whose objects the nodes change, by the names that they use for them."""
        nodes, changed = list(nodes), set()
        thrown_away = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            match node:
                case ast.Attribute(ctx=ast.Store() | ast.Del()) | ast.Subscript(ctx=ast.Store() | ast.Del()):
                    changed |= _shared(node.value)
                case ast.AugAssign(target=ast.Name(name)):
                    changed.add(name)
                case ast.Global():
                    changed |= set(node.names)
                case ast.Call():
                    changed |= self._by_call(node, id(node) in thrown_away)
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    for decorator in node.decorator_list:
                        changed |= self._by_call(ast.Call(decorator, [ast.Name(node.name)], []), True)
        return changed

    def _by_call(self, call: ast.Call, thrown_away: bool) -> set[str]:
        arguments: list[tuple[str | None, ast.AST]] = [(None, argument) for argument in call.args]
        arguments += [(keyword.arg, keyword.value) for keyword in call.keywords]
        passed = {name for _, value in arguments for name in _shared(value)}
        root = _root(call.func)
        if isinstance(call.func, ast.Call):  # a decorator with arguments: what it returns is called
            return self._by_call(call.func, True) | (passed - self.defined if thrown_away else set())
        own: set[str] = set()
        if isinstance(call.func, ast.Name):
            known, name = self.functions.get(root, []), root
        elif isinstance(call.func, ast.Attribute):
            known, name, own = self.methods.get(call.func.attr, []), call.func.attr, _shared(call.func.value)
        else:
            return passed - self.defined if thrown_away else set()
        changed = {name for word, value in arguments if word == "out" for name in _shared(value)}
        for function in known:
            parameters = function.parameters[isinstance(call.func, ast.Attribute) :]  # without self
            changed |= function.changed - set(function.parameters)
            changed |= own if function.changed & set(function.parameters) - set(parameters) else set()
            for place, (word, value) in enumerate(arguments):
                beyond = isinstance(value, ast.Starred) or place >= len(parameters)
                touched = set(parameters) if beyond and word is None else {word or parameters[place]}
                apart = self.defined if isinstance(value, ast.Call) else set()  # torch.zeros(2) is no part of torch
                changed |= _shared(value) - apart if touched & function.changed else set()
        if name in CHANGING_ARGUMENTS:
            return changed | passed
        in_place = name in CHANGING or (name.endswith("_") and not name.endswith("__"))
        package = self.packages.get(root)
        if package is not None and SETTING.fullmatch(name):
            changed.add(root)
        if not (in_place or (thrown_away and not known)) or {root, package} & SHOWING:
            return changed
        if isinstance(call.func, ast.Attribute) and package is None:
            return changed | own
        return changed | (passed - self.defined) | ({root} - self.defined)


def _changes(statements: list[Statement]) -> list[set[str]]:
    effects = _Effects(statements)
    return [effects.of(statement) for statement in statements]


def _function(arguments: ast.arguments, body: list) -> _Function:
    parameters = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
    others = [a.arg for a in (*arguments.kwonlyargs, arguments.vararg, arguments.kwarg) if a is not None]
    nodes = [node for part in body for node in ast.walk(part)]
    shared = {name for node in nodes if isinstance(node, ast.Global) for name in node.names}
    local = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    inner = {node.arg for node in nodes if isinstance(node, ast.arg)}
    return _Function([*parameters, *others], nodes, ({*parameters, *others, *inner} | local) - shared)


def _executed(statement: ast.stmt) -> list[ast.AST]:
    """The nodes of a statement that run with it: all but the bodies of functions."""
    found: list[ast.AST] = []
    waiting: list[Any] = [statement]
    while waiting:
        node: Any = waiting.pop()
        found.append(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += [*node.decorator_list, *node.args.defaults, *(d for d in node.args.kw_defaults if d)]
        elif not isinstance(node, ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return found


def _values(statement: ast.stmt, name: str) -> list[Any]:
    """What a statement binds the name to: expressions, ``"definition"``, or None for anything else."""
    found: list[Any] = []
    for node in _executed(statement):
        match node:
            case ast.Import() | ast.ImportFrom():
                found += ["definition" for alias in node.names if (alias.asname or alias.name.split(".")[0]) == name]
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found += ["definition"] if node.name == name else []
            case ast.Assign(targets=[ast.Name(bound)]) | ast.AnnAssign(target=ast.Name(bound)) if bound == name:
                found.append(node.value)
            case ast.AugAssign(target=ast.Name(bound)) if bound == name:
                found.append(node.value)
    return found or [None]
