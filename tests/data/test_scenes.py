"""Scenes: exact masks, one seed one picture, and no trace of the label outside the object."""

from functools import lru_cache
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from interp_lab import networks
from interp_lab.data import SHAPES, Dataset, paste_watermark, scenes
from interp_lab.data.drawn_scenes import PARTS, _distance, _one_over_f

OPTIONS = [{}, {"objects": 2}, {"watermark": 0.9}, {"objects": 2, "watermark": 1.0}, {"evidence": "dot"}]


def same(a: Dataset, b: Dataset) -> None:
    assert a.masks.keys() == b.masks.keys()
    for x, y in [(a.images, b.images), (a.labels, b.labels), *((a.masks[name], b.masks[name]) for name in a.masks)]:
        assert torch.equal(x, y)


@pytest.mark.parametrize("options", OPTIONS)
def test_every_pixel_outside_the_masks_is_that_of_the_scene_without_objects(options):
    with_object, without = scenes(200, seed=3, **options), scenes(200, seed=3, draw_object=False, **options)
    drawn = with_object.masks["object"] | with_object.masks.get("second_object", torch.tensor(False))
    changed = (with_object.images != without.images).any(1)
    assert not (changed & ~drawn).any()
    assert (changed & drawn).sum() > 0.995 * drawn.sum(), "the masks are larger than the objects"
    assert changed.flatten(1).any(1).all()
    same(Dataset(without.images, with_object.labels, with_object.classes, with_object.masks), without)


@pytest.mark.parametrize("options", OPTIONS)
def test_a_seed_gives_the_same_scenes_and_fewer_scenes_are_a_prefix(options):
    many = scenes(140, seed=5, **options)
    same(many, scenes(140, seed=5, **options))
    same(many[:130], scenes(130, seed=5, **options))
    assert not torch.equal(many.images, scenes(140, seed=6, **options).images)
    assert not torch.equal(many.images[:12], many.images[128:])


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    scenes(3)
    assert torch.equal(before, torch.get_rng_state())


class Finite(TorchDispatchMode):
    """Every number that is computed is finite: what comes of infinity depends on device and version."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if "empty" in str(function):  # whatever lay in memory, filled later
            result.zero_()
        if isinstance(result, torch.Tensor):
            assert result.isfinite().all(), function
        return result


@pytest.mark.parametrize("options", OPTIONS)
def test_no_intermediate_number_is_infinite(options):
    with Finite():
        data = scenes(3, seed=4, **options)
    same(data, scenes(3, seed=4, **options))


@pytest.mark.parametrize("size", [48, 49])
def test_the_background_has_the_spectrum_of_its_noise_divided_by_the_frequency(size):
    noise = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)).double()
    rows = torch.fft.fftfreq(size, dtype=torch.float64)
    frequency = (rows[:, None] ** 2 + rows**2).sqrt()
    wanted, fields = torch.fft.fft2(noise), _one_over_f(noise)
    got = torch.fft.fft2(fields) * frequency
    wanted[..., 0, 0] = 0
    norms = [torch.linalg.vector_norm(v, dim=(-2, -1), keepdim=True) for v in (got, wanted)]
    assert_close(got / norms[0], wanted / norms[1], atol=1e-6, rtol=0)
    assert_close(fields.mean((-2, -1)), torch.zeros(2, 3).double(), atol=1e-6, rtol=0)
    assert_close(fields.var((-2, -1), correction=0), torch.ones(2, 3).double(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("size", [48, 96])
@pytest.mark.parametrize("options", OPTIONS)
def test_shapes_types_and_range(size, options):
    data = scenes(20, size, **options)
    assert data.images.shape == (20, 3, size, size)
    assert data.images.dtype == torch.float32
    assert data.images.min() >= 0
    assert data.images.max() <= 1
    assert set(data.labels.tolist()) <= set(range(len(data.classes)))


def test_labels_are_balanced():
    assert (torch.bincount(scenes(256).labels) == 32).all()
    for part in PARTS:
        assert (torch.bincount(scenes(256, evidence=part).labels) == 128).all()


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_of_scale_s_has_the_area_s_squared(name):
    grid = torch.arange(-250, 250) + 0.5
    u, v = grid.expand(1, 500, 500), grid[:, None].expand(1, 500, 500)
    distance = _distance(torch.tensor([SHAPES.index(name)]), u, v, torch.tensor([200.0]))
    assert_close((distance < 0).sum().item(), 200**2, rtol=0.005, atol=0)
    assert (torch.hypot(u, v)[distance < 0] < 0.9 * 200).all(), "reaches further than the place allows for"
    slope = torch.stack(torch.gradient(distance[0])).norm(dim=0)
    edge = distance[0].abs() < 2
    assert (slope[edge] - 1).abs().median() < 0.01, "not a distance in pixels near the edge"


def test_classes_differ_in_shape_and_not_in_area_place_or_colour():
    data = scenes(2048)
    mask = data.masks["object"]
    grid = torch.arange(64.0)
    area = mask.sum((1, 2)).float()
    measures = {
        "x": ((mask * grid).sum((1, 2)) / area, 0.05),
        "y": ((mask * grid[:, None]).sum((1, 2)) / area, 0.05),
        # The mask has the half-covered pixels of the edge too, so a long edge makes a mask larger.
        "area": (area, 0.11),
        "colour": ((data.images * mask[:, None]).sum((1, 2, 3)) / area, 0.05),
    }
    for name, (value, tolerance) in measures.items():
        by_class = torch.stack([value[data.labels == k].mean() for k in range(len(SHAPES))])
        assert (by_class / value.mean() - 1).abs().max() < tolerance, name
    assert 0.05 < area.mean() / 64**2 < 0.1


def test_objects_lie_wholly_inside_the_scene_and_stand_out():
    data = scenes(640)
    mask = data.masks["object"]
    assert not (mask[:, 0] | mask[:, -1] | mask[:, :, 0] | mask[:, :, -1]).any()
    inner, outer = ((data.images * m[:, None]).sum((2, 3)) / m.sum((1, 2))[:, None] for m in (mask, ~mask))
    assert (inner - outer).norm(dim=1).min() > 0.12


def test_two_objects_are_apart_and_of_two_classes():
    data = scenes(640, objects=2)
    first, second = data.masks["object"], data.masks["second_object"]
    near = torch.nn.functional.max_pool2d(first[:, None].float(), 3, 1, 1)[:, 0] > 0
    assert not (near & second).any()
    assert first.flatten(1).any(1).all()
    assert second.flatten(1).any(1).all()
    assert (data.second_labels != data.labels).all()
    assert len(data.second_labels.unique()) == 8
    assert scenes(2).second_labels is None
    places = torch.cat([first, second]).float().mean(0)
    # 4 sd of the difference of two shares of 1280 masks, of at most 0.18
    assert_close(places, places.flip(0).transpose(0, 1), atol=0.06, rtol=0)


def test_a_watermark_is_on_class_0_alone_and_changes_nothing_else():
    plain, marked = scenes(1024, seed=1), scenes(1024, seed=1, watermark=0.75)
    mark = marked.masks["watermark"]
    has = mark.flatten(1).any(1)
    assert not has[marked.labels != 0].any()
    assert_close(has[marked.labels == 0].float().mean().item(), 0.75, atol=0.12, rtol=0)  # 3 sd of 128 draws
    assert len(mark[has].unique(dim=0)) == 1
    assert len((marked.images * mark[:, None])[has].unique(dim=0)) == 1
    assert mark[has][0].sum() < 0.03 * 64**2
    changed = (plain.images != marked.images).any(1)
    assert not (changed & ~mark).any()
    assert torch.equal(plain.masks["object"] & ~mark, marked.masks["object"])
    assert "watermark" not in plain.masks
    assert torch.equal(paste_watermark(plain.images)[has], marked.images[has])
    assert torch.equal((paste_watermark(plain.images) != plain.images).any(1).any(0), mark.any(0))


def test_the_three_parts_are_disjoint_and_inside_the_object():
    data = scenes(512, evidence="stripe")
    for part in PARTS:
        assert not (data.masks[part] & ~data.masks["object"]).any()
        assert data.masks[part].sum((1, 2)).min() >= 8, f"the {part} is too small to see"
    for a, b in combinations(PARTS, 2):
        assert not (data.masks[a] & data.masks[b]).any()
    assert (data.masks["object"].sum((1, 2)) > sum(data.masks[part].sum((1, 2)) for part in PARTS)).all()


def test_the_named_part_alone_is_the_label():
    drawn = {part: scenes(512, evidence=part) for part in PARTS}
    images = drawn["dot"].images
    measures = {
        "dot": images[:, 2] - images[:, 0],  # cool less warm
        "stripe": -images.mean(1),
        "rim": -images.mean(1),
    }
    for part, data in drawn.items():
        assert torch.equal(data.images, images), "the choice of the part changes the picture"
        assert torch.equal(data.masks["evidence"], data.masks[part])
        assert data.classes == PARTS[part]
        mask = data.masks["evidence"]
        value = (measures[part] * mask).sum((1, 2)) / mask.sum((1, 2))
        zero, one = value[data.labels == 0], value[data.labels == 1]
        assert zero.max() < one.min(), f"the two states of the {part} look alike"
    warm = drawn["dot"].masks["dot"] & (drawn["dot"].labels == 0)[:, None, None]
    assert ((images[:, 1] - images[:, 2])[warm] > 0).double().mean() > 0.99, "from red to orange, not to purple"
    for a, b in combinations(PARTS, 2):
        assert (drawn[a].labels == drawn[b].labels).sum() == 256, "states are not independent"


@pytest.mark.parametrize("part", PARTS)
def test_without_a_part_its_pixels_show_the_body_and_no_other_pixel_changes(part):
    whole, bare = (scenes(130, size=48, seed=3, evidence="stripe", without=name) for name in (None, part))
    mask = whole.masks[part]
    changed = (whole.images != bare.images).any(1)
    assert not (changed & ~mask).any()
    assert changed[mask].float().mean() > 0.9
    assert torch.equal(whole.labels, bare.labels)
    assert all(torch.equal(whole.masks[name], bare.masks[name]) for name in whole.masks)
    if part == "rim":  # half of it lies on the edge, where the background shines through
        return
    body = whole.masks["object"] & ~torch.stack([whole.masks[name] for name in PARTS]).any(0)

    def colour(images, where):
        return (images * where[:, None]).sum((2, 3)) / where.sum((1, 2))[:, None]

    seen = mask.any((1, 2)) & body.any((1, 2))
    before, after = ((colour(d.images, mask) - colour(d.images, body))[seen].abs().mean() for d in (whole, bare))
    assert after < 0.05 < before / 2


def test_a_warm_dot_is_red_to_orange_and_a_cool_one_cyan_to_blue():
    data = scenes(256, evidence="dot")
    mask = data.masks["dot"]
    colour = (data.images * mask[:, None]).sum((2, 3)) / mask.sum((1, 2))[:, None]
    for state, order in ((0, (0, 1, 2)), (1, (2, 1, 0))):
        first, second, third = colour[data.labels == state][:, order].T
        assert (first > second).all()
        assert (second > third - 0.02).all()  # red itself has as much green as blue, but for the noise


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"n": 4, "size": 32}, "size at least 48"),
        ({"n": 2.0}, "n must be a whole number, an int, got 2.0"),
        ({"n": "2"}, "n must be a whole number, an int, got '2'"),
        ({"n": 4, "size": 48.5}, "size must be a whole number, an int, got 48.5"),
        ({"n": 4, "seed": None}, "seed must be a whole number, an int, got None"),
        ({"n": 4, "objects": 1.0}, "objects must be a whole number, an int, got 1.0"),
        ({"n": 4, "objects": 3}, "objects must be 1 or 2, got 3"),
        ({"n": 4, "watermark": 1.5}, r"must lie in \[0, 1\], got 1.5"),
        ({"n": 4, "evidence": "shape"}, "dot, stripe, rim, got 'shape'"),
        ({"n": 4, "evidence": "dot", "objects": 2}, "evidence needs objects=1"),
        ({"n": 4, "without": "dot"}, "without must be None or one of dot, stripe, rim.*'dot' and evidence=None"),
        ({"n": 4, "evidence": "dot", "without": "object"}, "got 'object' and evidence='dot'"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        scenes(**arguments)


def test_whole_numbers_of_numpy_are_whole_numbers():
    data = scenes(np.int64(2), np.int64(48), np.int64(3))
    assert torch.equal(data.images, scenes(2, 48, 3).images)


FOUR_SD = 4 * (0.125 * 0.875 / 1024) ** 0.5  # of the accuracy of guessing 1024 labels of 8 classes

# No leak: whoever sees everything but the object cannot tell the label.

LEAK_OPTIONS = [
    ({}, "labels"),
    ({"objects": 2}, "labels"),
    ({"objects": 2}, "second_labels"),
    *(({"evidence": part}, "labels") for part in PARTS),
]


@lru_cache(2)
def without_objects(objects: int, evidence: str | None) -> Dataset:
    return scenes(2048, seed=7, draw_object=False, objects=objects, evidence=evidence)


def linear_accuracy(images: torch.Tensor, labels: torch.Tensor) -> float:
    """Held-out accuracy of ridge regression on a coarse picture and on the colours' statistics."""
    coarse = torch.nn.functional.avg_pool2d(images, 8).flatten(1)
    features = torch.cat([coarse, images.mean((2, 3)), images.std((2, 3)), torch.ones(len(images), 1)], 1).double()
    targets = torch.nn.functional.one_hot(labels).double()
    train, test = slice(None, -1024), slice(-1024, None)
    gram = features[train].T @ features[train] + 1e-2 * torch.eye(features.shape[1])
    weights = torch.linalg.solve(gram, features[train].T @ targets[train])
    return ((features[test] @ weights).argmax(1) == labels[test]).double().mean().item()


@pytest.mark.parametrize(("options", "which"), LEAK_OPTIONS)
def test_a_linear_model_of_the_rest_stays_at_chance(options, which):
    data = without_objects(options.get("objects", 1), options.get("evidence"))
    labels, chance = getattr(data, which), 1 / len(data.classes)
    allowed = 4 * (chance * (1 - chance) / 1024) ** 0.5
    assert abs(linear_accuracy(data.images, labels) - chance) < allowed
    leaky = data.images.clone()
    leaky[:, :, :8, :8] += 0.3 * (labels == 1)[:, None, None, None]
    assert linear_accuracy(leaky, labels) > chance + allowed, "this test would not see a leak"


def drawn(seed: int, **options) -> Dataset:
    """Small scenes with eight labels; of ``evidence``, whose choice changes the labels alone, the states of all parts."""
    arguments = {"n": 5120, "size": 48, "seed": 8 + seed}
    data = scenes(**arguments, **options)
    labels = data.labels if data.second_labels is None else data.second_labels
    if "evidence" in options:
        labels = sum(scenes(**arguments, evidence=part).labels << bit for bit, part in enumerate(PARTS))
    return Dataset(data.images, labels, SHAPES, data.masks)


def block(inputs: int, outputs: int, pool: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), pool)


def network_accuracy(data: Dataset, seed: int) -> float:
    """Held-out accuracy of a small network, trained on the rows before the last 1024."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.PixelUnshuffle(2),
        block(12, 16, nn.MaxPool2d(2)),
        block(16, 32, nn.MaxPool2d(2)),
        block(32, 64, nn.AdaptiveMaxPool2d(1)),
        nn.Flatten(),
        nn.Linear(64, 8),
    )
    networks.train(model, data[:-1024], epochs=5, lr=1e-2, batch_size=32, seed=seed, progress=False)
    return networks.accuracy(model, data[-1024:])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{}, *(pytest.param(more, marks=pytest.mark.exhaustive) for more in ({"objects": 2}, {"evidence": "dot"}))],
)
def test_a_network_that_sees_the_rest_stays_at_chance(options, seed, verdict):
    accuracy = network_accuracy(drawn(seed, draw_object=False, **options), seed)
    verdict("accuracy", accuracy, above=0.125 - FOUR_SD, below=0.125 + FOUR_SD)


@pytest.mark.slow
def test_the_same_network_sees_the_object(seed, verdict):
    verdict("accuracy", network_accuracy(drawn(seed), seed), above=0.4)


@pytest.mark.slow
def test_the_leak_of_a_watermark_is_in_its_mask_and_nowhere_else(seed, verdict):
    data = drawn(seed, watermark=1.0, draw_object=False)
    # Class 0, an eighth of the scenes, is found.
    verdict("accuracy", network_accuracy(data, seed), above=0.125 + 0.07)
    data.images.masked_fill_(data.masks["watermark"].any(0), 0.5)
    verdict("without the mark", network_accuracy(data, seed), above=0.125 - FOUR_SD, below=0.125 + FOUR_SD)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("options", OPTIONS)
def test_a_gpu_draws_the_same_scenes(options):
    cpu, gpu = scenes(200, **options), scenes(200, **options, device="cuda")
    assert gpu.images.is_cuda
    assert torch.equal(cpu.labels, gpu.labels.cpu())
    # A pixel on an edge may fall on the other side by rounding.
    assert ((cpu.images - gpu.images.cpu()).abs() < 1e-3).float().mean() > 0.9999
