"""torchvision imports beside the installed torch, in processes of their own: an import happens once in each."""

import multiprocessing

import pytest

PROCESSES = multiprocessing.get_context("forkserver")  # one that has torch and scikit-learn, and forks the others
PROCESSES.set_forkserver_preload(["torch", "scipy.stats", "sklearn.datasets", "sklearn.mixture", "tqdm.auto"])

# A package of three files that loads its library, names an operator of it in Python, as torchvision does, and is used.
FILES = {
    "__init__.py": "from . import extension, operators, models",
    "extension.py": """
import torch

HAS_OPERATORS = {loads}
if HAS_OPERATORS:  # as a library does when it is loaded: twice would be an error
    torch.library.define("torchvision::{name}", "(Tensor x) -> Tensor")
    torch.library.impl("torchvision::{name}", "CPU", lambda x: x + 1)
""",
    "operators.py": """
import torch

torch.library.register_fake("torchvision::{name}", lambda x: x)
""",
    "models.py": """
from .extension import HAS_OPERATORS

squeezenet1_0 = HAS_OPERATORS
""",
}
DECLARED = "import torch; send([name for name in ('nms', 'qnms', 'other') if hasattr(torch.ops.torchvision, name)])"


@pytest.fixture
def fake(tmp_path):
    """Write a package torchvision whose operator ``name`` comes with its library, which ``loads`` or not."""

    def write(*, loads: bool, name: str = "nms", **files: str):
        package = tmp_path / "torchvision"
        package.mkdir()
        for file, text in FILES.items():
            (package / file).write_text(files.get(file[:-3], text.format(loads=loads, name=name)))
        return tmp_path

    return write


def run(code: str, *, folder=None) -> list:
    """What the code sends from a new process, with `folder` first on its import path."""
    ours, theirs = PROCESSES.Pipe(duplex=False)
    path = "" if folder is None else f"import sys; sys.path.insert(0, {str(folder)!r})\n"
    process = PROCESSES.Process(target=exec, args=(path + code, {"send": theirs.send}))
    process.start()
    process.join()
    assert process.exitcode == 0, "see the captured output"
    return [ours.recv() for _ in iter(ours.poll, False)]


@pytest.mark.parametrize("loads", [True, False])
def test_importing_the_package_neither_imports_torchvision_nor_declares_anything(loads, fake):
    imported = "import sys; import interp_lab.networks, interp_lab.data; send('torchvision' in sys.modules)"
    assert run(f"{imported}\n{DECLARED}", folder=fake(loads=loads)) == [False, []]
    assert run(f"{imported}\n{DECLARED}") == [False, []]


ORDERS = {
    "after": "import interp_lab; import torchvision",
    "before": "import torchvision; import interp_lab",
    "again": "import torchvision; import interp_lab; import torchvision as again; assert again is torchvision",
    "models": "import interp_lab; from torchvision import models; import torchvision",
}


@pytest.mark.parametrize("name", ["nms", "other"])
@pytest.mark.parametrize("order", ORDERS)
def test_a_library_that_loads_keeps_its_operators_in_every_order_of_imports(order, name, fake):
    used = f"import torch; send(torch.ops.torchvision.{name}(torch.ones(1)).item())"
    folder = fake(loads=True, name=name)
    assert run(f"{ORDERS[order]}\n{used}\n{DECLARED}", folder=folder) == [2.0, [name]]


@pytest.mark.parametrize("name", ["nms", "qnms", "other"])
def test_a_failed_import_is_mended_and_nothing_of_it_remains(name, fake):
    code = """
import sys
try:
    import torchvision
except RuntimeError as error:
    send(str(error))
import interp_lab
left = {name: module for name, module in sys.modules.items() if name.startswith("torchvision")}
send(list(left))
import torchvision
assert torchvision is sys.modules["torchvision"]
assert not [name for name, module in left.items() if sys.modules[name] is module]
assert torchvision.extension is sys.modules["torchvision.extension"]
assert torchvision.__spec__.loader.path == torchvision.__file__
send(torchvision.models.squeezenet1_0)
"""
    assert run(f"{code}\n{DECLARED}", folder=fake(loads=False, name=name)) == [
        f"operator torchvision::{name} does not exist",
        ["torchvision.extension"],
        False,
        [name],
    ]


@pytest.mark.parametrize(
    "error",
    ["RuntimeError('compiled with different CUDA versions')", "ImportError('no library')", "OSError('no file')"],
)
def test_another_failure_is_the_users_to_see(error, fake):
    code = """
import interp_lab
for _ in range(2):
    try:
        interp_lab.networks.imagenet("squeezenet1_0")
    except Exception as error:
        send(repr(error))
"""
    assert run(f"{code}\n{DECLARED}", folder=fake(loads=False, operators=f"raise {error}")) == [error, error, []]


NEEDED = {
    "classifier": ("il.networks.imagenet('none')", "torchvision has no classifier 'none'"),
    "digits": ("il.data.digits(source='mnist', root='/none')", "/none"),
    "photos": ("raise ValueError(il.data.photos(size=32).images.shape)", "torch.Size([6, 3, 32, 32])"),
    "blur": ("raise ValueError(il.selectivity(nn.Flatten(), x, x, fill='blur').curve.shape)", "torch.Size([1, 17])"),
}


@pytest.mark.parametrize("use", NEEDED)
def test_what_needs_torchvision_finds_it_beside_the_installed_torch(use):
    call, message = NEEDED[use]
    code = f"""
import torch
from torch import nn
import interp_lab as il, interp_lab.data, interp_lab.networks
x = torch.rand(1, 1, 4, 4)
try:
    {call}
except (ValueError, FileNotFoundError) as error:
    send({message!r} in str(error))
"""
    assert run(code) == [True]


def test_the_installed_torchvision_imports_after_the_package():
    assert run("import interp_lab; import torchvision.models; send(len(torchvision.models.list_models()) > 50)") == [
        True
    ]
