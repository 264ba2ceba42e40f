"""A class as six systems give it out, from their sources and documentation: names, folders, metadata.

Moodle: mod/assign/classes/downloader.php (name without underscores, number, plugin). Canvas: lib/content_zipper.rb (sortable
name in small letters and without what is no letter, LATE, user, attachment, file). Gradescope: submission_metadata.yml, keys
as symbols of Ruby. GitHub Classroom: `gh classroom clone student-repos`. nbgrader: submitted/STUDENT/ASSIGNMENT and
timestamp.txt. Google Classroom: NAME - TITLE, in the zip that Drive makes.
"""

import csv
import io
import re
import zipfile
from pathlib import Path

EXERCISE = "01_saliency_and_smoothgrad"
FIRST = [
    "Anna",
    "Björn",
    "Çem",
    "Dora",
    "Émile",
    "Finn",
    "Gül",
    "Håkon",
    "Inês",
    "Jörg",
    "Kim",
    "Łukasz",
    "Mei",
    "Nuño",
    "Ōta",
    "Priya",
    "Quinn",
    "Renée",
    "Søren",
    "Tomáš",
]
LAST = ["Müller", "O'Brien van Dyk", "Smith", "Groß"]
CLASS = [(FIRST[i % 20], LAST[i // 10], 1000 + i) for i in range(40)]


def full(i: int) -> str:
    first, last, _ = CLASS[i]
    return f"{first} {last}"


def email(i: int) -> str:
    return f"student{CLASS[i][2]}@example.org"


def table(columns: list[str], rows: list[list[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()


def canvas_gradebook(points: str = "28") -> str:
    head = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", f"{EXERCISE} (4711)", "Quiz (12)", "Final Score"]
    hidden = ["", "", "", "", "", "Manual Posting", "", ""]
    possible = ["    Points Possible", "", "", "", "", points, "5.00", "(read only)"]
    rows = [[f"{last}, {first}", n, f"s{n}", f"login{n}", "A and B", "", "4.00", "80.00"] for first, last, n in CLASS]
    return table(head, [hidden, possible, *rows, ["Student, Test", 99, "", "abc", "A", "", "", ""]])


def moodle_worksheet(maximum: str = "28.00") -> str:
    head = ["Identifier", "Full name", "Email address", "Status", "Grade", "Maximum Grade", "Grade can be changed"]
    head += ["Last modified (submission)", "Last modified (grade)", "Feedback comments"]
    time = "Friday, 4 December 2026, 8:15 PM"
    rows = [
        [f"Participant {n}", full(i), email(i), "Submitted for grading", "", maximum, "Yes", time, "-", ""]
        for i, (_, _, n) in enumerate(CLASS)
    ]
    return table(head, rows)


def rosters() -> dict[str, str]:
    """What each system exports of its class."""
    return {
        "moodle": moodle_worksheet(),
        "canvas": canvas_gradebook(),
        "gradescope": table(
            ["First Name", "Last Name", "SID", "Email", "Role"],
            [[first, last, n, email(i), "Student"] for i, (first, last, n) in enumerate(CLASS)],
        ),
        "github": table(
            [
                "assignment_name",
                "github_username",
                "roster_identifier",
                "student_repository_name",
                "submission_timestamp",
            ],
            [
                ["hw-1", f"user-{n}", full(i), f"hw-1-user-{n}", "2026-12-04 20:15:00 UTC"]
                for i, (_, _, n) in enumerate(CLASS)
            ],
        ),
        "nbgrader": table(
            ["student_id", "first_name", "last_name", "email"],
            [[f"u{n}", first, last, email(i)] for i, (first, last, n) in enumerate(CLASS)],
        ),
        "google": table(["student"], [[full(i)] for i in range(40)]),
    }


def files(system: str, notebooks: dict[int, bytes]) -> dict[str, bytes]:
    """Paths and contents of a download, given who handed in what."""
    found: dict[str, bytes] = {}
    for i, data in notebooks.items():
        first, last, n = CLASS[i]
        late = i == 7
        if system == "moodle":
            name = re.sub(r"[&<>\"`|':/\\]", "", full(i)).replace("_", " ")
            found[f"{name}_{n}_assignsubmission_file{'_' * (i % 2)}/{EXERCISE}.ipynb"] = data
            found[f"{name}_{n}_assignsubmission_onlinetext/onlinetext.html"] = b"<p>Done.</p>"
        elif system == "canvas":
            name = re.sub(r"\W", "", f"{last}, {first}".lower())
            found[f"{name}{'_LATE' * late}_{n}_{9000 + i}_{EXERCISE}{'-1' * (i == 3)}.ipynb"] = data
        elif system == "gradescope":
            found[f"assignment_31_export/submission_{n}/{EXERCISE}.ipynb"] = data
        elif system == "github":
            found[f"hw-1-submissions/hw-1-user-{n}/exercises/{EXERCISE}.ipynb"] = data
            found[f"hw-1-submissions/hw-1-user-{n}/exercises/02_antehoc_and_surrogates.ipynb"] = b"{}"
            found[f"hw-1-submissions/hw-1-user-{n}/.git/HEAD"] = b"ref: refs/heads/main\n"
        elif system == "nbgrader":
            found[f"submitted/u{n}/ps1/{EXERCISE}.ipynb"] = data
            found[f"submitted/u{n}/ps1/timestamp.txt"] = b"2026-12-04 20:15:00.000000 UTC\n"
        elif system == "google":
            copied = ("", "Copy of ", "Kopie von ")[i % 3]
            found[f"{full(i)} - {copied}{EXERCISE}{' (1)' * (i % 4 == 1)}.ipynb"] = data
    if system == "gradescope":
        found["assignment_31_export/submission_metadata.yml"] = "".join(
            f"submission_{CLASS[i][2]}:\n  :submitters:\n  - :name: {full(i)}\n    :sid: '{CLASS[i][2]}'\n    :email: {email(i)}\n"
            f"  :created_at: 2026-12-04 20:15:00.549484000 Z\n  :score: 0.0\n  :status: processed\n"
            + ("  :history:\n  - :id: 5\n    :created_at: 2026-12-01 10:00:00 Z\n" if i == 5 else "  :history: []\n")
            for i in notebooks
        ).encode()
    return found


SYSTEMS = ("moodle", "canvas", "gradescope", "github", "nbgrader", "google")


def as_folder(top: Path, found: dict[str, bytes]) -> Path:
    for name, data in found.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(data)
    return top


def as_zip(path: Path, found: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in found.items():
            archive.writestr(name, data)
    return path
