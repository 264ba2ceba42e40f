"""Parts: values by hand, the map of the true effects, maps that know nothing, and what is refused."""

import itertools
import math

import pytest
import torch
from scipy import stats
from torch import nn
from torch.testing import assert_close

from interp_lab import bootstrap, gradient_x_input, part_scores, saliency
from interp_lab.data import PARTS, scenes
from interp_lab.networks import scenes_cnn

SCORES = ("single_deletion", "deletion", "preservation", "shares")
ORDERS = ("single_deletion", "deletion", "preservation")


class Additive(nn.Module):
    """The logit of class 0 is a sum over the parts: pixel k holds 1 while part k is there, and counts ``effects[k]``."""

    def __init__(self, effects: torch.Tensor) -> None:
        super().__init__()
        self.effects = nn.Parameter(effects)

    def forward(self, x):
        first = x[:, 0].flatten(1)[:, : self.effects.shape[-1]]
        return torch.stack([(first * self.effects).sum(1), 0 * first[:, 0]], 1)


def case(count: int, n: int = 1, areas: tuple[int, ...] | None = None):
    """Images ``(n, 1, 1, P)`` whose part k is pixel k and some at the end, without which they are 0, and masks."""
    areas = areas or (1,) * count
    owner = torch.tensor([*range(count), *(k for k, area in enumerate(areas) for _ in range(area - 1)), -1])
    x = torch.ones(n, 1, 1, len(owner), dtype=torch.float64)
    masks = {f"part {k}": (owner == k).expand(n, 1, -1) for k in range(count)}
    return x, {name: x * ~mask[:, None] for name, mask in masks.items()}, masks


def oracle(effects, masks):
    """Every effect ``(N, K)``, laid evenly on its part."""
    inside = torch.stack(list(masks.values()), 1)
    return (inside * (effects / inside.sum((2, 3)))[:, :, None, None]).sum(1)


@pytest.mark.parametrize(
    ("relevance", "single", "order", "shares"),
    [
        ([1.0, 3.0, 0.0], 1.0, 1.0, 1.0),
        ([1.0, 2.0, 1.0], (1 + math.sqrt(0.75)) / 2, 11 / 12, 3 / 4),  # the second place is shared
        ([0.0, 1.0, 0.0], (1 + math.sqrt(0.75)) / 2, 11 / 12, 3 / 4),  # as good an order as the map above
        ([0.0, 3.0, 1.0], 3 / 4, 5 / 6, 3 / 4),  # the two that hardly count are exchanged: cheap
        ([3.0, 1.0, 0.0], 3 / 4, 2 / 3, 1 / 2),  # the first two are: as bad a rank, but it costs more
        ([0.0, -3.0, 1.0], 0.0, 0.0, 3 / 4),  # the shares do not see the sign
        ([5.0, 5.0, 5.0], 1 / 2, 1 / 2, 1 / 4 + 1 / 3),
    ],
)
def test_values_by_hand(relevance, single, order, shares):
    """Effects 1, 3 and 0: of the sums over the orders, 1 to 7, a deletion's best is 0 + 1 and a preservation's 3 + 4."""
    x, without, masks = case(3)
    map_ = torch.tensor([[[*relevance, 9.0]]])  # relevance outside of all parts counts for none
    found = part_scores(Additive(torch.tensor([1.0, 3.0, 0.0]).double()), x, map_, without, masks, 0)
    assert found.parts == ("part 0", "part 1", "part 2")
    assert_close(found.relevance, torch.tensor([relevance]).double())
    assert_close(found.effects, torch.tensor([[1.0, 3.0, 0.0]]).double())
    expected = torch.tensor([single, order, order, shares]).double()
    assert_close(torch.cat([getattr(found, score) for score in SCORES]), expected)


def test_parts_that_stand_in_for_each_other():
    """Part 0 or part 1 is enough, part 2 does nothing: alone no part has an effect, and the checks still see who counts."""
    x, without, masks = case(3, 2)
    map_ = torch.tensor([[2.0, 1.0, 0.0, 0.0], [2.0, 0.0, 1.0, 0.0]])[:, None]

    def model(x):
        either = x[:, 0, 0, :2].amax(1)
        return torch.stack([either, -either], 1)

    with pytest.warns(UserWarning, match="in 2 of 2 images the parts do not differ"):
        found = part_scores(model, x, map_, without, masks)
    assert found.single_deletion.isnan().all()
    assert found.shares.isnan().all()
    # Without part 0 and then 1 the logits are 1, 0; without 0 and then 2 they are 1, 1, as bad as it can be.
    assert_close(found.deletion, torch.tensor([1.0, 0.0]).double())
    # With part 0 alone, and with one more beside it, it is 1: the best.
    assert_close(found.preservation, torch.tensor([1.0, 1.0]).double())


def test_the_scenes_without_several_parts_are_put_together():
    data, seen = scenes(3, size=48, seed=2, evidence="dot"), []
    without = {part: scenes(3, size=48, seed=2, evidence="dot", without=part).images for part in PARTS}

    def model(x):
        seen.extend(x)
        return x.flatten(1)[:, :2] + x.mean((1, 2, 3))[:, None]

    part_scores(model, data.images, data.images, without, data.masks, batch_size=1)
    for i, size in itertools.product(range(3), range(4)):
        for gone in itertools.combinations(PARTS, size):
            expected = data.images[i]
            for part in gone:
                expected = torch.where(data.masks[part][i], without[part][i], expected)
            assert any(torch.equal(expected, picture) for picture in seen)


@pytest.mark.parametrize("count", range(2, 7))
def test_the_true_effects_score_one_where_they_add_up(count):
    x, without, masks = case(count, 1, tuple(range(1, count + 1)))
    effects = torch.randn(count, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    found = part_scores(Additive(effects), x, oracle(effects[None], masks), without, masks, 0)
    for score in SCORES:
        assert_close(getattr(found, score), torch.ones(1).double())
    found = part_scores(Additive(effects), x, -oracle(effects[None], masks), without, masks, 0)
    for score in ORDERS:
        assert_close(getattr(found, score), torch.zeros(1).double())


def test_gradient_x_input_scores_one_on_a_linear_model():
    x, without, masks = case(4, 3)
    model = Additive(torch.tensor([0.5, -1.0, 2.0, 0.1]).double())
    found = part_scores(model, x, gradient_x_input(model, x, 0), without, masks, 0)
    assert_close(torch.stack([getattr(found, score) for score in SCORES]), torch.ones(4, 3).double())


@pytest.fixture(scope="module")
def drawn():
    """A network with random weights, whose effects do not add up; scenes, the same without each part, and masks."""
    torch.manual_seed(0)
    data = scenes(40, size=48, seed=5, evidence="dot")
    without = {part: scenes(40, size=48, seed=5, evidence="dot", without=part).images.double() for part in PARTS}
    return scenes_cnn(3).eval().double(), data.images.double(), without, data.masks


def test_the_true_effects_score_one_on_a_network(drawn):
    model, x, without, masks = drawn
    masks = {part: masks[part] for part in PARTS}
    effects = part_scores(model, x, x, without, masks).effects
    found = part_scores(model, x, oracle(effects, masks), without, masks)
    for score in ("single_deletion", "shares"):
        assert_close(getattr(found, score), torch.ones(40).double())


def test_every_score_is_its_definition_image_by_image(drawn):
    """By loops, and Spearman's correlation by scipy."""
    model, x, without, masks = drawn
    target = torch.arange(40) % 3
    map_ = saliency(model, x, target)
    found = part_scores(model, x, map_, without, masks, target)
    for i in range(40):

        def logit(gone, i=i):
            image = x[i]
            for part in gone:
                image = torch.where(masks[part][i], without[part][i], image)
            return model(image[None])[0, target[i]].item()

        r = [(map_[i].sum(0) * masks[part][i]).sum().item() for part in PARTS]
        d = [logit(()) - logit((part,)) for part in PARTS]
        assert_close(found.single_deletion[i].item(), (1 + stats.spearmanr(r, d).statistic) / 2, atol=1e-6, rtol=0)
        orders = list(itertools.permutations(PARTS))
        mine = tuple(sorted(PARTS, key=dict(zip(PARTS, r, strict=True)).get, reverse=True))
        deletion = {order: -sum(logit(order[:m]) for m in (1, 2)) for order in orders}
        preservation = {order: sum(logit(order[m:]) for m in (1, 2)) for order in orders}
        for score, worth in (("deletion", deletion), ("preservation", preservation)):
            low, high = min(worth.values()), max(worth.values())
            assert_close(getattr(found, score)[i].item(), (worth[mine] - low) / (high - low))
        mass = [(map_[i].sum(0) * masks[part][i]).abs().sum().item() for part in PARTS]
        shares = sum(min(m / sum(mass), abs(e) / sum(map(abs, d))) for m, e in zip(mass, d, strict=True))
        assert_close(found.shares[i].item(), shares)


def test_a_map_that_knows_nothing_scores_chance():
    """1/2 in the first three, as noise and its negative are equally likely; the area where one part alone has an effect."""
    areas, n = (3, 7, 15), 4000
    x, without, masks = case(3, n, areas)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    found = part_scores(Additive(torch.tensor([2.0, 0.5, -1.0]).double()), x, noise, without, masks, 0)
    for score in ORDERS:
        low, high = bootstrap(getattr(found, score), confidence=0.999)[1:]
        assert low < 0.5 < high
        assert high - low < 0.05
    found = part_scores(Additive(torch.tensor([0.0, 1.0, 0.0]).double()), x, noise, without, masks, 0)
    low, high = bootstrap(found.shares, confidence=0.999)[1:]
    assert low < 7 / 25 < high


def test_an_even_map_has_the_shares_of_the_area():
    x, without, masks = case(3, 1, (3, 7, 15))
    found = part_scores(Additive(torch.tensor([1.0, 6.0, 1.0]).double()), x, torch.ones(x.shape), without, masks, 0)
    assert_close(found.shares, torch.tensor([3 / 25 + 7 / 25 + 1 / 8]).double())


def test_a_map_without_relevance_says_nothing():
    x, without, masks = case(2, 2, (1, 3))
    map_ = torch.stack([torch.zeros(1, 5), torch.tensor([[1.0, 0, 0, 0, 0]])])
    with pytest.warns(UserWarning, match="1 of 2 maps are zero on all parts"):
        found = part_scores(Additive(torch.tensor([1.0, 0.0]).double()), x, map_, without, masks, 0)
    expected = torch.tensor([[0.5, 0.5, 0.5, 0.25], [1.0, 1.0, 1.0, 1.0]]).double()
    assert_close(torch.stack([getattr(found, score) for score in SCORES], 1), expected)


def test_differences_by_rounding_are_none(drawn):
    _, x, without, masks = drawn

    def model(x):  # of the parts it sees less than a double holds beside the rest
        return torch.stack([x[:, 0, 0, :2].sum(1) + 1e-14 * x.mean((1, 2, 3)), x[:, 0, 0, 0]], 1)

    assert (model(x) != model(without["rim"])).any()
    with pytest.warns(UserWarning, match="in 40 of 40 images the parts do not differ"):
        found = part_scores(model, x, x, without, masks)
    assert (found.effects == 0).all()
    assert torch.stack([getattr(found, score) for score in SCORES]).isnan().all()


def test_the_background_is_a_part_as_well(drawn):
    model, x, _, masks = drawn
    bare = scenes(40, size=48, seed=5, evidence="dot", draw_object=False).images.double()
    on = masks["object"]
    without = {"object": bare, "background": torch.where(on[:, None], x, bare.roll(1, 0))}
    masks = {"object": on, "background": ~on}
    found = part_scores(model, x, on.float(), without, masks)
    truth = found.effects.abs() / found.effects.abs().sum(1, keepdim=True)
    assert_close(found.shares, truth[:, 0])  # no relevance on the background, as if it had no effect
    quarter = oracle(torch.tensor([[1.0, 3.0]]).expand(40, 2), masks)
    found = part_scores(model, x, quarter, without, masks)
    assert_close(found.shares, torch.minimum(truth, torch.tensor([0.25, 0.75])).sum(1))


def test_scores_depend_neither_on_the_batch_nor_on_the_scale(drawn):
    model, x, without, masks = drawn
    map_ = saliency(model, x)
    whole = part_scores(model, x, map_, without, masks)
    scaled = part_scores(model, x, map_ * 2.0**-100, without, masks, batch_size=7)
    for score in SCORES:
        assert_close(getattr(scaled, score), getattr(whole, score))
    for i in range(5):
        row = slice(i, i + 1)
        images, inside = ({name: value[row] for name, value in table.items()} for table in (without, masks))
        alone = part_scores(model, x[row], map_[row], images, inside)
        for score in SCORES:
            assert_close(getattr(alone, score), getattr(whole, score)[row])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a | {"x": a["x"][:, 0, 0]}, r"x must be images .*, got \(2, 4\)"),
        (lambda a: a | {"attribution": torch.ones(2, 1, 1, 5)}, r"the attribution fit it, got .* \(2, 1, 1, 5\)"),
        (lambda a: a | {"attribution": a["x"] * torch.nan}, r"NaN or infinite values in rows \[0, 1\]"),
        (lambda a: a | {"without": {"part 0": a["without"]["part 0"]}}, "2 to 6 parts, got 1"),
        (lambda a: a | {"without": {str(k): a["x"] for k in range(7)}}, "2 to 6 parts, got 7"),
        (lambda a: a | {"masks": {"part 1": a["masks"]["part 1"]}}, "none of part 0, part 2"),
        (lambda a: a | {"masks": a["masks"] | {"part 0": torch.ones(2, 1, 4)}}, "mask must be a bool tensor"),
        (lambda a: a | {"masks": a["masks"] | {"part 0": a["masks"]["part 0"][:1]}}, r"must fit x \(2, 1, 1, 4\)"),
        (lambda a: a | {"masks": a["masks"] | {"part 0": a["masks"]["part 0"] & False}}, r"is empty in rows \[0, 1\]"),
        (
            lambda a: a | {"without": a["without"] | {"part 1": a["x"].float()}},
            "without part 1 must be like x.*float32",
        ),
        (
            lambda a: a | {"without": a["without"] | {"part 1": a["x"] * 0}},
            r"outside of its mask, but differ in rows \[0, 1\]",
        ),
        (
            lambda a: a | {"masks": a["masks"] | {"part 1": a["masks"]["part 1"] | a["masks"]["part 2"]}},
            r"must not overlap, but do in rows \[0, 1\]",
        ),
        (lambda a: a | {"target": 2}, "target must lie in 0..1"),
        (lambda a: a | {"batch_size": 0}, "batch_size"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(change, message):
    x, without, masks = case(3, 2)
    arguments = change({"x": x, "attribution": x, "without": without, "masks": masks})
    with pytest.raises(ValueError, match=message):
        part_scores(Additive(torch.ones(3).double()), **arguments)
