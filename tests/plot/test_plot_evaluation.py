"""Pictures of evaluations."""

from dataclasses import replace

import pytest
import scipy.stats
import torch
from pictures import caption
from torch.testing import assert_close

from interp_lab import METHODS, class_sensitivity, coherence, model_randomisation, networks, plot, selectivity
from interp_lab.data import scenes
from interp_lab.evaluate.roar import Cell, Retraining


def test_a_retraining_is_drawn_with_baselines_and_masks_alone():
    def cells(method: str, accuracy: float, mask_only: float) -> list[Cell]:
        return [
            Cell(method, fraction, seed, accuracy - fraction + 0.1 * seed, mask_only)
            for fraction in (0.5, 0.1)  # as a sweep that was extended has them
            for seed in (0, 1)
        ]

    whole, broken = [Cell("none", 0.0, seed, 0.9 + 0.1 * seed) for seed in (0, 1)], Cell("broken", 0.1, 0, error="why")
    rows = [*whole, *cells("ours", 0.8, 0.3), broken, *cells("random", 0.7, 0.1), *cells("edges", 0.6, 0.2)]
    figure = plot.retraining(Retraining("most relevant", tuple(rows)))
    (axis,) = figure.axes
    drawn = {line.get_label(): line for line in axis.lines}
    assert {name: drawn[name].get_xdata()[0] for name in ("whole images", "random order", "edge detector")} == {
        "whole images": 0.95, "random order": pytest.approx(0.25), "edge detector": pytest.approx(0.15),
    }  # fmt: skip
    assert drawn["masks alone"].get_xdata() == pytest.approx([0.3])
    (dots,) = axis.containers
    assert dots[0].get_xdata() == pytest.approx([0.35])
    (spread,) = dots[2][0].get_segments()
    assert spread[:, 0] == pytest.approx([0.35 - 0.1 / 2**0.5, 0.35 + 0.1 / 2**0.5])  # of two seeds
    styles = {(line.get_color(), line.get_linestyle()) for name, line in drawn.items() if not name.startswith("_")}
    assert len(styles) == 4
    assert caption(figure) == (
        "50 % of the pixels replaced, the most relevant first; mean ± standard deviation over 2 seeds; failed: broken"
    )
    assert figure.alt == (
        "Test accuracy after retraining without the most relevant 50 % of the pixels, and of networks that saw the masks alone: "
        "ours 35 % (30 %). For comparison: whole images 95 %, random order 25 %, edge detector 15 %."
    )
    data, _ = plot.retraining(Retraining("most relevant", tuple(rows)), alt="what it shows")._repr_mimebundle_()
    assert data["text/plain"] == "what it shows"
    with pytest.raises(ValueError, match="no method to draw beside its baselines; failed: broken"):
        plot.retraining(Retraining("most relevant", tuple(row for row in rows if row.method != "ours")))


def scores(**columns: list[float]):
    """A coherence whose scores are as given, or 0.5; its chance level is 0.25."""
    count = len(next(iter(columns.values())))
    mask = torch.zeros(count, 2, 2, dtype=torch.bool)
    mask[:, 0, 0] = True
    values = dict.fromkeys(("pointing_game", "relevance_mass", "relevance_rank"), [0.5] * count) | columns
    return replace(coherence(mask.float(), mask), **{name: torch.tensor(column) for name, column in values.items()})


def test_an_interval_reaches_further_on_the_side_where_the_scores_scatter_further():
    hits = [1.0] + [0.0] * 11
    axis = plot.coherence({"a": scores(pointing_game=hits)}).axes[0]
    (interval,) = axis.collections[0].get_segments()
    # The hits among twelve images drawn with replacement are binomial.
    low, high = scipy.stats.binom.ppf([0.025, 0.975], 12, 1 / 12) / 12
    assert sorted(interval[:, 0]) == pytest.approx([low, high])
    assert axis.lines[0].get_xdata() == pytest.approx([1 / 12])


@pytest.mark.filterwarnings("ignore:.*have no positive relevance")
def test_evaluations_are_drawn_in_one_call_with_their_levels():
    network, data = networks.load("scenes_cnn"), scenes(6, seed=9, objects=2)
    masks = data.masks["object"], data.masks["second_object"]
    names = ("saliency", "lrp")
    maps = {name: METHODS[name](network, data.images) for name in names}
    options = {"steps": 4, "patch": 8, "beside": ("random",)}
    results = {
        plot.coherence: {name: coherence(maps[name], masks[0]) for name in names},
        plot.class_sensitivity: {
            name: class_sensitivity(METHODS[name], network, data.images, 0, 1, masks=masks) for name in names
        },
        plot.model_randomisation: {
            name: model_randomisation(METHODS[name], network, data.images[:2]) for name in names
        },
        plot.selectivity: {name: selectivity(network, data.images, maps[name], **options) for name in names},
    }
    figures = {draw: draw(result) for draw, result in results.items()}
    for draw, result in results.items():
        data, _ = draw(result, alt="what it shows")._repr_mimebundle_()
        assert data["text/plain"] == "what it shows"
        assert all(name in figures[draw].alt for name in names)
        with pytest.raises(ValueError, match=r"no result to draw|must be of one network|must have one order"):
            draw({})
    area = masks[0].float().mean().item()
    assert [axis.lines[-1].get_xdata()[0] for axis in figures[plot.coherence].axes] == pytest.approx([area] * 3)
    mean = results[plot.coherence]["saliency"].relevance_mass.mean().item()
    assert f"relevance_mass (chance {area:.2f}): saliency {mean:.2f}" in figures[plot.coherence].alt
    assert [axis.get_xlabel() for axis in figures[plot.class_sensitivity].axes][-1] == "moved"
    lines = {line.get_label(): line.get_ydata() for line in figures[plot.selectivity].axes[0].lines}
    assert list(lines) == ["saliency", "lrp", "random order"]
    assert_close(torch.tensor(lines["lrp"]), results[plot.selectivity]["lrp"].curve.mean(0))
    legends = [*figures[plot.selectivity].legends, figures[plot.selectivity].axes[0].get_legend()]
    assert [legend and legend.get_lines()[2].get_color() for legend in legends] == ["#888888", None], "one, as drawn"
    steps = figures[plot.model_randomisation].axes[0].lines[0].get_ydata()
    assert_close(torch.tensor(steps[1:]).float(), results[plot.model_randomisation]["saliency"].spearman.mean(1))


def heights(axis) -> dict[str, float]:
    """Name beside the axis -> how high it stands in the picture, in pixels."""
    places = axis.transData.transform([(0, y) for y in axis.get_yticks()])[:, 1]
    return dict(zip((text.get_text() for text in axis.get_yticklabels()), places, strict=True))


def test_every_interval_stands_beside_the_name_of_its_method_below_its_score_and_the_first_on_top():
    low, high = [0.1, 0.2, 0.3], [0.7, 0.8, 0.9]
    figure = plot.coherence({"bad_one": scores(relevance_mass=low), "good_one": scores(relevance_mass=high)})
    assert [axis.get_xlabel() for axis in figure.axes] == ["pointing game", "relevance mass", "relevance rank"]
    place = heights(figure.axes[0])
    assert place["bad one"] > place["good one"]
    drawn = {}
    for line in figure.axes[1].lines[:-1]:  # the last is the chance level
        ((x, y),) = line.get_xydata()
        drawn[round(x, 6)] = figure.axes[1].transData.transform((x, y))[1]
    assert drawn == pytest.approx({0.2: place["bad one"], 0.8: place["good one"]})
    for axis in figure.axes:
        assert axis.lines[-1].get_xdata() == [0.25, 0.25]
    assert "relevance_mass (chance 0.25): bad_one 0.20, good_one 0.80" in figure.alt
    assert "dashed: chance" in caption(figure)


def test_scores_that_are_undefined_are_left_out_and_counted_below():
    figure = plot.coherence({"a": scores(pointing_game=[0.25, float("nan"), 0.75, 0.5])})
    assert figure.axes[0].lines[0].get_xdata() == [0.5]
    assert "undefined: a, pointing_game: 1 of 4" in caption(figure)


def test_a_map_that_ignores_the_class_has_similarity_1_and_moves_by_0():
    model, masks = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 3)), torch.zeros(2, 3, 16, 16) > 0
    masks[0, :, 0], masks[1, :, 1] = True, True
    real = class_sensitivity(METHODS["saliency"], model, torch.rand(3, 1, 16, 16), 0, 1, masks=tuple(masks))
    blind = replace(
        real, spearman=torch.ones(3), spearman_abs=torch.ones(3), ssim=torch.ones(3), ssim_abs=torch.ones(3),
        moved=torch.zeros(3),
    )  # fmt: skip
    figure = plot.class_sensitivity({"blind": blind})
    levels = {axis.get_xlabel(): axis.lines[-1].get_xdata()[0] for axis in figure.axes}
    assert levels == {"spearman": 1, "spearman abs": 1, "ssim": 1, "ssim abs": 1, "moved": 0}
    for axis in figure.axes:
        assert axis.lines[0].get_xdata() == [axis.lines[-1].get_xdata()[0]]
    assert "ssim (a map that ignores the class 1.00): blind 1.00" in figure.alt
    assert "moved (a map that ignores the class 0.00): blind 0.00" in figure.alt
    assert "dashed: a map that ignores the class" in caption(figure)


def test_randomisation_starts_at_1_without_any_layer_and_names_each_layer_under_its_similarity():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    real = model_randomisation(METHODS["saliency"], network, torch.rand(2, 1, 16, 16))
    result = replace(
        real, spearman=torch.tensor([[0.5, 0.7], [0.1, float("nan")]]), ssim=torch.tensor([[0.9, 0.9], [0.3, 0.5]])
    )
    for part, line in (("spearman", [1.0, 0.6, 0.1]), ("ssim", [1.0, 0.9, 0.4])):
        figure = plot.model_randomisation({"a_method": result}, part=part)
        (axis,) = figure.axes
        assert axis.lines[0].get_ydata() == pytest.approx(line)
        assert axis.lines[0].get_xdata().tolist() == axis.get_xticks().tolist() == [0, 1, 2]
        assert [text.get_text() for text in axis.get_xticklabels()] == ["none", "3", "1"]  # from the logits down
        assert part in axis.get_ylabel()
        assert figure.alt == (
            "Similarity to the original map after the first and after all 2 layers: "
            f"a method {line[1]:.2f} and {line[2]:.2f}."
        )


def test_selectivity_is_drawn_over_the_share_removed_with_each_order_under_its_own_name():
    x = 4 * torch.eye(4).view(4, 1, 2, 2)  # every image has one bright pixel, whose logit is explained
    options = {"fill": 0.0, "beside": ("random", "optimal")}
    results = {
        "right": selectivity(lambda x: x.flatten(1), x, x, **options),
        "wrong_one": selectivity(lambda x: x.flatten(1), x, -x, fill=0.0),
    }
    figure = plot.selectivity(results)
    (axis,) = figure.axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("patches removed, most relevant first (%)", "logit")
    lines = {line.get_label(): line.get_ydata().tolist() for line in axis.lines}
    random = lines.pop("random order")
    assert lines == {"right": [4, 0, 0, 0, 0], "wrong one": [4, 4, 4, 4, 0], "optimal order": [4, 0, 0, 0, 0]}
    assert 0 < sum(random[1:-1]) < 12  # between the two
    for line in axis.lines:
        assert line.get_xdata().tolist() == [0, 25, 50, 75, 100]
    area = results["right"].random.area.mean()
    assert figure.alt == (
        "Mean logit while patches are removed, most relevant first. Areas under the curves: right 0.5, wrong one 3.5, "
        f"random order {area:.3g}, optimal order 0.5."
    )


def test_the_methods_of_a_retraining_stand_in_the_order_of_their_accuracy():
    def cells(method: str, accuracy: float) -> list[Cell]:
        return [Cell(method, fraction, 0, accuracy, accuracy / 2) for fraction in (0.1, 0.5)]

    methods = {"bad_one": 0.8, "good": 0.1, "random": 0.7, "edges": 0.6}
    rows = [Cell("none", 0.0, 0, 0.9), *(cell for name, accuracy in methods.items() for cell in cells(name, accuracy))]
    figure = plot.retraining(Retraining("least relevant", tuple(rows)))
    (axis,) = figure.axes
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["good", "bad one"]
    lowest, highest = axis.get_ylim()
    assert lowest > highest  # the first row is on top
    assert axis.containers[0][0].get_xdata() == pytest.approx([0.1, 0.8])
    (square,) = (line for line in axis.lines if line.get_label() == "masks alone")
    assert square.get_xdata() == pytest.approx([0.05, 0.4])
    assert "the least relevant first" in caption(figure)


def test_ranks_are_lines_from_the_best_to_the_worst_with_a_dot_at_the_median():
    values = {"CNN": {"lrp": [1, 2, 1, 5, 4], "a_b": [3, 3, 3, 3, 3]}, "ViT": {"lrp": [2, 1, 1, 1, 2]}}
    figure = plot.ranks(values, xlabel="rank by mass")
    (axis,) = figure.axes
    lines, dots = axis.lines[::2], axis.lines[1::2]
    assert [list(line.get_xdata()) for line in lines] == [[1, 5], [3, 3], [1, 2]]
    assert [list(dot.get_xdata()) for dot in dots] == [[2], [3], [1]]
    assert [dot.get_color() for dot in dots] == [plot.COLORS[0], plot.COLORS[0], plot.COLORS[1]]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["lrp", "a b"]
    assert [round(line.get_ydata()[0]) for line in lines] == [0, 1, 0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["CNN", "ViT"]
    assert figure.alt == "rank by mass. CNN: lrp 2 (1 to 5), a b 3 (3 to 3). ViT: lrp 1 (1 to 2)."
    assert plot.ranks(values, alt="what it shows").alt == "what it shows"
    with pytest.raises(ValueError, match="no rank"):
        plot.ranks({"CNN": {}})
