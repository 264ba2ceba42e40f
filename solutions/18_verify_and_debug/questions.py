"""Verify and debug. Every function has one right answer; sentences are drawn so that no score lies at the decision's edge."""

import torch
from torch import Generator, Tensor

from grader.calls import Call, Net
from grader.drawing import F64, conv, integer, linear, nothing, rand, randn
from grader.judges import by_hand, shape_only
from grader.question import Part, Question

# Question 2: pasting a mark


def paste_of(g: Generator, rows: int, channels: int, dtype: torch.dtype = torch.float32, **more) -> Call:
    """A patch of 2 x 3 pixels in pictures of 6 x 9, neither at an edge nor at a place that is the same across and down."""
    args = [randn(g, rows, channels, 6, 9, dtype=dtype), randn(g, channels, 2, 3, dtype=dtype)]
    return Call("paste", [*args, integer(g, 1, 2), integer(g, 4, 5)], **more)


def paste_general(g: Generator) -> list[Call]:
    """In the middle, at the upper left corner and at the lower right one."""
    x, patch = randn(g, 1, 3, 5, 8), randn(g, 3, 2, 3)
    return [Call("paste", [x, patch, row, column]) for row, column in ((1, integer(g, 2, 4)), (0, 0), (3, 5))]


# Question 3: the effect of a change


def effect_of(g: Generator, net: Net, x: Tensor, classes: int, **more) -> Call:
    changed = x + randn(g, *x.shape, dtype=x.dtype)
    return Call("effect", [net, x, changed, integer(g, 0, classes - 1)], **more)


def effect_easy(g: Generator) -> list[Call]:
    return [effect_of(g, linear(g, 12, 3), randn(g, 2, 1, 3, 4), 3)]


def effect_shape(g: Generator) -> list[Call]:
    return [effect_of(g, linear(g, 60, 4, F64), randn(g, 3, 3, 5, 4, dtype=F64), 4)]


def effect_general(g: Generator) -> list[Call]:
    """A curved network, five pictures."""
    return [effect_of(g, conv(g, 2, F64), randn(g, 5, 2, 7, 7, dtype=F64), 4)]


def effect_batch(g: Generator) -> list[Call]:
    return [effect_of(g, conv(g, 1), 3 * randn(g, n, 1, 7, 7), 4) for n in (2, 9)]


def effect_side_effects(g: Generator) -> list[Call]:
    layers = [("Flatten",), ("Linear", 9, 6), ("BatchNorm1d", 6), ("Tanh",), ("Dropout", 0.5), ("Linear", 6, 3)]
    moody = Net.draw(layers, g, dtype=F64, training=["", "0", "1", "3", "4"], grads=True)
    return [effect_of(g, moody, randn(g, 4, 1, 3, 3, dtype=F64), 3, inspect=True)]


def effect_device(g: Generator) -> list[Call]:
    return [effect_of(g, linear(g, 12, 3), randn(g, 4, 1, 3, 4), 3)]


# Question 4: a spot that recurs


def marked(
    g: Generator, rows: int, channels: int, height: int, width: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Maps of either sign and of very different scale that agree on a window of 3 x 3 pixels."""
    maps = randn(g, rows, channels, height, width, dtype=dtype)
    row, column = integer(g, 2, height - 3), integer(g, 3, width - 3)
    maps[:, :, row : row + 3, column : column + 3] *= 5 + 2 * rand(g, 1, 1, 3, 3, dtype=dtype)
    return maps * 10.0 ** (4 * rand(g, rows, 1, 1, 1, dtype=dtype) - 2)


def spot_easy(g: Generator) -> list[Call]:
    return [Call("recurring_spot", [marked(g, 1, 1, 6, 9), 3])]


def spot_general(g: Generator) -> list[Call]:
    """Three channels, windows from one pixel to the height of the map."""
    maps = marked(g, 1, 3, 6, 9)
    return [Call("recurring_spot", [maps, size]) for size in (3, 1, 6)]


def spot_batch(g: Generator) -> list[Call]:
    """Six maps of very different scale, and two maps one of which is zero."""
    two = marked(g, 2, 1, 7, 10)
    two[0] = 0
    return [Call("recurring_spot", [maps, 3]) for maps in (marked(g, 6, 2, 7, 10), two)]


def spot_device(g: Generator) -> list[Call]:
    return [Call("recurring_spot", [marked(g, 3, 2, 6, 9), 3])]


# Question 5: sentences about a loan


def loans(g: Generator, rows: int, features: int, dtype: torch.dtype = torch.float32) -> Call:
    """Refused applicants; bounds that some of the needed values keep and others do not; one weight is zero."""
    w = (0.5 + rand(g, features, dtype=dtype)) * (2 * torch.randint(0, 2, (features,), generator=g) - 1)
    w[integer(g, 1, features - 1)] = 0.0
    x = randn(g, rows, features, dtype=dtype)
    b = -(x @ w).max().item() - 0.5
    return Call(
        "turning_values", [w, b, x, x.min(0).values - 1 - rand(g, features, dtype=dtype), x.max(0).values + 1.5]
    )


def turning_general(g: Generator) -> list[Call]:
    """Granted loans, too, and bounds that the needed values meet exactly."""
    w, x = torch.tensor([2.0, -1.0, 0.0, 4.0]), torch.tensor([[integer(g, 1, 3), 2.0, 1.0, 0.0]])
    b = float(integer(g, -9, -6))
    needed = x + torch.tensor([-0.5, 1.0, 0.0, -0.25]) * (x @ w + b)  # halves and quarters, so exact
    refused = Call("turning_values", [w, b, x, torch.minimum(x, needed)[0], torch.maximum(x, needed)[0]])
    inside = Call("turning_values", [w, b, x, x[0] - 0.125, x[0] + 0.125])
    granted = Call("turning_values", [w, 5.0, x, x[0] - 9, x[0] + 9])
    return [refused, inside, granted]


def sentences(g: Generator, net: Net, rows: int, features: int, dtype: torch.dtype = torch.float32, **more) -> Call:
    """Half of the sentences are true, as far as the model knows both kinds."""
    x = randn(g, 64 * rows, features, dtype=dtype)
    feature = torch.randint(0, features, (len(x),), generator=g)
    value = 3 * randn(g, len(x), dtype=dtype)
    before, after = (net.build()(pictures).detach() for pictures in (x, x.scatter(1, feature[:, None], value[:, None])))
    clear = torch.stack([z.topk(2).values.diff().abs()[:, 0] for z in (before, after)]).amin(0) > 0.05
    turned = before.argmax(1) != after.argmax(1)
    kept = torch.cat(
        [(clear & turned).nonzero()[:, 0][: (rows + 1) // 2], (clear & ~turned).nonzero()[:, 0][: rows // 2]]
    )
    kept = kept[torch.randperm(len(kept), generator=g)]
    return Call("true_sentences", [net, x[kept], feature[kept], value[kept]], **more)


def dense(g: Generator, features: int, classes: int, dtype: torch.dtype = torch.float32) -> Net:
    net = Net.draw([("Linear", features, 8), ("Tanh",), ("Linear", 8, classes)], g, dtype=dtype)
    net.state["2.weight"] *= 3
    return net


def true_easy(g: Generator) -> list[Call]:
    return [sentences(g, dense(g, 3, 2), 8, 3)]


def true_general(g: Generator) -> list[Call]:
    """Three classes, more sentences."""
    return [sentences(g, dense(g, 5, 3, F64), 20, 5, F64)]


def true_side_effects(g: Generator) -> list[Call]:
    return [sentences(g, dense(g, 4, 2), 6, 4, inspect=True)]


def true_device(g: Generator) -> list[Call]:
    return [sentences(g, dense(g, 4, 2), 8, 4)]


QUESTIONS = (
    Question("1a", "Four accuracies",
             (Part("easy", 2, "The accuracies of the four sets.", nothing("accuracies"), by_hand),)),
    Question("1b", "Three sentences",
             (Part("easy", 2, "The values of income, debt and years.", nothing("granted_at"), by_hand),)),
    Question("1c", "A map and two changes",
             (Part("easy", 2, "Two entries of the map and two changes of f.", nothing("map_and_changes"), by_hand),)),
    Question(
        "2",
        "Pasting a mark",
        (
            Part("easy", 0.5, "One picture with one channel.", lambda g: [paste_of(g, 1, 1)]),
            Part("shape", 0.5, "Two pictures with three channels in float64.", lambda g: [paste_of(g, 2, 3, F64)], shape_only, "easy"),
            Part("general", 0.5, "Three channels: in the middle and in two corners.", paste_general),
            Part("batch", 0.5, "Four pictures with two channels.", lambda g: [paste_of(g, 4, 2)]),
            Part("side effects", 0.5, "Two pictures, which must come back unchanged.", lambda g: [paste_of(g, 2, 1, inspect=True)]),
            Part("device", 0.5, "Pictures and patch on another device than the CPU.", lambda g: [paste_of(g, 2, 2)]),
        ),
    ),
    Question(
        "3",
        "Effect of a change",
        (
            Part("easy", 1, "A linear network, two pictures.", effect_easy),
            Part("shape", 0.5, "Three pictures of shape (3, 5, 4) in float64.", effect_shape, shape_only, "easy"),
            Part("general", 1, "A network with convolution, batch normalisation and tanh, five pictures.", effect_general),
            Part("batch", 1, "The same kind of network, two pictures and nine.", effect_batch),
            Part("side effects", 1, "A network in train mode with dropout, a frozen batch normalisation, and gradients in use.",
                 effect_side_effects),
            Part("device", 0.5, "Network and pictures on another device than the CPU.", effect_device),
        ),
    ),
    Question(
        "4",
        "Recurring spot",
        (
            Part("easy", 1, "One map of 6 x 9 pixels.", spot_easy),
            Part("general", 1, "One map with three channels of either sign; windows of one pixel, of 3 x 3 and of 6 x 6.", spot_general),
            Part("batch", 1.5, "Six maps of very different scale; and two, one of which is zero.", spot_batch),
            Part("device", 0.5, "Maps on another device than the CPU.", spot_device),
        ),
    ),
    Question(
        "5a",
        "Turning values",
        (
            Part("easy", 1, "One applicant with three features.", lambda g: [loans(g, 1, 3)]),
            Part("shape", 0.5, "Two applicants with five features in float64.", lambda g: [loans(g, 2, 5, F64)], shape_only, "easy"),
            Part("general", 1, "Values that meet the bounds exactly, bounds that leave no value, and a granted loan.", turning_general),
            Part("batch", 1, "Twelve applicants with six features.", lambda g: [loans(g, 12, 6)]),
            Part("device", 0.5, "Applicants and bounds on another device than the CPU.", lambda g: [loans(g, 3, 4)]),
        ),
    ),
    Question(
        "5b",
        "True sentences",
        (
            Part("easy", 1, "A curved model with two classes, eight sentences.", true_easy),
            Part("general", 1, "Three classes and five features, twenty sentences.", true_general),
            Part("side effects", 0.5, "Six applicants, who must come back unchanged.", true_side_effects),
            Part("device", 0.5, "Model and applicants on another device than the CPU.", true_device),
        ),
    ),
)  # fmt: skip
