"""The process inside the sandbox: imports torch once, then forks for every request.

A request comes on stdin and its reply goes to stdout, each as a length and so many bytes. A request is a JSON text of
limits and a message of `calls.pack_calls`; a reply is a JSON line that says how the student's process ended, and the
bytes that it wrote, unread. The warm process touches neither, so that nothing of a student is in the memory that it
forks for the next. It forks a keeper for each request, which reads the limits, makes namespaces of its own, forks the
student's process as the first in them, watches it and replies. The student's process reads the message itself: it
cannot see, signal or trace the others, and what it leaves behind is gone with it.

Run as ``python -I -S worker.py [--unsafe] PATH...`` with the folders to import from. Standard library, torch and
safetensors only; this file never runs on the trusted side.
"""

import ctypes
import gc
import json
import os
import platform
import resource
import select
import signal
import struct
import sys
import time
from typing import Any

NOBODY = 65534
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x08000000, 0x10000000, 0x20000000
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
NO_MORE = 3  # exit status of a keeper that found no request

# System calls that no answer needs, by machine: sockets, System V memory (which outlives its process and escapes the
# limit on address space), keys, tracing, namespaces and mounts, and the kernel's larger attack surfaces.
DENIED = {
    "x86_64": (
        0xC000003E,
        "socket 41 socketpair 53 shmget 29 semget 64 msgget 68 ptrace 101 mount 165 umount2 166 unshare 272 setns 308 "
        "add_key 248 request_key 249 keyctl 250 perf_event_open 298 open_by_handle_at 304 process_vm_readv 310 "
        "process_vm_writev 311 memfd_create 319 bpf 321 userfaultfd 323 mq_open 240 io_uring_setup 425 memfd_secret 447",
    ),
    "aarch64": (
        0xC00000B7,
        "socket 198 socketpair 199 shmget 194 semget 190 msgget 186 ptrace 117 mount 40 umount2 39 unshare 97 setns 268 "
        "add_key 217 request_key 218 keyctl 219 perf_event_open 241 open_by_handle_at 265 process_vm_readv 270 "
        "process_vm_writev 271 memfd_create 279 bpf 280 userfaultfd 282 mq_open 180 io_uring_setup 425 memfd_secret 447",
    ),
}

libc = ctypes.CDLL(None, use_errno=True)


def system(name: str, *arguments) -> None:
    """Call libc, raise OSError where it fails."""
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def prctl(option: int, value: int, pointer=None) -> None:
    system("prctl", option, ctypes.c_ulong(value), pointer or ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))


def own_namespaces() -> None:
    """Processes, mounts, IPC objects and users of its own for the children of this process."""
    uid, gid = os.getuid(), os.getgid()
    system("unshare", CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC)
    for file, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{file}", "w") as handle:
            handle.write(line)


def own_files(megabytes: int) -> None:
    """An empty /tmp of limited size, and no /proc."""
    flags = MS_NOSUID | MS_NODEV
    system("mount", b"tmpfs", b"/tmp", b"tmpfs", ctypes.c_ulong(flags), f"size={megabytes}m,nr_inodes=1000".encode())
    system("mount", b"tmpfs", b"/proc", b"tmpfs", ctypes.c_ulong(flags | MS_NOEXEC | 1), b"size=4k")  # 1: read-only
    os.chdir("/tmp")


def give_up_rights() -> None:
    """No capability in any set, no way to new rights, no system call of ``DENIED``; raises OSError if that fails."""
    for capability in range(64):
        if libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) != 0:
            break  # past the last one of this kernel
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    system("capset", (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())
    architecture, table = DENIED[platform.machine()]
    numbers = [int(word) for word in table.split()[1::2]]

    def instruction(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("<HBBI", code, yes, no, value)

    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06  # BPF_LD_W_ABS, JEQ, JGE, RET
    kill, refuse, allow = 0x80000000, 0x00050001, 0x7FFF0000  # refuse: EPERM
    program = [instruction(load, 4), instruction(equal, architecture, 1), instruction(give, kill), instruction(load, 0)]
    program += [instruction(equal, number, len(numbers) - i + 1) for i, number in enumerate(numbers)]
    program += [instruction(at_least, 0x40000000, 1), instruction(give, allow), instruction(give, refuse)]  # x32
    code = ctypes.create_string_buffer(b"".join(program))
    filter_ = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    prctl(PR_SET_SECCOMP, 2, filter_)


def mapped() -> int:
    """Bytes of address space of this process; 0 on a system without /proc."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except FileNotFoundError:
        return 0


def limit(limits: dict, warm: int) -> None:
    """Bounds of the kernel on this process, which holds ``warm`` bytes. They bound each process, and there can be only one."""
    megabyte = 2**20
    for what, value in (
        (resource.RLIMIT_AS, warm + limits["memory"] * megabyte),
        (resource.RLIMIT_CPU, int(limits["total"]) + 2),
        (resource.RLIMIT_FSIZE, limits["disk"] * megabyte),
        (resource.RLIMIT_NPROC, 1),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        resource.setrlimit(what, (value, value))


def answer(request: bytes, out: int) -> None:
    """Run the student's code and the calls, and write one message for each. All of this is untrusted."""
    import calls
    import extract

    cells, wanted = calls.unpack_calls(request)
    statements, unread = extract.parse(cells)
    namespaces: dict[tuple[str, str], tuple[dict, str]] = {}
    for number, call in enumerate(wanted):
        name = call.function, call.question
        if name not in namespaces:
            namespace, problems = extract.prepare(statements, *name)
            namespaces[name] = namespace, "; ".join(unread + problems)[:2000]
        namespace, problems = namespaces[name]
        header: dict[str, Any] = {"call": number, "left_out": problems}
        tensors: dict = {}
        try:
            if not callable(namespace.get(call.function)):
                raise NameError(f"there is no function {call.function} in the notebook")
            outcome = calls.perform(namespace[call.function], call)
            header |= {"kind": outcome.kind, "attached": outcome.attached}
            tensors = outcome.tensors
        except BaseException as error:  # also SystemExit and KeyboardInterrupt
            header["error"] = extract.describe(error)
        message = memoryview(calls.pack(header, tensors))
        while message:
            message = message[os.write(out, message) :]


def receive(size: int) -> bytes:
    """So many bytes of stdin, or fewer at its end; no buffer, which would read what belongs to another process."""
    parts = []
    while size and (data := os.read(0, min(size, 1 << 20))):
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def child(size: int, limits: dict, out: int, unsafe: bool) -> None:
    try:
        request = receive(size)
        os.write(out, b".")  # the first byte, before any of the student's code
        os.setsid()  # kill(0, ...) reaches the whole process group, also its members outside the namespace
        null = os.open("/dev/null", os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        os.dup2(out, 3)
        os.closerange(4, 1 << 16)
        warm = mapped()  # torch's libraries and this request; a CUDA build maps gigabytes that it never touches
        if not unsafe:
            own_files(limits["disk"])
        if sys.platform == "linux":
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        limit(limits, warm)
        if not unsafe:
            give_up_rights()
        answer(request, 3)
    finally:
        os._exit(0)


def keep(replies: int, unsafe: bool) -> int:
    """One request: run its process, reply how it ended and what it wrote until then, up to the cap. An exit status."""
    if len(sizes := receive(16)) < 16:
        return NO_MORE
    first, second = struct.unpack("<QQ", sizes)
    limits = json.loads(receive(first))
    began = time.monotonic()
    if not unsafe:
        own_namespaces()
    source, out = os.pipe()
    pid = os.fork()
    if pid == 0:
        child(second, limits, out, unsafe)
    os.close(out)
    if os.read(source, 1) != b".":
        raise EOFError("the process of a student ended before it had its request")

    end, parts, size = "", [], 0
    last = first = time.monotonic()
    while not end:
        call, total = last + limits["seconds"], first + limits["total"]
        left = min(call, total) - time.monotonic()
        if left <= 0 or not select.select([source], [], [], left)[0]:
            end = "time" if call <= total else "total"
        elif not (data := os.read(source, 1 << 20)):
            end = "done"
        elif (size := size + len(data)) > limits["output"]:
            end = "output"
        else:
            parts.append(data)
            last = time.monotonic()
    os.close(source)
    os.kill(pid, signal.SIGKILL)  # it is not reaped yet, so the number is still its own
    _, status, _ = os.wait4(pid, 0)
    killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if killed == signal.SIGXCPU:
        end = "total"
    send(replies, {"end": end, "signal": killed, "seconds": time.monotonic() - began}, b"".join(parts))
    return 0


def send(replies: int, status: dict, data: bytes) -> None:
    text = json.dumps(status).encode()
    message = memoryview(struct.pack("<QQ", len(text), len(data)) + text + data)
    while message:
        message = message[os.write(replies, message) :]


def warm_up() -> None:
    """All that torch does once, while /proc is there and before anything is forked."""
    import _torchvision  # noqa: F401  so that a notebook can import torchvision
    import calls
    import extract
    import torch

    extract.parse({"": "%matplotlib inline"})
    torch.set_num_threads(1)
    layers = [("Conv2d", 1, 2, 3), ("BatchNorm2d", 2), ("ReLU",), ("MaxPool2d", 2), ("Flatten",), ("Linear", 18, 3)]
    model = calls.Net.draw(layers, torch.Generator().manual_seed(0)).build()
    x = torch.rand(2, 1, 8, 8, requires_grad=True)
    model(x).softmax(1).sum().backward()
    torch.func.vmap(torch.func.grad(lambda row: model(row[None]).sum()))(x.detach())
    net = calls.Net.draw([("Linear", 2, 2)], torch.Generator().manual_seed(0))
    _, (call,) = calls.unpack_calls(
        calls.pack_calls({}, [calls.Call("f", [net, x.detach()], on_simulated_device=True)])
    )
    calls.perform(lambda model, x: x + torch.zeros_like(x), call)


def main() -> None:
    unsafe = "--unsafe" in sys.argv
    if os.getuid() == 0 and not unsafe:  # root is exempt from the limit on processes
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    if not unsafe:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        prctl(PR_SET_DUMPABLE, 1)  # or its /proc/self belongs to root, and the namespaces cannot be set up
    sys.path[:0] = [path for path in sys.argv[1:] if path != "--unsafe"]
    replies = os.dup(1)
    os.dup2(2, 1)  # a stray print must not end up in the replies
    import check
    import extract

    with extract.stand_in(check):
        serve_all(replies, unsafe)


def serve_all(replies: int, unsafe: bool) -> None:
    """One keeper after the other, each with a request of its own, until the input ends."""
    warm_up()
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/task")) == 1, "a forked process keeps one thread only"
    gc.collect()
    gc.freeze()  # children share these objects' pages
    send(replies, {"end": "ready"}, b"")
    status = 0
    while status == 0:
        keeper = os.fork()
        if keeper == 0:
            status = 1
            try:
                status = keep(replies, unsafe)
            except Exception as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            finally:
                os._exit(status)
        status = os.waitpid(keeper, 0)[1]


if __name__ == "__main__":
    main()
