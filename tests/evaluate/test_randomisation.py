"""The cascade: which layers, in which order, from which seed, and what comes of methods whose answer is known."""

import pytest
import torch
from torch import nn
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_the_same_weights():
    network, x = networks.load("scenes_cnn"), scenes(4, seed=3).images
    here, there = model_randomisation(saliency, network, x), model_randomisation(saliency, network.cuda(), x.cuda())
    assert_close(here.spearman, there.spearman.cpu(), atol=0.01, rtol=0)


def test_what_cannot_be_randomised_is_refused_by_name():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.factor * x

    x = torch.rand(2, 1, 4, 4)
    with pytest.raises(UnsupportedModelError, match=r"layer '1' \(Scale\) owns parameters but has no reset_parameters"):
        model_randomisation(saliency, nn.Sequential(nn.Flatten(), Scale(), nn.Linear(16, 2)), x)
    with pytest.raises(UnsupportedModelError, match="no layer of the model has parameters"):
        model_randomisation(saliency, nn.Flatten(), x)
    with pytest.raises(ValueError, match=r"only a torch\.nn\.Module has layers"):
        model_randomisation(saliency, lambda x: x.flatten(1), x)
