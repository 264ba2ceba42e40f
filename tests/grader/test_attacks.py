"""Hostile notebooks in one class with honest ones: none gains a point, reaches anything, or stops the others.

Each attack is the source of a notebook that leaves ``saliency`` wrong and tries something. Whatever it reaches it
tells by the word REACHED in an error message, which would stand in its feedback page.
"""

import csv
import json
import os
import socket
from pathlib import Path

import nbformat
import pytest
from saliency_alone import EXERCISE, NAME, QUESTION, SOLUTION

import grader
from grader import gradebook, report, sandbox

pytestmark = pytest.mark.xdist_group("attacks")  # one class is graded for all

ROOT = Path(__file__).parents[2]
SECRET = "a secret of the environment 5f1e"

HEAD = """
import ctypes, gc, glob, os, resource, signal, socket, subprocess, sys, threading, time
import numpy as np
import torch
"""
ZEROS = "    return torch.zeros_like(x)\n"


def body(code, end=ZEROS):
    """A notebook whose saliency runs the code and then returns zeros."""
    lines = "".join(f"    {line}\n" for line in code.strip("\n").split("\n"))
    return f"{HEAD}\ndef saliency(model, x, target):\n{lines}{end}"


def tries(*expressions):
    """Every expression is tried; one that works is told."""
    return body(
        "reached = []\n"
        + "".join(
            f"try:\n    reached.append(('REACHED', {e!r}, repr({e})[:300]))\nexcept BaseException: pass\n"
            for e in expressions
        )
        + "if reached: raise ValueError(reached)"
    )


PATHS = (
    str(ROOT),
    *(str(path) for path in (SOLUTION.parents[1], SOLUTION.parent, *SOLUTION.parent.iterdir())),
    *(str(path) for path in (Path(grader.__file__).parent, *Path(grader.__file__).parent.glob("*.py"))),
    "/etc/passwd",
    "/home",
    "/root/.ssh",
    "/proc/1/environ",
)
ATTACKS = {
    # what is compared with
    "patch torch": body(
        "torch.allclose = torch.equal = lambda *a, **k: True\n"
        "torch.isfinite = lambda t: torch.ones_like(t, dtype=torch.bool)\n"
        "torch.Tensor.__eq__ = torch.Tensor.__le__ = torch.Tensor.__gt__ = lambda *a: True\n"
        "torch.Tensor.max = torch.Tensor.abs = lambda self, *a: torch.zeros(())"
    ),
    "patch numpy": body("np.allclose = lambda *a, **k: True"),
    "patch the checks": body(
        "from interp_lab import check\n"
        "check.close = check.same_kind = check.within = lambda *a, **k: None\n"
        "check.untouched.__wrapped__ = None"
    ),
    "patch the worker": body(
        "import calls, extract\n"
        "main = sys.modules['__main__']\n"
        "calls.perform = lambda f, call: calls.Outcome({'result': torch.zeros(())}, 'Tensor', False, '')\n"
        "calls.pack = lambda header, tensors: b'{\"earned\": 5, \"score\": 1e9}'\n"
        "main.serve = main.answer = lambda *a: (dict(end='done', score=5), b'')"
    ),
    "equal to everything": HEAD
    + "class Same(torch.Tensor):\n"
    "    def __eq__(self, other): return torch.ones(1, dtype=torch.bool).all()\n"
    "    __le__ = __lt__ = __gt__ = __ge__ = __eq__\n"
    "    def __sub__(self, other): return torch.zeros(())\n"
    "    __rsub__ = __sub__\n"
    "    @classmethod\n"
    "    def __torch_function__(cls, f, types, args=(), kwargs=None): return torch.zeros(())\n"
    "def saliency(model, x, target): return torch.zeros_like(x).as_subclass(Same)\n",
    "no tensor": HEAD
    + "class Answer:\n"
    "    shape = dtype = device = property(lambda self: Answer())\n"
    "    def __getattr__(self, name): return Answer()\n"
    "    def __call__(self, *a, **k): return Answer()\n"
    "    def __eq__(self, other): return True\n"
    "    def __reduce__(self): return os.system, ('echo REACHED > /tmp/pickled',)\n"
    "def saliency(model, x, target): return Answer()\n",
    # values
    "zeros": body("pass"),
    "the input": body("return x"),
    "ones": body("return torch.ones_like(x)"),
    "weights of a class": body("return next(model.parameters()).flatten()[:x.numel()].view_as(x)"),
    "not a number": body("return torch.full_like(x, float('nan'))"),
    "infinite": body("return torch.full_like(x, float('inf'))"),
    "huge": body("return torch.full_like(x, torch.finfo(x.dtype).max)"),
    "other dtypes": body("return (x.half(), x.to(torch.complex64), x.bool(), x.to(torch.int8))[x.numel() % 4]"),
    "huge shape": body("return torch.zeros(1).expand(2**40)"),
    "much data": body("return torch.zeros(2**28)"),
    # the course's own answers
    "the course's method": HEAD + "from interp_lab import saliency\n",
    "the course's module": body("import interp_lab.explain_decision\nreturn interp_lab.saliency(model, x, target)"),
    "captum": body("import captum.attr\nraise ValueError('REACHED captum')"),
    "read from disk": tries(*(f"open({p!r}).read() if os.path.isfile({p!r}) else os.listdir({p!r})" for p in PATHS)),
    "search the disk": body(
        "wanted = ('.ipynb', 'questions.py', 'corpus.py', 'gradebook', 'judges.py', 'drawing.py', "
        "'explain_decision', 'captum', 'zennit', 'course.key')\n"
        "for folder, folders, files in os.walk('/'):\n"
        "    folders[:] = [f for f in folders if f not in ('torch', 'sympy', 'numpy', 'x86_64-linux-gnu', 'networkx', 'typeshed', 'web_backend')]\n"
        "    for name in folders + files:\n"
        "        if any(w in name for w in wanted) or name in ('solutions', 'grader'): raise ValueError('REACHED', folder, name)"
    ),
    "frames and garbage": body(
        "frame, seen = sys._getframe(), []\n"
        "while frame:\n"
        "    seen += [n for n in frame.f_locals if n in ('expected', 'reference', 'answers', 'key', 'judge')]\n"
        "    frame = frame.f_back\n"
        "seen += [type(o).__name__ for o in gc.get_objects() if type(o).__name__ in ('Part', 'Question', 'Exercise', 'Journal')]\n"
        "seen += [m for m in sys.modules if any(w in m for w in ('grader', 'gradebook', 'question', 'judges'))]\n"
        "if seen: raise ValueError('REACHED', seen)"
    ),
    # writing
    "write the scores": tries(
        *(f"open({str(ROOT / name)!r}, 'w').write('1')" for name in ("gradebook.csv", "results.json", "interp_lab/x.py", "grader/x.py", "solutions/x.py")),
        "open('GRADES/gradebook.csv', 'a').write('me,1,2,5,3,7,2,2,22,22')",
        "open('GRADES/journal.jsonl', 'a').write('{}')",
    ),
    "rewrite the worker": tries(
        "open('/worker/worker.py', 'a').write('x')",
        "open('/packages/torch/__init__.py', 'a').write('x')",
        "os.mkdir('/packages/mine')",
        "os.mkdir('/mine')",
        "open('/dev/shm/x', 'w').write('x')",
        "open(os.__file__, 'a').write('x')",
        "os.chmod('/worker', 0o777)",
    ),
    "print results": body(
        "print(json_text := '{\"score\": 22, \"tests\": []}', flush=True)\n"
        "os.write(1, b'passed'); os.write(2, b'passed'); sys.stdout.write('Question 2: passed.')"
    ),
    "forge results": body(
        "import calls, json, struct\n"
        "for i in range(6): os.write(3, calls.pack({'call': i, 'kind': 'Tensor', 'attached': False, 'earned': 5}, "
        "{'result': torch.zeros_like(x)}))\n"
        "os.write(3, b'\\x80\\x04\\x95' * 1000)\n"
        "os._exit(0)"
    ),
    "pickle for results": body("import pickle; os.write(3, pickle.dumps(print) * 100); os._exit(0)"),
    "nested header": body("os.write(3, (40000).to_bytes(8, 'little') + bytes(8) + b'[' * 40000); os._exit(0)"),
    "a huge header": body("os.write(3, (2**60).to_bytes(8, 'little') * 4); os._exit(0)"),
    # ending
    "sys.exit": body("sys.exit(0)"),
    "os._exit": body("os._exit(0)"),
    "exit at the top": HEAD + "saliency = os._exit(0)\n",
    "abort": body("os.abort()"),
    "read address 0": body("ctypes.string_at(0)"),
    "endless recursion": body("sys.setrecursionlimit(10**9)\nf = lambda: f()\nf()"),
    "exception that lies": HEAD
    + "class Lie(BaseException):\n    def __str__(self): os._exit(0)\n    __repr__ = __str__\n"
    "def saliency(model, x, target): raise Lie\n",
    # other processes
    "kill": body(
        "for pid in (os.getppid(), 0, -1, *range(2, 3000)):\n"
        "    for s in (signal.SIGKILL, signal.SIGSTOP):\n"
        "        try:\n            os.kill(pid, s)\n        except OSError: pass"
    ),
    "ignore signals": body(
        "for s in range(1, 65):\n    try:\n        signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n"
        "while True: pass"
    ),
    "processes seen": tries(
        "[p for p in os.listdir('/proc') if p.isdigit()] or 1/0",
        "open('/proc/self/maps').read()",
        "open('/proc/1/environ').read()",
        "os.readlink('/proc/1/exe')",
        "1 if ctypes.CDLL(None).ptrace(16, 2, 0, 0) == 0 else 1/0",
        "subprocess.run(['/bin/sh', '-c', 'id'])",
        "subprocess.run([sys.executable, '-c', 'print(1)'])",
    ),
    "fork bomb": body("while True:\n    os.fork()"),
    "fork bomb that persists": body("while True:\n    try:\n        os.fork()\n    except OSError: pass"),
    "threads": body("for _ in range(10000): threading.Thread(target=time.sleep, args=(99,)).start()"),
    "system calls": tries(
        *(f"1 if ctypes.CDLL(None).{call} >= 0 else 1/0" for call in (
            "unshare(0x10000000)", "mount(b'none', b'/', b'tmpfs', 0, 0)", "umount2(b'/proc', 2)", "setuid(0)",
            "chroot(b'/tmp')", "shmget(0, 2**20, 0o1777)", "syscall(41, 1, 1, 0)", "syscall(0x40000029, 1, 1, 0)",
            "syscall(425, 8, 0)", "syscall(250, 0, -3, 1)", "syscall(321, 0, 0, 0)",
        ))
    ),
    # using up
    "endless loop": body("while True: pass"),
    "sleep": body("time.sleep(10**6)"),
    "endless output": body("while True: print('x' * 10**6)"),
    "endless results": body("while True: os.write(3, b'x' * 10**6)"),
    "close and go on": body("os.close(3)\nwhile True: pass"),
    "memory": body("a = []\nwhile True: a.append(bytearray(2**26))"),
    "memory of torch": body("a = []\nwhile True: a.append(torch.ones(2**24))"),
    "memory without limits": body(
        "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))\nraise ValueError('REACHED')"
    ),
    "disk": body("with open('/tmp/x', 'wb') as f:\n    while True: f.write(bytes(2**20))"),
    "many files": body("for i in range(10**6): open(f'/tmp/{i}', 'wb').write(bytes(2**16))"),
    # network and secrets
    "sockets": tries(
        *(f"socket.socket({family}, {kind})" for family in ("socket.AF_INET", "socket.AF_INET6", "socket.AF_UNIX",
          "socket.AF_NETLINK", "socket.AF_PACKET") for kind in ("socket.SOCK_STREAM", "socket.SOCK_DGRAM", "socket.SOCK_RAW")),
        "socket.create_connection(('127.0.0.1', PORT), 1)",
        "socket.getaddrinfo('example.org', 80)",
        "socket.socketpair()",
    ),
    "environment": body("if 'SECRET' in os.environ or SECRET_TEXT in str(os.environ): raise ValueError('REACHED')"),
    # other students
    "a leave a message": body(
        "for d in ('/tmp', '/dev/shm', '/var/tmp', '/worker', '/packages', '/'):\n"
        "    try:\n        open(d + '/message', 'w').write('answer')\n    except OSError: pass\n"
        "sys.modules['calls'].message = 'answer'"
    ),
    "b find a message": body(
        "import calls\n"
        "found = glob.glob('/*/message') + glob.glob('/message') + [m for m in [getattr(calls, 'message', 0)] if m]\n"
        "if found: raise ValueError('REACHED', found)"
    ),
    # feedback pages
    "html": HEAD
    + "def saliency(model, x, target): raise ValueError('</pre><script>alert(1)</script><img src=x onerror=alert(1)>')\n",
    "template": HEAD + "def saliency(model, x, target): raise ValueError('{{ 7 * 191 }} {% for x in y %}')\n",
    "half a character": HEAD + "def saliency(model, x, target): raise ValueError('\\ud800\\x00\\x1b[2J')\n",
    # source
    "nested source": HEAD + "saliency = " + "(" * 5000 + "1" + ")" * 5000,
    "deep source": HEAD + "saliency = x" + ".y" * 50_000,
    "long expression": HEAD + "saliency = " + "-" * 50_000 + "1",
    "zero bytes": HEAD + "def saliency(model, x, target):\0 return x",
    "magic": "%load_ext x\n!cp /etc/passwd .\n" + body("get_ipython().system('id')"),
}  # fmt: skip
HONEST = ("a first", "m in the middle", "z last")


def notebook(*sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    return json.dumps(nbformat.v4.new_notebook(cells=cells))


@pytest.fixture(scope="module")
def graded(lane, tmp_path_factory):
    """All attacks and some honest students in one class, for the question about saliency alone."""
    folder = tmp_path_factory.mktemp("class")
    handed_in, grades = folder / "submissions", folder / "grades"
    handed_in.mkdir()
    (folder / "outside.ipynb").write_bytes(SOLUTION.read_bytes())
    for name in HONEST:
        (handed_in / f"{name}.ipynb").write_bytes(SOLUTION.read_bytes())
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for name, source in ATTACKS.items():
            source = source.replace("GRADES", str(grades)).replace("PORT", str(port))
            (handed_in / f"{name}.ipynb").write_text(notebook(source.replace("SECRET_TEXT", repr(SECRET))))

        (handed_in / "malformed.ipynb").write_bytes(b'{"cells": [')
        (handed_in / "binary.ipynb").write_bytes(bytes(range(256)) * 100)
        (handed_in / "nested.ipynb").write_bytes(b"[" * 10**6)
        (handed_in / "numbers.ipynb").write_bytes(b'{"cells": [' + b"9" * 10**6 + b"]}")
        (handed_in / "cells.ipynb").write_text('{"cells": {"a": 1}}')
        (handed_in / "odd cells.ipynb").write_text('{"cells": [1, null, {"cell_type": "code"}, {"source": 5}]}')
        (handed_in / "empty.ipynb").write_bytes(b"")
        (handed_in / "much code.ipynb").write_text(notebook("x = 1\n" * 200_000))
        with (handed_in / "large.ipynb").open("wb") as file:
            file.truncate(200 * 2**20)
        (handed_in / "link.ipynb").symlink_to(folder / "outside.ipynb")
        (handed_in / "folder link").symlink_to(folder)
        (handed_in / "link inside").mkdir()
        (handed_in / "link inside" / f"{NAME}.ipynb").symlink_to(folder / "outside.ipynb")
        (handed_in / "no notebook").mkdir()
        os.mkfifo(handed_in / "pipe.ipynb")
        for name in ("..%2f..%2fetc", "..\\..\\x", "<script>alert(1)<", "=HYPERLINK(1)", "new\nline", "\udcff"):
            (handed_in / f"{name}.ipynb").write_bytes(SOLUTION.read_bytes())

        before = {path for path in folder.rglob("*") if grades not in path.parents}
        patch = pytest.MonkeyPatch()
        patch.setenv("SECRET", SECRET)
        try:
            results = gradebook.grade(
                handed_in,
                grades,
                EXERCISE,
                workers=2,
                limits=sandbox.Limits(seconds=3, memory=1000, disk=4, output=8),
            )
        finally:
            patch.undo()
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()  # nobody came
    new = {path for path in folder.rglob("*") if grades not in path.parents} - before
    assert new <= {grades}
    return {result.student: result for result in results}, grades


def test_the_honest_are_graded_between_the_attacks(graded):
    results, _ = graded
    assert [results[name].earned(QUESTION) for name in HONEST] == [5, 5, 5]


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_gains_nothing_and_reaches_nothing(graded, name):
    results, grades = graded
    page = (grades / "feedback" / f"{name}.html").read_text()
    assert results[name].earned(QUESTION) == 0
    assert not results[name].problem  # it was graded, and not given up by the grader
    assert "REACHED" not in page


def test_there_are_at_least_25_attacks():
    assert len(ATTACKS) >= 25


@pytest.mark.parametrize(
    ("student", "words"),
    [
        ("malformed", "no valid JSON"),
        ("binary", "no valid JSON"),
        ("nested", "no valid JSON"),
        ("numbers", "no valid JSON"),
        ("cells", "no list of cells"),
        ("empty", "no valid JSON"),
        ("much code", "characters of code"),
        ("large", "200 MiB"),
        ("link", "symbolic link"),
        ("folder link", "symbolic link"),
        ("link inside", "symbolic link"),
        ("no notebook", "expected one notebook"),
        ("pipe", "not a regular file"),
        ("..%2f..%2fetc", "the name may hold"),
        (r"..\\..\\x", "the name may hold"),
        ("<script>alert(1)<", "the name may hold"),
        ("=HYPERLINK(1)", "the name may hold"),
        (r"new\u000aline", "the name may hold"),
        ("\\xff", "the name may hold"),
    ],
)
def test_a_file_that_cannot_be_graded_gets_no_point_and_a_message(graded, student, words):
    results, grades = graded
    result = results[student]
    assert result.earned(QUESTION) == 0
    assert words in result.problem
    page = (grades / "feedback" / f"{report.file_name(student)}.html").read_text()
    assert words in page or "&#39;" in page


def test_odd_cells_are_passed_over(graded):
    results, _ = graded
    assert "there is no function saliency" in results["odd cells"].faults["2"][0]


def test_feedback_is_escaped(graded):
    _, grades = graded
    for path in (grades / "feedback").iterdir():
        text = path.read_text()
        assert "<script" not in text
        assert "<img" not in text
        assert "&lt;script&gt;" in text or path.stem != "html"
    assert "{{ 7 * 191 }}" in (grades / "feedback" / "template.html").read_text()


def test_output_lies_in_the_output_folder_and_every_student_has_a_row(graded):
    results, grades = graded
    assert {path.name for path in grades.iterdir()} == {
        "course.key", "journal.jsonl", "gradebook.csv", "by_hand.csv", "by_hand.html", "summary.html", "feedback", "gradescope"
    }  # fmt: skip
    assert "<script" not in (grades / "by_hand.html").read_text()
    assert len(list((grades / "feedback").iterdir())) == len(results) == len(list((grades / "gradescope").iterdir()))
    for table in ("gradebook.csv", "by_hand.csv"):
        with (grades / table).open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(results)
        assert not any(row["student"][0] in "=+-@<" for row in rows)
        assert table == "by_hand.csv" or sum(float(row["total"]) for row in rows) == 15
    assert SECRET not in "".join(path.read_text() for path in grades.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["../x", "..", ".", "a/b", "/etc/passwd", "a\\b", "a\nb", "-" * 3, "", "x" * 200])
def test_names_that_a_path_could_mind_become_fingerprints(name):
    assert report.file_name(name).startswith("refused-")
    assert "/" not in report.file_name(name)


def test_without_bubblewrap_grading_is_refused(monkeypatch, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "anna.ipynb").write_bytes(SOLUTION.read_bytes())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(sandbox.SandboxError, match=r"no program bwrap|linux"):
        gradebook.grade(tmp_path / "in", tmp_path / "out", EXERCISE)
    assert not (tmp_path / "out" / "gradebook.csv").exists()


def test_other_systems_are_refused(monkeypatch):
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    with pytest.raises(sandbox.SandboxError, match=r"darwin"):
        sandbox.Lane()
