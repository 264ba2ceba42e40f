"""Changes that must not change an answer: each cell is equal to tolerance, or refused in both forms."""

import contextlib
import inspect
import warnings

import numpy as np
import pytest
import torch

import interp_lab as il
from interp_lab import plot

from . import afterwards, negative
from .cells import EQUAL, FAILED, Outcome, canonical, difference, outcome, reference, some, whole
from .changes import CHANGES, DEFINITIONS, Hidden, pair
from .functions import FUNCTIONS, WITHOUT, Function
from .networks import NETWORKS, Case

pytestmark = pytest.mark.xdist_group("invariances")  # many compare with the same references


def check(outcomes: list[Outcome]) -> None:
    failed = [str(each) for each in outcomes if each.kind == FAILED]
    assert not failed, f"{len(failed)} of {len(outcomes)} cells:\n" + "\n".join(failed)


@pytest.mark.parametrize("change", CHANGES)
def test_the_answer_stays(change):
    check([outcome(*cell) for cell in some(change)])


@pytest.mark.exhaustive
@pytest.mark.parametrize("change", CHANGES)
def test_the_answer_stays_on_every_network(change):
    check([outcome(*cell) for cell in whole(change)])


@pytest.mark.parametrize("network", NETWORKS)
def test_every_function_takes_every_network_or_refuses_it(network):
    came = {
        name: reference(canonical("twice in a row"), name, network)
        for name in FUNCTIONS
        if not FUNCTIONS[name].networks
    }
    raised = {name: answer for name, answer in came.items() if isinstance(answer, Exception)}
    assert not raised, f"{network}: {raised}"


@pytest.mark.parametrize("name", negative.NEGATIVE)
def test_a_network_that_breaks_the_premises_is_refused_or_answered_row_by_row(name):
    check([negative.outcome(*cell) for cell in negative.cells(name)])


@pytest.mark.parametrize("name", negative.NO_LOGITS)
def test_a_model_without_logits_is_refused(name):
    check([negative.no_logits(*cell) for cell in negative.cells(name)])


@pytest.mark.parametrize("scenario", afterwards.SCENARIOS)
def test_everything_is_afterwards_as_it_was(scenario):
    check([afterwards.outcome(*cell) for cell in afterwards.cells(scenario)])


# What has no other form to compare with: sums, signs, and functions that take no model.

WITHOUT_BIAS = ("functional ReLU", "in-place ReLU", "reused", "residual", "grouped", "hard gates", "upsampled")


def without_biases(network: str) -> Case:
    case = NETWORKS[network].case()
    for module in case.model.modules():
        for name in ("bias", "running_mean"):
            if isinstance(getattr(module, name, None), torch.Tensor):
                getattr(module, name).data.zero_()
    return case


@pytest.mark.parametrize("rule", ["epsilon", "z_plus", "composite"])
@pytest.mark.parametrize("network", WITHOUT_BIAS)
def test_relevance_sums_to_the_logit_or_a_warning_tells(network, rule):
    case = without_biases(network)
    logit = case.model(case.x)[:, case.target].detach()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        relevance = il.lrp(case.model, case.x, case.target, rule=rule, epsilon=1e-13)
    assert told or difference([relevance.flatten(1).sum(1)], [logit], 1e-6) == ""


def test_deep_taylor_is_not_negative_where_it_answers():
    found = {}
    for name, network in NETWORKS.items():
        case = network.case()
        with contextlib.suppress(il.UnsupportedModelError):
            found[name] = il.deep_taylor(case.model, case.x)
    negative = [name for name, relevance in found.items() if relevance.min() < -1e-9 * relevance.abs().max()]
    assert not negative
    # A negative logit has no relevance at all.
    assert sum(bool(relevance.any()) for relevance in found.values()) >= 10


@pytest.mark.parametrize(
    "change", [lambda x: x + 1e4, lambda x: (x + 1e4).double(), lambda x: x.double(), lambda x: x.T.contiguous().T]
)
def test_prototypes_do_not_depend_on_the_origin_or_the_dtype(change):
    x = torch.randint(-64, 64, (60, 5), generator=torch.Generator().manual_seed(0)) / 64.0  # exact after the shift
    right, came = il.mmd_critic(x, 6, 3), il.mmd_critic(change(x), 6, 3)
    assert torch.equal(came.prototypes, right.prototypes)
    assert torch.equal(came.criticisms, right.criticisms)
    assert difference([came.witness.double()], [right.witness.double()], 1e-4) == ""


@pytest.mark.parametrize("change", [lambda x: 255 * x, lambda x: (255 * x).to(torch.uint8), lambda x: 4 * x - 2])
def test_a_picture_of_another_range_is_not_clipped(change):
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drawn = np.asarray(plot.images(change(x)).axes[0].images[0].get_array())
    assert ((drawn <= 0) | (drawn >= 1)).mean() < 0.05


# The harness itself.


def test_every_public_function_of_a_model_has_a_row():
    public = {name: getattr(il, name) for name in il.__all__ if inspect.isfunction(getattr(il, name))}
    takes = {name for name, function in public.items() if "model" in inspect.signature(function).parameters}
    rows = inspect.getsource(inspect.getmodule(Function))
    missing = [name for name in takes if f"il.{name}" not in rows and name not in il.METHODS and name not in WITHOUT]
    assert not missing


def is_open(model) -> bool:
    return isinstance(model, torch.nn.Module) and not isinstance(model, Hidden)


@pytest.mark.parametrize("change", CHANGES)
def test_both_forms_are_one_function(change):
    each, applied = CHANGES[change], 0
    if each.run_reference.__name__ == "second_input_by_rows":
        return  # the forms take another input each
    for network in each.networks or NETWORKS:
        forms = pair(each, NETWORKS[network])
        if forms is None:
            continue
        applied += 1
        with torch.no_grad():
            theirs, ours = (form.model.eval()(form.x) if is_open(form.model) else None for form in forms)
        if ours is not None and ours.shape == theirs.shape and not change.startswith("float32"):
            assert not difference([ours], [theirs], 1e-9 if ours.dtype == torch.float64 else 1e-4), network
    assert applied


def test_no_row_is_empty():
    """Every change leaves an answer of some function to compare, and so does every function."""
    answered = set()
    for change in CHANGES:
        cells = list(some(change))
        came = [cell for cell in cells if isinstance(reference(canonical(change), *cell[1:]), list)]
        assert came, change
        answered |= {function for _, function, _ in came}
    assert answered == {name for name, known in FUNCTIONS.items() if not known.networks}


def test_the_fast_table_takes_the_network_that_shows_most():
    assert list(some("activations and gates, not constants")) == [
        ("activations and gates, not constants", "lrp epsilon", "hard gates")
    ]
    assert ("float32", "deeplift near its baseline", "smooth") in list(some("float32"))


def test_a_failing_cell_is_seen_and_named():
    network = NETWORKS["dense"].case()
    right = FUNCTIONS["saliency"](network)
    assert difference(right, right, 0.0) == ""
    assert "off by" in difference([right[0] * (1 + 1e-6)], right, 1e-8)
    assert "not" in difference([right[0].float()], right, 1e-8)
    assert "finite" in difference([right[0] * torch.nan], right, 1e-8)
    assert str(Outcome("change", "function", "network", FAILED, "why")) == "change | function | network: why"
    assert set(DEFINITIONS) <= set(FUNCTIONS)
    assert EQUAL != FAILED
