"""Lanes into the sandbox: bubblewrap around one warm worker process, which forks a child for every request.

What the sandbox stops, by which means:

==================================== ====================================================================================
an attempt to                        is stopped by
==================================== ====================================================================================
read solutions, grader, home, /etc   they are not mounted: only Python's library, /usr/lib and torch are, all read-only
learn a secret of the environment    the environment is emptied but for ``KERNELS``, /proc is hidden
reach the network                    a network namespace without interfaces; no system call for sockets
write where others read              a read-only system; a private /tmp of limited size that ends with the child
see, trace or signal others          namespaces of its own for processes, IPC and users, no capabilities
fork, use up memory or disk, loop    limits on processes, address space, file size, CPU; killed at the wall limit
find traces of another student       the process that reads a request is forked for it alone, and ends with it
return what harms the grader         only JSON and safetensors of limited size and number are read, never a pickle
==================================== ====================================================================================

What it does not promise. A flaw of the Linux kernel, or a side channel of the processor, is not covered: for a
class that you would not let log in on the machine, run the whole grader in a throw-away virtual machine. The side
effects of a function (modes, ``.grad``, the random state) are looked at inside the student's process: a program that
computes the right map and then lies about the rest gets the points for the rest. Copied code is not found.

`Lane` raises `SandboxError` where there is no such protection; ``unsafe=True`` runs the worker unprotected, under the
same limits.
"""

import contextlib
import importlib.metadata
import json
import os
import re
import shutil
import site
import struct
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from interp_lab import _torchvision, check, extract, simulated_device

from . import calls as protocol
from .calls import Call, Outcome
from .untrusted import printable

HERE = Path(__file__).parent
# All that a student's code can see of the course; the first is the program.
INSIDE = [HERE / "worker.py", HERE / "calls.py"]
INSIDE += [Path(str(module.__file__)) for module in (check, extract, simulated_device, _torchvision)]
# Choose the kernels of torch, oneDNN and MKL: the answer runs on the same ones as the reference outside.
KERNELS = ("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS")


@dataclass(frozen=True)
class Limits:
    """Bounds for one student."""

    seconds: float = 10.0  # of a call; times the questions, of the notebook
    memory: int = 2048  # MiB of address space, beyond what the worker maps before it sees the student's code
    disk: int = 16  # MiB of /tmp, and of one file
    output: int = 32  # MiB of the notebook's answers


class SandboxError(RuntimeError):
    """There is no sandbox on this machine, or it did not behave; the message says what to do."""


class Lane:
    """One warm worker. Not safe for several threads at once: each takes its own."""

    def __init__(self, *, unsafe: bool = False, limits: Limits | None = None) -> None:
        self.unsafe, self.limits = unsafe, limits or Limits()
        self.proven: set = set()  # exercises; see `gradebook.prove`
        self._start()
        self._probe()

    def run(self, cells: dict[str, str], wanted: list[list[Call]]) -> list[list[Outcome]]:
        """One outcome for every call of every question, from one process as long as it lives.

        What ends the process, a crash or a limit, is the error of the call that it ended in. The calls after it are
        made in a new process, but for those of the same question when its time was up, and as long as the notebook has
        time and output left.
        """
        calls = [call for question in wanted for call in question]
        owner = [i for i, question in enumerate(wanted) for _ in question]
        seconds, output = self.limits.seconds * len(set(owner)), self.limits.output * 2**20
        outcomes: list[Outcome] = []
        while (done := len(outcomes)) < len(calls):
            if seconds <= 0 or output <= 0:
                outcomes += [Outcome(error="not tried, because the notebook had used up its limits")] * (
                    len(calls) - done
                )
                break
            status, data = self._exchange(protocol.pack_calls(cells, calls[done:]), seconds, output)
            seconds, output = seconds - status["seconds"], output - len(data)
            messages, malformed = protocol.unpack(data, answers=len(calls) - done)
            outcomes += [_outcome(*message) for message in messages]
            if (broken := len(outcomes)) < len(calls):
                outcomes.append(Outcome(error=malformed or self._reason(status)))
                while status["end"] == "time" and owner[len(outcomes) :][:1] == [owner[broken]]:
                    outcomes.append(Outcome(error="not tried, because a call of this question took too long"))
        return [[o for o, i in zip(outcomes, owner, strict=True) if i == q] for q in range(len(wanted))]

    def close(self) -> None:
        """End the worker: by the end of its input, or by force."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self._log.close()

    def _start(self) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed with the lane
        command = _unprotected() if self.unsafe else _command()
        environment = {"PATH": os.environ.get("PATH", "")} | _settings()
        try:
            self.process: Any = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=environment
            )
            with self._killed_after(120):
                status, _ = self._reply()
        except (OSError, SandboxError) as error:
            raise SandboxError(f"{_ADVICE} ({error}; {self._said()})") from None
        assert status == {"end": "ready"}

    def _probe(self) -> None:
        """Refuse a worker that sees more than it should."""
        probe = {"": "import os\ndef probe(): return [os.getuid(), len(os.listdir('/proc')), os.path.exists('/etc')]"}
        try:
            ((outcome,),) = self.run(probe, [[Call("probe", [])]])
        except SandboxError as error:
            self.close()
            raise SandboxError(f"{_ADVICE} ({error})") from None
        if outcome.error:
            self.close()
            raise SandboxError(f"there is a sandbox, but the first call in it failed: {outcome.error}")
        if not (self.unsafe or outcome.result.tolist()[1:] == [0, 0]):
            self.close()
            raise SandboxError(f"{_ADVICE} (the probe gave {outcome})")

    def _exchange(self, request: bytes, seconds: float, output: int) -> tuple[dict, bytes]:
        limits = json.dumps(vars(self.limits) | {"total": seconds, "output": output}).encode()
        for attempt in range(2):
            try:
                with self._killed_after(seconds + 60):
                    self.process.stdin.write(struct.pack("<QQ", len(limits), len(request)) + limits + request)
                    self.process.stdin.flush()
                    return self._reply()
            except (OSError, SandboxError) as error:
                said = str(error)
            if attempt == 0:  # the lane broke, so take another
                self.close()
                self._start()
        raise SandboxError(f"the sandbox stopped working: {said}; {self._said()}")

    @contextlib.contextmanager
    def _killed_after(self, seconds: float) -> Iterator[None]:
        """The worker is killed if this takes longer: it watches its children, this watches the worker."""
        watch = threading.Timer(seconds, self.process.kill)
        watch.daemon = True
        watch.start()
        try:
            yield
        finally:
            watch.cancel()

    def _reply(self) -> tuple[dict, bytes]:
        first, second = struct.unpack("<QQ", self._read(16))
        if first > 2**16 or second > (self.limits.output + 1) * 2**20:
            raise SandboxError("the worker gave a malformed reply")
        return json.loads(self._read(first)), self._read(second)

    def _read(self, size: int) -> bytes:
        data = self.process.stdout.read(size)
        if len(data) < size:
            raise SandboxError("the worker ended")
        return data

    def _said(self) -> str:
        if self._log.closed:
            return "nothing on stderr"
        self._log.seek(0)
        return self._log.read()[-500:].decode(errors="replace").strip() or "nothing on stderr"

    def _reason(self, status: dict) -> str:
        limits = self.limits
        if status["end"] == "time":
            return f"stopped after {limits.seconds:g} seconds; is there a loop that does not end?"
        if status["end"] == "total":
            return f"stopped: by then the notebook had taken {limits.seconds:g} seconds for each question"
        if status["end"] == "output":
            return f"stopped: the notebook gave more than {limits.output} MiB of results"
        ended = f" by signal {status['signal']}" if status.get("signal") not in (0, 9, None) else ""
        return f"the process ended{ended} before it gave an answer; it may take {limits.memory} MiB of memory"


_ADVICE = (
    "There is no sandbox here. Grading needs Linux with bubblewrap (apt install bubblewrap) and user namespaces; on "
    "Ubuntu 24.04 they are allowed by `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, in a container by "
    "running it privileged. --unsafe grades without protection: for code that you trust"
)


def _outcome(header: dict, tensors: dict) -> Outcome:
    """An outcome as far as the student's process told one; it may have sent anything."""

    def said(key: str, most: int) -> str:
        words = header.get(key, "")
        return printable(words if isinstance(words, str) else f"malformed answer ({key} is no text)", most)

    error = said("error", 4000)
    if not error and "result" not in tensors:
        error = "malformed answer (no result)"
    return Outcome(tensors, said("kind", 100), bool(header.get("attached", True)), error, said("left_out", 4000))


def _settings() -> dict[str, str]:
    """All of the grader's environment that the worker keeps: one thread, and the kernels."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return threads | {name: os.environ[name] for name in KERNELS if name in os.environ}


def _unprotected() -> list[str]:
    if not hasattr(os, "fork"):
        raise SandboxError("the worker forks, which Windows cannot; use WSL")
    folders = dict.fromkeys(str(path.parent) for path in INSIDE)
    return [sys.executable, "-I", "-S", "-B", str(INSIDE[0]), "--unsafe", *folders, *_site_packages()]


def _command() -> list[str]:
    """The command line of a sandboxed worker.

    Raises:
        SandboxError: no Linux, or no bubblewrap.
    """
    bwrap = shutil.which("bwrap")
    if not sys.platform.startswith("linux") or bwrap is None:
        raise SandboxError(f"{_ADVICE} ({'no program bwrap' if sys.platform == 'linux' else sys.platform})")
    command = [bwrap, "--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox", "--chdir", "/"]
    command += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if os.getuid() == 0:  # mounts as root, so that nothing must be readable for others; the worker gives root up
        command += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        command += ["--unshare-user"]
    for name, value in _settings().items():
        command += ["--setenv", name, value]
    command += [
        "--setenv",
        "HOME",
        "/tmp",
        "--setenv",
        "MPLBACKEND",
        "Agg",
        "--setenv",
        "LC_ALL",
        "C.UTF-8",
        "--setenv",
        "CUDA_VISIBLE_DEVICES",
        "",
    ]

    python = Path(sys.executable).resolve()
    mounts: dict[Path, Path] = {}  # target -> source
    for path in (Path("/usr/lib"), Path("/usr/lib64"), Path("/lib"), Path("/lib64")):
        if path.is_symlink():
            command += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            mounts[path] = path
    for path in (python, Path(sys.base_prefix, "lib").resolve(), Path(sysconfig.get_path("stdlib")).resolve()):
        if not any(path.is_relative_to(other) for other in mounts):
            mounts[path] = path
    hidden = {*_site_packages(), *site.getsitepackages([sys.base_prefix]), "/usr/lib/python3/dist-packages"}
    covered = {p for p in map(Path, hidden) if p.is_dir() and any(p.is_relative_to(m) for m in mounts)}
    mounts |= {Path("/packages", path.name): path.resolve() for path in _packages()}
    mounts |= {Path("/worker", path.name): path.resolve() for path in INSIDE}
    for folder in sorted({parent for target in mounts for parent in target.parents}):
        command += ["--perms", "0755", "--dir", str(folder)]
    for target, source in mounts.items():
        command += ["--ro-bind", str(source), str(target)]
    for path in sorted(covered):  # may hold the course, or another library's answers
        command += ["--tmpfs", str(path), "--remount-ro", str(path)]
    command += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    command += ["--perms", "1777", "--tmpfs", "/tmp", "--remount-ro", "/"]  # every child gets a /tmp over this one
    return [*command, str(python), "-I", "-S", "-B", "/worker/worker.py", "/worker", "/packages"]


def _site_packages() -> list[str]:
    return sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})


@cache  # half a second, for every lane
def _packages() -> list[Path]:
    """Files and folders of what the course requires and IPython, with what these require: all that can be imported."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = ["ipython", *_required(importlib.metadata.distribution("interp_lab"))]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            if name not in found:
                found[name] = distribution = importlib.metadata.distribution(name)
                waiting += _required(distribution)
    tops = {
        Path(str(distribution.locate_file(file.parts[0])))
        for distribution in found.values()
        for file in distribution.files or []
        if file.parts[0] not in ("..", "__pycache__") and file.suffix != ".pth"
    }
    return sorted(path for path in tops if path.exists())


def _required(distribution: importlib.metadata.Distribution) -> list[str]:
    required = (line for line in distribution.requires or [] if "extra ==" not in line)
    return [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in required]


_of_thread = threading.local()
_open: list[Lane] = []


def lane(unsafe: bool, limits: Limits) -> Lane:
    """The lane of this thread, made on first use."""
    current: Lane | None = getattr(_of_thread, "lane", None)
    if current is None or current not in _open or (current.unsafe, current.limits) != (unsafe, limits):
        current = _of_thread.lane = Lane(unsafe=unsafe, limits=limits)
        _open.append(current)
    return current


def close_lanes() -> None:
    """Close the lanes of all threads of this process."""
    while _open:
        _open.pop().close()
