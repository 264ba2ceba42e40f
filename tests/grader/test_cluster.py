"""Grading over a Dask cluster one of whose workers dies: the gradebook of a serial run, and nobody graded twice."""

import json
import os
import signal
from collections import Counter
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from grader import authoring, gradebook, sandbox
from grader.corpus import Corpus
from grader.result import Result

distributed = pytest.importorskip("distributed")
from distributed.cli import dask_worker  # noqa: E402

ROOT = Path(__file__).parents[2]
LIMITS = sandbox.Limits(seconds=20)
STUDENTS, DIES_AFTER = 40, 15


@pytest.fixture
def corpus(tmp_path):
    return Corpus(authoring.create(tmp_path, "how_far"))


@pytest.fixture
def handed_in(corpus, tmp_path):
    """A class that hands in the solution and each of the wrong answers to it, over and over."""
    folder, book = tmp_path / "in", json.loads(corpus.exercise.solution)
    folder.mkdir()
    answer = next(cell for cell in book["cells"] if cell["id"] == "q1-answer")
    right = "".join(answer["source"])
    for number in range(STUDENTS):
        _, _, old, new, *_ = [("", "", "", ""), *corpus.wrong][number % (len(corpus.wrong) + 1)]
        answer["source"] = right.replace(old, new) if old else right
        (folder / f"student {number:02}.ipynb").write_text(json.dumps(book))
    return folder


def out_folder(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "course.key").write_text("0" * 64)
    return tmp_path / name


@pytest.fixture
def serial(lane, corpus, handed_in, tmp_path, monkeypatch):
    """What one lane writes."""
    out = out_folder(tmp_path, "serial")
    with monkeypatch.context() as patch:
        patch.setattr(sandbox, "lane", lambda *_: lane)
        gradebook.grade(handed_in, out, corpus.exercise, workers=1, limits=LIMITS)
    return out


class Finished(distributed.SchedulerPlugin):
    """How often each task of a cluster was finished."""

    def __init__(self):
        self.times = Counter()

    def transition(self, key, start, finish, *args, **kwargs):
        self.times[key] += finish == "memory"


@pytest.mark.slow
def test_a_worker_that_dies_costs_nobody_a_grade(serial, corpus, handed_in, tmp_path):
    out, finished, told = out_folder(tmp_path, "out"), Finished(), []
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        cluster.scheduler.add_plugin(finished)
        victim = next(iter(client.run(os.getpid).values()))

        def progress(line):
            told.append(line)
            if len(told) == DIES_AFTER:
                os.kill(victim, signal.SIGKILL)

        workers = {"executor": client.get_executor(), "limits": LIMITS, "progress": progress}
        gradebook.grade(handed_in, out, corpus.exercise, **workers)
    assert (out / "gradebook.csv").read_bytes() == (serial / "gradebook.csv").read_bytes()
    graded = [line["student"] for line in map(json.loads, (out / "journal.jsonl").read_text().splitlines()[1:])]
    assert sorted(graded) == sorted(path.stem for path in handed_in.iterdir())  # each once
    grades = [times for key, times in finished.times.items() if key.startswith("grade_one")]
    assert grades == [1] * STUDENTS  # what was in the memory of the dead worker is not made again


class Ends(Executor):
    """Loses its workers after the solution and five students, as a cluster whose scheduler is gone."""

    submitted = 0

    def submit(self, function, *arguments):
        self.submitted += 1
        future = Future()
        if self.submitted <= 6:
            future.set_result(function(*arguments))
        else:
            future.cancel()
            future.set_running_or_notify_cancel()
        return future


def test_workers_that_are_gone_end_the_run_and_the_next_goes_on(serial, lane, corpus, handed_in, tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "lane", lambda *_: lane)
    out = out_folder(tmp_path, "out")
    with pytest.raises(sandbox.SandboxError, match=r"gone \(CancelledError\) after 5 of 40"):
        gradebook.grade(handed_in, out, corpus.exercise, executor=Ends(), limits=LIMITS)
    before = (out / "journal.jsonl").read_bytes()
    assert not (out / "gradebook.csv").exists()
    gradebook.grade(handed_in, out, corpus.exercise, workers=1, limits=LIMITS)
    assert (out / "gradebook.csv").read_bytes() == (serial / "gradebook.csv").read_bytes()
    assert (out / "journal.jsonl").read_bytes().startswith(before)


def test_an_executor_holds_few_submissions_at_a_time(corpus, handed_in, tmp_path, monkeypatch):
    """Each carries the whole exercise, about a megabyte, and the notebook, which a cluster keeps for every task that waits."""
    held = []

    class Counting(ThreadPoolExecutor):
        def submit(self, *call):
            held.append(self._work_queue.qsize())
            return super().submit(*call)

    monkeypatch.setattr(gradebook, "IN_FLIGHT", 3)
    monkeypatch.setattr(gradebook, "prove", lambda *_: None)
    monkeypatch.setattr(gradebook, "grade_one", lambda submission, *_: Result(submission.student, "", problem="none"))
    with Counting(1) as pool:
        results = gradebook.grade(handed_in, out_folder(tmp_path, "out"), corpus.exercise, executor=pool)
    assert [result.problem for result in results] == ["none"] * STUDENTS
    assert max(held) < 3


def test_the_image_of_a_worker_has_what_it_needs_and_no_solution():
    lines = (ROOT / "grader" / "worker.dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert {"interp_lab", "grader"} <= set(copied)
    assert not {"solutions", "."} & set(copied)
    (command,) = [json.loads(line.removeprefix("ENTRYPOINT ")) for line in lines if line.startswith("ENTRYPOINT")]
    assert command[:2] == ["dask", "worker"]
    given = dask_worker.main.make_context("worker", [*command[2:], "tcp://127.0.0.1:8786"]).params
    assert (given["scheduler"], given["n_workers"], given["nthreads"]) == ("tcp://127.0.0.1:8786", "-1", 1)
    assert not given["dashboard"]
