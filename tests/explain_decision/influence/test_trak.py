"""TRAK against the formula on explicit matrices, against influence, and against networks trained on halves."""

import pytest
import torch
from influence_by_hand import TEST, TRAIN, cloud, fit_softmax, small_digits, softmax_model, two_layers
from scipy.stats import spearmanr
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from interp_lab import influence, trak
from interp_lab.explain_decision.influence import random_projections


def probabilities(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return model(x).softmax(1)[torch.arange(len(x)), y]


def trak_by_hand(models, train, test) -> torch.Tensor:
    """Algorithm 1 of Park et al. with the identity in place of the random matrix, a matrix for each of its letters."""
    hat, q = 0, 0
    for model in models:
        phi, phi_test = (
            torch.stack(
                [
                    torch.cat([g.flatten() for g in torch.autograd.grad((p / (1 - p)).log(), list(model.parameters()))])
                    for p in (probabilities(model, x[i : i + 1], y[i : i + 1])[0] for i in range(len(x)))
                ]
            )
            for x, y in (train, test)
        )
        hat = hat + phi_test @ torch.linalg.pinv(phi.T @ phi, rtol=1e-9) @ phi.T / len(models)
        q = q + torch.diag(1 - probabilities(model, *train)) / len(models)
    return (hat @ q).detach()


def test_without_a_projection_it_is_the_formula_on_explicit_matrices():
    models, train, test = [two_layers(seed, width=2) for seed in (0, 1)], cloud(40), cloud(4, seed=2)
    assert_close(trak(models[0], train, test, dimension=None), trak_by_hand(models[:1], train, test))
    assert_close(trak(models, train, test, dimension=None), trak_by_hand(models, train, test))


class Logistic(nn.Module):
    """Two classes with the logits 0 and w x."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x):
        return torch.stack([torch.zeros_like(x[:, 0]), x @ self.w], 1)


def test_it_is_the_exact_influence_where_all_outputs_have_one_curvature():
    """With p (1 - p) = c for every example, the Hessian of the loss is c / n times the kernel; the loss falls by (1 - p) f."""
    x, _ = cloud(30, shape=(4,))
    w = torch.tensor([1.0, -2.0, 0.5, 1.0], dtype=torch.float64)
    x = x / (x @ w).abs()[:, None]  # w x is 1 or -1
    y = torch.arange(30) % 2
    model, test = Logistic(w), (x[:5] * 1.5, y[:5])
    with pytest.warns(UserWarning, match="not at a minimum"):
        exact = influence(model, (x, y), test)
    p = torch.tensor(1.0, dtype=torch.float64).sigmoid()
    expected = exact * p * (1 - p) / (1 - probabilities(model, *test))[:, None]
    assert_close(trak(model, (x, y), test, dimension=None), expected.detach())


def test_a_projection_that_keeps_every_dimension_of_the_gradients_changes_nothing():
    model, train, test = nn.Linear(8, 3).double(), cloud(60), cloud(4, seed=2)  # 27 parameters, 18 dimensions
    whole = trak(model, train, test, dimension=None)
    for dimension, seed in ((18, 0), (18, 1), (25, 0), (40, 0)):
        assert_close(trak(model, train, test, dimension=dimension, seed=seed), whole)
    below = [trak(model, train, test, dimension=12, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(below[0], below[1])
    assert (below[0] - below[2]).norm() > 0.1 * whole.norm()
    assert (below[0] - whole).norm() > 0.1 * whole.norm()
    twice = trak([model] * 2, train, test, dimension=12)
    assert (twice - below[0]).norm() > 0.1 * whole.norm(), "every model has its own matrix"
    for dimension, double in ((12, below[0]), (25, whole)):
        single = trak(model.float(), *((x.float(), y) for x, y in (train, test)), dimension=dimension)
        assert_close(single.double(), double, rtol=1e-3, atol=1e-4)
        model.double()


def test_the_random_matrix_is_of_signs_and_never_there_as_a_whole(monkeypatch):
    eye = torch.eye(300)
    matrix = random_projections.project(eye, 64, seed=3)
    assert set(matrix.unique().tolist()) == {-1, 1}
    assert_close(matrix @ matrix.T / 64, eye, rtol=0, atol=5 / 64**0.5)  # five deviations of a mean of signs
    monkeypatch.setattr(random_projections, "BLOCK", 1000)

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            self.numel = max(self.numel, out.numel() if isinstance(out, torch.Tensor) else 0)
            return out

    vectors = torch.randn(3, 300)
    with Largest() as largest:
        in_blocks = random_projections.project(vectors, 64, seed=3)
    assert_close(in_blocks, vectors @ matrix)
    assert largest.numel <= 1000


def test_streams_and_batch_sizes_give_the_same_numbers():
    whole = trak(MODEL, TRAIN, TEST, dimension=12)
    x, y = TRAIN
    streams = [(x[:25], y[:25]), (x[25:], y[25:])], DataLoader(TensorDataset(x, y), batch_size=11)
    for train, batch_size in ((TRAIN, 7), (streams[0], None), (streams[0], 3), (streams[1], None)):
        assert_close(trak(MODEL, train, TEST, dimension=12, batch_size=batch_size), whole)


def test_layers_by_name_and_frozen_ones():
    model = two_layers()
    tail, (train, test) = model[3:], (((model[:3](x).detach(), y) for x, y in (TRAIN, TEST)))
    expected = trak(tail, train, test, dimension=12)
    assert_close(trak(model, TRAIN, TEST, dimension=12, parameters="3"), expected)
    model[1].requires_grad_(False)
    assert_close(trak(model.train(), TRAIN, TEST, dimension=12), expected)
    assert model[1].training
    assert model[3].weight.requires_grad


MODEL = nn.Linear(8, 3).double()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: trak([], TRAIN, TEST), "models must be an nn.Module with parameters, or several"),
        (lambda: trak(MODEL.forward, TRAIN, TEST), "models must be an nn.Module"),
        (lambda: trak(MODEL, TRAIN, TEST, dimension=0), "dimension must be None or at least 1, got 0"),
        (lambda: trak(MODEL, TRAIN, TEST, batch_size=0), "batch_size must be None or at least 1, got 0"),
        (lambda: trak(two_layers(), TRAIN, TEST, dimension=40), "in 40 features needs more training examples than that, got 40"),
        (lambda: trak(two_layers(), [TRAIN], TEST, dimension=40), "needs more training examples than that, got 40"),
        (lambda: trak(two_layers(), TRAIN, TEST, dimension=None), "in 75 features needs more training examples"),
        (lambda: trak(nn.Linear(8, 1).double(), TRAIN, TEST), r"two classes or more, .* make torch\.cat"),
        (lambda: trak(MODEL, TRAIN, (TEST[0], TEST[1] + 3)), r"of classes in 0\.\.2"),
        (lambda: trak(MODEL, (TRAIN[0], TRAIN[1] + 3), TEST, dimension=3), r"of classes in 0\.\.2"),
        (lambda: trak(MODEL, (TRAIN[0].float(), TRAIN[1]), TEST, dimension=3), "x is torch.float32 on cpu, but parameter"),
        (lambda: trak(MODEL, (b for b in [TRAIN]), TEST), "batches that come again in every pass.*got generator"),
        (lambda: trak(MODEL, TRAIN, TEST[0]), r"test must be a pair \(x, y\) of tensors"),
        (
            lambda: trak(MODEL, DataLoader(TensorDataset(*TRAIN), batch_size=10, shuffle=True), TEST, dimension=3),
            "turn off its shuffling",
        ),
        (
            lambda: trak([MODEL] * 2, DataLoader(TensorDataset(*TRAIN), batch_size=10, shuffle=True), TEST, dimension=3),
            "turn off its shuffling",
        ),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:influence is a first-order")
def test_scores_predict_the_outputs_of_networks_trained_on_random_halves(seed, verdict):
    """The linear datamodelling score: rank correlation over the halves, mean over the test examples."""
    train, test = small_digits(1200, 60, side=4)
    generator = torch.Generator().manual_seed(seed)

    def fitted(rows: torch.Tensor) -> nn.Module:
        return softmax_model(fit_softmax(train[0][rows], train[1][rows], 1e-3))

    halves = [torch.randperm(1200, generator=generator)[:600] for _ in range(60)]
    outputs = torch.stack([probabilities(fitted(rows), *test).logit() for rows in halves[:50]]).detach()
    inside = torch.stack([torch.zeros(1200).double().index_fill(0, rows, 1) for rows in halves[:50]])

    def score(scores: torch.Tensor) -> float:
        predicted = inside @ scores.T
        return sum(spearmanr(a, b).statistic for a, b in zip(predicted.T, outputs.T, strict=True)) / len(test[0])

    whole, members = fitted(torch.arange(1200)), [fitted(rows) for rows in halves[50:]]
    exact = score(influence(whole, train, test, weight_decay=1e-3))
    one, ten = (score(trak(models, train, test, dimension=50, seed=seed)) for models in (members[:1], members))
    verdict("exact influence", exact, above=0.97)
    verdict("TRAK, ten models", ten, above=0.8)
    verdict("TRAK, ten models against one", ten - one, above=0.1)
