"""Passes in chunks: taken up again after a kill, never from other data, and the same on every executor."""

import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from influence_by_hand import TEST, TRAIN, two_layers
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from interp_lab import influence, trak
from interp_lab.explain_decision.influence import passes

pytestmark = pytest.mark.filterwarnings("ignore:the model is not at a minimum")


def by_trak(**options) -> torch.Tensor:
    options = {"models": [two_layers(0), two_layers(1)], "train": TRAIN, "test": TEST, "batch_size": 8} | options
    return trak(**options, dimension=12)


def by_ekfac(**options) -> torch.Tensor:
    options = {"model": two_layers(), "train": TRAIN, "test": TEST, "batch_size": 8} | options
    return influence(**options, solver="ekfac", damping=1.0)


CALLS = pytest.mark.parametrize("call", [by_trak, by_ekfac])


@pytest.fixture
def computed(monkeypatch) -> list[int]:
    """The chunks that are computed in this process, one entry each; a sum is kept after each of them."""
    monkeypatch.setattr(passes, "SECONDS", 0.0)
    chunks, compute = [], passes._computed
    monkeypatch.setattr(passes, "_computed", lambda *args: chunks.append(1) or compute(*args))
    return chunks


@CALLS
@pytest.mark.parametrize("after", [2, 5, 7, 12])
def test_a_call_that_was_killed_goes_on_after_its_last_chunk(call, after, computed, monkeypatch, tmp_path):
    whole = call()
    needed = len(computed)  # 5 chunks of 8 examples, for two models or in three passes
    assert needed == {by_trak: 10, by_ekfac: 15}[call]
    computed.clear()
    compute = passes._computed

    def killed(*args):
        if len(computed) == after:
            raise KeyboardInterrupt
        return compute(*args)

    with monkeypatch.context() as context:
        context.setattr(passes, "_computed", killed)
        if after < needed:
            with pytest.raises(KeyboardInterrupt):
                call(folder=tmp_path)
    assert_close(call(folder=tmp_path), whole, rtol=1e-12, atol=0)
    assert len(computed) == needed
    assert_close(call(folder=tmp_path), whole, rtol=1e-12, atol=0)
    assert len(computed) == needed, "nothing was left to do"
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors"}
    for path in tmp_path.iterdir():
        with safe_open(path, "pt") as file:
            assert file.keys()


@CALLS
def test_what_was_kept_of_other_data_or_another_model_is_not_taken(call, tmp_path):
    call(folder=tmp_path, batch_size=20)
    x, y = TRAIN
    model = "models" if call is by_trak else "model"
    for change in (
        {"train": (torch.cat([x[:30], x[30:] + 0.1]), y)},
        {"train": (x, torch.cat([y[:30], (y[30:] + 1) % 3]))},
        {"train": (torch.cat([x[:35], x[:5]]), torch.cat([y[:35], y[:5]]))},
        {"train": (x[:33], y[:33])},
        {"test": (x[:4], y[:4])},
        {model: nn.Sequential(*two_layers(), nn.ReLU())},
        {model: two_layers(2)},
        {"parameters": "3"},
    ):
        options = {"batch_size": 20, **change}
        assert_close(call(folder=tmp_path, **options), call(**options), rtol=1e-9, atol=1e-12)


class Scaled(nn.Module):
    """Its text is that of every other, what it does is not."""

    factor = 1.0

    def forward(self, x):
        return x * self.factor


def test_another_function_of_the_same_text_is_not_taken(tmp_path, monkeypatch):
    model = nn.Sequential(Scaled(), nn.Linear(8, 3)).double()
    calls = (
        lambda **options: trak(model, TRAIN, TEST, dimension=12, **options),
        lambda **options: influence(model, TRAIN, TEST, solver="kfac", damping=1.0, **options),
    )
    for call in calls:
        before = call(folder=tmp_path)
        monkeypatch.setattr(Scaled, "factor", 0.5)
        assert_close(call(folder=tmp_path), call())
        assert (call() - before).norm() > 0.01 * before.norm()
        monkeypatch.setattr(Scaled, "factor", 1.0)
    first, second = (
        {"loss": lambda z, y, w=w: w * F.cross_entropy(z, y), "solver": "ekfac", "damping": 1.0} for w in (1.0, 2.0)
    )
    influence(model, TRAIN, TEST, folder=tmp_path, **first)
    assert_close(influence(model, TRAIN, TEST, folder=tmp_path, **second), influence(model, TRAIN, TEST, **second))


def test_models_and_data_are_told_apart_though_the_first_outputs_or_all_losses_are_the_same(tmp_path):
    x, y = TRAIN[0].clone(), TRAIN[1]
    x[:2] = 0  # the outputs are the biases
    linear = nn.Linear(8, 3).double()
    linear.bias.data.abs_()
    models = [nn.Sequential(linear, last) for last in (nn.Identity(), nn.ReLU())] + [
        nn.Sequential(nn.Linear(8, 3).double(), nn.Identity())
    ]
    models[2][0].bias.data = linear.bias.data
    for model in models:
        assert_close(by_trak(models=model, train=(x, y), folder=tmp_path), by_trak(models=model, train=(x, y)))
    nn.init.zeros_(linear.weight), nn.init.zeros_(linear.bias)
    for train in ((x, y), (x + 1, y)):
        assert_close(by_ekfac(model=linear, train=train, folder=tmp_path), by_ekfac(model=linear, train=train))


def test_more_models_and_other_test_examples_take_the_features_that_are_there(computed, tmp_path):
    by_trak(models=two_layers(0), folder=tmp_path)
    computed.clear()
    by_trak(models=[two_layers(0), two_layers(1)], test=(TRAIN[0][:4], TRAIN[1][:4]), folder=tmp_path)
    assert len(computed) == 5


class ByValue(Executor):
    """Sends everything as another process would get it, and finishes a task only when it is asked for."""

    waiting = most = 0

    def submit(self, function, /, *args):
        executor, sent = self, pickle.dumps((function, args))

        class Late(Future):
            def result(self, timeout=None):
                executor.waiting -= 1
                function, args = pickle.loads(sent)
                return function(*args)

        self.waiting += 1
        self.most = max(self.most, self.waiting)
        return Late()


@CALLS
def test_every_executor_gives_the_same(call, computed, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    whole, executor = call(), ByValue()
    assert_close(call(executor=executor), whole, rtol=1e-12, atol=0)
    assert executor.most == 3, "two tasks for a processor and the next one, not all of the data"
    with ThreadPoolExecutor(3) as threads:
        assert_close(call(executor=threads, folder=tmp_path), whole, rtol=1e-12, atol=0)
    computed.clear()
    assert_close(call(folder=tmp_path), whole, rtol=1e-12, atol=0)
    assert not computed


def test_what_cannot_be_sent_to_an_executor_is_refused():
    with pytest.raises(ValueError, match=r"model and a loss that can be pickled, .*lambda"):
        by_ekfac(executor=ByValue(), loss=lambda z, y: F.cross_entropy(z, y))


@CALLS
def test_a_bar_tells_the_time_left_where_it_is_asked_for(call, capsys, tmp_path):
    call(folder=tmp_path)
    assert capsys.readouterr().err == ""
    for _ in range(2):  # the second call only reads
        call(progress=True, folder=tmp_path)
        told = capsys.readouterr().err
        for name in {by_trak: ["projected gradients"], by_ekfac: ["second moments", "inner products"]}[call]:
            assert f"{name}: 100%" in told
        assert "40/40" in told


SCRIPT = """
import sys, time, torch
from torch import nn
from interp_lab import trak
class Slow(nn.Linear):
    def forward(self, x):
        time.sleep(float(sys.argv[2]))
        return super().forward(x)
torch.manual_seed(0)
model, x = Slow(8, 3), torch.randn(60, 8)
result = trak(model, (x, torch.arange(60) % 3), (x[:2], torch.tensor([0, 1])), dimension=12, batch_size=2, folder=sys.argv[1])
print(result.flatten().tolist())
"""


@pytest.mark.slow
def test_a_process_that_was_killed_leaves_whole_files(tmp_path):
    def started(folder: str, seconds: str) -> subprocess.Popen:
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / folder), seconds]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def kept() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*.safetensors")}

    process = started("killed", "0.05")
    while len(kept()) < 5:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = kept()
    assert len(before) < 30
    again, fresh = (started(folder, "0").communicate()[0] for folder in ("killed", "fresh"))
    assert again == fresh
    assert again.startswith("[")
    assert before.items() <= kept().items(), "no file was written anew"
    assert len(kept()) == 30
