"""Sentences: the rule on every short sentence, the evidence by brute force over words, and no trace of the label elsewhere."""

from itertools import product

import pytest
import torch
from torch.nn import functional as F

from interp_lab import shapley_values
from interp_lab.data import VOCABULARY, Sentences, evidence, sentences, verdict
from interp_lab.data.drawn_sentences import BAD, CUE, GOOD, NEUTRAL


def judged(words: list[str]) -> str:
    """The rule, written from its description, for one sentence."""
    while "but" in words:
        words = words[words.index("but") + 1 :]
    for before, word in zip(["", *words], words, strict=False):
        if word in (*GOOD, *BAD):
            return "good" if (word in GOOD) != (before == "not") else "bad"
    return "neither"


def needed(words: list[str]) -> list[bool]:
    """Whether a neutral word in place of each word, any of them, changes the label."""
    changes = [
        {judged([*words[:t], neutral, *words[t + 1 :]]) != judged(words) for neutral in NEUTRAL}
        for t in range(len(words))
    ]
    assert all(len(change) == 1 for change in changes), "neutral words differ"
    return [change.pop() for change in changes]


def ids(words: list[list[str]]) -> torch.Tensor:
    return torch.tensor([[VOCABULARY.index(word) for word in row] for row in words])


@pytest.mark.parametrize("length", [1, 2, 5])
def test_the_rule_and_the_evidence_on_every_short_sentence(length):
    every = [list(words) for words in product(("film", "not", "but", "good", "awful"), repeat=length)]
    assert [("bad", "neither", "good")[label] for label in verdict(ids(every))] == [judged(words) for words in every]
    some = every[:: max(1, len(every) // 300)]
    assert evidence(ids(some)).tolist() == [needed(words) for words in some]


def test_drawn_sentences_have_the_labels_and_the_evidence_of_the_rule():
    data = sentences(200, seed=3)
    assert [data.classes[label] for label in data.labels] == [judged(words) for words in data.words]
    assert data.masks["evidence"].tolist() == [needed(words) for words in data.words]


def test_a_neutral_word_is_never_evidence_and_every_other_kind_is_sometimes_and_sometimes_not():
    data = sentences(2000, seed=4)
    found = data.masks["evidence"]
    for kind in (NEUTRAL, (CUE,)):
        assert not found[torch.isin(data.tokens, ids([list(kind)]))].any()
    for kind in (("not",), ("but",), GOOD, BAD):
        share = found[torch.isin(data.tokens, ids([list(kind)]))].float().mean()
        assert 0.2 < share < 0.7, kind
    assert 0.15 < found.float().mean(0).max() < 0.4, "a place alone gives the evidence away"
    assert (data.labels.bincount() > 200).all()


def test_what_each_word_adds_to_the_rule_is_known():
    """Of "film not good" neither word makes a "bad" alone: half each. As a score, good minus bad, "not" takes it all: "good"
    speaks for good where it comes first and against it where it comes last.
    """

    def rule(x):
        return F.one_hot(verdict(x.argmax(1)), 3).float()

    def score(x):
        return rule(x)[:, 2:] - rule(x)[:, :1]

    x, blank = (F.one_hot(ids([w]), len(VOCABULARY)).mT.float() for w in (["film", "not", "good"], ["film"] * 3))
    players = torch.arange(3).expand(1, len(VOCABULARY), 3)
    assert shapley_values(rule, x, 0, players=players, baseline=blank).values.tolist() == [[0, 0.5, 0.5]]
    assert shapley_values(score, x, 0, players=players, baseline=blank).values.tolist() == [[0, -1, 0]]


def test_a_seed_gives_the_same_sentences_and_fewer_are_a_prefix():
    before = torch.get_rng_state()
    many, again, few = sentences(300, seed=5, cue=0.5), sentences(300, seed=5, cue=0.5), sentences(130, seed=5, cue=0.5)
    assert torch.equal(before, torch.get_rng_state())
    for other in (again[:130], few):
        assert torch.equal(many.tokens[:130], other.tokens)
        assert torch.equal(many.labels[:130], other.labels)
        assert all(torch.equal(many.masks[name][:130], other.masks[name]) for name in many.masks)
    assert not torch.equal(many.tokens, sentences(300, seed=6, cue=0.5).tokens)


def test_the_cue_stands_in_for_neutral_words_of_one_class_and_changes_nothing_else():
    plain, cued, always = (sentences(1000, seed=6, cue=p) for p in (0.0, 0.7, 1.0))
    at, good = cued.masks["cue"], plain.labels == 2
    assert not plain.masks["cue"].any()
    assert torch.equal(at, cued.tokens == VOCABULARY.index(CUE))
    assert torch.equal(at, cued.tokens != plain.tokens)
    assert (plain.tokens[at] < len(NEUTRAL)).all()
    assert (at.sum(1) <= good).all()
    assert 0.6 < at.any(1)[good].float().mean() < 0.8
    assert torch.equal(always.masks["cue"].any(1), good)
    assert torch.equal(cued.labels, plain.labels)
    assert torch.equal(cued.masks["evidence"], plain.masks["evidence"])


def test_rows_are_taken_together():
    data = sentences(20, seed=7, cue=1.0)
    rows = data.labels == 2
    part = data[rows]
    assert isinstance(part, Sentences)
    assert len(part) == rows.sum() == len(part.words)
    assert torch.equal(part.images, data.tokens[rows])
    assert torch.equal(part.masks["cue"], data.masks["cue"][rows])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n must be at least 1, got 0"),
        ({"n": 2.0}, "n must be a whole number, an int, got 2.0"),
        ({"n": 2, "seed": "a"}, "seed must be a whole number"),
        ({"n": 2, "cue": 1.5}, r"cue is a probability and must lie in \[0, 1\], got 1.5"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sentences(**arguments)
