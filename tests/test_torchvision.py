"""torchvision imports beside the installed torch, in processes of their own: an import happens once in each."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).parents[1] / "interp_lab" / "_torchvision.py"
WORKS = "import torchvision; torchvision.models.squeezenet1_0; print('works')"


def run(code: str, *, folder: Path | None = None) -> str:
    """What the code prints, with `folder` first on the import path."""
    command = [
        sys.executable,
        "-c",
        code if folder is None else f"import sys; sys.path.insert(0, {str(folder)!r})\n{code}",
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_torchvision_imports_after_interp_lab():
    assert run(f"import interp_lab._torchvision; {WORKS}") == "works"


def test_failed_import_is_mended():
    code = f"""
try:
    import torchvision
except RuntimeError as error:
    print(error)
    import interp_lab._torchvision
{WORKS}
"""
    printed = run(code)
    if printed == "works":
        pytest.skip("this torchvision was built for this torch: there is nothing to mend")
    assert printed.splitlines() == ["operator torchvision::nms does not exist", "works"]


@pytest.mark.parametrize(("loads", "declared"), [(True, False), (False, True)])
def test_operators_are_declared_only_if_the_library_does_not_load(loads, declared, tmp_path):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").touch()
    library = package / "_C.so"
    if loads:
        library.symlink_to(next((Path(torch.__file__).parent / "lib").glob("*c10.*")))
    else:
        library.write_text("built for another torch")
    code = f"import runpy, torch; runpy.run_path({str(FILE)!r}); print(hasattr(torch.ops.torchvision, 'nms'))"
    assert run(code, folder=tmp_path) == str(declared)
