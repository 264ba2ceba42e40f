"""Lanes on machines of other kinds: a warm worker that maps much, other kernels than outside, a machine that is unfit."""

import json
import time
from pathlib import Path

import pytest

from grader import gradebook, sandbox
from grader.calls import Call
from grader.exercise import Exercise
from interp_lab import extract

ROOT = Path(__file__).parents[2]
EXERCISE = Exercise.read(ROOT / "solutions" / "01_saliency_and_smoothgrad")
LIMITS = sandbox.Limits(seconds=20)
OTHER_KERNELS = {"ATEN_CPU_CAPABILITY": "default", "DNNL_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}


@pytest.fixture(autouse=True)
def own_lanes(lane):
    """Lanes of this test alone, where there is a sandbox at all."""
    sandbox.close_lanes()
    yield
    sandbox.close_lanes()


@pytest.fixture
def altered(monkeypatch, tmp_path):
    """A function that puts something into the place of a line of a file inside the sandbox."""

    def alter(file, old, new):
        source = (sandbox.HERE / file).read_text(encoding="utf-8")
        assert old in source
        (tmp_path / file).write_text(source.replace(old, new), encoding="utf-8")
        inside = [tmp_path / file if path.name == file else path for path in sandbox.INSIDE]
        monkeypatch.setattr(sandbox, "INSIDE", inside)

    return alter


def class_of(folder, **sources):
    folder.mkdir()
    (folder / "anna.ipynb").write_bytes(EXERCISE.solution)
    for name, source in sources.items():
        (folder / f"{name}.ipynb").write_text(json.dumps({"cells": [{"cell_type": "code", "source": source}]}))
    return folder


def test_no_other_file_of_the_course_is_visible_inside():
    command = sandbox._command()
    bound = {Path(command[i + 1]) for i, word in enumerate(command) if word == "--ro-bind"}
    ours = {path for path in bound if path.is_relative_to(ROOT) and "site-packages" not in path.parts}
    assert {path.relative_to(ROOT).as_posix() for path in ours} == {
        "grader/worker.py", "grader/calls.py", "interp_lab/simulated_device.py", "interp_lab/check.py", "interp_lab/extract.py",
        "interp_lab/_torchvision.py",
    }  # fmt: skip
    assert not [path for path in bound if ROOT.is_relative_to(path)]


def test_what_the_warm_worker_maps_is_not_the_students(altered, tmp_path):
    """torch's CUDA build maps 3.4 GiB by its import; here 6 GiB are mapped, without access, in its place."""
    altered(
        "worker.py",
        "    torch.set_num_threads(1)\n",
        "    torch.set_num_threads(1)\n    import mmap\n"
        "    calls.region = mmap.mmap(-1, 6 * 2**30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=0)\n",
    )
    greedy = "import torch\ndef saliency(model, x, target): return torch.ones({} * 2**18) {}"
    handed_in = class_of(
        tmp_path / "in",
        more=greedy.format(LIMITS.memory, ""),  # 1 KiB * 2^10 each
        less=greedy.format(LIMITS.memory // 2, "[:0].sum() + gone"),
    )
    anna, less, more = gradebook.grade(handed_in, tmp_path / "out", EXERCISE, workers=1, limits=LIMITS)
    assert not any(fault for faults in anna.faults.values() for fault in faults)
    assert "name 'gone' is not defined" in less.faults["2"][0], "half of the allowance is not there"
    assert "can't allocate memory" in more.faults["2"][0]


def test_the_worker_takes_the_kernels_of_its_environment_and_nothing_else(monkeypatch):
    for name, value in (OTHER_KERNELS | {"SECRET": "x"}).items():
        monkeypatch.setenv(name, value)
    source = (
        "import os, torch\n"
        "def kernels(): return [os.environ[n] == v for n, v in NAMES.items()] "
        "+ [torch.backends.cpu.get_cpu_capability() in ('DEFAULT', 'NO AVX'), 'SECRET' not in os.environ, torch.get_num_threads()]"
    ).replace("NAMES", repr(OTHER_KERNELS))
    for unsafe in (False, True):
        ((outcome,),) = sandbox.lane(unsafe, LIMITS).run({"": source}, [[Call("kernels", [])]])
        assert outcome.error == ""
        assert outcome.result.tolist() == [1] * 6


def test_solutions_that_train_keep_their_points_where_the_sandbox_has_other_kernels(monkeypatch):
    for name, value in OTHER_KERNELS.items():  # too late for this process, which has chosen its own
        monkeypatch.setenv(name, value)
    exercise = Exercise.read(ROOT / "solutions" / "14_roar")
    lane, cells = sandbox.lane(False, LIMITS), extract.code_cells(exercise.solution)
    for student in range(8):
        faults = gradebook._mark(lane, cells, exercise, b"key", str(student), "")
        assert not any(fault for parts in faults.values() for fault in parts)


WRONG_SUM = ("calls.py", "    outcome = Outcome(kind=type(result).__name__)\n", "    outcome = Outcome(kind=type(result).__name__)\n    result = result + 1 if isinstance(result, Tensor) else result\n")  # fmt: skip
DIES = (
    "worker.py",
    "        message = memoryview",
    "        os._exit(1) if number > 2 else None\n        message = memoryview",
)


@pytest.mark.parametrize(
    ("break_it", "limits", "words"),
    [
        (WRONG_SUM, LIMITS, "question 2: .* The largest difference is at index"),
        (DIES, LIMITS, "The process ended before"),
        (None, sandbox.Limits(seconds=20, memory=1), "memory=1"),
        (None, sandbox.Limits(seconds=0.001), "seconds=0.001|stopped after 0.001 seconds"),
    ],
    ids=["wrong sums", "dies", "no memory", "no time"],
)
def test_an_unfit_machine_grades_nobody(break_it, limits, words, altered, tmp_path):
    if break_it:
        altered(*break_it)
    handed_in, out = class_of(tmp_path / "in"), tmp_path / "out"
    for _ in range(1 + (break_it is DIES)):  # a second run goes on from the journal of the first, and is refused too
        with pytest.raises(sandbox.SandboxError, match=words):
            gradebook.grade(handed_in, out, EXERCISE, workers=1, limits=limits)
        assert {path.name for path in out.iterdir()} == {"course.key", "journal.jsonl"}
        assert (out / "journal.jsonl").read_bytes().count(b"\n") == 1, "somebody was graded"


def test_a_resumed_run_proves_its_machine_again(altered, tmp_path):
    handed_in, out = class_of(tmp_path / "in"), tmp_path / "out"
    gradebook.grade(handed_in, out, EXERCISE, workers=1, limits=LIMITS)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (handed_in / "ben.ipynb").write_bytes(EXERCISE.solution)
    altered(*WRONG_SUM)
    with pytest.raises(gradebook.Unfit, match="01_saliency_and_smoothgrad itself loses"):
        gradebook.grade(handed_in, out, EXERCISE, workers=1, limits=LIMITS)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_one_unfit_machine_of_a_cluster_ends_the_run(monkeypatch, tmp_path):
    proven = []

    def prove(*arguments):
        proven.append(arguments)
        if len(proven) == 3:  # before the class, for anna, for ben
            raise gradebook.Unfit("this node has no memory left")

    monkeypatch.setattr(gradebook, "prove", prove)
    with pytest.raises(gradebook.Unfit, match="this node"):
        gradebook.grade(class_of(tmp_path / "in", ben="x = 1"), tmp_path / "out", EXERCISE, workers=1, limits=LIMITS)
    assert not (tmp_path / "out" / "gradebook.csv").exists()


SEARCH = r"""
import re
def search():
    found = set()
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", buffering=0) as memory:
        for line in maps:
            span, rights, _, _, inode = line.split()[:5]
            start, end = (int(word, 16) for word in span.split("-"))
            if rights.startswith("r") and inode == "0" and not line.rstrip().endswith(("[vvar]", "[vsyscall]")):
                for at in range(start, end, 1 << 24):
                    try:
                        memory.seek(at)
                        found |= set(re.findall(rb"trace [0-9]{5}[;]", memory.read(min(1 << 24, end - at))))
                    except (OSError, ValueError, OverflowError):
                        pass
    return [len(found)]
"""
TRACES = "".join(f"# trace {number:05d};\n" for number in range(20_000))
TELLS = "def tell(): raise ValueError(''.join('trace %05d%s' % (90_000 + i, ';') for i in range(150)))"


def test_a_later_student_finds_no_trace_of_an_earlier_one_in_memory():
    """Neither of the notebook nor of what it told. Without the sandbox, since only there a process sees its own maps."""
    lane = sandbox.lane(True, LIMITS)
    ((found,),) = lane.run({"": SEARCH + TRACES}, [[Call("search", [])]])
    assert found.result.item() >= 20_000, "the search does not find what is there"
    ((told,),) = lane.run({"": TRACES + TELLS}, [[Call("tell", [])]])
    assert "trace 90000;" in told.error
    for number in range(3):
        ((found,),) = lane.run({"": SEARCH}, [[Call("search", [])]])
        assert (found.error, found.result.item()) == ("", 0), number


CRASHES = "import os, time\ndef f():\n    time.sleep(0.8)\n    os._exit(0)\n"
FILLS = "import os, torch\ndef f():\n    global n\n    n = globals().get('n', 0) + 1\n    return torch.ones(700_000) if n == 1 else os._exit(0)\n"  # fmt: skip


@pytest.fixture(scope="module")
def hasty():
    lane = sandbox.Lane(limits=sandbox.Limits(seconds=1, output=8))
    yield lane
    lane.close()


@pytest.mark.parametrize(
    "source", [CRASHES, CRASHES.replace("os._exit(0)", "return 1.0"), "def f():\n    while True: pass"]
)
def test_a_notebook_holds_its_lane_no_longer_than_its_questions_may_take(hasty, source):
    began = time.monotonic()
    outcomes = hasty.run({"": source}, [[Call("f", [])] * 6] * 3)
    assert time.monotonic() - began < 3 + 2
    assert [len(question) for question in outcomes] == [6] * 3
    assert outcomes[-1][-1].error in (
        "not tried, because the notebook had used up its limits",
        "not tried, because a call of this question took too long",
    )


def test_a_notebook_gives_no_more_output_than_its_limit_however_often_it_dies(hasty):
    (outcomes,) = hasty.run({"": FILLS}, [[Call("f", [])] * 20])
    kept = sum(t.nbytes for outcome in outcomes for t in outcome.tensors.values())
    assert 2 * 2**20 < kept <= 8 * 2**20
    assert outcomes[-1].error


def test_a_worker_that_cannot_make_its_namespaces_says_so(altered):
    altered("worker.py", '    system("unshare",', "    raise OSError('no namespaces today')\n    system(\"unshare\",")
    with pytest.raises(sandbox.SandboxError, match="no namespaces today"):
        sandbox.Lane(limits=LIMITS)
