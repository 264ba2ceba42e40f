"""Collecting what a classroom system gives out: whose each notebook is, who is missing, who handed in twice, who was late.

A download is read through one table of forms, `FORMS`: a pattern of the paths in it, and a sign by which it is known.
What fits the form of the others in no way is read as ``STUDENT.ipynb``, ``STUDENT.zip`` or ``STUDENT/...``. Nobody is guessed, and every
entry of a download is in the table ``collected.csv``, which `collect.submissions` reads.
"""

import csv
import io
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from unicodedata import normalize

import yaml

from . import archive, journal, roster
from .archive import File
from .collect import BOTH, COLUMNS, ENDING, FOUND, NO_NAME, NOTHING, TABLE, guarded, held_folders, is_name
from .course import Rules, aware, late_by
from .report import file_name
from .untrusted import printable_name

METADATA = "submission_metadata.yml"  # of Gradescope
TIMESTAMP = "timestamp.txt"  # of nbgrader
MAX_TOTAL = 4 * 2**30  # bytes of all notebooks of a class


@dataclass(frozen=True)
class Form:
    """How a system names what it gives out.

    Attributes:
        pattern: of a path, with the groups name or key, number (which orders files that were handed in one after another),
            id or login, late and file.
        sign: of a path that only this system writes; at least half of the entries must have one.
    """

    pattern: re.Pattern
    sign: re.Pattern


def _form(pattern: str, sign: str = "") -> Form:
    return Form(re.compile(pattern, re.DOTALL), re.compile(sign or pattern, re.DOTALL))


FORMS = {
    "moodle": _form(r"(?P<name>[^/_]*)_(?P<id>\d+)_assignsubmission_(?P<kind>file|onlinetext)_?/?(?P<file>[^/].*)"),
    "canvas": _form(
        r"(?:(?P<name>[^/]*?)_)??(?P<late>(?i:LATE)_)?(?P<id>\d+|anon_[^/_]+)_(?P<number>\d+)_(?P<file>[^/].*)"
    ),
    "gradescope": _form(r"(?P<key>submission_\d+)/(?P<file>.+)"),
    "nbgrader": _form(r"(?P<login>[^/]+)/[^/]+/(?P<file>.+)", rf"[^/]+/[^/]+/{re.escape(TIMESTAMP)}"),
    "github": _form(r"(?P<repository>[^/]+-[^/]+)/(?P<file>.+)", r"[^/]+-[^/]+/\.git"),
    "google": _form(r"(?P<name>[^/]+?) - (?P<file>[^/]+\.[^/.]+)"),
    "plain": _form(r"(?P<name>[^/]+)/(?P<file>.+)|(?P<stem>[^/]+)(?i:\.ipynb|\.zip)"),
}

# "Copy of x", "Kopie von x", "x (1)", "x-1", "x - Copy (2)": what browsers, Drive, Canvas and Windows make of a name.
_COPY = "copy|kopie|copi[ae]|cópia|kopia"
_BEFORE = re.compile(rf"(?i)(?:{_COPY}) (?:of|von|de|di|van|av)\s+")
_AFTER = re.compile(rf"(?i)[ _-]*\((\d+)\)$|-(\d{{1,2}})$|[ _-]+(?:{_COPY})(?: ?(\d+))?$")


@dataclass
class Collected:
    """One row of the table: a student, or an entry of the download that is nobody's (``student`` is empty then).

    Attributes:
        source: path of the notebook in the download.
        matched: how the student was found on the roster.
        late: as the table shows it; "" for in time or not known.
        refused: why there is no notebook.
    """

    student: str
    number: str = ""
    email: str = ""
    source: str = ""
    matched: str = ""
    handed_in: datetime | None = None
    late: str = ""
    remark: str = ""
    refused: str = ""
    file: File | None = field(default=None, repr=False)


@dataclass(frozen=True)
class _Held:
    """A file of a student: the number that its system gave it, and its name before the system changed that."""

    number: int
    name: str
    file: File

    def ends(self, ending: str) -> bool:
        return not self.file.refused and self.name.lower().endswith(ending)


@dataclass
class _Hand:
    """All files under one key of the form."""

    name: str
    number: str = ""
    logins: tuple[str, ...] = ()
    late: bool = False
    handed_in: datetime | None = None
    attempts: int = 1
    files: list[_Held] = field(default_factory=list)
    top: str = ""
    times: dict[tuple[str, ...], datetime | None] = field(default_factory=dict)  # of nbgrader, by folder


@dataclass
class Class:
    """What a download holds."""

    form: str
    exercise: str
    rows: list[Collected]

    def counts(self) -> str:
        """The class in one line."""
        people = [row for row in self.rows if row.student]
        missing = sum(row.refused.startswith(NOTHING) for row in people)
        numbers = {
            "notebooks": sum(row.file is not None for row in people),
            "missing": missing,
            "refused": sum(row.file is None for row in people) - missing,
            "late": sum(bool(row.late) for row in people),
            "handed in more than once": sum(_TWICE in row.remark for row in people),
            "not on the roster": sum(row.matched not in FOUND for row in people),
            "entries that are nobody's": len(self.rows) - len(people),
        }
        return f"{self.form}: " + ", ".join(f"{count} {what}" for what, count in numbers.items() if count)


_NAMELESS = "its name does not tell whose it is"
_TWICE = "handed in more than once"


def form_of(source: Path) -> str:
    """The form of a download by its names, "plain" where it is none of a system's."""
    with archive.opened(source) as files:
        return _form_of(files)


def collect(
    source: Path,
    into: Path,
    known: Iterable[str],
    *,
    exercise: str | None = None,
    people: list[roster.Person] | None = None,
    rules: Callable[[str], Rules | None] = lambda exercise: None,
    form: str | None = None,
) -> Class:
    """Copy one notebook of each student into a folder, and write the table ``collected.csv`` there.

    Args:
        source: folder or zip, as a system gave it out.
        into: a folder that is empty, missing, or was written by this function.
        known: names of all exercises.
        exercise: that of ``known`` to look for; by default the one after which most files are called.
        people: the class; without it everybody has the name that the download gives.
        rules: those of an exercise by its name: deadline, extensions and which attempt counts, the newest by default.
        form: one of `FORMS`, where the names are not enough to tell.

    Raises:
        FileNotFoundError: there is no such download.
        ValueError: it cannot be read; the exercise is not known; or ``into`` holds something else.
    """
    if into.exists() and not (into / TABLE).exists() and any(into.iterdir()):
        raise ValueError(f"{into} holds something else; choose an empty folder to collect into")
    with archive.opened(source) as files:
        name = form or _form_of(files)
        below, beside = _rooted(files, name)
        hands, others = _hands(below, name, roster.Roster(people or []))
        others += [Collected("", source=file.path, remark=file.refused or "it lies beside them") for file in beside]
        exercise = exercise or _exercise(hands, list(known))
        nameless = [hand for hand in hands if _likeness(hand.name)[0] == exercise.lower()]
        others += [Collected("", source=held.file.path, remark=_NAMELESS) for hand in nameless for held in hand.files]
        hands = [hand for hand in hands if hand not in nameless]
        rows = _rows(hands, exercise, set(known) - {exercise}, people, rules(exercise))
        found = Class(name, exercise, rows + others)
        _write(found, into)
    return found


def _write(found: Class, into: Path) -> None:
    for held in held_folders(into):  # by the table of an earlier run
        shutil.rmtree(held, ignore_errors=True)
    into.mkdir(parents=True, exist_ok=True)
    total = 0
    for row in found.rows:
        if row.file is not None:
            try:
                data = row.file.read()
            except ValueError as error:
                row.file, row.refused = None, str(error)
                continue
            total += len(data)
            if total > MAX_TOTAL:
                raise ValueError(f"the class has more than {MAX_TOTAL // 2**30} GiB of notebooks; collect it in parts")
            folder = into / file_name(row.student)
            try:
                folder.mkdir()
            except FileExistsError:  # where Anna and anna are one
                row.file, row.refused = None, f"on this disk there is a folder of that name in {into} already"
                continue
            (folder / f"{found.exercise}{ENDING}").write_bytes(data)
    journal.write(into / TABLE, _table(found))


def _table(found: Class) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for row in found.rows:
        time = row.handed_in.isoformat(timespec="seconds") if row.handed_in else ""
        folder = file_name(row.student) if row.file is not None else ""
        cells = [row.student, row.number, row.email, row.source, row.matched, time, row.late, row.remark, row.refused]
        table.writerow(map(guarded, [*cells, folder]))
    return text.getvalue()


def _form_of(files: list[File]) -> str:
    """The form that most entries show, at least half of them; else "plain"."""
    best, most = "plain", 0.5
    for name, form in FORMS.items():
        if name != "plain":
            below, _ = _rooted(files, name)
            tops = {file.parts[0] for file in below if file.parts != (METADATA,)}
            share = len({file.parts[0] for file in below if _signed(form, file.parts)}) / max(1, len(tops))
            if share > most or (best == "plain" and share == most):
                best, most = name, share
    return best


def _signed(form: Form, parts: tuple[str, ...]) -> bool:
    return form.sign.fullmatch("/".join(parts)) is not None


def _rooted(files: list[File], form: str) -> tuple[list[File], list[File]]:
    """The files below the folder that holds the submissions, as ``assignment_4711_export/``, without it, and all others."""
    root: tuple[str, ...] = ()
    if form == "plain":
        tops = {file.parts[0] for file in files if len(file.parts) > 1}
        inner = {file.parts[1] for file in files if len(file.parts) > 1}
        if len(tops) == 1 and len(inner) > 1 and all(len(file.parts) > 1 for file in files):
            root = tuple(tops)
    else:
        signs: dict[tuple[str, ...], set[str]] = {}
        for file in files:
            for depth in range(min(3, len(file.parts))):
                if _signed(FORMS[form], file.parts[depth:]):
                    signs.setdefault(file.parts[:depth], set()).add(file.parts[depth])
        root = max(signs, key=lambda root: (len(signs[root]), -len(root)), default=())
    deep = len(root)
    below: list[File] = []
    beside: list[File] = []
    for file in files:
        inside = file.parts[:deep] == root and len(file.parts) > deep
        (below if inside else beside).append(replace(file, parts=file.parts[deep:]) if inside else file)
    return below, beside


def _hands(files: list[File], form: str, known: roster.Roster) -> tuple[list[_Hand], list[Collected]]:
    """What each student handed in, and the entries that are nobody's."""
    records = _records(files) if form == "gradescope" else {}
    hands: dict[tuple, _Hand] = {}
    others: list[Collected] = []
    login_of = cache(partial(_login, known))
    for file in files:
        path = "/".join(file.parts)
        if path == METADATA and form == "gradescope":
            continue
        if file.refused and len(file.parts) == 1 and not path.lower().endswith(ENDING):
            path += "/-"  # a folder
        match = FORMS[form].pattern.fullmatch(path) or FORMS["plain"].pattern.fullmatch(path)
        groups = match.groupdict() if match else {}
        if not match:
            others.append(Collected("", source=file.path, remark=file.refused or "it is no notebook"))
            continue
        owners = records.get(groups.get("key") or "", [_Hand("")])
        for owner in owners:
            name = owner.name or next(filter(None, map(groups.get, ("name", "stem", "login", "key", "id"))), "")
            logins = owner.logins
            if repository := groups.get("repository"):
                name, logins = login_of(repository)
            if groups.get("login"):
                logins = (groups["login"],)
            number = groups.get("id") or ""
            key = (number, logins, name)  # a name that looks like the number of another does not join the two
            hand = hands.setdefault(key, _Hand(name, number or next(iter(logins), ""), logins, top=file.parts[0]))
            hand.late |= bool(groups.get("late"))
            hand.handed_in = hand.handed_in or owner.handed_in
            hand.attempts = owner.attempts
            called = (groups.get("file") or file.parts[-1]).rpartition("/")[2]
            hand.files.append(_Held(int((groups.get("number") or "0")[:18]), called, file))
            if form == "nbgrader" and file.parts[-1] == TIMESTAMP and len(file.parts) == 3:
                hand.times[file.parts[:2]] = _timestamp(file)
    return list(hands.values()), others


def _records(files: list[File]) -> dict[str, list[_Hand]]:
    """Who handed in what, by folder, as Gradescope says; several for a group."""
    file = next((file for file in files if file.parts == (METADATA,)), None)
    try:
        data = yaml.load(file.read(), _Ruby) if file else {}
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{METADATA} cannot be read ({printable_name(str(error))[:200]})") from None
    found: dict[str, list[_Hand]] = {}
    for folder, record in data.items() if isinstance(data, dict) else ():
        record = record if isinstance(record, dict) else {}
        when, history = roster.parse_time(_text(record, ":created_at")), record.get(":history")
        attempts = 1 + len(history) if isinstance(history, list) else 1
        submitters = record.get(":submitters")
        for person in submitters if isinstance(submitters, list) else ():
            cells = {key: _text(person, key) for key in (":name", ":sid", ":email")}
            name = normalize("NFC", " ".join(cells[":name"].split())) or cells[":email"] or cells[":sid"]
            logins = tuple(filter(None, (cells[":email"], cells[":sid"])))
            found.setdefault(str(folder), []).append(_Hand(name, "", logins, handed_in=when, attempts=attempts))
    return found


def _text(record: object, key: str) -> str:
    """A text of a record; "" for all else, which may be of any size when it is written out."""
    value = record.get(key) if isinstance(record, dict) else None
    return value[:200] if isinstance(value, str) else ""


class _Ruby(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Plain data of YAML; what is tagged as an object of Ruby is read as nothing, and numbers as they are written."""


_Ruby.add_multi_constructor("!ruby/", lambda loader, suffix, node: None)
for _tag in ("int", "float", "timestamp"):  # a number of a student is a name
    _Ruby.add_constructor(f"tag:yaml.org,2002:{_tag}", lambda loader, node: loader.construct_scalar(node))


def _timestamp(file: File) -> datetime | None:
    try:
        return roster.parse_time(file.read()[:100].decode())
    except ValueError:
        return None


def _login(known: roster.Roster, repository: str) -> tuple[str, tuple[str, ...]]:
    """The login at the end of a repository's name, the longest that the roster knows; without one, the whole name."""
    ends = [repository[i + 1 :] for i, c in enumerate(repository) if c == "-"]
    login = next((end for end in ends if known.find("", [end])[0]), repository)
    return login, (login,)


def _exercise(hands: list[_Hand], known: list[str]) -> str:
    """The exercise after which the notebooks of more than half of the students are called.

    Raises:
        ValueError: there is none, or more than one.
    """
    stems = [{_likeness(held.name)[0] for held in hand.files} for hand in hands]
    named = [each for each in known if 2 * sum(each.lower() in theirs for theirs in stems) > len(stems)]
    if len(named) != 1:
        raise ValueError(f"name the exercise: --exercise, one of {', '.join(known) or '(no solutions)'}")
    return named[0]


def _likeness(name: str) -> tuple[str, int]:
    """How a file was called before it was copied, in small letters, and the number of the copy."""
    stem, number = normalize("NFC", name).lower().removesuffix(ENDING).strip(), 0
    while (match := _BEFORE.match(stem)) or (match := _AFTER.search(stem)):
        if match.re is _BEFORE:
            stem = stem[match.end() :]
        else:
            number = max(number, int(next(filter(None, match.groups()), "1")[:9]))
            stem = stem[: match.start()].strip()
    return stem, number


def _rows(
    hands: list[_Hand],
    exercise: str,
    others: set[str],
    people: list[roster.Person] | None,
    rules: Rules | None,
) -> list[Collected]:
    """A row for everybody, sorted by name."""
    known = roster.Roster(people or [])
    names = Counter(hand.name for hand in hands)
    whose: dict[str, list[tuple[_Hand, Collected]]] = {}
    for hand in hands:
        row = Collected(hand.name, hand.number, source=printable_name(hand.top), handed_in=hand.handed_in)
        person = None
        if people is not None:
            person, row.matched = _find(hand, known)
        if person:
            row.student, row.email = person.student, person.email
            row.handed_in = row.handed_in or person.handed_in
        elif names[hand.name] > 1 or row.student in {p.student for p in people or ()}:
            row.student = f"{hand.name} ({hand.number or hand.top})"
        row.email = row.email or next((login for login in hand.logins if "@" in login), "")
        if not is_name(row.student):
            row.refused = f"the name may hold letters{NO_NAME.partition('letters')[2]}"
            row.student = printable_name(row.student)
        whose.setdefault(row.student, []).append((hand, row))
    rows = [_chosen(both, exercise, others, rules) for both in whose.values()]
    for person in people or ():
        if person.student not in whose:
            rows.append(Collected(person.student, email=person.email, refused=NOTHING))
    return sorted(rows, key=lambda row: row.student)


def _find(hand: _Hand, known: roster.Roster) -> tuple[roster.Person | None, str]:
    """Whose it is; in Moodle also "Participant" with its number, and "Group-Name" with the number of the name."""
    name = "" if hand.name in hand.logins else hand.name
    person, how = known.find(name, (hand.number, *hand.logins))
    for other in (f"{name} {hand.number}", *(name[i + 1 :] for i, c in enumerate(name) if c == "-")):
        if person is None and hand.number:
            person, also = known.find(other, (hand.number,))
            person, how = (person, also) if also == BOTH else (None, how)
    return person, how


def _chosen(both: list[tuple[_Hand, Collected]], exercise: str, others: set[str], rules: Rules | None) -> Collected:
    """The one notebook of a student that counts, with words about all others."""
    candidates, words = [], list[str]()
    for hand, row in both:
        held, remarks = _notebooks(hand.files)
        named = [each for each in held if _likeness(each.name)[0] == exercise.lower()]
        if not named and len(held) == 1 and _likeness(held[0].name)[0] not in {other.lower() for other in others}:
            named = held
            remarks += _called(held[0], hand)
        for each in named:
            time = hand.times.get(each.file.parts[:2], row.handed_in)
            time = time and aware(time, rules.zone if rules else None)
            at = [each.timestamp() if each else 0.0 for each in (time, each.file.time)]
            order = (at[0], each.number, _likeness(each.name)[1], at[1], -len(each.file.parts), each.file.path)
            candidates.append((order, each.file, hand, replace(row, handed_in=time)))
        if not named:
            names = ", ".join(printable_name(each.name) for each in (held or hand.files)[:5])
            row.handed_in = None
            row.refused = row.refused or f"expected one notebook {exercise}{ENDING}; there is {names}"
            remarks += [f"{printable_name(hand.top)}: {row.refused}"] if len(both) > 1 else []
        words += remarks
    if not candidates:
        return replace(both[0][1], remark="; ".join(words))
    candidates.sort(key=lambda candidate: candidate[0])
    rule = rules.attempts if rules else "newest"
    _, file, hand, row = candidates[0 if rule == "oldest" else -1]
    if len(candidates) > 1 or hand.attempts > 1:
        rest = [other.path for _, other, _, _ in candidates if other is not file]
        words.append(f"{_TWICE}; the {rule} counts" + (f", not {', '.join(rest[:5])}" if rest else ""))
        if rule == "refuse":
            row.refused = f"{_TWICE}: {', '.join(other.path for _, other, _, _ in candidates[:5])}"
    row.remark = "; ".join(words)
    row.source, row.file = file.path, None if row.refused else file
    row.late = "as the system marks it" if hand.late else ""
    if rules and (deadline := rules.deadline_of(row.student)):
        if row.handed_in and (late := late_by(row.handed_in, deadline)).total_seconds() > 0:
            row.late = f"by {late.days} d {late.seconds // 3600} h {late.seconds % 3600 // 60} min"
        elif row.handed_in:
            row.late = ""  # an extension, of which the system knows nothing
    return row


def _called(held: _Held, hand: _Hand) -> list[str]:
    """Words about a notebook that is not called after the exercise; none where it is called after its student."""
    own = held.name.lower().removesuffix(ENDING) == hand.name.lower()
    return [] if own else [f"its notebook is called {printable_name(held.name)}"]


def _notebooks(files: list[_Held]) -> tuple[list[_Held], list[str]]:
    """The notebooks among the files of one student, also those in a zip where there are no others, and words."""
    refused = [each.file for each in files if each.file.refused and each.file.parts[-1] != archive.REPOSITORY]
    words = [f"{file.path}: {file.refused}" for file in refused[:5]]
    notebooks, zips = ([each for each in files if each.ends(ending)] for ending in (ENDING, ".zip"))
    if notebooks:
        return notebooks, words + [f"{each.file.path} was not opened" for each in zips[:5]]
    for each in zips[:3]:
        try:
            inner = [_Held(each.number, file.parts[-1], file) for file in archive.inside(each.file)]
        except ValueError as error:
            words.append(f"{each.file.path}: {error}")
            continue
        found, more = _notebooks([held for held in inner if not held.ends(".zip")])
        notebooks, words = notebooks + found, words + more
    return notebooks, words
