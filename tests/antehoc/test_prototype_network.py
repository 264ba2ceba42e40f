"""A prototype network: its prototypes are pieces of training images, and its evidence is what it computes."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from interp_lab import UnsupportedModelError, prototype_network
from interp_lab.antehoc import PrototypeNetwork
from interp_lab.antehoc.prototypes import _loss
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


def test_each_image_is_drawn_to_a_prototype_of_its_class_and_pushed_from_those_of_the_others(double):
    network = PrototypeNetwork(nn.Conv2d(1, 4, 3), 4, torch.rand(1, 6, 6), classes=3, per_class=2)
    x, y = torch.rand(5, 1, 6, 6), torch.tensor([0, 1, 2, 1, 0])
    total = 0.0
    for maps, label in zip(network.body(x), y, strict=True):
        distance = torch.stack([((maps.flatten(1).T - p) ** 2).sum(1).min() for p in network.prototypes])
        logits = network.head.weight @ torch.log((distance + 1) / (distance + 1e-4))
        of_class = torch.tensor([0, 0, 1, 1, 2, 2]) == label
        total += logits.logsumexp(0) - logits[label] + 0.8 * distance[of_class].min() - 0.08 * distance[~of_class].min()
    assert_close(_loss(network, x, y), total / 5)


def test_the_seed_decides_the_start_whatever_the_global_random_state():
    def fitted(seed, state):
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(1, 4, 5, stride=4), nn.ReLU())
        torch.manual_seed(state)
        return prototype_network(X, Y, body, per_class=1, epochs=1, batch_size=40, seed=seed).prototypes.detach()

    one, again, other = fitted(0, 1), fitted(0, 2), fitted(1, 1)  # a single batch: its order plays no role
    assert torch.equal(one, again)
    assert (one - other).abs().max() > 0.01


def test_windows_in_images_of_another_size_are_what_decides_there_too():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 4, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(4, 8, 3, stride=2, padding=1))
    x = X.double()  # near 0 a distance is rounded to a similarity's third digit in float32
    small = x[..., 10:16, 10:16]  # the four places see all but one row of it
    network = prototype_network(small, Y, body.double(), per_class=1, epochs=1)
    evidence = network.explain(x)
    for j in range(10):
        top, bottom, left, right = evidence.windows[0, j].tolist()
        assert bottom - top <= 9
        other = torch.rand_like(x[:1])
        other[..., top:bottom, left:right] = x[:1, :, top:bottom, left:right]
        assert network.explain(other).similarity[0, j] >= evidence.similarity[0, j] - 1e-4
