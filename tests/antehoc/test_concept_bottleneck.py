"""Concept bottlenecks: the loss of the paper, an answer that reads the concepts alone, interventions, and leakage."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.testing import assert_close

from interp_lab import concept_bottleneck
from interp_lab.schedule import one_cycle

pytestmark = pytest.mark.usefixtures("double")

X = torch.randn(120, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CONCEPTS = (X > 0).double()[:, :2]  # the third input is no concept
Y = (CONCEPTS.sum(1) > 0).long()  # either of them
UNKNOWN = torch.nan


class Signs(nn.Module):
    """A body that has learnt the concepts, but for the examples in which it sees nothing."""

    def forward(self, x):
        return 50 * x[:, :2]


def bottleneck(**options):
    return concept_bottleneck(X, CONCEPTS, Y, Signs(), epochs=0, **options)


def test_the_independent_answer_is_a_logistic_regression_on_the_concepts():
    ours = bottleneck()
    fitted = LogisticRegression(C=2 / (1e-3 * len(Y)), tol=1e-10, max_iter=10_000).fit(CONCEPTS.numpy(), Y.numpy())
    # Of two classes it penalises the difference of their weights, which lie at one half of it each.
    assert_close(ours.head.weight.diff(dim=0), torch.from_numpy(fitted.coef_), rtol=1e-3, atol=1e-4)
    assert_close(ours.head.bias.diff(), torch.from_numpy(fitted.intercept_), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("joint", [None, 0.0, 0.7])
def test_training_is_that_of_the_paper(joint):
    def body():
        torch.manual_seed(1)
        return nn.Linear(3, 2)

    ours = concept_bottleneck(X, CONCEPTS, Y, body(), joint=joint, epochs=2, lr=0.1, batch_size=50, seed=3)
    reader, order = body(), torch.Generator().manual_seed(3)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        answer = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW([*reader.parameters(), *answer.parameters()], lr=0.1, weight_decay=0.0)
    schedule = one_cycle(optimizer, 0.1, 6)
    for _ in range(2):
        permutation = torch.randperm(120, generator=order)
        for start in (0, 50, 100):
            rows = permutation[start : start + 50]
            c, t = 1 / (1 + (-reader(X[rows])).exp()), CONCEPTS[rows]
            loss = -(t * c.log() + (1 - t) * (1 - c).log()).sum(1).mean()
            if joint is not None:
                scores = answer(c)
                loss = joint * loss + (scores.logsumexp(1) - scores[torch.arange(len(rows)), Y[rows]]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    assert_close(ours.body.weight, reader.weight)
    assert_close(ours.concepts(X), reader(X).sigmoid())
    if joint is not None:
        assert_close(ours(X), answer(reader(X).sigmoid()))


def test_the_answer_follows_an_intervention_and_nothing_else():
    model = bottleneck()
    dark = torch.zeros(len(X), 3)  # both concepts unreadable: one half
    assert_close(model.concepts(dark), torch.full((len(X), 2), 0.5))
    first, both = torch.tensor([1.0, UNKNOWN]), torch.tensor([0.0, 1.0])
    assert_close(model(dark, first) - model(dark), 0.5 * model.head.weight[:, 0].expand(len(X), -1))
    assert_close(model(X, both), model(dark, both))  # nothing of x passes beside the concepts
    assert_close(model(X, torch.full((1, 2), UNKNOWN)), model(X))
    assert (model(dark, CONCEPTS).argmax(1) == Y).all()
    assert not (model(dark).argmax(1) == Y).all()


def test_a_joint_bottleneck_leaks_what_is_no_concept():
    hidden = (X[:, 2] > 0).long()  # independent of both concepts
    fits = {
        joint: concept_bottleneck(X, CONCEPTS, hidden, nn.Linear(3, 2), joint=joint, epochs=60, lr=0.1)
        for joint in (None, 0.01)
    }
    right = {joint: (model(X).argmax(1) == hidden).double().mean() for joint, model in fits.items()}
    told = {joint: (model(X, CONCEPTS).argmax(1) == hidden).double().mean() for joint, model in fits.items()}
    alike = [(CONCEPTS == value).all(1) for value in CONCEPTS.unique(dim=0)]
    bound = sum(hidden[rows].bincount().max() for rows in alike) / len(X)  # of what concepts alone can tell
    assert told[None] <= bound
    assert told[0.01] <= bound
    assert right[0.01] > 0.9 > bound + 0.2
    assert right[None] < 0.75


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: concept_bottleneck(X, CONCEPTS[:3], Y, Signs()), r"must be a tensor \(120, K\)"),
        (lambda: concept_bottleneck(X, 2 * CONCEPTS, Y, Signs()), r"must lie in \[0, 1\]"),
        (lambda: concept_bottleneck(X, CONCEPTS, Y, nn.Linear(3, 4)), r"each of 2 concepts, got \(1, 4\)"),
        (lambda: bottleneck(joint=-1.0), "at least 0, got -1.0"),
        (lambda: bottleneck(joint=1.0), "1 in joint training, got 0"),
        (lambda: bottleneck()(X, torch.ones(3)), r"broadcasts to \(120, 2\), got \(3,\)"),
        (lambda: bottleneck()(X, torch.full((2,), 1.5)), r"values in \[0, 1\]"),
    ],
)
def test_bad_arguments_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
