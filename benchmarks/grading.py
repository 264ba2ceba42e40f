"""Time to grade a class, and that a run killed in the middle ends with the same gradebook.

The class hands in exercise 01: solutions, half-done and wrong notebooks, and two that loop for ever.

    python -m benchmarks.grading [--students 200] [--workers 2] [--no-kill]
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOLUTION = Path("solutions/01_saliency_and_smoothgrad/solution.ipynb")
VARIANTS = [  # id of a cell, old text, new text
    ("q2-answer", "", ""),
    ("q2-answer", ".sum()", ".mean()"),
    ("q4-answer", "total / n", "total"),
    ("q2-answer", "return gradient", "return gradient.abs()"),
    ("q3a-answer", "peak.where(peak > 0, 1)", "peak"),
    ("q4-answer", "generator = torch", "raise NotImplementedError()\n    generator = torch"),
    ("q5a-answer", "x / sigma", "x / sigma**2"),
    ("q4-answer", "", ""),
]
LOOP = ("q5a-answer", "return", "while True: pass\n    return")


def hand_in(folder: Path, students: int) -> None:
    folder.mkdir()
    for number in range(students):
        looping = number in (students // 3, 2 * students // 3)
        cell_id, old, new = LOOP if looping else VARIANTS[number % len(VARIANTS)]
        notebook = json.loads(SOLUTION.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["id"] == cell_id:
                cell["source"] = "".join(cell["source"]).replace(old, new)
        (folder / f"student{number:03}.ipynb").write_text(json.dumps(notebook))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--students", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--no-kill", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hand_in(folder / "in", options.students)

        def command(out: str) -> list[str]:
            arguments = [str(folder / "in"), "--out", str(folder / out), "--exercise", "01"]
            return [sys.executable, "-m", "grader", *arguments, "--workers", str(options.workers)]

        start, load = time.perf_counter(), os.getloadavg()[0]
        subprocess.run(command("whole"), check=True, stderr=subprocess.DEVNULL)
        wall, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = used.ru_utime + used.ru_stime
        print(f"{options.students} students, {options.workers} lanes, load {load:.1f} to {os.getloadavg()[0]:.1f}:")
        print(
            f"{wall:.1f} s wall, {cpu:.1f} s CPU of the grader itself (the sandboxed processes are not in this number)"
        )
        if options.no_kill:
            return

        (folder / "cut").mkdir()
        (folder / "cut" / "course.key").write_bytes((folder / "whole" / "course.key").read_bytes())
        journal = folder / "cut" / "journal.jsonl"
        process = subprocess.Popen(command("cut"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (journal.exists() and journal.read_bytes().count(b"\n") > options.students // 2):
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        done = journal.read_bytes().count(b"\n") - 1
        subprocess.run(command("cut"), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        whole, cut = ((folder / name / "gradebook.csv").read_text().splitlines() for name in ("whole", "cut"))
        for line, other in zip(whole, cut, strict=True):
            if line != other:
                print(line, other, sep="\n")
        same = whole == cut
        print(f"killed after {done} students, resumed: gradebook {'the same' if same else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
