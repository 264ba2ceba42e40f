"""The files of a download, a folder or a zip, in one list. Nothing is unpacked and no link is followed.

What one student packed is bounded in number, depth, size and ratio, and what is beyond is refused with its reason. The
bounds hold for each entry of the top, which is one student in all forms of `classroom`, so that nobody pays for another.
"""

import io
import os
import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from unicodedata import normalize

from .collect import read_regular
from .untrusted import MAX_FILE, printable_name

MAX_FILES = 2000  # of one student
MAX_DEPTH = 8  # folders in folders
MAX_NAME = 255  # characters; no file system takes more bytes
MAX_LISTING = 16 * 2**20  # bytes of the list of files in a zip, each at least 46
MAX_RATIO = 200  # by which a file of more than 1 MiB may have been compressed; a notebook has 3 to 20
CHUNK = 2**20
REPOSITORY = ".git"  # a sign of a clone; what it holds is never looked at, and git is never run on it
_OF_THE_SYSTEM = ("__MACOSX", "desktop.ini", "Thumbs.db", "__pycache__")


@dataclass(frozen=True)
class File:
    """A file of a download, or why it cannot be one."""

    parts: tuple[str, ...]  # of its path, in NFC; never "..", never empty
    time: datetime | None = None  # as the disk or the zip has it, which is often that of the download
    refused: str = ""
    content: Callable[[], bytes] | None = None

    @property
    def path(self) -> str:
        """Its path in one printable line."""
        return "/".join(map(printable_name, self.parts))

    def read(self) -> bytes:
        """Its bytes.

        Raises:
            ValueError: it was refused, cannot be read, or is larger than ``MAX_FILE``.
        """
        if self.content is None:
            raise ValueError(self.refused)
        return self.content()


@contextmanager
def opened(source: Path) -> Iterator[list[File]]:
    """The files of a folder or a zip, sorted by their paths; they can be read inside the block.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: it is a file and no zip, or has too many files to be listed.
    """
    if source.is_dir():
        yield _bounded(_folder(source))
    elif source.is_file():
        with source.open("rb", buffering=0) as file:
            try:
                files = _bounded(_zip(file))
            except ValueError as error:
                raise ValueError(f"{source}: {error}; unpack it yourself and give the folder") from None
            yield files
    else:
        raise FileNotFoundError(f"no folder of submissions at {source}, and no zip")


def inside(file: File) -> list[File]:
    """The files of a zip that a student handed in; zips in it are files. It is not kept in memory.

    Raises:
        ValueError: it cannot be read, or is no zip.
    """
    files = list(_zip(io.BytesIO(file.read())))
    if len(files) > MAX_FILES:
        raise ValueError(f"the zip holds more than {MAX_FILES} files")
    return [
        replace(each, parts=(*file.parts, *each.parts), content=each.content and partial(_reopened, file, i))
        for i, each in enumerate(files)
    ]


def _reopened(file: File, i: int) -> bytes:
    return list(_zip(io.BytesIO(file.read())))[i].read()


def _bounded(files: Iterable[File]) -> list[File]:
    """Sorted, and at most so many files of each entry at the top."""
    kept, count = [], Counter[str]()
    for file in files:
        count[file.parts[0]] += 1
        if count[file.parts[0]] <= MAX_FILES:
            kept.append(file)
        elif count[file.parts[0]] == MAX_FILES + 1:
            kept.append(File(file.parts[:1], refused=f"more than {MAX_FILES} files; the others were not looked at"))
    return sorted(kept, key=lambda file: file.parts)


def _folder(folder: Path) -> Iterator[File]:
    with os.scandir(folder) as entries:
        for entry in entries:
            parts = (normalize("NFC", entry.name),)
            if not _of_the_system(entry.name):
                if entry.is_symlink() or not entry.is_dir(follow_symlinks=False):
                    yield _file(Path(entry.path), parts)
                else:
                    yield from _walk(Path(entry.path), parts)


def _walk(top: Path, first: tuple[str, ...]) -> Iterator[File]:
    """All files below, without following a link; what it holds beyond the bounds is not even listed."""
    looked, unread = 0, list[OSError]()
    for at, folders, names in os.walk(top, onerror=unread.append):
        parts = (*first, *(normalize("NFC", part) for part in Path(at).relative_to(top).parts))
        links = [name for name in folders if os.path.islink(os.path.join(at, name))]
        if REPOSITORY in folders:
            yield File((*parts, REPOSITORY), refused="is not looked at")
        if len(parts) > MAX_DEPTH and folders:
            yield File(parts, refused=f"more than {MAX_DEPTH} folders in each other are not looked at")
            links, folders[:] = [], []
        folders[:] = [name for name in folders if not _of_the_system(name) and name not in links]
        yield from (
            _file(Path(at, name), (*parts, normalize("NFC", name)))
            for name in (*names, *links)
            if not _of_the_system(name)
        )
        looked += 1 + len(names)
        if looked > MAX_FILES:
            yield File(first, refused=f"more than {MAX_FILES} files and folders; the others were not looked at")
            return
    yield from (File(first, refused=f"the folder cannot be read ({error.strerror})") for error in unread)


def _file(path: Path, parts: tuple[str, ...]) -> File:
    if path.is_symlink():
        return File(parts, refused="a symbolic link is not followed")
    try:
        time = datetime.fromtimestamp(int(path.lstat().st_mtime)).astimezone()
    except (OSError, ValueError, OverflowError):
        time = None
    return File(parts, time, content=partial(read_regular, path))


def _of_the_system(name: str) -> bool:
    return name in _OF_THE_SYSTEM or (name.startswith(".") and not name.startswith(".."))


class _Listed(io.BufferedReader):
    """A file whose list of files zipfile reads at once, hence with a bound."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > MAX_LISTING:
            raise ValueError("the zip holds too many files")
        return super().read(size)


def _zip(raw: io.RawIOBase | io.BytesIO) -> Iterator[File]:
    try:
        archive = zipfile.ZipFile(_Listed(raw))  # type: ignore[arg-type]  # BytesIO has all that is used of a raw file
        members = archive.infolist()
    except Exception as error:  # zipfile raises many kinds on what is no zip
        raise ValueError(f"this is no zip that can be read ({error})") from None
    repositories = set()
    for member in members:
        names = tuple(part for part in _name(member).replace("\\", "/").split("/") if part not in ("", "."))
        parts = tuple(part[:MAX_NAME] for part in names[: MAX_DEPTH + 2])
        if REPOSITORY in parts[1:]:
            parts = parts[: parts.index(REPOSITORY) + 1]
            if parts not in repositories:
                repositories.add(parts)
                yield File(parts, refused="is not looked at")
        elif not member.is_dir() and not any(map(_of_the_system, parts)):
            yield _member(archive, member, names, parts)


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, names: tuple[str, ...], parts: tuple[str, ...]) -> File:
    size, packed, mode = member.file_size, max(1, member.compress_size), member.external_attr >> 16
    safe = tuple(part for part in parts if part != "..") or ("(without a name)",)
    if ".." in names or _name(member).startswith(("/", "\\")) or names[:1] == () or names[0].endswith(":"):
        return File(safe, refused="its path leaves the folder")
    if parts != names or len(parts) > MAX_DEPTH + 1:
        return File(safe, refused=f"more than {MAX_DEPTH} folders in each other, and longer names, are not looked at")
    if stat.S_ISLNK(mode):
        return File(safe, refused="a symbolic link is not followed")
    if member.flag_bits & 1:
        return File(safe, refused="is encrypted")
    if size > MAX_FILE:
        return File(safe, refused=f"has {size / 2**20:.0f} MiB; at most {MAX_FILE // 2**20} are read")
    if size > 2**20 and size > MAX_RATIO * packed:
        return File(safe, refused=f"was compressed by more than {MAX_RATIO}, as no notebook is")
    try:
        time = datetime(*member.date_time).astimezone()
    except (ValueError, OverflowError, OSError):
        time = None
    return File(safe, time, content=partial(_unpacked, archive, member))


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Its bytes, whatever size it claims to have."""
    data = bytearray()
    try:
        with archive.open(member) as file:
            while chunk := file.read(CHUNK):
                data += chunk
                if len(data) > MAX_FILE:
                    raise ValueError(f"has more than {MAX_FILE // 2**20} MiB")
    except Exception as error:  # as above
        raise ValueError(f"it cannot be unpacked ({printable_name(str(error))})") from None
    return bytes(data)


def _name(member: zipfile.ZipInfo) -> str:
    """In NFC; macOS writes UTF-8 without saying so, Windows the code page of DOS."""
    name = member.orig_filename
    if not member.flag_bits & 0x800:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return normalize("NFC", name.partition("\0")[0])
