"""The solvers with the Hessian itself against the formula by hand."""

import pytest
import torch
from influence_by_hand import cloud, influence_by_hand, two_layers
from torch import nn
from torch.testing import assert_close

from interp_lab import influence

pytestmark = pytest.mark.filterwarnings("ignore:the model is not at a minimum", "ignore:influence is a first-order")


@pytest.mark.parametrize("solver", ["exact", "cg"])
def test_equal_to_the_formula_written_out_on_a_network_with_damping(solver):
    model, train, test = two_layers(), cloud(40), cloud(7, seed=2)
    by_hand = influence_by_hand(model, train, test, 0.02 + 0.3)
    result = influence(model, train, test, weight_decay=0.02, damping=0.3, solver=solver)
    assert_close(result, by_hand, rtol=1e-7, atol=1e-11)


def test_lissa_agrees_on_a_network_within_its_tolerance():
    model, train, test = two_layers(), cloud(150), cloud(7, seed=2)
    by_hand = influence_by_hand(model, train, test, 0.5)
    for data in (train, [train]):
        result = influence(model, data, test, weight_decay=0.5, solver="lissa", depth=60)
        assert (result - by_hand).norm() < 0.05 * by_hand.norm()


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


def test_the_seed_decides_the_samples_of_lissa():
    model, train, test = nn.Linear(4, 3).double(), cloud(100, shape=(4,)), cloud(2, seed=2, shape=(4,))
    one, other = (influence(model, train, test, damping=1.0, solver="lissa", depth=20, seed=seed) for seed in (0, 1))
    assert not torch.equal(one, other)


def test_a_softmax_without_regulariser_has_no_inverse_hessian():
    """One number added to all logits changes no loss; rounding lets a Cholesky factor of every other such Hessian pass."""
    for seed in range(10):
        torch.manual_seed(seed)
        train = cloud(20, seed=seed, shape=(1,))
        with pytest.raises(ValueError, match="not positive definite"):
            influence(nn.Linear(1, 3, bias=False).double(), train, train)
