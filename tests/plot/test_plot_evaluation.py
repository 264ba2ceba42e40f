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
            for fraction in (0.1, 0.5)
            for seed in (0, 1)
        ]

    whole, broken = [Cell("none", 0.0, seed, 0.9 + 0.1 * seed) for seed in (0, 1)], Cell("broken", 0.1, 0, error="why")
    rows = [*whole, *cells("ours", 0.8, 0.3), broken, *cells("random", 0.7, 0.1), *cells("edges", 0.6, 0.2)]
    figure = plot.retraining(Retraining("most relevant", tuple(rows)))
    (axis,) = figure.axes
    drawn = {line.get_label(): line for line in axis.lines}
    assert list(drawn) == ["random order", "edge detector", "method", "masks alone"]
    assert drawn["method"].get_xdata().tolist() == [0, 0.1, 0.5]
    assert_close(torch.tensor(drawn["method"].get_ydata()), torch.tensor([0.95, 0.75, 0.35], dtype=torch.float64))
    assert_close(torch.tensor(drawn["masks alone"].get_ydata()), torch.tensor([0.3, 0.3], dtype=torch.float64))
    assert len({(line.get_color(), line.get_linestyle()) for line in drawn.values()}) == 4
    assert drawn["masks alone"].get_linestyle() == "--"
    band = axis.collections[0].get_paths()[0].vertices
    for x, mean in ((0, 0.95), (0.1, 0.75), (0.5, 0.35)):
        ends = band[band[:, 0] == x][:, 1]
        assert [ends.min(), ends.max()] == pytest.approx([mean - 0.1 / 2**0.5, mean + 0.1 / 2**0.5])  # of two seeds
    assert "failed: broken" in caption(figure)
    assert "With 50 % replaced: random 25 %, edges 15 %, ours 35 %" in figure.alt
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
