"""Influence against retraining, closed forms and plain loops over autograd."""

import sys
import warnings
from functools import partial

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from interp_lab import UnsupportedModelError, influence, networks

# Most networks here are not trained; where the warnings matter, a test asks for them.
pytestmark = pytest.mark.filterwarnings("ignore:the model is not at a minimum", "ignore:influence is a first-order")


def half_square(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return ((z - y) ** 2).sum(1).mean() / 2


def small_digits(n: int, n_test: int, dtype=torch.float64):
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    x = torch.from_numpy(data.images / 16).to(dtype)[order, None]
    y = torch.from_numpy(data.target).long()[order]
    return (x[:n], y[:n]), (x[n : n + n_test], y[n : n + n_test])


def fit_softmax(x, y, weight_decay: float, weights=None, start=None) -> torch.Tensor:
    """Softmax regression ``(K, D + 1)`` by Newton's method on the weighted sum of losses, Hessian by hand."""
    a = F.pad(x.flatten(1), (0, 1), value=1.0)
    n, d = a.shape
    weights = a.new_full((n,), 1 / n) if weights is None else weights
    w = a.new_zeros(10, d) if start is None else start

    def objective(w):
        return weights @ F.cross_entropy(a @ w.T, y, reduction="none") + weight_decay / 2 * (w**2).sum()

    squares = (a[:, :, None] * a[:, None, :]).flatten(1)
    for _ in range(50):
        p = (a @ w.T).softmax(1)
        gradient = ((p - F.one_hot(y, 10)) * weights[:, None]).T @ a + weight_decay * w
        if gradient.norm() < 1e-11:
            return w
        r = (torch.diag_embed(p) - p[:, :, None] * p[:, None]) * weights[:, None, None]
        curvature = (r.flatten(1).T @ squares).view(10, 10, d, d).transpose(1, 2).reshape(10 * d, 10 * d)
        curvature.diagonal().add_(weight_decay)
        step, length = torch.linalg.solve(curvature, gradient.flatten()).view_as(w), 1.0
        while objective(w - length * step) > objective(w) and length > 1e-6:
            length /= 2
        w = w - length * step
    raise AssertionError("Newton's method did not converge")


def softmax_model(w: torch.Tensor) -> nn.Sequential:
    model = networks.softmax_regression(w.shape[1] - 1).to(w.dtype)
    with torch.no_grad():
        model[1].weight.copy_(w[:, :-1])
        model[1].bias.copy_(w[:, -1])
    return model


def two_layers(seed: int = 0, width: int = 6) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(8, width), nn.Tanh(), nn.Linear(width, 3)).double()


def cloud(n: int, seed: int = 1, shape=(8,), classes: int = 3):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *shape, generator=generator, dtype=torch.float64)
    return x, torch.randint(classes, (n,), generator=generator)


def gradients_by_loop(model: nn.Module, x, y, loss=F.cross_entropy) -> torch.Tensor:
    rows = []
    for i in range(len(x)):
        grads = torch.autograd.grad(loss(model(x[i : i + 1]), y[i : i + 1]), list(model.parameters()))
        rows.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(rows)


def influence_by_hand(model: nn.Module, train, test, ridge: float, loss=F.cross_entropy) -> torch.Tensor:
    """The formula on the Hessian that torch.autograd builds from the plain batched loss."""
    named = dict(model.named_parameters())
    sizes = [p.numel() for p in named.values()]

    def objective(theta):
        parts = [t.view_as(p) for t, p in zip(theta.split(sizes), named.values(), strict=True)]
        return loss(functional_call(model, dict(zip(named, parts, strict=True)), (train[0],)), train[1])

    theta = torch.cat([p.detach().flatten() for p in named.values()])
    matrix = torch.autograd.functional.hessian(objective, theta) + ridge * torch.eye(len(theta), dtype=theta.dtype)
    solved = torch.linalg.solve(matrix, gradients_by_loop(model, *test, loss).T)
    return (gradients_by_loop(model, *train, loss) @ solved).T / len(train[0])


# Retraining and closed forms


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
    train, test = small_digits(1200, 500)
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


@pytest.mark.parametrize("solver", ["exact", "cg"])
def test_a_warning_at_weak_regularisation_tells_by_how_much_the_steps_are_off(solver):
    train, test = small_digits(600, 20)
    model = softmax_model(fit_softmax(*train, 1e-4))
    with pytest.warns(UserWarning, match=r"it bends here: the true step is [2-9]\.?\d* times the predicted"):
        influence(model, train, test, weight_decay=1e-4, solver=solver)


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
    train, test = small_digits(300, 300)
    model = fit_tanh(train, 8, 0.01, seed=seed)
    losses = F.cross_entropy(model(test[0]), test[1], reduction="none").detach()
    hard = losses.topk(3).indices
    test = test[0][hard], test[1][hard]
    predicted = influence(model, train, test, weight_decay=0.01)
    removed = torch.cat([predicted.abs().sum(0).topk(8).indices, torch.arange(8)]).unique()
    rises = []
    for i in removed:
        weights = torch.full((300,), 1 / 300, dtype=torch.float64)
        weights[i] = 0
        without = fit_tanh(train, 8, 0.01, weights, model)
        rises.append(F.cross_entropy(without(test[0]), test[1], reduction="none").detach() - losses[hard])
    for truth, guess in zip(torch.stack(rises, 1), predicted[:, removed], strict=True):
        verdict("correlation", torch.corrcoef(torch.stack([truth, guess]))[0, 1], above=0.9)
        verdict("slope", (truth @ guess) / (guess @ guess), above=0.9, below=2)


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


# The solvers against the formula


@pytest.mark.parametrize("solver", ["exact", "cg"])
def test_equal_to_the_formula_written_out_on_a_network_with_damping(solver):
    model, train, test = two_layers(), cloud(40), cloud(7, seed=2)
    by_hand = influence_by_hand(model, train, test, 0.02 + 0.3)
    result = influence(model, train, test, weight_decay=0.02, damping=0.3, solver=solver)
    assert_close(result, by_hand, rtol=1e-7, atol=1e-11)


def test_lissa_agrees_on_a_network_within_its_tolerance():
    model, train, test = two_layers(), cloud(150), cloud(7, seed=2)
    by_hand = influence_by_hand(model, train, test, 0.5)
    result = influence(model, train, test, weight_decay=0.5, solver="lissa", depth=300)
    streamed = influence(model, [train], test, weight_decay=0.5, solver="lissa", depth=300)
    assert (streamed - by_hand).norm() < 0.1 * by_hand.norm()
    assert (result - by_hand).norm() < 0.1 * by_hand.norm()


def test_kfac_is_exact_where_the_curvature_is_one_kronecker_product():
    # The Hessian of the squared error in the outputs is I, so that of the layer is the inputs' second moment times I;
    # a convolution whose kernel is the image is a linear layer.
    x, _ = cloud(50, shape=(2, 3, 3))
    y = torch.randn(50, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    convolution = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten()).double()
    linear = nn.Sequential(nn.Flatten(), nn.Linear(18, 3)).double()
    linear[1].weight.data, linear[1].bias.data = convolution[0].weight.data.flatten(1), convolution[0].bias.data
    options = {"weight_decay": 0.1, "loss": half_square}
    exact = influence(linear, (x, y), (x[:4], y[:4]), **options)
    for model in (linear, convolution):
        assert_close(influence(model, (x, y), (x[:4], y[:4]), solver="kfac", **options), exact)


def test_kfac_of_a_convolution_has_the_factors_of_its_definition():
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 2, stride=2, padding=1, dilation=1)
    model = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.Linear(27, 4)).double()
    train, ridge = cloud(30, shape=(2, 4, 4), classes=4), 0.05
    second_a = second_g = 0
    for x, y in zip(*train, strict=True):
        del y  # the Fisher matrix takes every label with its probability
        padded = F.pad(x, (1, 1, 1, 1))
        for i in range(3):
            for j in range(3):
                patch = torch.cat([padded[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].flatten(), torch.ones(1).double()])
                second_a = second_a + torch.outer(patch, patch) / 30
        read = layer(x[None]).detach().requires_grad_()
        logits = model[1:](read)[0]
        for k, p in enumerate(logits.softmax(0).detach()):
            (d,) = torch.autograd.grad(-logits.log_softmax(0)[k], read, retain_graph=True)
            d = d.flatten(2)[0]
            second_g = second_g + p * (d @ d.T) / (30 * 9)
    matrix = torch.kron(second_g, second_a) + ridge * torch.eye(27, dtype=torch.float64)

    def weight_and_bias(x, y):
        g = gradients_by_loop(model, x, y)
        return torch.cat([g[:, :24].view(-1, 3, 8), g[:, 24:27, None]], 2).flatten(1)

    test = train[0][:5], train[1][:5]
    expected = weight_and_bias(*test) @ torch.linalg.solve(matrix, weight_and_bias(*train).T) / 30
    result = influence(model, train, test, weight_decay=ridge, solver="kfac", parameters="0")
    assert_close(result, expected, rtol=1e-8, atol=1e-12)


def test_kfac_keeps_the_order_on_a_network():
    train, test = small_digits(400, 5)
    model = networks.mlp(64, hidden=16).double()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(model(train[0]), train[1]).backward()
        optimizer.step()
    options = {"parameters": "5", "weight_decay": 0.0, "damping": 0.05}
    exact = influence(model, train, test, **options)
    kfac = influence(model, train, test, solver="kfac", **options)
    for a, b in zip(exact, kfac, strict=True):
        assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.8


@pytest.mark.parametrize("build", [networks.digits_cnn, networks.scenes_cnn])
def test_with_large_damping_it_is_the_inner_product_of_gradients_of_the_book_s_networks(build):
    torch.manual_seed(0)
    model = build()
    shape = (1, 28, 28) if build is networks.digits_cnn else (3, 64, 64)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    x, y = torch.rand(6, *shape), torch.arange(6) % 8
    result = influence(model.train(), (x, y), (x[:2], y[:2]), damping=1e6, solver="cg")
    model.eval()
    expected = gradients_by_loop(model, x[:2], y[:2]) @ gradients_by_loop(model, x, y).T / 6e6
    assert_close(result, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


# The interface


def test_a_named_layer_is_the_tail_on_its_features():
    model, train, test = two_layers(), cloud(40), cloud(3, seed=2)
    features = [(model[:3](x).detach(), y) for x, y in (train, test)]
    named = influence(model, train, test, damping=0.1, parameters="3")
    assert_close(named, influence(model[3:], *features, damping=0.1))
    assert_close(named, influence(model, train, test, damping=0.1, parameters=["3.weight", "3.bias"]))


@pytest.mark.parametrize("solver", ["exact", "cg", "lissa", "kfac"])
def test_streams_and_batch_sizes_give_the_same_numbers(solver):
    model, train, test = two_layers(), cloud(60), cloud(3, seed=2)
    options = {"weight_decay": 0.5, "solver": solver, "depth": 200}
    whole = influence(model, train, test, **options)
    assert_close(influence(model, train, test, batch_size=7, **options), whole, rtol=1e-6, atol=1e-9)
    if solver == "lissa":
        return  # a stream is not shuffled, so that its samples are others
    for stream in (
        [(train[0][:40], train[1][:40]), (train[0][40:], train[1][40:])],
        DataLoader(TensorDataset(*train), batch_size=11),
    ):
        assert_close(influence(model, stream, test, **options), whole, rtol=1e-6, atol=1e-9)


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


def test_a_warning_off_the_minimum_only():
    train, test = small_digits(300, 10)
    w = fit_softmax(*train, 0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        influence(softmax_model(w), train, test, weight_decay=0.01, solver="kfac")
    for model, weight_decay in ((softmax_model(w * 0.9), 0.01), (softmax_model(w), 0.02)):
        with pytest.warns(UserWarning, match="not at a minimum of its objective: the gradient's norm"):
            influence(model, train, test, weight_decay=weight_decay, solver="kfac")


class Peeking(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum().item() > 0 else x


MODEL = two_layers()
TRAIN, TEST = cloud(40), cloud(3, seed=2)
IDS = torch.randint(10, (12, 5), generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: influence(MODEL, TRAIN, TEST, solver="newton"),
            "solver must be one of exact, cg, lissa, kfac, got 'n",
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
            lambda: influence(MODEL, (IDS, LABELS), (IDS, LABELS)),
            r"could not be run on x of shape \(2, 5\), torch\.int64",
        ),
        (lambda: influence(nn.LSTM(8, 3).double(), TRAIN, TEST), r"got tuple; wrap it in .* as model\(x\)\.logits"),
        (lambda: influence(MODEL, TRAIN, TEST, damping=1, batch_size=0), "batch_size must be at least 1, got 0"),
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


def test_operations_and_layers_that_have_no_right_answer_are_refused_by_name():
    model = nn.Sequential(nn.Linear(8, 8), Peeking(), nn.Linear(8, 3)).double()
    with pytest.raises(UnsupportedModelError, match=r"the module '1' has an operation that torch.func refuses.*\.item"):
        influence(model, TRAIN, TEST, damping=1.0)
    for layer, name in (
        (nn.BatchNorm1d(8), r"'1\.weight' belongs to BatchNorm1d"),
        (
            nn.Sequential(nn.Unflatten(1, (2, 2, 2)), nn.Conv2d(2, 2, 1, groups=2), nn.Flatten()),
            r"'1\.1\.weight'.*Conv2d",
        ),
    ):
        model = nn.Sequential(nn.Linear(8, 8), layer, nn.Linear(8, 3)).double()
        with pytest.raises(UnsupportedModelError, match=name):
            influence(model, TRAIN, TEST, damping=1.0, solver="kfac")
        influence(model, TRAIN, TEST, damping=1.0, solver="kfac", parameters=["0", "2"])
    twice = nn.Linear(8, 8).double()
    with pytest.raises(UnsupportedModelError, match="layers that run once, but '0' runs again"):
        influence(
            nn.Sequential(twice, nn.Tanh(), twice, nn.Linear(8, 3).double()), TRAIN, TEST, damping=1.0, solver="kfac"
        )


def test_a_training_set_that_changes_between_passes_is_refused():
    for changing in (
        DataLoader(TensorDataset(*TRAIN), batch_size=10, shuffle=True),
        type("Shrinking", (list,), {"__iter__": lambda self: iter([self.pop() for _ in range(len(self) // 2)])})(
            [TRAIN] * 8
        ),
    ):
        with pytest.raises(ValueError, match="turn off its shuffling"):
            influence(two_layers(), changing, TEST, damping=1.0)


@pytest.mark.parametrize("solver", ["exact", "cg", "kfac"])
def test_a_frozen_layer_keeps_its_weights(solver):
    """Transfer learning: the answer is that of the head on its features, by the default and by the head's name."""
    model = two_layers()
    model[1].requires_grad_(False)
    tail, features = model[3:], lambda pair: (model[:3](pair[0]).detach(), pair[1])
    expected = influence(tail, features(TRAIN), features(TEST), damping=1.0, solver=solver)
    for parameters in (None, "3", ["1.bias", "3"]):
        result = influence(model, TRAIN, TEST, damping=1.0, solver=solver, parameters=parameters)
        if parameters != ["1.bias", "3"]:
            assert_close(result, expected)
        else:  # a parameter that is named itself is taken
            assert (result - expected).abs().max() > 1e-4
    model[3].bias.requires_grad_(False)
    weight = influence(tail, features(TRAIN), features(TEST), damping=1.0, solver=solver, parameters="3.weight")
    assert_close(influence(model, TRAIN, TEST, damping=1.0, solver=solver, parameters="3"), weight)


def test_a_model_frozen_as_a_whole_is_explained_as_a_whole():
    model = two_layers()
    expected = influence(model, TRAIN, TEST, damping=1.0)
    assert_close(influence(model.requires_grad_(False), TRAIN, TEST, damping=1.0), expected, rtol=0, atol=0)


def test_a_low_rank_addition_to_frozen_weights():
    class Added(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = nn.Linear(8, 3)
            self.down, self.up = nn.Parameter(torch.randn(8, 1)), nn.Parameter(torch.randn(1, 3))

        def forward(self, x):
            return self.base(x) + x @ self.down @ self.up

    class Rest(nn.Module):
        def __init__(self, whole):
            super().__init__()
            self.down, self.up, self.fixed = whole.down, whole.up, [whole.base]

        def forward(self, x):
            return self.fixed[0](x).detach() + x @ self.down @ self.up

    torch.manual_seed(0)
    model = Added().double()
    model.base.requires_grad_(False)
    assert_close(influence(model, TRAIN, TEST, damping=1.0), influence_by_hand(Rest(model), TRAIN, TEST, 1.0))


@pytest.mark.parametrize("solver", ["exact", "cg"])
@pytest.mark.parametrize("padding", [None, 0])
def test_token_ids_need_no_gradient(solver, padding):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 4, padding_idx=padding), nn.Flatten(), nn.Linear(20, 3)).double()
    train, test = (IDS, LABELS), (IDS[:2].flip(1), LABELS[:2])
    expected = influence_by_hand(model, train, test, 1.0)
    assert_close(influence(model, train, test, damping=1.0, solver=solver), expected)
    batches = [(IDS[:5], LABELS[:5]), (IDS[5:], LABELS[5:])]
    assert_close(influence(model, batches, test, damping=1.0, solver=solver), expected)
    expected = influence(
        model[2:], (model[:2](IDS).detach(), LABELS), (model[:2](test[0]).detach(), test[1]), damping=1.0
    )
    assert_close(influence(model, train, test, damping=1.0, solver="cg", parameters="2"), expected)


def test_outputs_of_any_shape_that_the_loss_takes():
    x, y = cloud(20)
    value = nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0)).double()
    for labels, loss in ((x[:, 0], F.mse_loss), ((y > 0).double(), F.binary_cross_entropy_with_logits)):
        expected = influence_by_hand(value, (x, labels), (x[:2], labels[:2]), 9.0, loss)
        for solver in ("exact", "cg"):
            found = influence(value, (x, labels), (x[:2], labels[:2]), damping=9.0, loss=loss, solver=solver)
            assert_close(found, expected)
        kfac = influence(value, (x, labels), (x[:2], labels[:2]), damping=9.0, loss=loss, solver="kfac")
        assert torch.corrcoef(torch.stack([kfac.flatten(), expected.flatten()]))[0, 1] > 0.99
    places = nn.Conv1d(2, 3, 1).double()  # a class at every place
    signals, classes = x.view(20, 2, 4), torch.randint(3, (20, 4), generator=torch.Generator().manual_seed(0))
    expected = influence_by_hand(places, (signals, classes), (signals[:2], classes[:2]), 1.0)
    assert_close(influence(places, (signals, classes), (signals[:2], classes[:2]), damping=1.0), expected)


@pytest.mark.parametrize("solver", ["exact", "cg"])
def test_attention_is_differentiated_twice(solver):
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True)
    model = nn.Sequential(block, nn.Flatten(), nn.Linear(8, 3)).double().eval()
    x, y = cloud(8, shape=(2, 4))
    with sdpa_kernel(SDPBackend.MATH):
        expected = influence_by_hand(model, (x, y), (x[:2], y[:2]), 5.0)
    assert_close(influence(model, (x, y), (x[:2], y[:2]), damping=5.0, solver=solver), expected)


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.body, self.one_step = getattr(nn, kind)(4, 3, **options), kind.endswith("Cell")
        self.head = nn.LazyLinear(3)

    def forward(self, x):  # (N, steps, 4)
        if not self.one_step:
            return self.head(self.body(x)[0][:, -1])
        state = None
        for step in x.unbind(1):
            state = self.body(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"])
def test_recurrent_layers_are_written_out(kind):
    torch.manual_seed(0)
    whole = {} if kind.endswith("Cell") else {"batch_first": True}
    both = (
        {**whole, "bidirectional": True, "num_layers": 2}
        if whole
        else {"nonlinearity": "relu"}
        if "R" == kind[0]
        else {}
    )
    x, y = cloud(6, shape=(3, 4))
    for options in (whole, both):
        model = Recurrent(kind, **options).double()
        model(x)
        expected = influence_by_hand(model, (x, y), (x[:2], y[:2]), 5.0)
        for solver in ("exact", "cg"):
            assert_close(influence(model, (x, y), (x[:2], y[:2]), damping=5.0, solver=solver), expected)


def test_the_head_of_a_recurrent_network_is_the_tail_on_its_features():
    torch.manual_seed(0)
    model, (x, y) = Recurrent("LSTM", batch_first=True).double(), cloud(6, shape=(3, 4))
    model(x)
    features = model.body(x)[0][:, -1].detach()
    expected = influence(model.head, (features, y), (features, y), damping=1.0)
    assert_close(influence(model, (x, y), (x, y), damping=1.0, parameters="head"), expected)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_weight_norm_against_its_formula_whose_second_derivative_torch_has_wrong(norm):
    class Formula(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.bias, self.g, self.v = (nn.Parameter(p.detach().clone()) for p in layer.parameters())

        def forward(self, x):
            return F.linear(x, self.g * self.v / self.v.norm(dim=1, keepdim=True), self.bias)

    torch.manual_seed(0)
    model = norm(nn.Linear(8, 3).double())
    model(TRAIN[0])
    weight = vars(model).get("weight")
    result = influence(model, TRAIN, TEST, damping=1.0)
    assert_close(result, influence_by_hand(Formula(model), TRAIN, TEST, 1.0))
    assert vars(model).get("weight") is weight


def test_a_wrong_second_derivative_is_refused():
    class Product(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(a, b):
            return a * b

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, g):
            a, b = ctx.saved_tensors
            return g * b.detach(), g * a  # right, but the second derivative misses one of two equal ones

    class Scaled(nn.Linear):
        def forward(self, x):
            return Product.apply(super().forward(x), self.bias.expand(len(x), -1))

    torch.manual_seed(0)
    with pytest.raises(UnsupportedModelError, match="the Hessian is not symmetric"):
        influence(nn.Sequential(Scaled(8, 8), nn.Linear(8, 3)).double(), TRAIN, TEST, damping=9.0)


@pytest.mark.parametrize("solver", ["exact", "cg", "kfac"])
@pytest.mark.parametrize("offset", [0.0, 50.0, 300.0, 1e3, 1e4])
def test_in_single_precision_inputs_far_from_zero_give_the_answer_of_double_or_a_refusal(solver, offset):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 4, generator=generator) + offset, torch.randint(3, (60,), generator=generator)
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    model.weight.data *= 0.1 / max(1, offset)
    options = {"weight_decay": 0.1, "solver": solver}
    try:
        single = influence(model, (x, y), (x[:3], y[:3]), **options).double()
    except ValueError as error:
        single = error
    if offset >= 300 and isinstance(single, ValueError):
        with pytest.raises(ValueError, match="add damping"):
            raise single
        return
    double = influence(model.double(), (x.double(), y), (x[:3].double(), y[:3]), **options)
    assert (single - double).norm() < 0.01 * double.norm()


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


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("how", ["partial", "list", "view", "loss"])
@pytest.mark.parametrize("solver", ["exact", "cg", "kfac"])
def test_a_weight_that_is_also_reached_past_its_module_is_refused(how, frozen, solver):
    class Held(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.head = nn.Linear(8, 8, bias=False).double(), nn.Linear(8, 3).double()
            self.held = {"partial": partial(F.linear, weight=self.a.weight), "list": [self.a.weight]}.get(how)
            self.view = self.a.weight.t() if how == "view" else None

        def forward(self, x):
            h = torch.tanh(self.a(x))
            h = self.held(h) if how == "partial" else h @ self.held[0].T if how == "list" else h
            return self.head(torch.tanh(h @ self.view if how == "view" else h))

    model = Held()
    loss = F.cross_entropy
    if how == "loss":
        loss = lambda z, y: F.cross_entropy(z, y) + 0.1 * model.a.weight.square().sum()  # noqa: E731
    if frozen and how != "view":  # a view of a weight that was trained has its graph
        model.requires_grad_(False)
    before = [p.requires_grad for p in model.parameters()]
    with pytest.raises(UnsupportedModelError, match=r"'a\.weight' is also reached .* read it as self\.weight"):
        influence(model, TRAIN, TEST, damping=9.0, solver=solver, loss=loss)
    assert [p.requires_grad for p in model.parameters()] == before
    if how != "loss":
        influence(model, TRAIN, TEST, damping=9.0, solver=solver, parameters="head")


class OverSteps(nn.Module):
    """A dense layer over (N, ..., 4), laid out in one way or another."""

    def __init__(self, layout):
        torch.manual_seed(1)
        super().__init__()
        self.layout, self.a, self.head = layout, nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        if self.layout == "steps first":
            h = self.a(x.transpose(0, 1)).transpose(0, 1)
        elif self.layout == "one axis":
            h = self.a(x.flatten(0, 1)).view(*x.shape[:-1], 5)
        else:
            h = self.a(input=x)
        return self.head(torch.tanh(h).flatten(1, -2).mean(1))


@pytest.mark.parametrize("steps", [1, 3, 8, 12])
@pytest.mark.parametrize("layout", ["steps first", "one axis"])
def test_kfac_refuses_a_layer_that_does_not_read_one_row_per_example(layout, steps):
    train, test = cloud(12, shape=(steps, 4)), cloud(2, seed=2, shape=(steps, 4))
    model = OverSteps(layout).double()
    if layout == "one axis" and steps == 1:  # then an example is a row
        expected = influence(OverSteps("").double(), train, test, damping=0.1, solver="kfac")
        assert_close(influence(model, train, test, damping=0.1, solver="kfac"), expected)
        return
    for batch_size in (None, 2, 1):
        with pytest.raises(UnsupportedModelError, match=r"one row per example, .* but 'a' reads .* or use solver 'cg'"):
            influence(model, train, test, damping=0.1, solver="kfac", batch_size=batch_size)


def test_kfac_of_a_dense_layer_over_a_plane():
    train, test = cloud(12, shape=(3, 2, 4)), cloud(2, seed=2, shape=(3, 2, 4))
    model = OverSteps("").double()
    came, flat = (
        influence(model, *((x.flatten(1, -2) if line else x, y) for x, y in (train, test)), damping=0.1, solver="kfac")
        for line in (False, True)
    )
    assert_close(came, flat)


def test_kfac_refuses_weights_that_act_elsewhere_too():
    class Tied(nn.Module):
        def __init__(self, how):
            super().__init__()
            self.how, self.a, self.b, self.head = how, nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
            if how == "tied":
                self.b.weight = self.a.weight

        def forward(self, x):
            h = torch.tanh(self.a(x))
            if self.how == "function":
                h = F.linear(h, self.a.weight)
            return self.head(torch.tanh(self.b(h)))

    torch.manual_seed(0)
    for how in ("tied", "function"):
        model = Tied(how).double()
        with pytest.raises(UnsupportedModelError, match="those of 'a' act elsewhere too"):
            influence(model, TRAIN, TEST, damping=1.0, solver="kfac")
        assert_close(influence(model, TRAIN, TEST, damping=9.0), influence_by_hand(model, TRAIN, TEST, 9.0))
        influence(model, TRAIN, TEST, damping=1.0, solver="kfac", parameters="head")
    by_other_name = influence(Tied("tied").double(), TRAIN, TEST, damping=9.0, parameters="b")
    assert by_other_name.abs().max() > 0


def test_the_numbers_of_a_step_follow_the_memory_of_the_device(monkeypatch):
    module = sys.modules["interp_lab.explain_decision.influence"]
    assert module._budget(torch.zeros(1)) == (2**25, 256)

    class Elsewhere:
        device = torch.device("cuda", 1)

        def element_size(self):
            return 8

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: {1: (80 * 2**30, 96 * 2**30)}[device.index])
    assert module._budget(Elsewhere()) == (80 * 2**30 // 32, 4096)
