"""The graph of channels: networks whose wiring is known."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from interp_lab import UnsupportedModelError, fidelity, networks, surrogate_graph
from interp_lab.data import digits
from interp_lab.explain_model.surrogates.graph import _flow, _means_and_relevance

MODEL, X = networks.load("digits_cnn"), digits("test").images[:8]


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


class Redundant(nn.Module):
    """Two channels, x and 2 x, each of which suffices to tell where x is above 1/2; class 0 is there, or not there."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.conv, self.relu, self.sign = nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(), sign
        self.conv.weight.data = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1)

    def forward(self, x):
        excess = self.sign * (self.relu(self.conv(x)).mean((2, 3)).sum(1) - 1.5)
        return torch.stack([excess, 0 * excess], 1)


@pytest.mark.parametrize("sign", [1.0, -1.0])  # of the relevance
def test_of_channels_that_can_replace_each_other_the_more_relevant_one_is_kept(sign):
    x = torch.tensor([0.2, 0.3, 0.7, 0.8]).view(4, 1, 1, 1).expand(4, 1, 2, 2).contiguous()
    assert surrogate_graph(Redundant(sign), x, threshold=1.0).kept["relu"].tolist() == [False, True]


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
    x = torch.randn(20, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels, layers = model(x).argmax(1), ["1", "4"]
    relevance = _means_and_relevance(model, x, labels, layers)[1]
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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: surrogate_graph(MODEL, X, threshold=0), r"threshold must lie in \(0, 1\], got 0"),
        (lambda: surrogate_graph(MODEL, X, layers=["relu9"]), "no module 'relu9'"),
        (lambda: surrogate_graph(MODEL, X, layers=[]), "one or more different names"),
        (lambda: surrogate_graph(MODEL, X, layers=["1", "1"]), "one or more different names"),
    ],
)
def test_what_cannot_be_right_is_refused(call, message):
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
