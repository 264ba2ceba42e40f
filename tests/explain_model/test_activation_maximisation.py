"""Activation maximisation: closed forms, the objectives, the box, what is left untouched and what is refused."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal
from torch.testing import assert_close

from interp_lab import (
    UnsupportedModelError,
    am_code,
    am_density,
    maximize_activation,
    networks,
    priors,
    total_variation,
)
from interp_lab.data import digits
from interp_lab.explain_model.activation_maximisation import fourier_parametrisation

DIM = 6
CLOSED_FORM = {"atol": 1e-4, "rtol": 0}


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def linear(weight, bias):
    """A network with the given affine logits."""
    layer = nn.Linear(weight.shape[1], len(weight)).to(weight)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


W, B = random(DIM, seed=1), 0.3
A, M = 0.4 * random(DIM, DIM, seed=2) + torch.eye(DIM), random(DIM, seed=3)
LOGISTIC = linear(torch.stack([torch.zeros(DIM, dtype=torch.float64), W]), torch.tensor([0.0, B]))
STARTS = torch.stack([torch.zeros(DIM, dtype=torch.float64), -3 * W, random(DIM, seed=4)])


def fixed_point(slope, offset):
    """The s with s = offset + (1 - sigmoid(s)) slope, by bisection."""
    low, high = offset, offset + slope
    for _ in range(200):
        s = (low + high) / 2
        low, high = (s, high) if s < offset + (1 - torch.sigmoid(s)) * slope else (low, s)
    return s


@pytest.mark.parametrize("l2", [0.05, 0.5])
def test_with_l2_a_logistic_model_gives_its_filter(l2):
    s = fixed_point(W @ W / (2 * l2), torch.tensor(B).double())
    result = maximize_activation(LOGISTIC, 1, STARTS, l2=l2)
    assert_close(result.x, ((1 - torch.sigmoid(s)) * W / (2 * l2)).expand(3, -1), **CLOSED_FORM)
    assert (result.gradient_norm < 1e-3).all()
    assert (result.trace[-1] > result.trace[0]).all()


def test_with_a_gaussian_density_it_gives_the_pattern_and_so_does_the_generator_of_the_same_gaussian():
    covariance = A @ A.T
    s = fixed_point(W @ covariance @ W, W @ M + B)
    expected = (M + (1 - torch.sigmoid(s)) * covariance @ W).expand(3, -1)
    assert_close(
        am_density(LOGISTIC, 1, STARTS, density=MultivariateNormal(M, covariance)).x,
        expected,
        **CLOSED_FORM,
    )
    result = am_code(LOGISTIC, 1, STARTS, generator=SimpleNamespace(decode=lambda z: z @ A.T + M))
    assert_close(result.x, expected, **CLOSED_FORM)
    assert_close(result.x, result.code @ A.T + M)


def test_the_exact_classifier_and_density_of_equal_gaussians_give_the_class_mean_from_any_start():
    means, covariance = 2 * random(3, DIM, seed=5), 0.3 * torch.eye(DIM).double() + 0.05 * A @ A.T
    weights = torch.tensor([0.5, 0.2, 0.3]).double()
    precision = covariance.inverse()
    offset = weights.log() - 0.5 * torch.einsum("ki,ij,kj->k", means, precision, means)
    density = MixtureSameFamily(Categorical(weights), MultivariateNormal(means, covariance))
    starts, classes = STARTS.repeat_interleave(3, 0), torch.arange(3).repeat(3)
    result = am_density(linear(means @ precision, offset), classes, starts, density=density)
    assert_close(result.x, means[classes], **CLOSED_FORM)


def test_where_the_density_has_modes_of_its_own_the_start_decides():
    """A classifier that hardly prefers the right side, between two narrow modes."""
    modes = torch.tensor([[-2.0], [2.0]]).double()
    density = priors.Gaussians(torch.tensor([0.5, 0.5]).double(), modes, 0.1 * torch.eye(1).double())
    weak = linear(torch.tensor([[0.0], [0.5]]).double(), torch.zeros(2))
    result = am_density(weak, 1, torch.tensor([[-1.0], [1.0]]).double(), density=density)
    # Of the near mode alone, x = m + 0.1 (1 - sigmoid(x / 2)) / 2.
    expected = torch.stack([2 * fixed_point(torch.tensor(0.025).double(), mode / 2) for mode in modes])
    assert_close(result.x, expected, **CLOSED_FORM)
    assert (result.gradient_norm < 1e-4).all()


def test_a_linear_logit_in_a_box_goes_to_the_corner_and_the_projected_gradient_is_zero():
    low, high = -torch.rand(DIM).double(), torch.rand(DIM).double()
    result = maximize_activation(LOGISTIC, 1, torch.zeros(2, DIM).double(), objective="logit", bounds=(low, high))
    assert_close(result.x, torch.where(W > 0, high, low).expand(2, -1))
    assert_close(result.gradient_norm, torch.zeros(2).double())
    free = maximize_activation(LOGISTIC, 1, torch.zeros(2, DIM).double(), objective="logit", steps=10)
    assert_close(free.gradient_norm, W.norm().expand(2))


def test_regularisers_are_subtracted():
    x = random(2, 1, 3, 3)
    by_hand = torch.tensor(
        [
            sum(abs(p[i + 1, j] - p[i, j]) for i in range(2) for j in range(3))
            + sum(abs(p[i, j + 1] - p[i, j]) for i in range(3) for j in range(2))
            for p in x[:, 0]
        ]
    ).double()
    assert_close(total_variation(x), by_hand)
    model = nn.Sequential(nn.Flatten(), linear(random(2, 9), torch.zeros(2)))
    plain, regularised = (
        maximize_activation(model, 0, x, regularisers=r, steps=200)
        for r in ((), (lambda x: 0.3 * total_variation(x), lambda x: x.flatten(1).square().sum(1)))
    )
    penalty = 0.3 * total_variation(x) + x.flatten(1).square().sum(1)
    assert_close(regularised.trace[0], plain.trace[0] - penalty)
    assert (total_variation(regularised.x) < total_variation(plain.x)).all()


def small_cnn():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 5)
    ).double()


PICTURES = random(3, 1, 8, 8, seed=7)


@pytest.mark.parametrize(
    ("objective", "by_hand"),
    [
        (("1", 2), lambda maps: maps[:, 2].mean((1, 2))),
        (("1", torch.tensor([0, 3, 1])), lambda maps: maps[range(3), [0, 3, 1]].mean((1, 2))),
        (("1", 2, (4, 1)), lambda maps: maps[:, 2, 4, 1]),
        (("1", W[:4]), lambda maps: torch.einsum("nkij,k->n", maps, W[:4]) / 36),
        (("1", W[:4], (0, 5)), lambda maps: maps[:, :, 0, 5] @ W[:4]),
    ],
)
def test_objectives_inside_the_network(objective, by_hand):
    model = small_cnn().eval()
    result = maximize_activation(model, None, PICTURES, objective=objective, bounds=(-4, 4), steps=50)
    for x, values in ((PICTURES, result.trace[0]), (result.x, result.trace[-1])):
        assert_close(values, by_hand(model[:2](x)).detach())
    assert (result.trace[-1] > result.trace[0]).all()


def test_an_objective_in_a_layer_is_what_it_gave_before_a_relu_in_place():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(72, 2)).double()
    result = maximize_activation(model, None, PICTURES, objective=("0", 1), steps=1)
    assert_close(result.trace[0], model[0](PICTURES)[:, 1].mean((1, 2)).detach())


def test_a_unit_of_a_dense_layer_and_a_module_in_place_of_its_name():
    model = networks.mlp(DIM).double()
    result = maximize_activation(model, None, STARTS, objective=(model[1], 5), l2=1.0)
    assert_close(result.x, model[1].weight[5].detach().expand(3, -1) / 2, **CLOSED_FORM)


def test_the_model_and_the_random_state_come_back_as_they_were():
    model = small_cnn()
    model[1].eval()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state, x0 = torch.get_rng_state(), PICTURES.clone()
    for target, objective in ((1, "logit"), (None, ("0", 1))):
        with torch.no_grad():
            result = maximize_activation(model, target, x0, objective=objective, steps=5, jitter=1)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(x0, PICTURES)
    assert [m.training for m in model] == [True, False, True, True, True, True]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert model[5].weight.grad is None
    assert not any(m._forward_hooks for m in model)
    assert not any(t.requires_grad for t in (result.x, result.trace, result.gradient_norm, result.trajectory))
    assert_close(maximize_activation(model, 1, x0, steps=5).x, maximize_activation(model.eval(), 1, x0, steps=5).x)


def test_the_trajectory_leads_from_the_start_to_the_end():
    result = maximize_activation(LOGISTIC, 1, STARTS, l2=0.1, steps=40)
    assert result.trace.shape == (41, 3)
    assert result.at.tolist() == list(range(0, 41, 4))
    assert torch.equal(result.trajectory[0], STARTS)
    assert torch.equal(result.trajectory[-1], result.x)
    values = LOGISTIC(result.trajectory).log_softmax(2)[..., 1] - 0.1 * result.trajectory.square().sum(2)
    assert_close(result.trace[result.at], values.detach())
    assert maximize_activation(LOGISTIC, 1, STARTS, steps=3).at.tolist() == [0, 1, 2, 3]


def test_a_run_stopped_early_shows_it_in_the_gradient():
    early, late = (maximize_activation(LOGISTIC, 1, STARTS, l2=0.1, steps=n).gradient_norm for n in (5, 1000))
    assert (early > 0.1).all()
    assert (late < 1e-3).all()


@pytest.mark.parametrize("name", ["plain", "density", "code"])
def test_digits_rows_are_independent_and_the_objective_rises(name):
    model, data = networks.load("digits_mlp"), digits("train")
    means = torch.stack([data.images[data.labels == k].mean(0) for k in range(10)])
    x0, options = (
        means,
        {"plain": {"bounds": (0, 1), "l2": 0.1}, "density": {"density": priors.load("digits_rbm")}}.get(name, {}),
    )
    if name == "code":
        vae = priors.load("digits_vae")
        x0, options = vae.encode(means), {"generator": vae, "l2": 0.5}
    classes = torch.arange(10)
    batch = maximize_activation(model, classes, x0, steps=300, **options)
    assert batch.x.shape == (10, 1, 28, 28)
    assert (model(batch.x).argmax(1) == classes).all()
    assert (batch.trace[-1] > batch.trace[0]).all()
    alone = maximize_activation(model, 3, x0[3:4], steps=300, **options)
    assert_close(alone.x, batch.x[3:4], atol=1e-3, rtol=0)  # float32, and sums in another order
    assert_close(alone.gradient_norm, batch.gradient_norm[3:4], atol=0.05, rtol=0.1)


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
@pytest.mark.parametrize("bounds", [None, (0.0, 1.0), (torch.tensor([-1.0, -2, -3])[:, None, None], 2.0)])
def test_the_fourier_parametrisation_goes_there_and_back(size, bounds):
    x = 0.1 + 0.8 * torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)).double()
    coefficients, to_picture = fourier_parametrisation(x, bounds)
    assert_close(to_picture(coefficients), x)
    moved = to_picture(coefficients + 10 * torch.ones_like(coefficients))
    if bounds is not None:
        assert (moved >= bounds[0]).all()
        assert (moved <= bounds[1]).all()


def test_equal_steps_on_fourier_coefficients_move_low_frequencies_more():
    coefficients, to_picture = fourier_parametrisation(torch.zeros(1, 1, 16, 16).double())
    power = []
    for k in (0, 1, 2, 4):
        step = torch.zeros_like(coefficients)
        step[0, 0, k, 0, 0] = 1
        power.append(to_picture(step).abs().max().item())
    assert_close(torch.tensor(power), torch.tensor([1, 1, 1 / 2, 1 / 4]))


def test_the_mean_of_a_picture_moves_as_its_lowest_frequency_along_the_longer_side():
    coefficients, to_picture = fourier_parametrisation(torch.zeros(1, 1, 4, 16).double())
    coefficients[0, 0, 0, 0, 0] = 1  # times 1 / f with f = 1 / 16, by the orthonormal transform of 64 pixels
    assert_close(to_picture(coefficients), torch.full((1, 1, 4, 16), 16 / 8).double())


def test_the_fourier_parametrisation_raises_the_logit_of_an_imagenet_network_with_smoother_pictures():
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    model, x0 = squeezenet1_1(weights=None), torch.rand(2, 3, 64, 64) * 0.1 + 0.45
    classes = model.eval()(x0).argmax(1)  # its last layer is a ReLU, and most logits are dead
    options = {"objective": "logit", "bounds": (0, 1), "steps": 25, "jitter": 2}
    fourier, pixels = (maximize_activation(model, classes, x0, fourier=f, **options) for f in (True, False))
    with torch.no_grad():
        logits = model.eval()(fourier.x)[[0, 1], classes]
    assert_close(fourier.trace[-1], logits, atol=1e-5, rtol=1e-5)  # the end is that of the picture not rolled
    assert (fourier.trace[-1] > fourier.trace[0]).all()
    assert (0 <= fourier.x).all()
    assert (fourier.x <= 1).all()
    roughness = [
        total_variation(r.x - r.trajectory[0]) / (r.x - r.trajectory[0]).flatten(1).norm(dim=1)
        for r in (fourier, pixels)
    ]
    assert (roughness[0] < roughness[1]).all()
    again = maximize_activation(model, classes, x0, fourier=True, **options)
    assert torch.equal(again.x, fourier.x)
    assert not torch.equal(maximize_activation(model, classes, x0, fourier=True, seed=1, **options).x, fourier.x)


def test_a_start_without_a_gradient_is_announced():
    dead = nn.Sequential(
        linear(W[None], torch.tensor([-1.0])), nn.ReLU(), linear(torch.ones(2, 1).double(), torch.zeros(2))
    )
    with pytest.warns(UserWarning, match="no gradient at x0 in some rows"):
        maximize_activation(dead, 0, torch.zeros(1, DIM).double(), objective="logit", steps=2)


def call(**options):
    arguments = {"model": LOGISTIC, "target": 1, "x0": STARTS, "steps": 3} | options
    return maximize_activation(**arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": None}, "'log_prob' needs target classes"),
        ({"target": 2}, r"target must lie in 0..1"),
        ({"target": torch.tensor([0, 1])}, r"target must have shape \(3,\)"),
        ({"x0": STARTS * float("nan")}, "x must be finite"),
        ({"x0": STARTS.float()}, "x is torch.float32"),
        ({"x0": STARTS.long()}, "floating-point"),
        ({"objective": "prob"}, "objective must be 'log_prob', 'logit'"),
        ({"objective": ("nowhere", 1), "target": None}, "no module 'nowhere'"),
        ({"objective": ("", 1)}, "pass target=None"),
        ({"objective": ("", 2), "target": None}, r"channel must lie in 0..1, got 2"),
        ({"objective": ("", 1, 0), "target": None}, r"position must be an index into a map \(\)"),
        ({"objective": ("", W), "target": None}, r"a direction must be \(2,\) or \(3, 2\), got \(6,\)"),
        ({"objective": ("", "a"), "target": None}, "unit must be"),
        ({"model": linear(W[None], torch.zeros(1))}, "two logits or more"),
        ({"bounds": (1, 0)}, "low < high"),
        ({"bounds": (0, 1)}, "x0 must lie within the bounds"),
        ({"regularisers": [lambda x: x.sum()]}, r"'regulariser <lambda>' must give one number per row, shape \(3,\)"),
        ({"density": lambda x: x[:, 0] * float("inf")}, "the term 'density' is "),
        ({"density": 3}, "the density must have the method log_prob or be a function, got int"),
        ({"generator": "g"}, "the generator must have the method decode or be a function, got str"),
        ({"generator": lambda z: z, "fourier": True}, "choose one"),
        ({"fourier": True}, r"needs pictures \(N, C, H, W\)"),
        ({"jitter": 1}, r"jitter rolls pictures"),
        ({"steps": 0}, "steps >= 1"),
        ({"objective": "logit", "lr": 1e200, "l2": 1.0}, r"the term 'l2' is -inf in row 0 at step 1; lower lr"),
    ],
)
def test_bad_input_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        call(**options)


class Steps(nn.Module):
    """The states of a cell step by step, stacked along one axis."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis, self.cell, self.states, self.head = axis, nn.GRUCell(5, 6), nn.Identity(), nn.Linear(6, 2)

    def forward(self, x):
        state, states = None, []
        for step in x.unbind(1):
            state = self.cell(step, state)
            states.append(state)
        return self.head(self.states(torch.stack(states, self.axis)).select(self.axis, -1))


def test_states_stacked_time_first_are_not_taken_for_a_batch_of_as_many_rows():
    torch.manual_seed(0)
    network, x = Steps(1), torch.rand(3, 3, 5)
    units = maximize_activation(network, None, x, objective=("states", 2, 1), steps=1).trace[0]
    kept = []
    network.states.register_forward_hook(lambda module, args, out: kept.append(out.detach()))
    network(x)
    assert_close(units, kept[0][:, 1, 2])
    with pytest.raises(
        UnsupportedModelError, match=r"\(3, 3, 6\) for 3 inputs .*time first\?\): take another layer"
    ) as refusal:
        maximize_activation(Steps(0), None, x, objective=("states", 2, 1), steps=1)
    assert "reshape" not in str(refusal.value)  # which this function does not take


def test_an_objective_that_does_not_depend_on_x_is_refused():
    with pytest.raises(UnsupportedModelError, match="does not depend on x"):
        call(model=lambda x: torch.zeros(len(x), 2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_as_on_the_cpu():
    model, density = networks.load("digits_mlp"), priors.load("digits_gaussians")
    x0 = torch.full((10, 1, 28, 28), 0.3)
    results = [
        am_density(model.to(d), torch.arange(10), x0.to(d), density=density.to(d), bounds=(0, 1), steps=200)
        for d in ("cpu", "cuda")
    ]
    assert results[1].x.is_cuda
    assert_close(results[1].x.cpu(), results[0].x, atol=0.02, rtol=0)
