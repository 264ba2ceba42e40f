"""Surrogates: models whose own structure is known must come back, and a fidelity must be earned on held-out inputs."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from interp_lab import (
    UnsupportedModelError,
    additive_model,
    fidelity,
    fresh_queries,
    networks,
    segment,
    smoothgrad,
    surrogate_graph,
    surrogate_linear,
    surrogate_local,
    surrogate_tree,
)
from interp_lab.data import digits
from interp_lab.explain_model.surrogates import _flow, _labels, _means_and_relevance


def normal(n: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_hot(labels, classes: int):
    return F.one_hot(labels, classes).double()


# Fidelity


def test_fidelity_is_the_share_of_equal_labels_whatever_the_scores():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0], [0.3, 0.4]])
    assert fidelity(lambda x: 10 * x - 7, lambda x: x, x) == 1.0
    assert fidelity(lambda x: torch.tensor([1.0, 0.0]).expand(len(x), 2), lambda x: x, x) == 0.5


def test_fidelity_on_the_inputs_of_the_fit_is_flattered_and_says_so():
    x, held_out = normal(200, 10), normal(200, 10, seed=1)
    weight = normal(3, 10, seed=2)

    def model(x):
        return x @ weight.T

    tree = surrogate_tree(model, x, depth=None)
    with pytest.warns(UserWarning, match="200 of these 200 inputs were used to fit"):
        assert fidelity(tree, model, x) == 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fidelity(tree, model, held_out) < 0.9


def test_a_surrogate_follows_the_network_where_it_is_wrong():
    x = normal(400, 2)
    truth = (x[:, 0] > 0).long()

    def inverted(x):
        return one_hot((x[:, 0] <= 0).long(), 2)

    tree = surrogate_tree(inverted, x)
    held_out = normal(400, 2, seed=1)
    assert fidelity(tree, inverted, held_out) > 0.98
    assert (tree(x).argmax(1) == truth).double().mean() < 0.02


# Linear models and trees


def test_the_surrogate_of_a_linear_model_is_that_model():
    weight, bias = normal(3, 5), normal(3)
    x = normal(100, 5) * torch.tensor([1, 100, 0.01, 1, 1]).double()
    surrogate = surrogate_linear(lambda x: x @ weight.T + bias, x)
    assert_close(surrogate.weight, weight)
    assert_close(surrogate.bias, bias)
    assert_close(surrogate.importance, weight * x.std(0, correction=0))


def test_of_equally_good_linear_models_the_one_of_least_norm_is_taken():
    x = normal(50, 1).expand(50, 2).contiguous()
    surrogate = surrogate_linear(lambda x: torch.stack([x[:, 0], -x[:, 1]], 1), x)
    assert_close(surrogate.weight, torch.tensor([[0.5, 0.5], [-0.5, -0.5]]).double())


def test_ridge_agrees_with_the_normal_equations():
    x = normal(60, 4)
    z = (x - x.mean(0)) / x.std(0, correction=0)
    model = networks.mlp(4, 8, 3).double()
    y = model(x).detach()
    weight = torch.linalg.solve(z.T @ z + 0.3 * 60 * torch.eye(4).double(), z.T @ (y - y.mean(0))).T
    assert_close(surrogate_linear(model, x, ridge=0.3).importance, weight)


def test_a_linear_surrogate_on_gaussian_inputs_is_smoothgrad():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 3)).double()
    x = torch.rand(1, 16).double()
    noise = 0.3
    sigma = noise * (x.max() - x.min())
    surrogate = surrogate_linear(model, x + sigma * normal(20_000, 16))
    smooth = smoothgrad(model, x, 1, n=4000, noise=noise)[0]
    assert F.cosine_similarity(surrogate.weight[1], smooth, dim=0) > 0.999
    assert_close(surrogate.weight[1], smooth, atol=0.02 * smooth.norm().item(), rtol=0)


def test_the_surrogate_of_a_tree_is_that_tree():
    def tree(x):  # depth 3, on inputs of a grid, so that every threshold can be found exactly
        left = torch.where(x[:, 1] <= 0.35, torch.where(x[:, 2] <= 0.55, 0, 1), torch.where(x[:, 2] <= 0.15, 2, 0))
        right = torch.where(x[:, 3] <= 0.75, torch.where(x[:, 1] <= 0.25, 3, 2), torch.where(x[:, 2] <= 0.5, 1, 3))
        return one_hot(torch.where(x[:, 0] <= 0.45, left, right), 5)  # a fifth class never occurs

    x, held_out = (torch.randint(11, (5000, 4), generator=torch.Generator().manual_seed(k)) / 10.0 for k in (0, 1))
    surrogate = surrogate_tree(tree, x, depth=None)
    assert surrogate(held_out).shape == (5000, 5)
    with pytest.warns(UserWarning, match="were used to fit"):  # a grid repeats itself
        assert fidelity(surrogate, tree, held_out) == 1.0
    new = ~(held_out[:, None] == x).all(2).any(1)
    assert new.sum() > 1000
    assert fidelity(surrogate, tree, held_out[new]) == 1.0


def test_named_features_and_fresh_queries():
    x = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def brightness(x):
        return torch.stack([x.mean((1, 2, 3)), x[:, 0, 0, 0]], 1)

    def model(x):
        return one_hot((x.mean((1, 2, 3)) > 0.5).long(), 2)

    for queries in (0, 200):
        tree = surrogate_tree(
            model, x, depth=1, features=brightness, names=["mean", "corner"], queries=queries, noise=0.05
        )
        assert len(tree.queried) == 300 + queries
        assert tree.rules()[0].startswith("if mean <= 0.")
        assert fidelity(tree, model, torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(1))) > 0.95


def test_fresh_queries_are_mixtures_of_two_inputs_in_their_range():
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    clean = fresh_queries(x, 50, noise=0.0)
    assert_close(clean[:, 1], 2 * clean[:, 0])
    noisy = fresh_queries(x, 50, noise=0.5)
    assert noisy.min() == 0
    assert noisy.max() == 2
    assert_close(noisy, fresh_queries(x, 50, noise=0.5))
    assert not torch.equal(noisy, fresh_queries(x, 50, noise=0.5, seed=1))


def test_an_additive_model_of_the_logits_is_a_surrogate_too():
    x, held_out = normal(1000, 3), normal(500, 3, seed=1)

    def model(x):
        return torch.stack([torch.sin(2 * x[:, 0]), x[:, 1].abs(), 0.3 * x[:, 2]], 1)

    assert fidelity(additive_model(x, model(x), knots=10), model, held_out) > 0.97
    assert fidelity(surrogate_linear(model, x), model, held_out) < 0.85


# Graph


class HandWired(nn.Module):
    """Two layers of 8 channels. Class 0: the left half is bright, seen by channel 2 and then 5; class 1: the right half,
    seen by 6 and then 1; class 2: neither. All other channels respond and go nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 1, bias=False), nn.Conv2d(8, 8, 1, bias=False)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU(inplace=True)
        self.head = nn.Linear(16, 3)
        with torch.no_grad():
            self.first.weight.fill_(1.0)
            self.second.weight.copy_(torch.eye(8)[..., None, None])
            self.second.weight[[5, 1]] = torch.eye(8)[[2, 6]][..., None, None]
            self.head.weight.zero_()
            self.head.weight[0, 5 * 2] = self.head.weight[1, 1 * 2 + 1] = 1.0
            self.head.bias.copy_(torch.tensor([0.0, 0.0, 1.0]))

    def forward(self, x):
        x = self.relu1(self.first(x))
        x = self.relu2(self.second(x))
        return self.head(F.adaptive_avg_pool2d(x, (1, 2)).flatten(1))


def halves(n: int, seed: int) -> torch.Tensor:
    """A third each: left half bright, right half bright, neither."""
    x = torch.rand(n, 1, 4, 6, generator=torch.Generator().manual_seed(seed))
    x[: n // 3, ..., :3] += 1
    x[n // 3 : 2 * n // 3, ..., 3:] += 1
    return x


def test_the_graph_of_a_hand_wired_network_is_its_wiring():
    model = HandWired().train()
    result = surrogate_graph(model, halves(60, 0), threshold=1.0)
    assert result.kept["relu1"].nonzero().flatten().tolist() == [2, 6]
    assert result.kept["relu2"].nonzero().flatten().tolist() == [1, 5]
    flows = {(below, above) for below, above, weight in result.graph.edges(data="weight") if abs(weight) > 1e-6}
    assert flows == {
        (("relu1", 2), ("relu2", 5)),
        (("relu2", 5), ("logit", 0)),
        (("relu1", 6), ("relu2", 1)),
        (("relu2", 1), ("logit", 1)),
    }
    assert fidelity(result, model, halves(60, 1)) == 1.0
    assert model.training
    assert not model.relu1._forward_hooks
    assert all(p.grad is None for p in model.parameters())


def test_ablated_channels_are_held_at_their_mean():
    model = HandWired()
    x = halves(60, 0)
    result = surrogate_graph(model, x, threshold=1.0)
    result.kept["relu2"][5] = False
    mean = model.relu1(model.first(x))[:, 2].mean().item()
    assert_close(result(x)[:, 0], torch.full((60,), mean))
    assert_close(result(x)[:, 1], model(x)[:, 1].detach())


def test_the_flow_of_relevance_is_conserved():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3, bias=False), nn.ReLU(),
        nn.Flatten(), nn.Linear(125, 3, bias=False),
    ).double()  # fmt: skip
    x = normal(20, 1, 16, 16)
    labels, layers = _labels(model, x), ["1", "4"]
    relevance = _means_and_relevance(model, x, _labels(model, x), layers)[1]
    graph = _flow(
        model, x, labels, layers, {n: torch.ones_like(r, dtype=bool) for n, r in relevance.items()}, relevance
    )
    logit = model(x).detach().amax(1).mean().item()
    for layer in layers:
        # What leaves a node is its relevance; without biases what enters it too; and each layer's sum is the logit.
        nodes = [node for node in graph if node[0] == layer]
        assert sum(graph.nodes[node]["relevance"] for node in nodes) == pytest.approx(logit)
        for node in nodes:
            assert graph.out_degree(node, weight="weight") == pytest.approx(graph.nodes[node]["relevance"])
    for node in graph:
        if node[0] != "1":
            assert graph.in_degree(node, weight="weight") == pytest.approx(graph.nodes[node]["relevance"])


def test_a_part_of_the_channels_keeps_the_decisions_of_a_trained_network():
    train, test = digits("train")[:150], digits("test")
    model = networks.load("digits_cnn")
    result = surrogate_graph(model, train.images, threshold=0.95)
    assert sum(int(mask.sum()) for mask in result.kept.values()) < 36  # of 48
    with pytest.warns(UserWarning, match="150 of these 150"):
        assert fidelity(result, model, train.images) >= 0.95
    assert 0.85 < fidelity(result, model, test.images) < 1


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 2)
        self.relu, self.out = nn.ReLU(), nn.ReLU()

    def forward(self, x):
        x = self.relu(self.a(x))
        return self.head((x + self.out(self.b(x))).mean((2, 3)))


# Segments


SEGMENTS = (torch.arange(8)[:, None] // 4 * 2 + torch.arange(12) // 6).long()


def test_the_local_surrogate_of_a_model_additive_in_segments_finds_the_effects():
    effects = torch.tensor([3.0, -1.0, 0.5, 0.0])
    x = torch.rand(1, 1, 8, 12) + 0.5
    area = 24

    def model(x):
        sums = torch.stack([x[:, 0, SEGMENTS == s].sum(1) for s in range(4)], 1)
        return torch.stack([sums @ effects / area + 2, sums[:, 0]], 1)

    means = torch.stack([x[0, 0][SEGMENTS == s].mean() for s in range(4)])
    for width in (0.1, 1.0):  # additive: the width of the kernel plays no role
        local = surrogate_local(model, x, 0, segments=SEGMENTS, n=200, width=width, fill=0.0)
        assert_close(local.effects, effects * means, atol=1e-3, rtol=0)
        assert local.bias == pytest.approx(2, abs=1e-3)
        assert local.r2 > 0.999
    assert_close(local.attribution, local.effects[SEGMENTS])
    # Against the mean colour of each segment, this model sees no difference at all.
    assert surrogate_local(model, x, 0, segments=SEGMENTS, n=200).effects.abs().max() < 1e-4


def test_where_segments_interact_the_width_decides_the_answer():
    def model(x):  # both of the first two segments are needed
        a, b = (x[:, 0, SEGMENTS == s].mean(1) for s in (0, 1))
        return torch.stack([a * b, 0 * a], 1)

    near, far = (
        surrogate_local(model, torch.ones(1, 1, 8, 12), 0, segments=SEGMENTS, n=4000, width=width, fill=0.0)
        for width in (0.05, 10.0)
    )
    assert far.effects[0] == pytest.approx(0.5, abs=0.03)  # over all maskings, 1/2 each
    assert near.effects[0] > 0.6
    assert far.r2 < 0.9


def test_segments_follow_the_colours_and_cover_the_image():
    image = torch.zeros(3, 32, 32)
    image[0, :, 11:] = 1.0
    image[2, 20:] = 1.0
    numbers = segment(image, 16, compactness=0.1)
    assert numbers.shape == (32, 32)
    assert torch.equal(numbers.unique(), torch.arange(int(numbers.max()) + 1))
    for s in numbers.unique():  # no segment spans two colours
        assert image[:, numbers == s].std(1).max() == 0
    assert torch.equal(numbers, segment(image, 16, compactness=0.1))
    assert len(segment(torch.rand(1, 20, 30), 24).unique()) == 24
    assert (segment(image, 1) == 0).all()


def test_a_local_surrogate_repeats_and_draws_no_global_random_numbers():
    model, x = networks.load("digits_cnn"), digits("test").images[:1]
    before = torch.get_rng_state()
    one, two = (surrogate_local(model, x, segments=20, n=100) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one.effects, two.effects)
    assert one.target == model(x).argmax().item()


# Refusals


MODEL, X = networks.load("digits_cnn"), digits("test").images[:8]
NAN = X.clone()
NAN[0, 0, 0, 0] = torch.nan


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fidelity(MODEL, MODEL, X[:0]), "at least one input"),
        (lambda: fidelity(MODEL, MODEL, NAN), "x must be finite, got 1 NaN"),
        (lambda: fidelity(lambda x: x.flatten(1).argmax(1), MODEL, X), "logits of shape"),
        (lambda: surrogate_linear(MODEL, NAN), "x must be finite"),
        (lambda: surrogate_linear(MODEL, X, ridge=-1.0), "ridge must be at least 0, got -1"),
        (lambda: surrogate_linear(MODEL, X, queries=-1), "at least 0, got -1"),
        (lambda: surrogate_tree(MODEL, X[:0]), "at least one example"),
        (lambda: surrogate_tree(MODEL, X, depth=0), "depth must be None or"),
        (lambda: surrogate_tree(MODEL, X, names=["a", "b"]), "one per feature, 784, got 2"),
        (lambda: surrogate_graph(MODEL, X, threshold=0), r"threshold must lie in \(0, 1\], got 0"),
        (lambda: surrogate_graph(MODEL, X, layers=["relu9"]), "no module 'relu9'"),
        (lambda: surrogate_graph(MODEL, X, layers=[]), "one or more different names"),
        (lambda: surrogate_graph(MODEL, X, layers=["1", "1"]), "one or more different names"),
        (lambda: surrogate_local(MODEL, X), r"one image \(1, C, H, W\), got shape \(8, 1, 28, 28\)"),
        (lambda: surrogate_local(MODEL, X[:1], 10), r"target must lie in 0\.\.9, got 10"),
        (lambda: surrogate_local(MODEL, X[:1], width=0), "width must be above 0"),
        (lambda: surrogate_local(MODEL, X[:1], n=5), "n must exceed the number of segments"),
        (lambda: surrogate_local(MODEL, X[:1], segments=SEGMENTS), r"LongTensor \(28, 28\), got torch.int64 \(8, 12\)"),
        (lambda: surrogate_local(MODEL, X[:1], segments=torch.full((28, 28), 2)), "without a gap"),
        (lambda: segment(X[0], 0), "n of 1 to H x W"),
    ],
)
def test_what_cannot_be_right_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_graph_of_channels_that_are_not_known_names_no_option_that_there_is_not():
    class Transposed(nn.Module):
        def forward(self, x):
            return x.mT

    network = nn.Sequential(nn.Linear(6, 7), Transposed(), nn.Linear(9, 4), nn.ReLU(), nn.Flatten(), nn.Linear(28, 2))
    with pytest.raises(UnsupportedModelError, match="is not known: take another layer") as refusal:
        surrogate_graph(network, torch.rand(4, 9, 6))
    assert "reshape" not in str(refusal.value)


def test_relevance_that_flows_past_a_layer_is_refused():
    torch.manual_seed(0)
    with pytest.raises(UnsupportedModelError, match="'relu' to the logits past 'out'"):
        surrogate_graph(Residual(), torch.rand(4, 1, 8, 8))
    assert len(surrogate_graph(Residual(), torch.rand(4, 1, 8, 8), layers=["relu"]).kept) == 1
    with pytest.raises(UnsupportedModelError, match=r"no nn.ReLU gives maps"):
        surrogate_graph(networks.load("digits_mlp"), X)
