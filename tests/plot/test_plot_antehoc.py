"""Models that are interpretable by design: what is drawn is what the model says."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from pictures import assert_is_shown_with_alt_text, caption, colours, hue, pixels
from torch import nn
from torch.testing import assert_close

from interp_lab import antehoc, plot


def random_labelled() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.rand(60, 1, 6, 6), torch.arange(60) % 3


def test_the_template_of_a_class_is_red_where_a_bright_pixel_speaks_for_it_and_blue_where_against():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(200, 1, 2, 2, generator=generator)
    x[:, 0, 1, 1] *= 0.01  # hardly varies
    model = antehoc.sparse_softmax(x, (x[:, 0, 0, 1] > 0.5).long(), l1=0.03)
    figure = plot.templates(model, ["dark", "bright"])
    assert [axis.get_title() for axis in figure.axes] == ["dark", "bright"]
    assert [hue(colours(figure, k)[0, 1]) for k in (0, 1)] == ["blue", "red"]
    assert (model.weight[1] >= 0).all()  # a picture without any blue is red all the same
    for k in (0, 1):
        assert_close(pixels(figure, k), (model.weight[k] * x.flatten(1).std(0)).view(2, 2), rtol=0.01, atol=1e-6)
    zero = int((model.weight == 0).sum())
    assert zero > 0
    assert "red: for the class, blue: against it" in caption(figure)
    assert f"{8 - zero} of 8 weights are not zero" in caption(figure)
    assert figure.alt.endswith(f"one per class: dark, bright; {8 - zero} of 8 weights are not zero.")


def test_templates_refuse_features_that_are_no_picture_and_another_number_of_names():
    model = antehoc.sparse_softmax(*random_labelled(), l1=0.02)
    assert_is_shown_with_alt_text(lambda alt: plot.templates(model, alt=alt))
    with pytest.raises(ValueError, match="3 classes need as many names, got 1"):
        plot.templates(model, ["a"])
    with pytest.raises(ValueError, match="are no picture"):
        plot.templates(antehoc.sparse_softmax(torch.rand(9, 2), torch.arange(9) % 3))


def leaf_of(figure: plot.Figure, example: torch.Tensor) -> str:
    """What stands in the leaf that an example reaches if one goes down the picture as its words say."""
    (axis,) = figure.axes
    texts = {text.get_position(): text.get_text() for text in axis.texts}
    ways = [tuple(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in axis.lines]
    place = max(texts, key=lambda place: place[1])  # the root
    while "<=" in texts[place]:
        feature, bound = texts[place].split("\n<= ")
        answer = "yes" if example[int(feature.removeprefix("x"))] <= float(bound) else "no"
        (place,) = (
            end for start, end in ways if start == place and texts[(start[0] + end[0]) / 2, start[1] - 0.5] == answer
        )
    return texts[place]


def test_going_down_a_tree_as_its_words_say_leads_to_the_class_that_is_most_frequent_there():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(80, 3, generator=generator)
    y = (x[:, 0] > 0.5).long() + (x[:, 1] > 0.6).long()
    y[::9] = 0  # no leaf is pure
    figure = plot.tree(antehoc.decision_tree(x, y, depth=2), ["a", "b", "c"])
    (root,) = (text for text in figure.axes[0].texts if text.get_position()[1] == 0)
    size = "with 4 leaves, depth 2"
    assert figure.alt == f"Decision tree {size}; its first test is {' '.join(root.get_text().split())}."
    assert caption(figure) == f"decision tree {size}; left where the test holds; three dots: the tree goes on"
    labels: dict[str, list[str]] = {}
    for example, label in zip(x, y.tolist(), strict=True):
        labels.setdefault(leaf_of(figure, example), []).append("abc"[label])
    assert len(labels) == 4
    for text, here in labels.items():
        ((name, count),) = Counter(here).most_common(1)
        assert text == f"{name}\n{count / len(here):.0%} of {len(here)}"


def test_a_tree_has_yes_to_the_left_of_no_and_ends_in_dots_where_it_goes_on():
    model = antehoc.decision_tree(*random_labelled(), depth=4)
    assert_is_shown_with_alt_text(lambda alt: plot.tree(model, alt=alt))
    texts = plot.tree(model, depth=2).axes[0].texts
    answers = [text for text in texts if text.get_text() in ("yes", "no")]
    assert [text.get_text() for text in sorted(answers, key=lambda text: text.get_position()[0])] == ["yes", "no"] * 3
    assert sum(text.get_text().endswith("...") for text in texts) > 0
    with pytest.raises(ValueError, match="3 classes need as many names, got 1"):
        plot.tree(model, ["a"])


def test_a_tree_of_pictures_shows_the_mean_of_those_that_come_to_a_test_and_frames_the_tested_cell():
    x = torch.rand(40, 1, 4, 4)
    dark = x[:, 0, 2:, :2].mean((1, 2)) <= 0.5  # the lower left of four cells
    tree = antehoc.decision_tree(x, dark.long(), depth=1, features=lambda x: nn.functional.avg_pool2d(x, 2))
    figure = plot.tree(tree, ["bright", "dark"], images=x)
    shown = {axis.get_children()[0]: axis for axis in figure.axes[0].child_axes}
    assert len(shown) == 3
    means = [torch.as_tensor(axis.images[0].get_array()) for axis in shown.values()]
    for expected in (x, x[dark], x[~dark]):
        assert sum(torch.allclose(mean, expected[:, 0].mean(0)) for mean in means) == 1
    (frame,) = (patch for axis in shown.values() for patch in axis.patches)
    assert [*frame.get_xy(), frame.get_width(), frame.get_height()] == [-0.5, 1.5, 2, 2]
    assert "the tested cell framed" in caption(figure)
    with pytest.raises(ValueError, match="no image comes to node"):
        plot.tree(tree, images=x[dark])
    numbers = antehoc.decision_tree(x.flatten(1), dark.long())
    with pytest.raises(ValueError, match=r"features of shape \(16,\) are no picture"):
        plot.tree(numbers, images=x)


def test_the_curves_drawn_are_the_most_important_ones_of_the_class_and_in_their_order():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(200, 9, generator=generator)
    model = antehoc.additive_model(x, torch.stack([3 * x[:, 4] + x[:, 7], x[:, 2] - 2 * x[:, 4]], 1), l2=0.0)
    for target, slopes in ((0, {"x4": 3, "x7": 1}), (1, {"x4": -2, "x2": 1})):
        figure = plot.shape_functions(model, target, count=2)
        assert [axis.get_xlabel() for axis in figure.axes] == list(slopes)
        for axis, slope in zip(figure.axes, slopes.values(), strict=True):
            places, heights = map(torch.tensor, axis.lines[-1].get_data())
            assert_close((heights - heights[0]), slope * (places - places[0]), atol=1e-3, rtol=0)
        assert len({axis.get_ylim() for axis in figure.axes}) == 1  # or a flat curve would look as steep
        assert f"the score of class {target}" in caption(figure)
        assert figure.alt.endswith(f"class {target}, the most important first: {', '.join(slopes)}.")


def test_shape_functions_refuse_a_class_that_there_is_not():
    model = antehoc.additive_model(*random_labelled())
    assert_is_shown_with_alt_text(lambda alt: plot.shape_functions(model, 1, alt=alt))
    with pytest.raises(ValueError, match=r"target must lie in 0\.\.2, got 3"):
        plot.shape_functions(model, 3)


def test_the_prototypes_drawn_are_those_that_add_most_each_with_its_piece_its_source_and_its_class():
    x, y = random_labelled()
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    evidence = antehoc.prototype_network(x, y, body, per_class=1, epochs=1).explain(x[:2])
    evidence = replace(
        evidence,
        contribution=torch.tensor([[9.0, 9.0, 9.0], [0.5, -1.0, 2.0]]),
        target=torch.tensor([0, 1]),
        windows=torch.tensor([[0, 6, 0, 6], [1, 4, 2, 5], [2, 5, 0, 3]]).expand(2, 3, 4),
        source_windows=torch.tensor([[3, 6, 0, 3], [0, 6, 0, 6], [0, 3, 1, 4]]),
        classes=torch.tensor([1, 0, 2]),
    )
    figure = plot.prototype_evidence(evidence, row=1, count=2)
    above, below = figure.axes[:2], figure.axes[2:]
    assert [axis.get_title() for axis in above] == ["+2.00", "+0.50"]
    assert [axis.get_xlabel() for axis in below] == ["class 2", "class 1"]
    assert [axis.get_ylabel() for axis in figure.axes] == ["this", "", "looks like that", ""]
    for k, prototype in enumerate((2, 0)):
        assert_close(pixels(figure, k), evidence.images[1, 0])
        assert_close(pixels(figure, 2 + k), evidence.sources[prototype, 0])
    # Pixel i of a picture reaches from i - 0.5 to i + 0.5; windows are top, bottom, left, right.
    frames = [
        [(*sorted({*line.get_ydata()}), *sorted({*line.get_xdata()})) for line in axis.lines] for axis in figure.axes
    ]
    assert frames == [
        [(1.5, 4.5, -0.5, 2.5)],
        [(-0.5, 5.5, -0.5, 5.5)],
        [(-0.5, 2.5, 0.5, 3.5)],
        [(2.5, 5.5, -0.5, 2.5)],
    ]
    assert "logit 1.50 of class 1; the 2 prototypes drawn add 2.50" in caption(figure)
    assert "logit 1.50 of class 1; the 2 prototypes drawn add 2.50" in figure.alt
    assert_is_shown_with_alt_text(lambda alt: plot.prototype_evidence(evidence, alt=alt))
    with pytest.raises(ValueError, match=r"row must lie in 0\.\.1, got 2"):
        plot.prototype_evidence(evidence, row=2)
