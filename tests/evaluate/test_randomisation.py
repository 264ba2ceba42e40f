"""The cascade: which layers, in which order, from which seed, and what comes of methods whose answer is known."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm
from torch.testing import assert_close

from interp_lab import METHODS, UnsupportedModelError, model_randomisation, networks, saliency
from interp_lab.data import scenes


class Shuffled(nn.Module):
    """Layers that run in another order than they were defined in, and one that does not run."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 3)
        self.norm = nn.BatchNorm2d(2)
        self.body = nn.Conv2d(1, 2, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.head(self.norm(self.body(x)).relu().mean(3).flatten(1))


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_layers_fall_from_the_top_and_stay_random():
    torch.manual_seed(0)
    model, x = Shuffled().train(), torch.randn(3, 1, 6, 6)
    model.norm.running_mean.fill_(0.3)
    before, seen = state(model), []

    def spy(network, x, target):
        seen.append((state(network), target.clone()))
        return saliency(network, x, target)

    model.eval()
    with torch.no_grad():
        predicted = model(x).argmax(1)
    model.train()
    random_state = torch.get_rng_state()
    result = model_randomisation(spy, model, x)
    assert result.layers == ("head", "norm", "body")
    assert result.spearman.shape == result.ssim_abs.shape == (3, 3)
    changed = [
        {name.split(".")[0] for name, value in now.items() if not torch.equal(value, before[name])} for now, _ in seen
    ]
    assert changed == [set(), {"head"}, {"head", "norm"}, {"head", "norm", "body"}]
    assert (seen[-1][0]["norm.running_mean"] == 0).all()
    assert all(torch.equal(target, predicted) for _, target in seen)
    # The model and the random state are as they were.
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert model.norm.training
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not model.body._forward_hooks


def test_the_seed_decides():
    model, x = networks.load("digits_cnn"), torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    first, again, other = (model_randomisation(saliency, model, x, seed=seed).spearman for seed in (0, 0, 1))
    assert_close(first, again, atol=0, rtol=0)
    assert (first != other).all()


def test_a_method_that_asks_no_network_never_changes():
    x = scenes(4, seed=3).images
    result = model_randomisation(lambda model, x, target: x, networks.load("scenes_cnn"), x)
    assert_close(result.spearman, torch.ones(6, 4))
    assert_close(result.ssim, torch.ones(6, 4))


def test_a_linear_model_forgets_at_once():
    """Even one whose weights were drawn from the same seed."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(400, 3)), torch.rand(8, 1, 20, 20)
    result = model_randomisation(saliency, model, x, 1)
    assert result.target.tolist() == [1] * 8
    assert result.spearman.abs().max() < 0.15


def test_on_scenes_the_top_layer_matters_to_the_gradient_and_not_to_guided_backprop():
    network, x = networks.load("scenes_cnn"), scenes(16, seed=3).images
    gradient, guided = (model_randomisation(METHODS[name], network, x) for name in ("saliency", "guided_backprop"))
    assert gradient.layers == ("12", "8", "6", "4", "2", "0")
    assert gradient.spearman[0].mean() < 0.4
    assert guided.spearman[0].mean() > 0.85
    assert gradient.spearman[-1].mean().abs() < 0.1


class LowRank(nn.Module):
    """What a learned addition makes of a weight."""

    def __init__(self, width):
        super().__init__()
        self.factor = nn.Parameter(torch.randn(width))

    def forward(self, weight):
        return weight + self.factor.view(-1, *[1] * (weight.dim() - 1))


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


COMPUTED = {
    "weight_norm": weight_norm,
    "spectral_norm": spectral_norm,
    "prune": lambda layer: prune.random_unstructured(layer, "weight", 0.3),
    "prune twice": lambda layer: prune.l1_unstructured(prune.random_unstructured(layer, "weight", 0.2), "weight", 0.2),
    "parametrizations.weight_norm": parametrizations.weight_norm,
    "parametrizations.spectral_norm": parametrizations.spectral_norm,
    "parametrizations.orthogonal": parametrizations.orthogonal,
    "an own one": lambda layer: parametrize.register_parametrization(layer, "weight", LowRank(len(layer.weight))),
    "of the bias": lambda layer: parametrize.register_parametrization(layer, "bias", LowRank(len(layer.bias))),
}


def small_network():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 16), nn.ReLU(), nn.Linear(16, 3)
    )


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", COMPUTED)
def test_a_weight_that_is_computed_from_others_is_randomised_as_if_it_were_written_out(name, frozen):
    """Against the same network with plain weights; the one that was given is as before."""
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model, plain = small_network(), small_network()
    for i in (0, 3, 5):
        COMPUTED[name](model[i])
    model(x)  # a spectral norm counts its passes in train mode, and an old one keeps a weight with a graph
    model.eval().requires_grad_(not frozen)
    for i in (0, 3, 5):
        plain[i].weight.data, plain[i].bias.data = model[i].weight.detach().clone(), model[i].bias.detach().clone()
    before, logits, weight = state(model), model(x), model[3].weight
    result, expected = (model_randomisation(saliency, network, x, 0) for network in (model, plain))
    assert result.layers == expected.layers == ("5", "3", "0")
    assert_close(result.spearman, expected.spearman, atol=0, rtol=0)
    assert result.spearman[-1].mean().abs() < 0.3  # and 1 where nothing was randomised
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(model(x), logits)
    assert type(model[3].weight) is type(weight)


def test_every_layer_that_is_used_is_randomised_whether_it_is_called_or_not():
    """One by its weight alone, one tied, a normalisation that learned statistics alone, attention, an LSTM."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight
            self.norm = nn.BatchNorm1d(5, affine=False)
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.recurrent = nn.LSTM(4, 6, batch_first=True)
            self.head = nn.Linear(6, 3)

        def forward(self, x):
            x = F.linear(self.norm(x), self.first.weight, self.first.bias)
            x = self.second(x.tanh())
            x = self.attention(x, x, x)[0]
            return F.linear(self.recurrent(x)[0][:, -1], self.head.weight, self.head.bias)

    torch.manual_seed(0)
    model, seen = Model(), []
    model.norm.running_mean.fill_(0.3)
    before = state(model)
    result = model_randomisation(
        lambda network, x, target: seen.append(state(network)) or saliency(network, x, target),
        model,
        torch.randn(3, 5, 4),
    )
    assert result.layers == ("head", "recurrent", "attention.out_proj", "attention", "second", "first", "norm")
    fixed = {"attention.in_proj_bias", "attention.out_proj.bias", "norm.num_batches_tracked", "norm.running_var"}
    same = {name for name, value in before.items() if torch.equal(value, seen[-1][name])}
    assert same - {"attention.out_proj.bias"} == fixed - {"attention.out_proj.bias"}  # their start is a constant
    assert torch.equal(seen[-1]["first.weight"], seen[-1]["second.weight"])


def test_a_map_that_died_is_left_out_of_the_mean():
    """The logit of a network that ends in a ReLU may be off for an image, and its map is then zero."""
    x, dead = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 0])
    method = lambda network, x, target: saliency(network, x, target) * (1 - dead)[:, None, None, None]  # noqa: E731
    with pytest.warns(UserWarning, match="1 of 4 pairs have a constant map"):
        result = model_randomisation(method, small_network(), x, 0)
    mean = result.mean()
    assert result.spearman[:, 1].isnan().all()
    assert_close(mean.spearman, result.spearman[:, [0, 2, 3]].mean(1))
    assert_close(mean.ssim, result.ssim.mean(1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_the_same_weights():
    network, x = networks.load("scenes_cnn"), scenes(4, seed=3).images
    here, there = model_randomisation(saliency, network, x), model_randomisation(saliency, network.cuda(), x.cuda())
    assert_close(here.spearman, there.spearman.cpu(), atol=0.01, rtol=0)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_what_cannot_be_randomised_is_refused_by_name():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.factor * x

    class Half(nn.Linear):
        def reset_parameters(self):
            nn.init.normal_(self.weight)

    class Constant(nn.Module):
        def __init__(self, buffer):
            super().__init__()
            if buffer:
                self.register_buffer("weight", torch.randn(8, 16))
            else:
                self.weight = torch.randn(8, 16)

        def forward(self, x):
            return F.linear(x, self.weight)

    class InAList(nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = [torch.randn(8, 16, requires_grad=True)]

        def forward(self, x):
            return F.linear(x, self.weights[0])

    half = Half(16, 8)
    nn.init.zeros_(half.bias)  # no one else sets it
    outside, head = nn.Linear(16, 8).requires_grad_(False), nn.Linear(8, 2)
    quantised = Function(lambda x: x)
    quantised._packed_params = "as torch.ao.nn.quantized names its weights"
    x = torch.rand(2, 1, 4, 4)
    for layer, message in (
        (half, r"reset_parameters\(\) of layer '1' \(Half\) leaves its 'bias' as it was"),
        (Constant(buffer=False), r"'weight' of '1' \(Constant\) is a weight but no parameter"),
        (Constant(buffer=True), r"'weight' of '1' \(Constant\) is a weight but no parameter"),
        (InAList(), r"a weight \(8, 16\) that is no parameter of a module of its own: it lies in a list"),
        (Function(lambda x: outside(x)), r"a weight \(8, 16\) that is no parameter of a module of its own"),
        (Function(outside.forward), r"a weight \(8, 16\) that is no parameter of a module of its own"),
        (
            Function(lambda x: F.linear(x, outside.weight)),
            r"a weight \(8, 16\) that is no parameter of a module of its own",
        ),
        (torch.jit.script(nn.Linear(16, 8)), r"layer '1' \(RecursiveScriptModule\) keeps its weights"),
        (quantised, r"layer '1' \(Function\) keeps its weights"),
    ):
        with pytest.raises(UnsupportedModelError, match=message):
            model_randomisation(saliency, nn.Sequential(nn.Flatten(), layer, head), x, 0)
    kept = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    kept.lines = (row for row in x)
    with pytest.raises(UnsupportedModelError, match="the model cannot be copied"):
        model_randomisation(saliency, kept, x, 0)
    with pytest.raises(UnsupportedModelError, match=r"layer '1' \(Scale\) owns parameters but has no reset_parameters"):
        model_randomisation(saliency, nn.Sequential(nn.Flatten(), Scale(), nn.Linear(16, 2)), x)
    with pytest.raises(UnsupportedModelError, match="no layer of the model has parameters"):
        model_randomisation(saliency, nn.Flatten(), x)
    with pytest.raises(ValueError, match=r"only a torch\.nn\.Module has layers"):
        model_randomisation(saliency, lambda x: x.flatten(1), x)
