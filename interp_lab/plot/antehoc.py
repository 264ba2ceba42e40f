"""Pictures of models that are interpretable by design."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ..antehoc.features import to_numpy
from .base import (
    COLORS,
    Array,
    Figure,
    as_images,
    as_maps,
    as_tensor,
    describe,
    grid,
    label_axes,
    show_image,
    show_map,
    write_caption,
)

if TYPE_CHECKING:
    from ..antehoc import AdditiveModel, LinearModel, PrototypeEvidence, TreeModel


def templates(model: "LinearModel", classes: Sequence[str] | None = None, *, alt: str | None = None) -> Figure:
    """The weights of every class of a linear model as pictures, each weight times the deviation of its feature.

    Channels are summed; red speaks for the class, blue against it, and each picture has its own scale. Without the
    deviation, a pixel that hardly ever varies would look important.

    Args:
        model: from :func:`~interp_lab.sparse_softmax` or :func:`~interp_lab.surrogate_linear`.
        classes: a name for each class.
        alt: the alt text; None lists the classes and counts the weights that are not zero.

    Raises:
        ValueError: the features are no picture (show ``bars`` of ``model.importance`` then), or another number of names.

    Example:
        >>> import torch
        >>> from interp_lab import plot, sparse_softmax
        >>> model = sparse_softmax(torch.eye(4).view(4, 1, 2, 2), torch.tensor([0, 0, 1, 1]), l1=0.01)
        >>> plot.templates(model, ["top", "bottom"]).alt
        'Weights of a linear model as pictures, one per class: top, bottom; 8 of 8 weights are not zero.'
    """
    weights = model.importance.unflatten(1, model.features.shape)
    if weights.dim() not in (3, 4):
        raise ValueError(f"features of shape {model.features.shape} are no picture; draw bars of model.importance")
    names = classes if classes is not None else [f"class {c}" for c in range(len(weights))]
    if len(names) != len(weights):
        raise ValueError(f"{len(weights)} classes need as many names, got {len(names)}")
    columns = min(5, len(weights))
    figure, axes = grid(-(-len(weights) // columns), columns, 1.5)
    cells = [cell for row in axes for cell in row]
    for cell, values, name in zip(cells, as_maps(weights, "weights"), names, strict=False):
        show_map(cell, values, signed=True)
        cell.set_title(name, fontsize=9)
    for cell in cells[len(weights) :]:
        cell.set_axis_off()
    share = f"{model.nonzeros} of {weights.numel()} weights are not zero"
    told = f"; {share}" if model.nonzeros < weights.numel() else ""
    write_caption(
        figure, f"weight times deviation; red: for the class, blue: against it; each picture has its own scale{told}"
    )
    figure.alt = alt or f"Weights of a linear model as pictures, one per class: {', '.join(names)}; {share}."
    return figure


def tree(
    model: "TreeModel",
    classes: Sequence[str] | None = None,
    *,
    depth: int = 3,
    images: Array | None = None,
    alt: str | None = None,
) -> Figure:
    """A decision tree from its root; to the left where the test holds.

    Args:
        model: from :func:`~interp_lab.decision_tree` or :func:`~interp_lab.surrogate_tree`.
        classes: a name for each class.
        depth: at most so many tests deep; what goes on below ends in three dots.
        images: ``(N, C, H, W)``: above each test or end stands the mean of those that come there, with the tested cell
            framed; None draws words alone.
        alt: the alt text; None tells the size of the tree and its first test.

    Raises:
        ValueError: another number of names than classes, images that do not reach a part of the tree that is drawn, or
            images for features that are no picture.

    Example:
        >>> import torch
        >>> from interp_lab import decision_tree, plot
        >>> x = torch.linspace(0, 1, 9)[:, None]
        >>> plot.tree(decision_tree(x, (x[:, 0] > 0.5).long()), ["dark", "bright"]).alt
        'Decision tree with 2 leaves, depth 1; its first test is x0 <= 0.562.'
    """
    names = classes if classes is not None else [f"class {c}" for c in range(model.classes)]
    if len(names) != model.classes:
        raise ValueError(f"{model.classes} classes need as many names, got {len(names)}")
    if images is not None and len(model.features.shape) != 3:
        raise ValueError(f"features of shape {model.features.shape} are no picture; leave images out")
    nodes = model.tree.tree_
    figure = Figure(layout="constrained")
    axis = figure.subplots()
    axis.set_axis_off()
    ends, deepest = 0, 0
    if images is not None:
        pictures, note = as_images(images)
        come = torch.from_numpy(model.tree.decision_path(to_numpy(model.features(as_tensor(images)))).toarray() > 0)

    def draw(node: int, level: int) -> float:
        """Draws the node below its place among the leaves, which it returns."""
        nonlocal ends, deepest
        deepest = max(deepest, level)
        if level < depth and nodes.children_left[node] >= 0:
            children = [draw(int(kids[node]), level + 1) for kids in (nodes.children_left, nodes.children_right)]
            x = sum(children) / 2
            for child, answer in zip(children, ("yes", "no"), strict=True):
                axis.plot([x, child], [-level, -level - 1], color="#888888", linewidth=1, zorder=0)
                axis.text((x + child) / 2, -level - 0.5, answer, fontsize=7, ha="center", va="center")
            text, color = f"{model.features.names[nodes.feature[node]]}\n<= {nodes.threshold[node]:.3g}", "#ffffff"
        else:
            x, ends = float(ends), ends + 1
            share = nodes.value[node, 0] / nodes.value[node, 0].sum()
            rest = "\n..." if nodes.children_left[node] >= 0 else ""
            name = names[int(model.tree.classes_[share.argmax()])]
            text, color = f"{name}\n{share.max():.0%} of {nodes.n_node_samples[node]}{rest}", "#dceefa"
        box = {"boxstyle": "round", "facecolor": color, "edgecolor": "#888888"}
        axis.text(x, -level - (images is not None) * 0.27, text, fontsize=8, ha="center", va="center", bbox=box)
        if images is not None:
            show_mean(
                axis.inset_axes((x - 0.4, -level - 0.1, 0.8, 0.5), transform=axis.transData), node, color == "#ffffff"
            )
        return x

    def show_mean(cell: Axes, node: int, tests: bool) -> None:
        if not come[:, node].any():
            raise ValueError(f"no image comes to node {node} of the tree; give more of them, or a smaller depth")
        mean = pictures[come[:, node]].mean(0)
        show_image(cell, mean)
        cell.set_axis_off()
        if tests:
            _, rows, columns = model.features.shape
            height, width = mean.shape[1] / rows, mean.shape[2] / columns
            row, column = divmod(int(nodes.feature[node]) % (rows * columns), columns)
            corner = column * width - 0.5, row * height - 0.5
            cell.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=COLORS[1], linewidth=2))

    draw(0, 0)
    axis.set(xlim=(-0.7, ends - 0.3), ylim=(-deepest - 0.5, 0.5))
    wide, high = (0.95, 0.9) if images is None else (1.4, 1.9)
    figure.set_size_inches(max(3.0, wide * ends), 1.1 + high * (deepest + (images is not None)))
    size = f"{model.leaves} leaves, depth {model.tree.get_depth()}"
    caption = f"decision tree with {size}; left where the test holds; three dots: the tree goes on"
    if images is None:
        note = ""
    else:
        caption += "; above: the mean of the images that come there, the tested cell framed"
    return describe(figure, alt or f"Decision tree with {size}; its first test is {_first_test(model)}.", caption, note)


def _first_test(model: "TreeModel") -> str:
    nodes = model.tree.tree_
    if nodes.feature[0] < 0:
        return "none: it always gives one class"
    return f"{model.features.names[nodes.feature[0]]} <= {nodes.threshold[0]:.3g}"


def shape_functions(model: "AdditiveModel", target: int, *, count: int = 6, alt: str | None = None) -> Figure:
    """The most important curves of an additive model for one class, on one common scale.

    Args:
        model: from :func:`~interp_lab.additive_model`.
        target: the class.
        count: curves to draw, the most important first.
        alt: the alt text; None lists the features drawn.

    Raises:
        ValueError: no such class.

    Example:
        >>> import torch
        >>> from interp_lab import additive_model, plot
        >>> x = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
        >>> plot.shape_functions(additive_model(x, (x[:, 1] > 0.5).long()), 1, count=1).alt
        'Curves of an additive model for class 1, the most important first: x1.'
    """
    if not 0 <= target < len(model.importance):
        raise ValueError(f"target must lie in 0..{len(model.importance) - 1}, got {target}")
    chosen = model.importance[target].topk(min(count, model.importance.shape[1])).indices.tolist()
    places, values = (t.detach().cpu() for t in model.curves())
    columns = min(3, len(chosen))
    figure = Figure(figsize=(2.1 * columns, 1.9 * -(-len(chosen) // columns) + 0.4), layout="constrained")
    axes = figure.subplots(-(-len(chosen) // columns), columns, squeeze=False, sharey=True)
    for axis, j in zip(axes.flat, chosen, strict=False):
        axis.axhline(0, color="#bbbbbb", linewidth=0.8)
        axis.plot(places[:, j], values[:, target, j], color=COLORS[0])
        label_axes(axis, model.features.names[j], "")
    for axis in axes.flat[len(chosen) :]:
        axis.set_axis_off()
    write_caption(figure, f"what each feature adds to the score of class {target}, the most important first")
    names = ", ".join(model.features.names[j] for j in chosen)
    figure.alt = alt or f"Curves of an additive model for class {target}, the most important first: {names}."
    return figure


def prototype_evidence(
    evidence: "PrototypeEvidence", *, row: int = 0, count: int = 3, alt: str | None = None
) -> Figure:
    """The prototypes that add most to one image's logit: its piece, the piece of a training image that it resembles.

    Over each column stands what the prototype adds to the logit, below it the class that it was taken from.

    Args:
        evidence: from the ``explain`` of a :func:`~interp_lab.prototype_network`.
        row: the image's row in the evidence.
        count: prototypes to draw, the one that adds most first.
        alt: the alt text; None tells the logit and what the prototypes drawn add to it.

    Raises:
        ValueError: no such row.

    Example:
        >>> import torch
        >>> from interp_lab import plot, prototype_network
        >>> x, y = torch.rand(12, 1, 6, 6), torch.arange(12) % 2
        >>> body = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU())
        >>> network = prototype_network(x, y, body, per_class=1, epochs=1)
        >>> len(plot.prototype_evidence(network.explain(x[:1]), count=2).axes)
        4
    """
    if not 0 <= row < len(evidence.images):
        raise ValueError(f"row must lie in 0..{len(evidence.images) - 1}, got {row}")
    parts = evidence.contribution[row]
    chosen = parts.topk(min(count, len(parts))).indices.tolist()
    (image,), sources, note = as_images(evidence.images[row, None], evidence.sources[chosen])
    figure, axes = grid(2, len(chosen), 1.7)
    for (above, below), j, source in zip(zip(*axes, strict=True), chosen, sources, strict=True):
        show_image(above, image)
        show_image(below, source)
        for cell, window in ((above, evidence.windows[row, j]), (below, evidence.source_windows[j])):
            top, bottom, left, right = window.tolist()
            x, y = [left, right, right, left, left], [top, top, bottom, bottom, top]
            cell.plot([v - 0.5 for v in x], [v - 0.5 for v in y], color=COLORS[4], linewidth=1.5, clip_on=False)
        above.set_title(f"{parts[j]:+.2f}", fontsize=9)
        below.set_xlabel(f"class {evidence.classes[j].item()}", fontsize=8)
    axes[0][0].set_ylabel("this", fontsize=9)
    axes[1][0].set_ylabel("looks like that", fontsize=9)
    target, logit = evidence.target[row].item(), parts.sum().item()
    shown = f"logit {logit:.2f} of class {target}; the {len(chosen)} prototypes drawn add {parts[chosen].sum():.2f}"
    alt = alt or f"An image above, pieces of training images that it resembles below; {shown}."
    return describe(figure, alt, shown, note)
