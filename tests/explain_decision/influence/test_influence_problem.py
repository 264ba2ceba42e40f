"""The training set as it passes by, and losses that are the mean of their rows."""

import pytest
import torch
from influence_by_hand import TEST, TRAIN, cloud, gradients_by_loop, two_layers
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from interp_lab import influence

pytestmark = pytest.mark.filterwarnings("ignore:the model is not at a minimum", "ignore:influence is a first-order")


@pytest.mark.parametrize("solver", ["exact", "cg", "lissa", "kfac", "ekfac"])
def test_streams_and_batch_sizes_give_the_same_numbers(solver):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 3, bias=False)).double()
    train, test = cloud(30, shape=(2,)), cloud(3, seed=2, shape=(2,))
    options = {"weight_decay": 0.5, "solver": solver, "depth": 20}
    whole = influence(model, train, test, **options)
    assert_close(influence(model, train, test, batch_size=7, **options), whole, rtol=1e-6, atol=1e-9)
    if solver == "lissa":
        return  # a stream is not shuffled, so that its samples are others
    for stream in (
        [(train[0][:20], train[1][:20]), (train[0][20:], train[1][20:])],
        DataLoader(TensorDataset(*train), batch_size=11),
    ):
        assert_close(influence(model, stream, test, **options), whole, rtol=1e-6, atol=1e-9)


def test_a_training_set_that_changes_between_passes_is_refused():
    for changing in (
        DataLoader(TensorDataset(*TRAIN), batch_size=10, shuffle=True),
        type("Shrinking", (list,), {"__iter__": lambda self: iter([self.pop() for _ in range(len(self) // 2)])})(
            [TRAIN] * 8
        ),
    ):
        with pytest.raises(ValueError, match="turn off its shuffling"):
            influence(two_layers(), changing, TEST, damping=1.0)


WEIGHTS = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)

CLASSES = TRAIN[1]


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(weight=WEIGHTS),
        nn.CrossEntropyLoss(reduction="sum"),
        nn.CrossEntropyLoss(ignore_index=0),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64)),
        lambda z, y: F.cross_entropy(z, y) - z.softmax(1).mean(0).square().sum(),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_loss_that_is_not_the_mean_of_its_rows_is_refused(loss, stream):
    """Also where every batch of the stream holds a single label, or a single row."""
    x, y = TRAIN
    train = [(x[y == k], y[y == k]) for k in (0, 1, 2)] if stream else TRAIN
    for batch_size in (None, 1):
        with pytest.raises(ValueError, match="each with the same weight"):
            influence(two_layers(), train, TEST, damping=1.0, loss=loss, batch_size=batch_size)
    if not isinstance(loss, nn.Module):
        return
    zero = nn.Linear(8, 3).double()
    zero.weight.data.zero_(), zero.bias.data.zero_()  # all losses are equal, their gradients are not
    with pytest.raises(ValueError, match="each with the same weight"):
        influence(zero, train, TEST, damping=1.0, loss=loss)


def test_weights_of_classes_in_the_way_that_the_refusal_tells():
    model, w = two_layers(), WEIGHTS / WEIGHTS[CLASSES].mean()
    found = influence(
        model, TRAIN, TEST, damping=9.0, loss=lambda z, y: (w[y] * F.cross_entropy(z, y, reduction="none")).mean()
    )
    named = dict(model.named_parameters())

    def objective(*parts):
        z = functional_call(model, dict(zip(named, parts, strict=True)), (TRAIN[0],))
        return F.cross_entropy(z, CLASSES, weight=WEIGHTS)

    blocks = torch.autograd.functional.hessian(objective, tuple(p.detach() for p in named.values()))
    sizes = [p.numel() for p in named.values()]
    rows = [
        torch.cat([b.reshape(m, n) for b, n in zip(row, sizes, strict=True)], 1)
        for row, m in zip(blocks, sizes, strict=True)
    ]
    matrix = torch.cat(rows) + 9 * torch.eye(sum(sizes), dtype=torch.float64)
    own, tested = (w[y][:, None] * gradients_by_loop(model, x, y) for x, y in (TRAIN, TEST))
    assert_close(found, tested @ torch.linalg.solve(matrix, own.T) / len(CLASSES))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_mean_is_known_where_the_training_losses_are_next_to_nothing(dtype):
    model = nn.Linear(8, 3).to(dtype)
    x, y = torch.eye(8, dtype=dtype)[:3] * 20, torch.arange(3)
    for scale in (0.1, 0.5, 1.0, 3.0):
        model.weight.data, model.bias.data = torch.eye(3, 8, dtype=dtype) * scale, torch.zeros(3, dtype=dtype)
        influence(model, (x, y), (x / 20, y), damping=1.0)
