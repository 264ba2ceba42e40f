"""Kernels forked from a warm process: they know nothing of each other, and their end is noticed."""

import os
import subprocess
import sys
import time

import nbformat
import pytest

kernels = pytest.importorskip("book.kernels", reason="needs the extra `book`")
NotebookClient = pytest.importorskip("nbclient", reason="needs the extra `book`").NotebookClient
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere kernels are not forked")


@pytest.fixture(scope="module")
def run():
    """A function that runs cells in a new kernel, in a folder, and gives their outputs."""
    with kernels.Kernels() as warm:

        def outputs(folder, *cells):
            notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
            options = {"kernel_manager_class": warm.manager, "extra_arguments": ["--log-level=ERROR"]}
            NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}, **options).execute()
            return [cell.outputs for cell in notebook.cells]

        yield outputs


def test_a_kernel_is_warm_and_begins_with_no_name_in_its_own_folder(run, tmp_path):
    code = "import os, sys\nprint(os.getcwd(), 'interp_lab.plot' in sys.modules, 'torch' in globals(), 'left' in globals())"
    for _ in range(2):
        ((told,), _) = run(tmp_path, code, "left = 1")
        assert told.text.split() == [str(tmp_path), "True", "False", "False"]


def test_figures_of_a_kernel_are_shown_as_in_any_other(run, tmp_path):
    (shown,) = run(tmp_path, "from matplotlib import pyplot as plt\nplt.plot([1, 2])\nplt.show()")
    assert [{*output.data} for output in shown] == [{"image/png", "text/plain"}]


def test_a_kernel_shows_a_wide_table_as_any_other(run, tmp_path):
    cell = "import pandas\npandas.DataFrame([[0.5] * 22], columns=[f'the name of column {k}' for k in range(22)])"
    ordinary = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    NotebookClient(ordinary, extra_arguments=["--log-level=ERROR"]).execute()
    ((shown,),) = run(tmp_path, cell)
    assert shown.data == ordinary.cells[0].outputs[0].data


def test_the_end_of_a_kernel_is_noticed_and_those_that_follow_run(run, tmp_path):
    from nbclient.exceptions import DeadKernelError

    with pytest.raises(DeadKernelError):
        run(tmp_path, "import os\nos._exit(1)")
    ((told,),) = run(tmp_path, "import os\nprint(os.getpid())")
    with pytest.raises(ProcessLookupError):  # nothing of it is left
        os.kill(int(told.text), 0)


BUILD = """
import sys, time
from book.kernels import Kernels
with Kernels() as warm:
    connection = sys.argv[1]
    print(warm.fork(["-f", connection], ".").pid, flush=True)
    time.sleep(60)
"""


def test_no_kernel_outlives_a_build_that_is_killed(tmp_path):
    command = [sys.executable, "-c", BUILD, str(tmp_path / "connection.json")]
    build = subprocess.Popen(command, cwd=kernels.ROOT, stdout=subprocess.PIPE, text=True)
    kernel = kernels.Process(int(build.stdout.readline()))
    while not (tmp_path / "connection.json").exists():  # it is written by a kernel that runs
        assert kernel.poll() is None
        time.sleep(0.1)
    build.kill()
    build.communicate()
    for _ in range(300):
        if kernel.poll() is not None:
            return
        time.sleep(0.1)
    os.kill(kernel.pid, 9)
    pytest.fail("the kernel still runs")
