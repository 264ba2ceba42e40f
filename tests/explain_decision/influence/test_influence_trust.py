"""The warnings: away from the minimum, and where steps are too long to be linear."""

import warnings

import pytest
import torch
from influence_by_hand import fit_softmax, half_square, small_digits, softmax_model
from torch import nn

from interp_lab import influence

pytestmark = pytest.mark.filterwarnings("ignore:the model is not at a minimum", "ignore:influence is a first-order")


@pytest.mark.parametrize("solver", ["exact", "cg"])
def test_a_warning_at_weak_regularisation_tells_by_how_much_the_steps_are_off(solver):
    train, test = small_digits(200, 20, side=4)
    model = softmax_model(fit_softmax(*train, 1e-4))
    with pytest.warns(UserWarning, match=r"too long for it here: the true step is [2-9]\.?\d* times the predicted"):
        influence(model, train, test, weight_decay=1e-4, solver=solver)


def test_a_warning_off_the_minimum_only():
    train, test = small_digits(300, 10, side=4)
    w = fit_softmax(*train, 0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        influence(softmax_model(w), train, test, weight_decay=0.01, solver="kfac")
    for model, weight_decay in ((softmax_model(w * 0.9), 0.01), (softmax_model(w), 0.02)):
        with pytest.warns(UserWarning, match="not at a minimum of its objective: the gradient's norm"):
            influence(model, train, test, weight_decay=weight_decay, solver="kfac")


@pytest.mark.parametrize(("ratio", "told"), [(1.08, False), (1.12, True), (1.5, True)])
def test_a_step_is_too_long_from_a_tenth_more_than_predicted(ratio, told):
    """Ridge regression: the true step is 1 / (1 - leverage) of the predicted one."""
    n, x = 40, torch.full((40, 1), 0.1, dtype=torch.float64)
    x[0], y = 1, x.clone()
    y[0] = 3  # of the largest loss as well
    weight_decay = (ratio / (ratio - 1) - float((x**2).sum())) / n  # so that the first leverage is 1 - 1 / ratio
    model = nn.Linear(1, 1, bias=False).double()
    model.weight.data = x.T @ y / (x.T @ x + n * weight_decay)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        influence(model, (x, y), (x[:1], y[:1]), weight_decay=weight_decay, loss=half_square)
    assert [f"the true step is {ratio:.2g} times" in str(warning.message) for warning in caught] == [True] * told
