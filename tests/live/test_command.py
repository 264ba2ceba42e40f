"""`interp-lab live`, and what it does not read."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from interp_lab import cli
from interp_lab.live.command import read_tensors

NETWORK = """from torch import nn

def small():
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))

def smooth():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.GELU(), nn.Linear(4, 3))
"""


def of_ones_own(tmp_path: Path) -> Path:
    """A folder with a network of one's own, its weights, and images."""
    (tmp_path / "mine.py").write_text(NETWORK)
    small = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
    smooth = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.GELU(), nn.Linear(4, 3))
    save_file(small.state_dict(), tmp_path / "small.safetensors")
    save_file(smooth.state_dict(), tmp_path / "smooth.safetensors")
    save_file({"images": torch.rand(3, 3, 8, 8), "labels": torch.tensor([0, 1, 2])}, tmp_path / "images.safetensors")
    return tmp_path


@pytest.fixture
def folder(tmp_path):
    return of_ones_own(tmp_path)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A page with all methods, by the command."""
    folder = of_ones_own(tmp_path_factory.mktemp("mine"))
    assert command(folder, "small", "small.safetensors", "--classes", "a", "b", "c") == 0
    return folder / "page.html"


def command(folder: Path, network: str, weights: str, *options: str) -> int:
    return cli.main(
        ["live", f"{folder / 'mine.py'}:{network}", "--weights", str(folder / weights), "--images",
         str(folder / "images.safetensors"), "--out", str(folder / "page.html"), *options]
    )  # fmt: skip


def test_a_page_of_ones_own_network_is_one_command(written):
    text = written.read_text()
    assert "guided Grad-CAM" in text
    assert '"2: b"' in text
    assert 'src="http' not in text


@pytest.mark.browser
def test_that_page_runs(written, browser):
    context = browser.new_context()
    tab, faults = context.new_page(), []
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.goto(written.as_uri())
    tab.wait_for_function("document.querySelector('.live').dataset.state === 'settled'", timeout=60_000)
    assert "no map" not in tab.locator("[data-part=maps]").inner_text()
    context.close()
    assert not faults


def test_what_cannot_run_in_a_page_is_refused_by_name(folder, capsys):
    assert command(folder, "smooth", "smooth.safetensors", "--methods", "saliency") == 2
    assert "gelu" in capsys.readouterr().err
    assert not (folder / "page.html").exists()
    (folder / "mine.py").write_text(NETWORK.replace("nn.GELU()", "nn.ReLU()"))
    assert command(folder, "smooth", "smooth.safetensors") == 2
    told = capsys.readouterr().err
    assert "guided_grad_cam cannot run in a page" in told
    assert "\ngrad_cam cannot" in told or ": grad_cam cannot" in told
    assert command(folder, "smooth", "smooth.safetensors", "--methods", "saliency", "lrp") == 0
    assert "page.html" in capsys.readouterr().out


class Attack:
    """A pickle that writes a file when it is read."""

    def __reduce__(self):
        return Path.touch, (Path("attacked"),)


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.pt2", "model.safetensors"])
def test_a_model_file_runs_no_code(folder, name, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / name).write_bytes(pickle.dumps(Attack()))
    assert command(folder, "small", name) == 2
    assert "safetensors" in capsys.readouterr().err
    assert not (folder / "attacked").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--methods", "magic"], "unknown methods: magic"), (["--classes", "a"], "3 classes, got 1")],
)
def test_mistakes_of_the_user_are_one_line(folder, options, message, capsys):
    assert command(folder, "small", "small.safetensors", *options) == 2
    assert message in capsys.readouterr().err


def test_other_mistakes(folder, capsys):
    assert command(folder, "large", "small.safetensors") == 2
    assert "no function 'large'" in capsys.readouterr().err
    assert command(folder, "small", "smooth.safetensors") == 2
    assert "does not fit" in capsys.readouterr().err
    assert cli.main(["live", "mine", "--images", "x.safetensors", "--out", "x.html"]) == 2
    assert "needs --weights" in capsys.readouterr().err
    save_file({"pictures": torch.rand(1, 2)}, folder / "images.safetensors")
    assert command(folder, "small", "small.safetensors") == 2
    assert "must hold a tensor 'images'" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError):
        read_tensors(folder / "absent.safetensors")
