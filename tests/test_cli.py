"""The command: subcommands, their errors, and a sweep from the shell."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from interp_lab import METHODS, cli, data

SHARED = Path(__file__).parents[1] / ".." / "shared" / "data" / "torchvision-data"
SMALL = ["--methods", "saliency", "--fractions", "0.5", "--seeds", "0", "--epochs", "1"]


@pytest.fixture
def few_images(monkeypatch, tmp_path):
    """Every data set cut to 60 images; the working directory is an empty one."""
    for name in ("digits", "scenes"):
        loader = getattr(data, name)
        monkeypatch.setattr(data, name, lambda *args, loader=loader, **options: loader(*args, **options)[:60])
    monkeypatch.chdir(tmp_path)


def test_an_installed_package_adds_a_command(tmp_path, monkeypatch, capsys):
    (tmp_path / "greeter-1.dist-info").mkdir()
    (tmp_path / "greeter-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: greeter\nVersion: 1\n")
    (tmp_path / "greeter-1.dist-info" / "entry_points.txt").write_text("[interp_lab.commands]\ngreet = greeter:add\n")
    (tmp_path / "greeter.py").write_text(
        "def add(commands): commands.add_parser('greet').set_defaults(run=greet)\n"
        "def greet(options): raise ValueError('good morning')\n"
    )
    with pytest.raises(SystemExit):
        cli.main(["greet"])
    monkeypatch.syspath_prepend(str(tmp_path))
    assert cli.main(["greet"]) == 2
    assert capsys.readouterr().err.endswith("interp-lab: good morning\n")


def test_no_module_of_the_package_imports_the_grader():
    for path in Path(cli.__file__).parent.rglob("*.py"):
        assert not re.search(r"^\s*(from|import) grader\b", path.read_text(encoding="utf-8"), re.MULTILINE), path


@pytest.mark.parametrize("sweep", ["roar", "kar"])
def test_a_sweep_prints_its_table_and_resumes_from_its_file(sweep, few_images, capsys):
    assert cli.main([sweep, *SMALL]) == 0
    table = capsys.readouterr().out
    assert [line.split()[0] for line in table.splitlines()[3:]][-1] == "whole"
    assert {"saliency", "random", "edges"} <= {line.split()[0] for line in table.splitlines()}
    assert ("most" if sweep == "roar" else "least") in table
    rows = [json.loads(line) for line in Path(f"{sweep}-digits.jsonl").read_text().splitlines()]
    assert len(rows) == 1 + 4
    assert cli.main([sweep, *SMALL]) == 0
    assert capsys.readouterr().out == table
    # Another sweep into the same file is an error in one line, without a traceback.
    assert cli.main([sweep, *SMALL, "--epochs", "2"]) == 2
    assert f"{sweep}-digits.jsonl holds another sweep, with epochs 1, not 2" in capsys.readouterr().err


def test_all_methods_run_by_default(few_images, capsys):
    assert cli.main(["roar", "--fractions", "0.5", "--seeds", "0", "--epochs", "1", "--results", "here.jsonl"]) == 0
    names = {line.split()[0] for line in capsys.readouterr().out.splitlines()[3:]}
    assert names == {*METHODS, "random", "edges", "whole"}
    assert Path("here.jsonl").is_file()


def test_mistakes_are_one_line(few_images, capsys, monkeypatch):
    monkeypatch.delenv("INTERP_LAB_DATA", raising=False)
    assert cli.main(["roar", "--methods", "salience"]) == 2
    assert capsys.readouterr().err.startswith("interp-lab: no method 'salience'; METHODS has saliency")
    assert cli.main(["roar", "--data", "mnist"]) == 2
    assert "set INTERP_LAB_DATA" in capsys.readouterr().err
    assert cli.main(["roar", *SMALL, "--folder", "missing"]) == 2
    assert "missing" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([])
    with pytest.raises(SystemExit):
        cli.main(["roar", "--data", "cats"])


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder shared/ is not beside the checkout")
def test_a_sweep_on_mnist(few_images, capsys, monkeypatch):
    monkeypatch.setenv("INTERP_LAB_DATA", str(SHARED))
    assert cli.main(["roar", "--data", "mnist", *SMALL]) == 0
    assert "saliency" in capsys.readouterr().out
    assert Path("roar-mnist.jsonl").is_file()


@pytest.mark.slow
def test_the_installed_command_spreads_a_sweep(tmp_path):
    pytest.importorskip("distributed")
    written = []
    for way in ("none", "dask"):
        command = [Path(sys.executable).with_name("interp-lab"), "roar", *SMALL, "--executor", way, "--results", way]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300)
        assert "saliency" in run.stdout
        assert "cell" in run.stderr, "the progress bar"
        written.append((run.stdout, sorted((tmp_path / way).read_text().splitlines())))
    assert written[0] == written[1]
