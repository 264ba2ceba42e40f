"""Surrogates, activation maximisation, strongest patches and prototypes."""

from dataclasses import replace

import networkx
import pytest
import torch
from pictures import assert_is_shown_with_alt_text, caption, colours, hue, pixels
from torch import nn
from torch.testing import assert_close

from interp_lab import maximize_activation, mmd_critic, plot, surrogate_graph, surrogate_local, top_activations
from interp_lab.backprop.receptive_field import ReceptiveField
from interp_lab.explain_model.top_activations import TopActivations


def test_a_segment_that_speaks_for_the_class_is_red_and_one_that_speaks_against_it_blue():
    def model(x):
        left, right = x[:, 0, :, 0].sum(1), x[:, 0, :, 1].sum(1)
        return torch.stack([right, left - 2 * right], 1)

    local = surrogate_local(
        model, torch.ones(1, 1, 3, 2), 1, segments=torch.tensor([[0, 1]] * 3), fill=0.0, n=50, ridge=1e-9
    )
    figure = plot.segments(local)
    assert_close(pixels(figure, 1).double(), torch.tensor([[3.0, -6.0]] * 3).double(), rtol=1e-3, atol=0)
    assert [[hue(colour) for colour in row] for row in colours(figure, 1)] == [["red", "blue"]] * 3
    assert [axis.get_title() for axis in figure.axes] == ["2 segments", "effect on class 1"]
    ink = figure.axes[0].images[1].get_array()[..., 3]
    assert ((ink > 0) == [[False, True]] * 3).all()  # where the second segment begins
    assert "R2 of the linear model 1.00" in caption(figure)
    assert "cut into 2 segments, and the effect of each on class 1 in a linear model whose R2 is 1.00" in figure.alt
    assert_is_shown_with_alt_text(lambda alt: plot.segments(local, alt=alt))


def test_segments_and_projections_that_are_all_positive_are_red_as_their_captions_say():
    local = surrogate_local(
        lambda x: x.sum((2, 3)), torch.ones(1, 1, 2, 2), 0, segments=torch.arange(4).view(2, 2), n=50
    )
    patches, images = torch.rand(1, 2, 1, 3, 3), torch.tensor([[0, 1]])
    top = TopActivations(
        torch.ones(1, 2), images, torch.zeros(1, 2, 2, dtype=torch.long), patches, (ReceptiveField(3, 1, 0),) * 2
    )
    for figure, told in (
        (plot.segments(local), "red: the segment speaks for"),
        (plot.top_patches(top, patches), "red adds"),
    ):
        assert hue(colours(figure, 1).reshape(-1, 3)[pixels(figure, 1).argmax()]) == "red"
        assert told in caption(figure)


def a_graph():
    """Two layers of three and two channels, of which two and one are kept, and two of three classes."""
    graph = networkx.DiGraph()
    nodes = {("first", 0): 0, ("first", 2): 0, ("second", 1): 1, ("logit", 0): 2, ("logit", 2): 2}
    for node, depth in nodes.items():
        graph.add_node(node, depth=depth, relevance=1.0)
    graph.add_edge(("first", 0), ("second", 1), weight=2.0)
    graph.add_edge(("first", 2), ("second", 1), weight=-0.5)
    graph.add_edge(("second", 1), ("logit", 0), weight=-30.0)
    graph.add_edge(("second", 1), ("logit", 2), weight=10.0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    real = surrogate_graph(network, torch.rand(4, 1, 6, 6))
    kept = {"first": torch.tensor([True, False, True]), "second": torch.tensor([False, True])}
    return replace(real, graph=graph, kept=kept)


def test_positive_relevance_is_orange_and_solid_negative_blue_and_dashed_as_the_caption_says():
    figure = plot.channel_graph(a_graph(), ["zero", "one", "two"])
    (axis,) = figure.axes
    names = {text.get_position(): text.get_text() for text in axis.texts}
    assert len(names) == 8  # five nodes below the names of three columns
    lines = {tuple(names[place] for place in zip(*line.get_data(), strict=True)): line for line in axis.lines}
    orange, blue = "#D55E00", "#0072B2"
    told = {ends: (line.get_color(), line.get_linestyle()) for ends, line in lines.items()}
    assert told == {
        ("0", "1"): (orange, "-"), ("2", "1"): (blue, "--"), ("1", "zero"): (blue, "--"), ("1", "two"): (orange, "-"),
    }  # fmt: skip
    assert "orange, solid: positive; blue, dashed: negative" in caption(figure)


def test_lines_of_a_graph_are_as_strong_as_their_relevance_within_their_layer():
    lines = plot.channel_graph(a_graph()).axes[0].lines
    first, weak, second, third = lines  # of relevance 2, -0.5, then -30, 10
    for strong, other, ratio in ((first, weak, 4), (second, third, 3)):
        assert strong.get_linewidth() == pytest.approx(ratio * other.get_linewidth())
        assert strong.get_alpha() > other.get_alpha() > 0
    assert first.get_linewidth() == second.get_linewidth()


def test_a_graph_has_its_layers_from_left_to_right_and_their_channels_from_top_to_bottom():
    figure = plot.channel_graph(a_graph())
    columns: dict[float, dict[float, str]] = {}
    for text in figure.axes[0].texts:
        x, y = text.get_position()
        columns.setdefault(x, {})[-y] = text.get_text()
    read = [[column[y] for y in sorted(column)] for _, column in sorted(columns.items())]
    assert read == [["layer first\n2 of 3", "0", "2"], ["layer second\n1 of 2", "1"], ["class", "0", "2"]]
    assert figure.alt.endswith("2 channels of first, 1 channels of second.")


def test_every_channel_kept_of_a_network_is_drawn():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    result = surrogate_graph(network, torch.rand(60, 1, 6, 6))
    drawn = {text.get_text() for text in plot.channel_graph(result).axes[0].texts}
    assert {str(channel) for _, channel in result.graph} <= drawn
    assert_is_shown_with_alt_text(lambda alt: plot.channel_graph(result, alt=alt))


def test_a_channel_is_drawn_as_its_patches_at_its_place():
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)), torch.rand(60, 1, 6, 6)
    result = surrogate_graph(network, x)
    ((layer, kept),) = result.kept.items()
    top = top_activations(network, [x], layer, k=1)
    figure = plot.channel_graph(result, patches={layer: top})
    drawn = [torch.as_tensor(axis.images[0].get_array()) for axis in figure.axes[0].child_axes]
    channels = kept.nonzero()[:, 0].tolist()
    assert len(drawn) == len(channels)
    for channel in channels:
        assert any(torch.allclose(shown, top.patches[channel, 0, 0]) for shown in drawn)


def test_an_ascent_is_drawn_from_start_to_end_in_one_call():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    result = maximize_activation(model, torch.arange(3), torch.full((3, 1, 4, 4), 0.5), bounds=(0, 1), steps=20)
    figure = plot.ascent(result, ["a", "b", "c"])
    assert [axis.get_ylabel() for axis in figure.axes[::3]] == ["step 0", "step 2", "step 6", "step 20"]
    assert_close(pixels(figure, -1), result.x[2, 0])
    assert [axis.get_title() for axis in figure.axes[:3]] == ["a", "b", "c"]
    assert figure.axes[-1].get_xlabel() == f"{result.trace[-1, 2] - result.trace[0, 2]:+.3g}"
    assert result.trace[-1, 2] > result.trace[0, 2]
    assert f"largest norm of the gradient at the end {max(result.gradient_norm.tolist()):.2g}" in caption(figure)
    assert figure.alt.endswith("from step 0 (top) to step 20 (bottom).")
    assert "a, b, c" in figure.alt
    with pytest.raises(ValueError, match="3 pictures need as many titles, got 1"):
        plot.ascent(result, ["a"])
    flat = maximize_activation(model, 0, torch.zeros(1, 16), steps=1)
    with pytest.raises(ValueError, match=r"pictures \(N, C, H, W\), got shape \(1, 16\)"):
        plot.ascent(flat)


def test_an_ascent_tells_what_it_clips():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    result = maximize_activation(model, 0, torch.full((1, 1, 4, 4), 0.5), steps=20, lr=1.0)
    moments = torch.stack([result.trajectory[i] for i in (0, 1, 3, 10)])
    share = ((moments < 0) | (moments > 1)).float().mean()
    told = f"{share:.1%} of the values lie outside [0, 1] and are clipped"
    figure = plot.ascent(result)
    assert share > 0.2
    assert told in figure.alt
    assert told in caption(figure)


def test_top_patches_and_their_projections_are_mosaics_in_one_call():
    patches = torch.rand(3, 4, 1, 5, 5)
    projections = (patches - 0.5) * torch.tensor([1.0, 10.0, 0.1, 3.0]).view(4, 1, 1, 1)
    images = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, -1]])
    values = torch.ones(3, 4).masked_fill(images < 0, -torch.inf)
    top = TopActivations(
        values, images, torch.zeros(3, 4, 2, dtype=torch.long), patches, (ReceptiveField(5, 1, 0),) * 2
    )
    figure = plot.top_patches(top, projections, channels=[2, 0])
    above, below = pixels(figure, 0), pixels(figure, 2)
    assert above.shape == below.shape == (11, 11)  # two by two tiles of five pixels and a gap
    assert_close(above[:5, 6:], patches[2, 1, 0])
    assert_close(above[6:, :5], patches[2, 2, 0])
    assert (above[6:, 6:] == 1).all()  # there was no fourth image
    for tile, own in ((below[:5, :5], projections[2, 0, 0]), (below[:5, 6:], projections[2, 1, 0])):
        assert_close(tile, own / own.abs().max())  # each with its own scale
    assert [axis.get_ylabel() for axis in figure.axes] == ["patches", "", "projections", ""]
    assert [axis.get_title() for axis in figure.axes[:2]] == ["channel 2", "channel 0"]
    assert "channels 2, 0" in figure.alt
    assert len(plot.top_patches(top).axes) == 3
    with pytest.raises(ValueError, match=r"channels must lie in 0\.\.2, got \[3\]"):
        plot.top_patches(top, channels=[3])
    with pytest.raises(ValueError, match="projections must be"):
        plot.top_patches(top, patches[:2])


def test_prototypes_are_drawn_above_criticisms_with_their_witness():
    pictures = torch.rand(30, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    chosen = mmd_critic(pictures, 12, 3)
    figure = plot.prototypes(chosen, pictures)
    assert [axis.get_ylabel() for axis in figure.axes[::10]] == ["prototypes", "prototypes", "criticisms"]
    assert_close(pixels(figure, 11), pictures[chosen.prototypes[11], 0])
    first = chosen.criticisms[0]
    assert_close(pixels(figure, 20), pictures[first, 0])
    assert figure.axes[20].get_title() == f"{1000 * chosen.witness[first]:+.1f}"
    assert "witness x 1000, positive where the prototypes leave data out" in caption(figure)
    assert "12 prototypes" in figure.alt
    assert "3 criticisms" in figure.alt
    with pytest.raises(ValueError, match="among 30 examples, got 29 pictures"):
        plot.prototypes(chosen, pictures[1:])
