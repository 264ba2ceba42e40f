"""Influence against retraining and closed forms; what is given back, and what is refused."""

import doctest
import warnings

import pytest
import torch
from influence_by_hand import TEST, TRAIN, cloud, fit_softmax, half_square, small_digits, softmax_model, two_layers
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from interp_lab import influence
from interp_lab.explain_decision.influence import definition, random_projections

pytestmark = pytest.mark.filterwarnings("ignore:the model is not at a minimum", "ignore:influence is a first-order")


@pytest.mark.parametrize("solver", ["exact", "cg", "kfac"])
def test_ridge_regression_gives_the_exact_leave_one_out_times_one_minus_the_leverage(solver):
    generator = torch.Generator().manual_seed(0)
    n, weight_decay, eye = 200, 0.1, torch.eye(4, dtype=torch.float64)
    x = torch.randn(n + 5, 4, generator=generator, dtype=torch.float64)
    y = x @ torch.randn(4, 2, generator=generator, dtype=torch.float64) + torch.randn(n + 5, 2, generator=generator)

    def solution(rows):
        a = x[rows]
        return torch.linalg.solve(a.T @ a / n + weight_decay * eye, a.T @ y[rows] / n).T

    everything = torch.arange(n)
    model = nn.Linear(4, 2, bias=False).double()
    model.weight.data = solution(everything)
    test = x[n:], y[n:]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # leverages below .1: neither warning has a reason
        result = influence(model, (x[:n], y[:n]), test, weight_decay=weight_decay, solver=solver, loss=half_square)
    hessian = x[:n].T @ x[:n] / n + weight_decay * eye
    leverage = (x[:n] @ torch.linalg.inv(hessian) * x[:n]).sum(1) / n
    slope = torch.einsum("tk,td->tkd", test[0] @ model.weight.data.T - test[1], test[0])  # of the test losses
    moved = torch.stack([solution(everything[everything != i]) - model.weight.data for i in range(n)])
    assert_close(result, torch.einsum("tkd,ikd->ti", slope, moved) * (1 - leverage), rtol=1e-8, atol=1e-12)


@pytest.fixture(scope="module")
def retrained():
    """Softmax regression on digits: the model, its data, and the true rise of three test losses without each of 25."""
    train, test = small_digits(1200, 500, side=4)
    w = fit_softmax(*train, 0.01)
    losses = F.cross_entropy(softmax_model(w)(test[0]), test[1], reduction="none").detach()
    hard = losses.topk(3).indices
    test = test[0][hard], test[1][hard]
    removed = torch.randperm(1200, generator=torch.Generator().manual_seed(1))[:25]
    rises = []
    for i in removed:
        weights = torch.full((1200,), 1 / 1200, dtype=torch.float64)
        weights[i] = 0
        without = softmax_model(fit_softmax(*train, 0.01, weights, w))
        rises.append(F.cross_entropy(without(test[0]), test[1], reduction="none").detach() - losses[hard])
    return softmax_model(w), train, test, removed, torch.stack(rises, 1)


@pytest.mark.parametrize("solver", ["exact", "cg", "lissa"])
def test_removal_is_predicted_with_its_sign_and_size(retrained, solver):
    model, train, test, removed, rise = retrained
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        predicted = influence(model, train, test, weight_decay=0.01, solver=solver)[:, removed]
    for truth, guess in zip(rise, predicted, strict=True):
        assert torch.corrcoef(torch.stack([truth, guess]))[0, 1] > 0.995
        assert 0.95 < (truth @ guess) / (guess @ guess) < 1.1
        # LiSSA's remaining noise may turn the sign of an influence that is next to nothing.
        told = truth.abs() > (1e-2 * truth.abs().max() if solver == "lissa" else 0)
        assert (truth.sign() == guess.sign())[told].all()


def fit_tanh(train, width: int, weight_decay: float, weights=None, start=None, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Tanh(), nn.Linear(width, 10)).double()
    if start is not None:
        model.load_state_dict(start.state_dict())
    weights = torch.full((len(train[0]),), 1 / len(train[0]), dtype=torch.float64) if weights is None else weights
    optimizer = torch.optim.LBFGS(
        model.parameters(),
        1,
        3000,
        tolerance_grad=1e-8,
        tolerance_change=0,
        history_size=50,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        loss = weights @ F.cross_entropy(model(train[0]), train[1], reduction="none")
        loss = loss + weight_decay / 2 * sum((p**2).sum() for p in model.parameters())
        loss.backward()
        return loss

    optimizer.step(closure)
    return model


@pytest.mark.slow
def test_a_small_network_retrained_from_its_own_weights(seed, verdict):
    """Influence is a derivative, so a tenth of an example is taken and given: without all of it, the loss bends."""
    train, test = small_digits(300, 300)
    model = fit_tanh(train, 8, 0.01, seed=seed)
    hard = F.cross_entropy(model(test[0]), test[1], reduction="none").topk(3).indices
    test = test[0][hard], test[1][hard]
    predicted = influence(model, train, test, weight_decay=0.01)
    removed = torch.cat([predicted.abs().sum(0).topk(4).indices, torch.arange(4)]).unique()
    rises = []
    for i in removed:
        losses = []
        for part in (0.1, -0.1):
            weights = torch.full((300,), 1 / 300, dtype=torch.float64)
            weights[i] *= 1 - part
            changed = fit_tanh(train, 8, 0.01, weights, model)
            losses.append(F.cross_entropy(changed(test[0]), test[1], reduction="none").detach())
        rises.append((losses[0] - losses[1]) / 0.2)
    for truth, guess in zip(torch.stack(rises, 1), predicted[:, removed], strict=True):
        verdict("correlation", torch.corrcoef(torch.stack([truth, guess]))[0, 1], above=0.99)
        verdict("slope", (truth @ guess) / (guess @ guess), above=0.95, below=1.05)


def test_mislabelled_digits_have_the_largest_influence_on_themselves(seed, verdict):
    (x, y), _ = small_digits(1000, 1, torch.float32)
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.randperm(1000, generator=generator)[:100]
    noisy = y.clone()
    noisy[wrong] = (y[wrong] + torch.randint(1, 10, (100,), generator=generator)) % 10
    model = softmax_model(fit_softmax(x.double(), noisy, 0.01).float())
    own = influence(model, (x, noisy), (x, noisy), weight_decay=0.01).diagonal()
    right = torch.ones(1000, dtype=torch.bool).index_fill(0, wrong, False)
    verdict("a wrong one's above a right one's", (own[wrong][:, None] > own[right]).double().mean(), above=0.985)


def test_a_copy_of_the_test_example_is_the_most_helpful():
    train, test = small_digits(300, 300)
    hard = F.cross_entropy(softmax_model(fit_softmax(*train, 0.01))(test[0]), test[1], reduction="none").argmax()
    test = test[0][hard, None], test[1][hard, None]
    train = torch.cat([train[0], test[0]]), torch.cat([train[1], test[1]])
    model = softmax_model(fit_softmax(*train, 0.01))
    for solver in ("exact", "kfac"):
        result = influence(model, train, test, weight_decay=0.01, solver=solver)
        assert result.argmax() == 300
        assert result[0, 300] > 0


def test_the_ends_only():
    model, train, test = two_layers(), cloud(40), cloud(3, seed=2)
    whole = influence(model, train, test, damping=1.0)
    ends = influence(model, train, test, damping=1.0, top=5, batch_size=3)
    values, indices = whole.sort(descending=True)
    assert_close(ends.helpful, values[:, :5])
    assert_close(ends.helpful_indices, indices[:, :5])
    assert_close(ends.harmful, values.flip(1)[:, :5])
    assert_close(ends.harmful_indices, indices.flip(1)[:, :5])


@pytest.mark.parametrize("solver", ["cg", "lissa", "kfac"])
def test_the_model_the_data_and_the_random_state_stay_as_they_were(solver):
    torch.manual_seed(0)
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    model[3].eval()
    model[2].weight.requires_grad_(False)
    model[4].weight.grad = torch.ones(3, 6)
    (x, y), state = cloud(80), {k: v.clone() for k, v in model.state_dict().items()}
    x = x.float()
    before, random = x.clone(), torch.get_rng_state()
    loader = DataLoader(TensorDataset(x, y), batch_size=32)
    result = influence(model, loader, (x[:2], y[:2]), damping=1.0, solver=solver, parameters=["2", "4"], depth=100)
    assert result.dtype == torch.float32
    assert not result.requires_grad
    assert_close(x, before, rtol=0, atol=0)
    assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random)
    assert [m.training for m in model] == [True, True, True, False, True]
    assert torch.equal(model[4].weight.grad, torch.ones(3, 6))
    assert model[4].bias.grad is None
    assert not model[2].weight.requires_grad
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


MODEL = two_layers()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: influence(MODEL, TRAIN, TEST, solver="newton"),
            "solver must be one of exact, cg, lissa, kfac, ekfac, got 'n",
        ),
        (lambda: influence(MODEL, TRAIN, TEST, damping=-1), "damping must be a finite number of at least 0, got -1"),
        (lambda: influence(MODEL, TRAIN, TEST, damping=1, top=41), r"top must lie in 1\.\.40"),
        (
            lambda: influence(two_layers()[:2].append(nn.Linear(6, 1).double()), *[(TRAIN[0], TRAIN[1] * 0)] * 2),
            r"is 0 for one; .* give loss=F\.binary_cross_entropy_with_logits",
        ),
        (
            lambda: influence(nn.Linear(8, 1).double(), *[(TRAIN[0], TRAIN[1] * 0)] * 2, loss=nn.CrossEntropyLoss()),
            "two classes or more, and is 0 for one",
        ),
        (lambda: influence(nn.Linear(8, 3).half(), *[(TRAIN[0].half(), TRAIN[1])] * 2), "in 'weight'; use model.float"),
        (
            lambda: influence(MODEL, *[(torch.ones(12, 5).long(), torch.zeros(12).long())] * 2),
            r"could not be run on x of shape \(2, 5\), torch\.int64",
        ),
        (lambda: influence(nn.LSTM(8, 3).double(), TRAIN, TEST), r"got tuple; wrap it in .* as model\(x\)\.logits"),
        (
            lambda: influence(MODEL, TRAIN, TEST, damping=1, batch_size=0),
            "batch_size must be None or at least 1, got 0",
        ),
        (lambda: influence(MODEL, TRAIN, TEST[0]), r"test must be a pair \(x, y\) of tensors"),
        (lambda: influence(MODEL, (TRAIN[0], TRAIN[1][:3]), TEST), r"train must be a pair .* of one length above 0"),
        (lambda: influence(MODEL, (b for b in [TRAIN]), TEST), "batches that come again in every pass.*got generator"),
        (lambda: influence(MODEL, [], TEST), "train gave no batch"),
        (lambda: influence(MODEL, (TRAIN[0] / 0, TRAIN[1]), TEST), "x must be finite"),
        (lambda: influence(MODEL, (TRAIN[0], TRAIN[1] + 1), TEST), r"of classes in 0\.\.2, got torch.int64 .* to 3"),
        (lambda: influence(MODEL, (TRAIN[0].float(), TRAIN[1]), TEST), "x is torch.float32 on cpu, but parameter"),
        (lambda: influence(MODEL.forward, TRAIN, TEST), "model must be an nn.Module with parameters, got method"),
        (
            lambda: influence(MODEL, TRAIN, TEST, parameters="4"),
            r"no parameter or module '4'; its parameters: 1\.weight",
        ),
        (lambda: influence(MODEL, TRAIN, TEST, parameters=[]), "at least one parameter or module, got none"),
        (
            lambda: influence(MODEL, TRAIN, TEST, loss=nn.CrossEntropyLoss(reduction="none")),
            r"one number, got .*\(1,\)",
        ),
        (
            lambda: influence(nn.Linear(200, 101).double(), *[(torch.ones(2, 200).double(), torch.ones(2).long())] * 2),
            "at most 20000 parameters, got 20301",
        ),
        (
            lambda: influence(
                nn.Linear(8, 1).double(),
                *[(x, y.double()) for x, y in (TRAIN, TEST)],
                damping=1.0,
                loss=F.binary_cross_entropy_with_logits,
            ),
            r"takes a batch of outputs \(1, 1\), .* and of labels \(1,\), .* such as y\[:, None\]\.float\(\)",
        ),
        (
            lambda: influence(
                nn.Linear(8, 1).double(), TRAIN, TEST, damping=1.0, loss=lambda z, y: F.cross_entropy(z, y)
            ),
            "out of bounds.* the cross-entropy needs two logits",
        ),
        (
            lambda: influence(
                nn.Linear(8, 1).double(), *[(x, x[:, 0]) for x, _ in (TRAIN, TEST)], damping=1.0, loss=F.mse_loss
            ),
            r"labels of another shape than the outputs \(here \(40,\) and \(40, 1\)\)",
        ),
        (
            lambda: influence(
                nn.Linear(8, 1).double(),
                *[(x, (y > 0).double()[:, None]) for x, y in (TRAIN, TEST)],
                damping=1.0,
                loss=nn.BCEWithLogitsLoss(weight=torch.rand(40, 1).double()),
            ),
            r"takes a batch of outputs \(1, 1\).* doesn't match the broadcast shape",
        ),
        (
            lambda: influence(MODEL, TRAIN, TEST),
            "not positive definite: its smallest eigenvalue is about .*add damping",
        ),
        (lambda: influence(MODEL, TRAIN, TEST, solver="cg"), "not positive definite: CG met the curvature -.*damping"),
        (lambda: influence(MODEL, TRAIN, TEST, solver="lissa"), "add damping, or give depth"),
        (
            lambda: influence(MODEL, TRAIN, TEST, damping=0.1, solver="lissa", scale=0.01),
            "scale 0.01 is below the largest",
        ),
        (
            lambda: influence(MODEL, TRAIN, TEST, damping=0.1, solver="lissa", depth=3),
            r"relative residual .* depth 3 .*raise",
        ),
        (lambda: influence(MODEL, TRAIN, TEST, damping=1e-5, solver="lissa", depth=30), "which needs damping"),
        (
            lambda: influence(nn.Linear(8, 3, bias=False).double(), (TRAIN[0] * 0, TRAIN[1]), TEST, solver="kfac"),
            "add damping",
        ),
    ],
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("module", [definition, random_projections])
def test_the_examples_of_the_docstrings(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0
