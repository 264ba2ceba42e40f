"""Kernels that start at once: forked from one process that has imported what every page imports.

A kernel of its own takes two to three seconds of a processor to start and to import torch, and there are half a hundred pages.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from functools import cached_property
from pathlib import Path
from typing import Any

from jupyter_client import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

ROOT = Path(__file__).resolve().parents[1]


class Process:
    """A forked kernel, as far as a provisioner asks for it; it is nobody's child here, so how it ended is not known."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def poll(self) -> int | None:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return 0
        return None

    def wait(self) -> int:
        return 0


class Kernels:
    """The process that forks, from its first kernel to the end of the ``with`` block; no kernel outlives it.

    ``manager`` is the class of kernel managers for `nbclient`. Elsewhere than on Linux it is Jupyter's own, since there a
    process that has loaded torch cannot be forked.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()

    @cached_property
    def _server(self) -> subprocess.Popen:
        command = [sys.executable, "-m", "book.kernels"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def fork(self, arguments: list[str], folder: str) -> Process:
        """A new kernel with these command-line arguments, in a folder."""
        with self._turn:
            print(json.dumps([arguments, folder]), file=self._server.stdin, flush=True)
            return Process(int(self._server.stdout.readline()))

    @property
    def manager(self) -> type[AsyncKernelManager]:
        if sys.platform != "linux":
            return AsyncKernelManager
        kernels = self

        class Forked(LocalProvisioner):
            async def launch_kernel(self, cmd: list[str], **options: Any) -> dict:
                self.process = kernels.fork(cmd[cmd.index("-f") :], str(options["cwd"]))
                self.pid = self.pgid = self.process.pid  # it leads a group of its own, which gets the signals
                return self.connection_info

        class Manager(AsyncKernelManager):
            def __init__(self, **options: Any) -> None:
                super().__init__(**options)
                self.provisioner = Forked(kernel_spec=self.kernel_spec, parent=self)

        return Manager

    def __enter__(self) -> "Kernels":
        return self

    def __exit__(self, *_: object) -> None:
        if "_server" in vars(self):
            self._server.communicate()


def serve() -> None:
    """Fork a kernel for every line of the input, which has its arguments and its folder; answer with its number."""
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # as a kernel does; read at import
    import networkx  # noqa: F401
    import pandas
    import sklearn.datasets
    import sklearn.tree  # noqa: F401
    from ipykernel import kernelapp
    from matplotlib import pyplot  # noqa: F401

    from interp_lab import _torchvision, data, networks, plot  # noqa: F401
    from interp_lab.live import page  # noqa: F401

    pandas.set_option("display.max_columns", 20)  # as in a kernel, of which pandas asks at its import
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a kernel
    for line in sys.stdin:
        arguments, folder = json.loads(line)
        if (number := os.fork()) == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            os.chdir(folder)
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 1)
            try:
                # It ends with this process, as that does with the build, however the build ends.
                kernelapp.launch_new_instance(argv=[*arguments, f"--IPKernelApp.parent_handle={os.getppid()}"])
            finally:
                os._exit(0)
        print(number, flush=True)


if __name__ == "__main__":
    serve()
