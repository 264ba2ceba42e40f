"""The warnings: away from the minimum, and where steps are too long to be linear."""

import warnings

import pytest
from influence_by_hand import fit_softmax, small_digits, softmax_model

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
