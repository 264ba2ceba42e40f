"""Trees: the rules and the frequencies are scikit-learn's, the importance is that of shuffling."""

import re

import torch
import torch.nn.functional as F
from sklearn.tree import export_text
from torch.testing import assert_close

from interp_lab import decision_tree
from interp_lab.data import digits

TRAIN, TEST = digits("train"), digits("test")


def pooled(x):
    return F.interpolate(x, size=(8, 8), mode="area")


def test_the_rules_are_the_tree():
    x = torch.rand(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    y = torch.where(x[:, 0] <= 0, 0, torch.where(x[:, 1] <= 0.5, 1, 2))
    model = decision_tree(x, y, names=["width", "height"])
    assert model.leaves == 3
    pattern = r"if width <= -?0\.0\d*: class 0 \(100% of \d+\)"
    assert len(model.rules()) == 3
    assert [rule for rule in model.rules() if re.fullmatch(pattern, rule)]
    first, second = model.explain(torch.tensor([[0.5, 0.0], [0.5, 0.9]]).double())
    assert first.endswith(f"class 1 (100% of {(y == 1).sum()})")
    assert "height > " in second


def test_a_rule_keeps_the_tightest_of_several_tests_on_a_feature_and_holds_for_the_examples_of_its_leaf_alone():
    x = torch.arange(8.0)[:, None]
    y = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1])
    model = decision_tree(x, y)
    for pair, rule in zip(torch.arange(8) // 2, model.explain(x), strict=True):
        tests = rule.removeprefix("if ").split(":")[0].split(" and ")
        assert len({test.rsplit(" ", 1)[0] for test in tests}) == len(tests)
        holds = [all(eval(test, {"x0": value}) for test in tests) for value in x[:, 0].tolist()]
        assert holds == (torch.arange(8) // 2 == pair).tolist()
        assert rule.endswith("(100% of 2)")


def test_the_tree_draws_the_class_frequencies_of_scikit_learn_and_respects_its_depth():
    model = decision_tree(TRAIN.images, TRAIN.labels, depth=5, features=pooled)
    expected = model.tree.predict_proba(pooled(TEST.images).flatten(1).numpy())
    assert_close(model(TEST.images), torch.from_numpy(expected).float())
    assert model.tree.get_depth() == 5
    assert len(model.rules()) == model.leaves == export_text(model.tree).count("class:")


def test_importance_by_shuffling_does_not_credit_noise_of_many_values_as_impurity_does():
    generator = torch.Generator().manual_seed(0)
    signal, noise = torch.randint(2, (2, 600), generator=generator), torch.rand(600, generator=generator)
    y = torch.where(torch.rand(600, generator=generator) < 0.7, signal[0], 1 - signal[0])
    x = torch.stack([signal[0].float(), noise], 1)
    model = decision_tree(x[:300], y[:300])
    assert model.tree.feature_importances_[1] > model.tree.feature_importances_[0]
    importance = model.importance(x[300:], y[300:])
    assert importance[0] > 0.05
    assert abs(importance[1]) < 0.06
    assert importance[0] > importance[1]


def test_a_shuffled_feature_that_decides_alone_costs_half_the_answers_for_every_seed():
    y = torch.cat([torch.zeros(50), torch.ones(100), torch.zeros(50)]).long()  # the same backwards
    x = y[:, None].float()
    model = decision_tree(x, y)
    lost = torch.stack([model.importance(x, y, seed=seed)[0] for seed in range(20)])
    assert ((lost > 0.3) & (lost < 0.7)).all()  # of two classes of equal size; the deviation is 0.035
    assert lost.unique().numel() > 5
    assert model.importance(x, y, seed=3) == lost[3]
