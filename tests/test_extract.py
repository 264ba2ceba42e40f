"""What is graded of a notebook, against IPython itself running the notebook from top to bottom up to the check."""

import contextlib
import io

import pytest

from interp_lab import check, extract

CHECK = 'from interp_lab import check\nwith check.question("1"):\n    f(1)'
# Cells before the check; f(1) must be what it is in IPython. The functions also stand for helpers of a graded one.
ORDINARY = {
    "import under try": ["try:\n    from math import prod\nexcept ImportError:\n    prod = None\ndef f(x): return prod([x, 3])"],
    "fallback of an import": ["try:\n    import not_there as m\nexcept ImportError:\n    import math as m\ndef f(x): return m.sqrt(x)"],
    "from __future__": ["from __future__ import annotations", "def f(x: Unknown) -> Also: return x"],
    "device by if and else": ['if abs(1) > 2:\n    device = "cuda"\nelse:\n    device = "cpu"', "def f(x): return device"],
    "constant under with": ["import contextlib\nwith contextlib.nullcontext():\n    ONE = 1.0", "def f(x): return ONE + x"],
    "name of with": ["import io\nwith io.StringIO('7') as file:\n    READ = int(file.read())", "def f(x): return READ"],
    "list by a loop": ["SIZES = []\nfor k in range(4):\n    SIZES.append(k)", "def f(x): return SIZES"],
    "list by a while loop": ["SIZES = [1]\nwhile len(SIZES) < 5: SIZES.append(SIZES[-1] * 2)", "def f(x): return SIZES"],
    "list by a comprehension": ["SIZES = []\n_ = [SIZES.append(k) for k in range(3)]", "def f(x): return SIZES"],
    "dictionary by a loop": ["TABLE = {}\nfor k in range(4): TABLE[k] = k * k", "def f(x): return TABLE"],
    "dictionary by assignment": ["TABLE = {1: 0}", "TABLE[1] = 5", "def f(x): return TABLE[x]"],
    "dictionary by update": ["TABLE = dict()", "TABLE.update(a=1)", "def f(x): return TABLE"],
    "deleted entry": ["TABLE = {1: 2, 3: 4}", "del TABLE[3]", "def f(x): return TABLE"],
    "augmented": ["N = 2\nN *= 5", "def f(x): return N * x"],
    "augmented list": ["N = [2]\nN += [5]", "def f(x): return N"],
    "registered by a decorator": ["RULES = {}\ndef rule(g):\n    RULES[g.__name__] = g\n    return g", "@rule\ndef twice(x): return 2 * x", "def f(x): return RULES['twice'](x)"],
    "registered by a name": ["RULES = {}\ndef rule(name):\n    def keep(g):\n        RULES[name] = g\n        return g\n    return keep", "@rule('a')\ndef _(x): return 2 * x", "@rule('b')\ndef _(x): return 3 * x", "def f(x): return RULES['a'](x), RULES['b'](x)"],
    "registered in an object": ["class Rules:\n    def __init__(self): self.all = []\n    def add(self, g):\n        self.all.append(g)\n        return g\nrules = Rules()", "@rules.add\ndef g(x): return 2 * x", "def f(x): return [g(x) for g in rules.all]"],
    "decorators by a loop": ["def plus(n): return lambda g: lambda x: g(x) + n\nWRAP = []\nfor n in (1, 2): WRAP.append(plus(n))", "def f(x): return x\nfor wrap in WRAP: f = wrap(f)"],
    "definition under if": ["import sys\nif sys.version_info >= (3, 11):\n    def helper(x): return x + 1\nelse:\n    def helper(x): return x + 1", "def f(x): return helper(x)"],
    "helper redefined behind": ["def pick(x): return x", "def f(x): return pick(x)", CHECK, "def pick(x): return 99"],
    "constant redefined behind": ["N = 3", "def f(x): return N", CHECK, "N = 99\nN += 1"],
    "older version behind": ["def f(x): return x + 1", CHECK, "def f(x): return 0"],
    "redefined before": ["def helper(x): return 0", "def f(x): return helper(x)", "def helper(x): return 7"],
    "continuation with %": ["def f(x):\n    return (17\n        % (x + 4))"],
    "continuation with !": ["def f(x):\n    text = '''\n!not a command\n%nor a magic'''\n    return text"],
    "help": ["f?", "def f(x): return x", "f?\nf??\n?f"],
    "install": ["!pip --version\n%pip --version\nimport math", "def f(x): return math.floor(x)"],
    "output of a command": ["here = !echo 1", "def f(x): return x"],
    "timing": ["def f(x): return x\n%timeit -n1 -r1 f(1)"],
    "timing into a variable": ["def f(x): return x\nt = %timeit -n1 -r1 -o -q f(1)"],
    "timing one statement": ["%time N = 4", "def f(x): return N"],
    "timed cell": ["%%time\nN = 4\ndef f(x): return N"],
    "captured cell": ["\n%%capture out\nprint('x')\nN = 4\ndef f(x): return N"],
    "capture in a capture": ["%%capture\n%%time\nN = 4", "def f(x): return N"],
    "magic at the top": ["%precision 3\ndef f(x): return x"],
    "in place by a method": ["import torch\nSTEP = torch.zeros(2)", "STEP.fill_(1.0)", "def f(x): return STEP.tolist()"],
    "in place by a function": ["import torch\nfrom torch import nn\nSTEP = torch.zeros(2)", "nn.init.ones_(STEP)", "def f(x): return STEP.tolist()"],
    "in place through out=": ["import torch\nSTEP = torch.zeros(2)", "x = torch.ones(2)\ny = torch.add(x, x, out=STEP)", "def f(x): return STEP.tolist()"],
    "through another name": ["TABLE = {}", "alias = TABLE\nalias['a'] = 1", "def f(x): return TABLE"],
    "through a view": ["import torch\nW = torch.zeros(2, 2)", "first = W[0]\nfirst += 1", "def f(x): return W.tolist()"],
    "through a loop's name": ["ROWS = [[], []]", "for row in ROWS: row.append(1)", "def f(x): return ROWS"],
    "through a function": ["TABLE = {}\ndef put(where, key): where[key] = 1", "put(TABLE, 'a')\nput(key='b', where=TABLE)", "def f(x): return TABLE"],
    "through two functions": ["TABLE = []\ndef put(t, k): t.append(k)\ndef fill(t):\n    for k in range(3): put(t, k)", "done = fill(TABLE)", "def f(x): return TABLE"],
    "through a function's global": ["TABLE = []\ndef put(k): TABLE.append(k)", "x = put(2)", "def f(x): return TABLE"],
    "global in a function": ["N = 1\ndef setup():\n    global N\n    N = 5", "setup()", "def f(x): return N"],
    "through a method": ["class Counter:\n    def __init__(self): self.n = 0\n    def more(self):\n        self.n += 1\n        return self.n", "c = Counter()\nfirst = c.more()", "def f(x): return c.n"],
    "through a library": ["import random\nITEMS = [3, 1, 2]", "random.Random(0).shuffle(ITEMS)", "def f(x): return ITEMS"],
    "through a keyword": ["import functools\nT = []\npush = functools.partial(list.append, T)", "push(3)", "def f(x): return T"],
    "settings of a library": ["import torch", "torch.set_default_dtype(torch.float64)", "def f(x): return str(torch.zeros(1).dtype)"],
    "attribute of a function": ["def helper(x): return helper.n", "helper.n = 5", "def f(x): return helper(x)"],
    "a generator's state": ["it = iter([1, 2, 3])", "first = next(it)", "def f(x): return list(it)"],
    "star import": ["from math import *", "def f(x): return floor(x)"],
    "lambda": ["N = 2\nf = lambda x: N * x"],
    "class": ["BASE = object\nclass A(BASE):\n    n = 3\n    def __call__(self, x): return self.n * x\nf = A()"],
    "match": ["match 3:\n    case 3: N = 1\n    case _: N = 2", "def f(x): return N"],
    "walrus": ["if (N := 3) > 2: pass", "def f(x): return N"],
    "indented cell": ["    N = 2\n    def f(x): return N"],
    "several names": ["(A, *B), C = [1, 2, 3], 4", "def f(x): return A, B, C"],
    "a name of a parameter": ["x = 5\nmodel = 3", "def f(x, model=2): return x * model"],
    "another cell does not parse": ["def f(x): return x", "def broken(:"],
}  # fmt: skip


def in_ipython(cells):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    for cell in cells[: cells.index(CHECK)] if CHECK in cells else cells:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            shell.run_cell(cell)
    return shell.user_ns["f"](1)


def extracted(cells):
    statements, _ = extract.parse({f"code cell {i}": source for i, source in enumerate(cells, 1)})
    return statements, *extract.prepare(statements, "f", "1")


@pytest.fixture(autouse=True)
def default_dtype():
    import torch

    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", ORDINARY)
def test_a_function_is_what_it_is_in_ipython_at_its_check(name):
    cells = ORDINARY[name]
    _, namespace, _ = extracted(cells)
    assert namespace["f"](1) == in_ipython(cells)


# Cells that only show or train: what is named must not run for f.
IDLE = {
    "print": ["N = [3]\nprint(N)", "def f(x): return N"],
    "figure": ["from interp_lab import plot\nN = [3]", "plot.curves(N, {'a': N})", "def f(x): return N"],
    "pyplot": ["import matplotlib.pyplot as plt\nN = [3]", "plt.plot(N)\nplt.show()", "def f(x): return N"],
    "training on the device": ["device = 'cuda' if abs(1) > 2 else 'cpu'\ndef train(net, device):\n    net = net.to(device)\n"
                               "    net.step()\n    return net", "net = Net().to(device)", "train(net, device)",
                               "out = sweep(net, device=device)", "def f(x): return device"],
    "an investigation that calls f": ["def f(x): return x", "maps = [f(k) for k in range(10**9)]\nshare = sum(maps)",
                                      "results = study(f)", "study(f)"],
    "a check": ["def f(x): return y", 'with check.question("2"):\n    y = f(1)', "unused = y"],
    "a result that is used": ["N = [3]", "a = sum(N)\nb = sorted(N)", "def f(x): return N"],
    "a function from a table": ["import torch\nF = {}", "maps = F['a'](torch.zeros(1))", "def f(x): return torch"],
    "a new tensor that a function changes": ["import torch\ndef mark(z):\n    z[0] = 1\n    return z",
                                             "for k in range(3): mark(torch.zeros(3))", "def f(x): return torch"],
    "local names": ["x = train()\nmaps = train()", "def f(x):\n    maps = [maps for maps in x]\n    return maps"],
    "passed to a function that only reads": ["N = [3]\ndef total(values): return sum(values)", "total(N)", "def f(x): return N"],
    "behind the check": ["N = [3]\ndef f(x): return N", CHECK, "N.append(4)"],
}  # fmt: skip
KEPT = {"print": 2, "figure": 2, "pyplot": 2, "training on the device": 2, "an investigation that calls f": 1, "a check": 1,
        "a result that is used": 2, "local names": 1, "a function from a table": 2,
        "a new tensor that a function changes": 2, "passed to a function that only reads": 2, "behind the check": 2}  # fmt: skip


@pytest.mark.parametrize("name", IDLE)
def test_what_only_shows_or_trains_does_not_run(name):
    statements, _, _ = extracted(IDLE[name])
    assert len(extract.select(extract.before(statements, "1", "f"), "f")) == KEPT[name]


def test_the_statements_run_in_the_order_of_the_notebook_and_once():
    cells = ["LOG = []", "LOG.append(1)", "def f(x): return LOG", "LOG.append(2)"]
    assert extracted(cells)[1]["f"](1) == [1, 2]


REFUSED = {
    "result of a command": ["here = !pwd", "N = len(here)", "def f(x): return N"],
    "result of a magic": ["t = %timeit -o 1", "BEST = t.best", "def f(x): return BEST"],
    "method of the course": ["from interp_lab import saliency", "N = saliency(1, 2)", "def f(x): return N"],
    "error at the top": ["N = 1 / 0", "def f(x): return N"],
    "behind its check": [CHECK, "def f(x): return x"],
    "stub before its check": ["def f(x): raise NameError", CHECK, "def f(x): return x"],
    "does not parse": ["N = = 2", "def f(x): return N"],
}
WORDS = {
    "result of a command": "code cell 2, line 1: RuntimeError: !pwd is not run while grading",
    "result of a magic": "code cell 2, line 1: RuntimeError: %timeit -o 1 is not run while grading",
    "method of the course": "interp_lab.saliency is not there while grading",
    "error at the top": "code cell 1, line 1: ZeroDivisionError: division by zero",
    "behind its check": "code cell 2, line 1: this f stands behind the check of question 1, so it does not count",
    "stub before its check": "code cell 3, line 1: this f stands behind the check",
    "does not parse": "code cell 1, line 1 does not parse: SyntaxError",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_count_is_told_with_its_line(name):
    cells = {f"code cell {i}": source for i, source in enumerate(REFUSED[name], 1)}
    statements, unread = extract.parse(cells)
    with extract.stand_in(check):
        namespace, problems = extract.prepare(statements, "f", "1")
    assert WORDS[name] in "; ".join(unread + problems)
    with pytest.raises((NameError, KeyError)):
        namespace["f"](1)


def test_the_package_is_back_after_its_stand_in():
    import sys

    import interp_lab

    with extract.stand_in(check):
        assert sys.modules["interp_lab"] is not interp_lab
    assert sys.modules["interp_lab"] is interp_lab
    assert sys.modules["interp_lab.check"] is check


def test_the_last_check_of_a_question_counts():
    cells = [
        "N = 1\ndef f(x): return N",
        *(f'with check.question("{q}"):\n    f(1)\nN = {k}' for k, q in enumerate(("2a", "2b", "3"), 2)),
    ]
    statements, _ = extract.parse({f"code cell {i}": source for i, source in enumerate(cells, 1)})
    assert [extract.prepare(statements, "f", q)[0]["f"](1) for q in ("2", "2a", "2b", "3", "4")] == [2, 1, 2, 3, 4]


def test_given_cells_come_first_and_are_cut_apart():
    check_ = 'with check.question("1"):\n    f(1)'
    given = {"given cell 1": "N = 1", "given cell 2": check_, "given cell 3": "N = 2"}
    mine = {"code cell 1": "def f(x): return N", "code cell 2": check_, "code cell 3": "N = 3"}
    assert extract.prepare(extract.parse(given | mine)[0], "f", "1")[0]["f"](1) == 1
    del given["given cell 1"]
    mine["code cell 1"] = "N = 1\n" + mine["code cell 1"]
    assert extract.prepare(extract.parse(given | mine)[0], "f", "1")[0]["f"](1) == 1
    given["given cell 3"] = "def tried(x): return f(x) + 1"
    assert extract.prepare(extract.parse(given | mine)[0], "tried", "1")[0]["tried"](1) == 2
