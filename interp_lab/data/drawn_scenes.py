r"""Scenes drawn by a known rule, so that the true evidence for every label is known pixel by pixel.

A scene is a coloured :math:`1/f` background, a clutter of bars and blobs, and one object (or two) of eight shapes.
A shape is its signed distance :math:`d(p)`: negative inside, positive outside, zero on its edge. A pixel is covered
by :math:`\alpha = \min(1, \max(0, 1/2 - d))`, with d in pixels, so edges are smooth, and the mask of the object is
exactly the set :math:`\alpha > 0`: outside it the scene equals, bit for bit, the scene without the object.

All random numbers are drawn by a generator of the CPU, then moved to the device.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..reproducible import one_thread
from .dataset import Dataset

CHUNK = 128  # scenes drawn at a time, whatever n: it bounds the memory and makes scenes(m) a prefix of scenes(n)
CLUTTER = 6


# Signed distances of the eight shapes, up to their natural size; u, v are coordinates in the object's own frame.


def _disc(u: Tensor, v: Tensor) -> Tensor:
    return torch.hypot(u, v) - 1


def _square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - 1


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(math.sqrt(0.75) * u.abs() + v / 2, -v) - 1


def _star(u: Tensor, v: Tensor) -> Tensor:
    """Five tips at distance 1, the inner corners at 1/2: fold the angle into half a tip, then one straight edge."""
    angle = (torch.atan2(u, v).remainder(2 * math.pi / 5) - math.pi / 5).abs()
    radius, (x, y) = torch.hypot(u, v), (math.cos(math.pi / 5) - 0.5, math.sin(math.pi / 5))
    along, across = radius * angle.cos(), radius * angle.sin()  # the inner corner lies at (1/2, 0), the tip at + (x, y)
    return ((along - 0.5) * y - across * x) / math.hypot(x, y)


def _cross(u: Tensor, v: Tensor) -> Tensor:
    u, v = u.abs(), v.abs()
    return torch.minimum(torch.maximum(u - 1, v - 0.36), torch.maximum(u - 0.36, v - 1))


def _ring(u: Tensor, v: Tensor) -> Tensor:
    return (torch.hypot(u, v) - 1).abs() - 0.3


def _crescent(u: Tensor, v: Tensor) -> Tensor:
    """A unit disc less another at distance 0.8."""
    return torch.maximum(torch.hypot(u, v) - 1, 1 - torch.hypot(u - 0.8, v))


def _heart(u: Tensor, v: Tensor) -> Tensor:
    """A square on its corner and, on each of its upper edges, a disc with the edge as its diameter."""
    u, v = u.abs(), v + 0.25
    square = (u + v.abs()) / math.sqrt(2) - 1
    return torch.minimum(square, torch.hypot(u - math.sqrt(0.5), v - math.sqrt(0.5)) - 1)


# Name, signed distance and area: an object of scale s covers s^2 pixels whatever its shape.
_LENS = 2 * math.acos(0.4) - 0.4 * math.sqrt(4 - 0.8**2)  # two unit discs at distance 0.8
_TABLE: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], float]] = {
    "disc": (_disc, math.pi),
    "square": (_square, 4.0),
    "triangle": (_triangle, 3 * math.sqrt(3)),
    "star": (_star, 2.5 * math.sin(math.pi / 5)),
    "cross": (_cross, 8 * 0.36 - 4 * 0.36**2),
    "ring": (_ring, 4 * math.pi * 0.3),
    "crescent": (_crescent, math.pi - _LENS),
    "heart": (_heart, 4 + math.pi),
}
SHAPES = tuple(_TABLE)
REACH = 0.9  # no shape of scale s has a point further than 0.9 s from its place
SOLID = torch.tensor([SHAPES.index(name) for name in ("disc", "square", "triangle", "star", "cross", "heart")])

# The three parts of an object that carries evidence, with the two states of each.
PARTS = {"dot": ("warm dot", "cool dot"), "stripe": ("light stripe", "dark stripe"), "rim": ("light rim", "dark rim")}

WATERMARK = ("#########", "#.......#", "#.#####.#", "#...#...#", "#...#...#", "#...#...#", "#.......#", "#########")


def scenes(
    n: int,
    size: int = 64,
    seed: int = 0,
    *,
    objects: int = 1,
    watermark: float = 0.0,
    evidence: str | None = None,
    draw_object: bool = True,
    without: str | None = None,
    device: torch.device | str = "cpu",
) -> Dataset:
    """``n`` colour scenes ``(n, 3, size, size)``, labelled by the shape of their object.

    The same arguments give the same scenes, ``scenes(m)`` is the beginning of ``scenes(n)``, and a GPU draws what
    the CPU draws, up to rounding. Shapes have the same distribution of colour, covered area, place and angle, so
    the shape alone tells the label. ``masks["object"]`` holds the visible pixels of the object.

    Args:
        n: number of scenes.
        size: height and width in pixels, at least 48.
        seed: of the private random generator.
        objects: 1, or 2: two objects of different shapes, apart from each other. The second has its class in
            ``second_labels`` and its pixels in ``masks["second_object"]``.
        watermark: probability that a scene of class 0 carries a small mark in its lower right corner, always the
            same and at the same place; other classes never do. Its pixels are ``masks["watermark"]``, and the rest
            of the scene is what it is with ``watermark=0``.
        evidence: ``"dot"``, ``"stripe"`` or ``"rim"``: objects are larger and carry these three parts, each in one
            of two states drawn independently; the state of the named part is the label (2 classes), and the shape
            means nothing. All three choices draw the same images. ``masks`` has every part and, as
            ``masks["evidence"]``, the deciding one.
        draw_object: False draws the same scenes, with the same labels and masks, without their objects.
        without: a part of the objects of ``evidence`` that is not drawn: where it would be, the body is seen. The labels, the
            masks and every pixel outside the part's mask are what they are with it.
        device: where the scenes are drawn and stay.

    Raises:
        ValueError: an argument out of range or not a whole number where it must be one, ``evidence`` with two objects,
            or ``without`` without ``evidence``.

    >>> data = scenes(4, seed=1)
    >>> data.images.shape, data.masks["object"].shape
    (torch.Size([4, 3, 64, 64]), torch.Size([4, 64, 64]))
    """
    for option, number in (("n", n), ("size", size), ("seed", seed), ("objects", objects)):
        if not hasattr(type(number), "__index__"):
            raise ValueError(f"{option} must be a whole number, an int, got {number!r}")
    if n < 1 or size < 48:
        raise ValueError(f"n must be at least 1 and size at least 48, got n={n}, size={size}")
    if objects not in (1, 2):
        raise ValueError(f"objects must be 1 or 2, got {objects!r}")
    if not 0 <= watermark <= 1:
        raise ValueError(f"watermark is a probability and must lie in [0, 1], got {watermark!r}")
    if evidence is not None and evidence not in PARTS:
        raise ValueError(f"evidence must be None or one of {', '.join(PARTS)}, got {evidence!r}")
    if evidence is not None and objects == 2:
        raise ValueError("evidence needs objects=1: with two objects it would not say whose part decides")
    if without is not None and (without not in PARTS or evidence is None):
        raise ValueError(
            f"without must be None or one of {', '.join(PARTS)}, the parts of an object with evidence=, got {without!r} "
            f"and evidence={evidence!r}"
        )
    generator = torch.Generator().manual_seed(int(seed))  # torch takes no integers of numpy
    rows: dict[str, Tensor] = {}
    with one_thread():
        for start in range(0, n, CHUNK):
            chunk = _chunk(generator, size, objects, watermark, evidence, draw_object, without, torch.device(device))
            for name, value in chunk.items():
                if name not in rows:
                    rows[name] = value.new_empty((n, *value.shape[1:]))
                rows[name][start : start + CHUNK] = value[: n - start]
    images, labels, second = rows.pop("images"), rows.pop("labels"), rows.pop("second_labels", None)
    return Dataset(images, labels, PARTS[evidence] if evidence else SHAPES, rows, second)


def paste_watermark(images: Tensor) -> Tensor:
    """Images ``(N, 3, size, size)`` of any class, each with the watermark of ``scenes(watermark=...)``.

    >>> paste_watermark(torch.zeros(1, 3, 64, 64)).sum() > 0
    tensor(True)
    """
    ink, place = _watermark(images.shape[-1], images.device)
    return torch.where(place, ink, images)


def _chunk(
    generator: torch.Generator,
    size: int,
    objects: int,
    watermark: float,
    evidence: str | None,
    draw_object: bool,
    without: str | None,
    device: torch.device,
) -> dict[str, Tensor]:
    """The next CHUNK scenes: images, labels, second labels and masks by name."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return (low + (high - low) * torch.rand(CHUNK, *shape, generator=generator)).to(device)

    def evenly(count: int) -> Tensor:
        """Each of 0 .. count - 1 equally often, in random order."""
        return (torch.randperm(CHUNK, generator=generator) % count).to(device)

    # All drawn, whether asked for or not: a watermark changes no other random number.
    labels, states, solid = evenly(len(SHAPES)), evenly(8), SOLID.to(device)[evenly(len(SOLID))]
    others = (labels + 1 + evenly(len(SHAPES) - 1)) % len(SHAPES)
    marked = uniform(0, 1) < watermark

    # Background and clutter.
    fields = _one_over_f(torch.randn(CHUNK, 4, size, size, generator=generator).to(device))
    hue, value = uniform(0, 1), uniform(0.35, 0.7)
    image = _rgb(hue, uniform(0.15, 0.6), value)[..., None, None] + 0.09 * fields[:, :1] + 0.035 * fields[:, 1:]
    image.clamp_(0, 1)
    for _ in range(CLUTTER):
        u, v = _frame(size, uniform(0, size, 2), uniform(0, 2 * math.pi))
        length, width = uniform(0.05, 0.1, 1, 1) * size, uniform(0.015, 0.03, 1, 1) * size
        bar = torch.maximum(u.abs() - length, v.abs() - width)
        blob = (torch.hypot(u / length, v / width) - 1) * width
        alpha = _coverage(torch.where(uniform(0, 1, 1, 1) < 0.5, bar, blob))
        _paint(image, alpha, _rgb(uniform(0, 1), uniform(0.2, 0.9), uniform(0.1, 0.95))[..., None, None])

    # Objects.
    rows: dict[str, Tensor] = {"labels": labels}
    shapes, low, high = labels, 0.2, 0.34
    if evidence:
        rows["labels"] = states >> list(PARTS).index(evidence) & 1
        shapes, low, high = solid, 0.31, 0.38
    if objects == 2:
        rows["second_labels"], high = others, 0.24
    scale, places = _places(size, uniform(low, high, 2) * size, uniform(0, 1, 2, 2), uniform(0, 1), objects)
    for i, (name, shape) in enumerate((("object", shapes), ("second_object", others))[:objects]):
        u, v = _frame(size, places[:, i], uniform(0, 2 * math.pi))
        distance = _distance(shape, u, v, scale[:, i])
        rows[name] = distance < 0.5
        saturation, brightness = uniform(0.6, 0.95), uniform(0.3, 0.4)
        brightness = torch.where(value < 0.5, value + brightness, value - brightness)
        if evidence:  # a pale body of middle brightness, on which the parts are seen
            saturation, brightness = saturation / 3, torch.full_like(value, 0.5)
        colour = _rgb(hue + uniform(0.3, 0.7), saturation, brightness)
        paint = colour[..., None, None].expand_as(image)
        if evidence:
            unit = scale[:, i, None, None]
            parts = _parts(distance, u / unit, v / unit)
            for bit, (part, mask) in enumerate(parts.items()):
                ink = _ink(part, states >> bit & 1, uniform(0, 1))
                if part != without:
                    paint = torch.where(mask[:, None], ink[..., None, None], paint)
            rows |= parts | {"evidence": parts[evidence]}
        direction = uniform(0, 2 * math.pi)[:, None, None]
        light = 1 + 0.25 * (u * direction.cos() + v * direction.sin()) / (REACH * scale[:, i, None, None])
        paint = (paint * light[:, None] + 0.04 * fields[:, 3:]).clamp(0, 1)
        if draw_object:
            _paint(image, _coverage(distance), paint)

    # Watermark, over all else.
    if watermark:
        marked &= rows["labels"] == 0
        mark = marked[:, None, None] & _watermark(size, device)[1]
        image = torch.where(marked[:, None, None, None], paste_watermark(image), image)
        rows |= {name: mask & ~mark for name, mask in rows.items() if mask.dtype == torch.bool}
        rows["watermark"] = mark
    return rows | {"images": image}


def _one_over_f(noise: Tensor) -> Tensor:
    """White noise filtered to the amplitude spectrum 1/f of natural images, each field with mean 0 and variance 1."""
    size = noise.shape[-1]
    fy, fx = torch.fft.fftfreq(size, device=noise.device), torch.fft.rfftfreq(size, device=noise.device)
    frequency = torch.hypot(fy[:, None], fx)
    frequency[0, 0] = 1  # the mean, 0 below: a complex number divided by infinity is NaN in some versions of torch
    spectrum = torch.fft.rfft2(noise) / frequency
    spectrum[..., 0, 0] = 0
    fields = torch.fft.irfft2(spectrum, s=(size, size))
    return fields * (size / torch.linalg.vector_norm(fields, dim=(-2, -1), keepdim=True))


def _rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Colours ``(N, 3)`` from hue (1 is a full turn), saturation and value ``(N,)``."""
    k = (torch.tensor([5.0, 3.0, 1.0], device=hue.device) + 6 * hue[:, None]) % 6
    return value[:, None] * (1 - saturation[:, None] * torch.minimum(k, 4 - k).clamp(0, 1))


def _frame(size: int, place: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates (N, size, size) of every pixel in frames at ``place`` (x, y), turned by ``angle``; v points up."""
    grid = torch.arange(size, device=place.device) + 0.5
    x, y = grid - place[:, :1], place[:, 1:] - grid
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    u = (cos * x)[:, None, :] + (sin * y)[:, :, None]
    v = (cos * y)[:, :, None] - (sin * x)[:, None, :]
    return u, v


def _coverage(distance: Tensor) -> Tensor:
    return (0.5 - distance).clamp(0, 1)


def _paint(image: Tensor, alpha: Tensor, colour: Tensor) -> None:
    """Lay a colour over the image; where alpha is 0 not one bit changes."""
    image.lerp_(colour.expand_as(image), alpha[:, None].expand_as(image))


def _places(size: int, scale: Tensor, free: Tensor, side: Tensor, objects: int) -> tuple[Tensor, Tensor]:
    """Scales ``(N, 2)`` and places ``(N, 2, 2)`` of objects wholly inside the scene, two of them in two halves."""
    margin = REACH * scale[..., None] + 1
    room = torch.full_like(free, size)
    start = torch.zeros_like(free)
    if objects == 2:
        axis, first = (side < 0.5).long(), (side * 2 % 1 < 0.5).long()
        row = torch.arange(CHUNK, device=side.device)
        for i, half in enumerate((first, 1 - first)):
            room[row, i, axis] = size / 2
            start[row, i, axis] = half * (size / 2)
    return scale, start + margin + (room - 2 * margin) * free


def _distance(shape: Tensor, u: Tensor, v: Tensor, scale: Tensor) -> Tensor:
    """Signed distance in pixels to the edge of every scene's shape, of area ``scale ** 2``."""
    distance = torch.empty_like(u)
    for index, (signed_distance, area) in enumerate(_TABLE.values()):
        rows = (shape == index).nonzero().flatten()
        unit = scale[rows, None, None] / math.sqrt(area)
        distance[rows] = signed_distance(u[rows] / unit, v[rows] / unit) * unit
    return distance


def _parts(distance: Tensor, u: Tensor, v: Tensor) -> dict[str, Tensor]:
    """Disjoint masks of the three parts; u and v are in units of the object's scale."""
    rim = (distance < 0.5) & (distance > -1.5)
    inside = distance <= -1.5
    return {"dot": inside & (torch.hypot(u, v - 0.16) < 0.12), "stripe": inside & ((v + 0.18).abs() < 0.07), "rim": rim}


def _ink(part: str, state: Tensor, vary: Tensor) -> Tensor:
    """Colour of a part in state 0 (warm, light) or 1 (cool, dark), a little different in every scene."""
    if part == "dot":
        return _rgb(0.55 * state + 0.1 * vary, torch.full_like(vary, 0.9), torch.full_like(vary, 0.95))
    return _rgb(vary, torch.full_like(vary, 0.1), 0.95 - 0.85 * state)


def _watermark(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Picture ``(3, size, size)`` and place ``(size, size)`` of the watermark."""
    zoom = size // 48
    light = torch.tensor([[c == "#" for c in row] for row in WATERMARK], device=device)
    light = light.repeat_interleave(zoom, 0).repeat_interleave(zoom, 1)
    (height, width), end = light.shape, size - 2 * zoom
    ink, place = torch.zeros(3, size, size, device=device), torch.zeros(size, size, dtype=torch.bool, device=device)
    ink[:, end - height : end, end - width : end] = torch.where(light, 0.95, 0.1)
    place[end - height : end, end - width : end] = True
    return ink, place
