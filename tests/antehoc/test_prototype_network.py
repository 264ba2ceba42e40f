"""A prototype network: its prototypes are pieces of training images, and its evidence is what it computes."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from interp_lab import UnsupportedModelError, prototype_network
from interp_lab.data import digits

TRAIN, TEST = digits("train"), digits("test")
X, Y = TRAIN.images[:40], TRAIN.labels[:40]


@pytest.fixture(scope="module")
def prototypes(seed):
    torch.manual_seed(seed)
    body = nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU()
    )
    before = torch.get_rng_state()
    network = prototype_network(TRAIN.images, TRAIN.labels, body, per_class=2, epochs=6, seed=seed)
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
    verdict(
        "accuracy", (prototypes(TEST.images).argmax(1) == TEST.labels).float().mean(), above=0.4
    )  # six epochs of a tiny network; chance is 0.1
    assert not prototypes.training


def test_only_the_window_decides_a_similarity(prototypes):
    x = TEST.images[:1]
    evidence = prototypes.explain(x)
    top, bottom, left, right = evidence.windows[0, 4].tolist()
    blank = torch.zeros_like(x)
    blank[..., top:bottom, left:right] = x[..., top:bottom, left:right]
    assert prototypes.explain(blank).similarity[0, 4] >= evidence.similarity[0, 4] - 1e-4


def test_a_body_without_maps_is_refused():
    with pytest.raises(UnsupportedModelError, match="must give feature maps"):
        prototype_network(X, Y, nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()))


def test_a_prototype_network_refuses_a_class_that_there_is_not(prototypes):
    with pytest.raises(ValueError, match=r"target must lie in 0\.\.9, got 10"):
        prototypes.explain(X, 10)
