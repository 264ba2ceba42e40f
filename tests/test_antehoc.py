"""Ante-hoc models: known answers, optimality conditions, and that each explanation is what the model computes."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.tree import export_text
from torch import nn
from torch.testing import assert_close

from interp_lab import UnsupportedModelError, antehoc, networks
from interp_lab.data import digits

TRAIN, TEST = digits("train"), digits("test")


def pooled(x):
    return F.interpolate(x, size=(8, 8), mode="area")


def accuracy(model) -> float:
    return (model(TEST.images).argmax(1) == TEST.labels).float().mean().item()


def uniform(n: int, d: int, seed: int = 0):
    return torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


# Linear


def test_sparse_softmax_meets_the_optimality_conditions_of_its_penalty():
    x, l1 = pooled(TRAIN.images[:400]), 0.02
    y = TRAIN.labels[:400]
    model = antehoc.sparse_softmax(x, y, l1=l1)
    # Written from the problem: at the solution the gradient of the loss to each standardised weight is -l1 sign(w), or
    # within [-l1, l1] where w = 0; to the bias it is 0.
    z = x.flatten(1).double()
    z = (z - z.mean(0)) / z.std(0, correction=0).clamp(min=1e-9)
    error = torch.softmax(model(x).double(), 1) - F.one_hot(y)
    gradient, weight = error.T @ z / len(x), model.importance.double()
    active = weight != 0
    assert_close(gradient[active], -l1 * weight[active].sign(), atol=3e-4, rtol=0)
    assert gradient[~active].abs().max() < l1 + 3e-4
    assert error.mean(0).abs().max() < 3e-4
    assert 20 < model.nonzeros < 200


def test_more_penalty_leaves_fewer_weights_and_all_penalty_none():
    few = [antehoc.sparse_softmax(TRAIN.images, TRAIN.labels, l1=l1, features=pooled) for l1 in (0.01, 0.05, 10.0)]
    assert few[0].nonzeros > few[1].nonzeros > few[2].nonzeros == 0
    assert accuracy(few[0]) > 0.93
    shares = TRAIN.labels.bincount() / len(TRAIN)
    assert_close(torch.softmax(few[2](TEST.images[:1]), 1)[0], shares, atol=1e-3, rtol=0)


def test_the_unit_of_a_feature_changes_its_weight_but_not_its_importance():
    x = uniform(300, 3)
    y = (x[:, 0] + x[:, 1] > 0).long()
    scale = torch.tensor([1.0, 1000.0, 1.0]).double()
    metres, millimetres = (antehoc.sparse_softmax(v, y, l1=0.02) for v in (x, x * scale))
    assert_close(metres.importance, millimetres.importance)
    assert_close(metres.weight, millimetres.weight * scale)
    assert (metres.importance[:, 2] == 0).all()  # the third is noise


def test_templates_have_the_shape_of_the_features_and_constant_pixels_no_weight():
    framed = lambda x: F.pad(pooled(x), (1, 1, 1, 1))  # noqa: E731
    model = antehoc.sparse_softmax(TRAIN.images, TRAIN.labels, l1=0.03, features=framed)
    assert model.templates.shape == (10, 1, 10, 10)
    assert (model.templates[..., 0] == 0).all()
    logits = torch.einsum("nchw,kchw->nk", framed(TEST.images), model.templates) + model.bias
    assert_close(model(TEST.images), logits)


def test_a_sparse_softmax_that_is_not_solved_says_so():
    with pytest.warns(UserWarning, match="not yet at its solution after 2 steps"):
        antehoc.sparse_softmax(TRAIN.images, TRAIN.labels, features=pooled, steps=2)


# Tree


def test_the_rules_are_the_tree():
    x = uniform(500, 2)
    y = torch.where(x[:, 0] <= 0, 0, torch.where(x[:, 1] <= 0.5, 1, 2))
    model = antehoc.decision_tree(x, y, names=["width", "height"])
    assert model.leaves == 3
    pattern = r"if width <= -?0\.0\d*: class 0 \(100% of \d+\)"
    assert len(model.rules()) == 3
    assert [rule for rule in model.rules() if re.fullmatch(pattern, rule)]
    first, second = model.explain(torch.tensor([[0.5, 0.0], [0.5, 0.9]]).double())
    assert first.endswith(f"class 1 (100% of {(y == 1).sum()})")
    assert "height > " in second


def test_a_rule_keeps_the_tightest_of_several_tests_on_a_feature_and_holds_for_its_examples():
    x = torch.arange(8.0)[:, None]
    y = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1])
    model = antehoc.decision_tree(x, y)
    for value, rule in zip(x[:, 0], model.explain(x), strict=True):
        tests = rule.removeprefix("if ").split(":")[0].split(" and ")
        assert len({test.rsplit(" ", 1)[0] for test in tests}) == len(tests)
        assert all(eval(test, {"x0": float(value)}) for test in tests)
        assert rule.endswith("(100% of 2)")


def test_the_tree_draws_the_class_frequencies_of_scikit_learn_and_respects_its_depth():
    model = antehoc.decision_tree(TRAIN.images, TRAIN.labels, depth=5, features=pooled)
    expected = model.tree.predict_proba(pooled(TEST.images).flatten(1).numpy())
    assert_close(model(TEST.images), torch.from_numpy(expected).float())
    assert model.tree.get_depth() == 5
    assert len(model.rules()) == model.leaves == export_text(model.tree).count("class:")


def test_importance_by_shuffling_does_not_credit_noise_of_many_values_as_impurity_does():
    generator = torch.Generator().manual_seed(0)
    signal, noise = torch.randint(2, (2, 600), generator=generator), torch.rand(600, generator=generator)
    y = torch.where(torch.rand(600, generator=generator) < 0.7, signal[0], 1 - signal[0])
    x = torch.stack([signal[0].float(), noise], 1)
    model = antehoc.decision_tree(x[:300], y[:300])
    assert model.tree.feature_importances_[1] > model.tree.feature_importances_[0]
    importance = model.importance(x[300:], y[300:])
    assert importance[0] > 0.05
    assert abs(importance[1]) < 0.06
    assert importance[0] > importance[1]


# Additive


def test_an_additive_function_comes_apart_into_its_terms():
    x = uniform(800, 3)
    parts = [torch.sin(3 * x[:, 0]), x[:, 1].square(), torch.zeros(800).double()]
    model = antehoc.additive_model(x, torch.stack([sum(parts) + 5, -parts[0]], 1), knots=12, l2=0.0)
    terms = model.terms(x)
    for j, part in enumerate(parts):
        assert_close(terms[:, 0, j], part - part.mean(), atol=2e-3, rtol=0)
    assert_close(terms[:, 1, 0], -parts[0] + parts[0].mean(), atol=2e-3, rtol=0)
    assert_close(terms.mean(0), torch.zeros(2, 3).double(), atol=1e-9, rtol=0)  # centred: identified
    assert_close(model.bias[0], (sum(parts) + 5).mean())
    assert_close(model.importance[0], torch.stack(parts).std(1, correction=0), atol=2e-3, rtol=0)
    places, curves = model.curves(30)
    assert_close(curves[:, 0, 1], places[:, 1].square() - parts[1].mean(), atol=3e-3, rtol=0)


def test_a_pure_interaction_has_no_terms():
    grid = torch.linspace(-1, 1, 21, dtype=torch.float64)
    x = torch.cartesian_prod(grid, grid)
    model = antehoc.additive_model(x, (x[:, 0] * x[:, 1])[:, None], l2=0.0)
    assert model.terms(x).abs().max() < 1e-9


def test_the_terms_of_a_classifier_sum_to_its_scores_and_two_classes_mirror_each_other():
    model = antehoc.additive_model(TRAIN.images, TRAIN.labels, features=pooled)
    assert_close(model(TEST.images), model.bias + model.terms(TEST.images).sum(2))
    assert accuracy(model) > 0.95
    x = uniform(400, 2)
    two = antehoc.additive_model(x, (x[:, 0].abs() > 0.5).long())
    assert ((two(x).argmax(1) == 1) == (x[:, 0].abs() > 0.5)).double().mean() > 0.95
    assert_close(two(x)[:, 0], -two(x)[:, 1])
    assert two.importance[0, 0] > 10 * two.importance[0, 1]


# Networks


def brute_force_field(body: nn.Sequential, size: int) -> list[list[int]]:
    """For each place along the diagonal, first and last row on which it depends, by the gradient of random weights."""
    windows = []
    x = torch.rand(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    maps = body(x)
    for i in range(maps.shape[2]):
        (gradient,) = torch.autograd.grad(maps[0, :, i, i].sum(), x, retain_graph=True)
        rows = gradient[0, 0].abs().sum(1).nonzero()
        windows.append([rows.min().item(), rows.max().item() + 1])
    return windows


def test_receptive_fields_agree_with_where_the_gradient_is():
    torch.manual_seed(0)
    # Average pooling and no ReLU: the gradient reaches every pixel of the window.
    body = nn.Sequential(
        nn.Conv2d(1, 2, 5, padding=2, stride=2), nn.AvgPool2d(2), nn.Conv2d(2, 2, 3, dilation=2, padding=1)
    ).double()
    field = antehoc.receptive_field(body)
    got = [
        field.windows(torch.tensor(i), 40).tolist() for i in range(body(torch.zeros(1, 1, 40, 40).double()).shape[2])
    ]
    true = brute_force_field(body, 40)
    assert got[2:-2] == true[2:-2]
    # At the border some pixels of the window are reached through padding only, so not at all.
    assert all(a[0] <= b[0] and b[1] <= a[1] for a, b in zip(got, true, strict=True))


def test_evidence_is_local_and_sums_to_the_logits():
    torch.manual_seed(0)
    bag = antehoc.BagOfLocalFeatures(networks.digits_cnn()[:6], 32, 10).eval()
    x = TEST.images[:4]
    evidence = bag.evidence(x)
    assert_close(evidence.sum((2, 3)), bag(x).detach())
    rows, columns = (bag.field.windows(torch.tensor(3), 28) for _ in range(2))
    changed = torch.rand(4, 1, 28, 28)
    changed[..., rows[0] : rows[1], columns[0] : columns[1]] = x[..., rows[0] : rows[1], columns[0] : columns[1]]
    other = bag.evidence(changed)
    assert_close(other[:, :, 3, 3], evidence[:, :, 3, 3])
    assert (other[:, :, 0, 0] != evidence[:, :, 0, 0]).any()


def test_the_order_of_patches_plays_no_role_in_a_bag_of_local_features():
    torch.manual_seed(0)
    bag = antehoc.BagOfLocalFeatures(nn.Sequential(nn.Conv2d(1, 8, 4, stride=4), nn.ReLU()), 8, 3)
    patches = torch.rand(4, 2, 4, 4)
    assert_close(
        bag(torch.cat([torch.cat([*patches[:2]], 2), torch.cat([*patches[2:]], 2)], 1)[:, None]),
        bag(torch.cat([torch.cat([*patches[[3, 1]]], 2), torch.cat([*patches[[2, 0]]], 2)], 1)[:, None]),
    )


@pytest.fixture(scope="module")
def prototypes(seed):
    torch.manual_seed(seed)
    body = nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU()
    )
    before = torch.get_rng_state()
    network = antehoc.prototype_network(TRAIN.images, TRAIN.labels, body, per_class=2, epochs=6, seed=seed)
    assert torch.equal(torch.get_rng_state(), before)
    return network


def test_every_prototype_is_a_piece_of_a_training_image_of_its_class(prototypes):
    own = prototypes.explain(prototypes.sources)
    m = torch.arange(20)
    # At its own source each prototype is at distance 0, where similarity is log(1 / 1e-4).
    assert_close(own.similarity[m, m], torch.full((20,), 1e4).log(), atol=0.1, rtol=0)
    assert torch.equal(own.windows[m, m], prototypes.source_windows)
    for source, c in zip(prototypes.sources, prototypes.classes, strict=True):
        same = (TRAIN.images == source).flatten(1).all(1)
        assert (TRAIN.labels[same] == c).any()


def test_contributions_of_prototypes_sum_to_the_logit_and_it_recognises_digits(prototypes, verdict):
    evidence = prototypes.explain(TEST.images[:20])
    logits = prototypes(TEST.images[:20]).detach()
    assert_close(evidence.contribution.sum(1), logits.max(1).values)
    assert_close(prototypes.explain(TEST.images[:20], 3).contribution.sum(1), logits[:, 3])
    verdict("accuracy", accuracy(prototypes), above=0.4)  # six epochs of a tiny network; chance is 0.1
    assert not prototypes.training


def test_only_the_window_decides_a_similarity(prototypes):
    x = TEST.images[:1]
    evidence = prototypes.explain(x)
    top, bottom, left, right = evidence.windows[0, 4].tolist()
    blank = torch.zeros_like(x)
    blank[..., top:bottom, left:right] = x[..., top:bottom, left:right]
    assert prototypes.explain(blank).similarity[0, 4] >= evidence.similarity[0, 4] - 1e-4


# Refusals


X, Y = TRAIN.images[:40], TRAIN.labels[:40]


@pytest.mark.parametrize("fit", [antehoc.sparse_softmax, antehoc.decision_tree, antehoc.additive_model])
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X.long(), Y, "floating-point batch"),
        (X.log() * 0, Y, "NaN or infinite"),
        (X[:0], Y[:0], "at least one example"),
        (X, Y.int(), r"LongTensor of labels \(40,\), got torch.int32"),
        (X, Y[:3], r"LongTensor of labels \(40,\), got torch.int64 \(3,\)"),
        (X, Y - 1, "at least 0, got -1"),
        (X, Y.where(Y != 4, 5), r"needs an example; without one: \[4\]"),
    ],
)
def test_bad_examples_are_refused_by_name(fit, x, y, message):
    with pytest.raises(ValueError, match=message):
        fit(x, y)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: antehoc.sparse_softmax(X, Y, l1=-1), "l1 must be at least 0, got -1"),
        (lambda: antehoc.decision_tree(X, Y, depth=0), "depth must be None or an integer of at least 1, got 0"),
        (lambda: antehoc.decision_tree(X, Y, names=["a"]), "one per feature, 784, got 1"),
        (lambda: antehoc.decision_tree(X, Y)(X[..., :7]), r"must have shape \(40, 1, 28, 28\), got \(40, 1, 28, 7\)"),
        (lambda: antehoc.decision_tree(X, Y, features=lambda x: x.mean((1, 2)) / 0), "features must be finite"),
        (lambda: antehoc.additive_model(X, Y, knots=1), "knots must be an integer of at least 2, got 1"),
        (lambda: antehoc.additive_model(X, Y, l2=0.0), "above 0 for labels"),
        (lambda: antehoc.additive_model(X, torch.zeros(3, 2)), r"of shape \(40, K\), got \(3, 2\)"),
        (lambda: antehoc.additive_model(X * 0, Y), "all features are constant"),
        (lambda: antehoc.prototype_network(X, Y, nn.Sequential(nn.Conv2d(1, 2, 3)), per_class=0), "at least 1, got 0"),
    ],
)
def test_bad_options_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_unknown_layer_has_no_receptive_field():
    with pytest.raises(UnsupportedModelError, match="layer '1', a Flatten"):
        antehoc.BagOfLocalFeatures(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), 2, 3)


def test_a_prototype_network_refuses_a_class_that_there_is_not(prototypes):
    with pytest.raises(ValueError, match=r"target must lie in 0\.\.9, got 10"):
        prototypes.explain(X, 10)


def test_fits_repeat_exactly_and_follow_the_device():
    one, two = (antehoc.decision_tree(X, Y, seed=3)(X) for _ in range(2))
    assert_close(one, two, rtol=0, atol=0)
    assert np.isfinite(one.numpy()).all()
    if torch.cuda.is_available():
        for fit in (antehoc.sparse_softmax, antehoc.decision_tree, antehoc.additive_model):
            cpu, gpu = fit(X, Y, features=pooled)(X), fit(X.cuda(), Y.cuda(), features=pooled)(X.cuda())
            assert gpu.is_cuda
            assert_close(cpu, gpu.cpu(), atol=1e-2, rtol=1e-2)
