"""For all tests and notebooks: one thread, so that sums come in one order and they can run side by side."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported; subprocesses and kernels inherit it
