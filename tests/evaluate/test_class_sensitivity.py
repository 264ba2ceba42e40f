"""Similarity of maps against scipy and scikit-image; class sensitivity of methods whose answer is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from skimage.metrics import structural_similarity
from torch import nn
from torch.testing import assert_close

from interp_lab import METHODS, class_sensitivity, networks, saliency, similarity, spearman, ssim
from interp_lab.data import photos, scenes

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"


@pytest.fixture
def pairs():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(4, 3, 12, 17, generator=generator)
    return a, a + torch.randn(4, 3, 12, 17, generator=generator)


def test_spearman_equals_scipys(pairs):
    a, b = (m.mul(2).round() for m in pairs)  # with ties
    expected = [
        stats.spearmanr(u.sum(0).flatten(), v.sum(0).flatten()).statistic
        for u, v in zip(a.numpy(), b.numpy(), strict=True)
    ]
    assert_close(spearman(a, b), torch.tensor(np.array(expected)).float())
    assert_close(spearman(a.flatten(1), -a.flatten(1)), -torch.ones(4))


def test_ssim_equals_scikit_images(pairs):
    for negative in (True, False):
        a, b = (m.sum(1).numpy() if negative else m.sum(1).abs().numpy() for m in pairs)
        unit = [[m / abs(m).max() for m in maps] for maps in (a, b)]
        if negative:
            unit = [[(1 + m) / 2 for m in maps] for maps in unit]
        expected = [structural_similarity(u, v, data_range=1.0) for u, v in zip(*unit, strict=True)]
        assert_close(ssim(torch.tensor(a), torch.tensor(b)), torch.tensor(np.array(expected)).float())
    assert_close(ssim(pairs[0], 5 * pairs[0]), torch.ones(4))
    assert ssim(pairs[0].flatten(1), pairs[1].flatten(1)).isnan().all()
    assert ssim(pairs[0][..., :6], pairs[1][..., :6]).isnan().all()


def test_signed_and_absolute_similarity_differ_where_signs_do(pairs):
    result = similarity(pairs[0], -pairs[0])
    assert_close(result.spearman, -torch.ones(4))
    assert_close(result.spearman_abs, torch.ones(4))
    assert_close(result.ssim_abs, torch.ones(4))
    assert (result.ssim < 0).all()


def test_a_constant_map_has_no_rank_correlation(pairs):
    a = pairs[0].clone()
    a[1] = 0
    with pytest.warns(UserWarning, match="1 of 4 pairs have a constant map"):
        assert spearman(a, pairs[1]).isnan().tolist() == [False, True, False, False]
    with pytest.raises(ValueError, match=r"one shape, got \(4, 12, 17\) and \(3, 12, 17\)"):
        spearman(a, a[:3])


def test_a_linear_model_by_hand():
    """Its saliency maps are the weight rows, so the similarity is that of the rows."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    x = torch.randn(6, 1, 8, 8)
    result = class_sensitivity(saliency, model, x)
    logits = model(x)
    assert torch.equal(result.target_a, logits.argmax(1))
    assert torch.equal(result.target_b, logits.argmin(1))
    rows = model[1].weight.detach().view(5, 1, 8, 8)
    expected = similarity(rows[result.target_a], rows[result.target_b])
    for name in vars(expected):
        assert_close(getattr(result, name), getattr(expected, name))
    assert_close(result.maps[1], rows[result.target_b])
    assert result.moved is None


def test_relevance_that_moves_to_the_right_object():
    two = scenes(5, seed=9, objects=2)
    a, b = two.masks["object"], two.masks["second_object"]

    def call(method):
        return class_sensitivity(method, networks.load("scenes_cnn"), two.images, 0, 1, masks=(a, b)).moved

    def oracle(model, x, target):
        return torch.where((target == 0)[:, None, None], a, b).float()

    assert_close(call(oracle), torch.ones(5))
    assert_close(call(lambda *args: 1 - oracle(*args)), -torch.ones(5))
    assert_close(call(lambda model, x, target: x), torch.zeros(5))
    # Three quarters of the relevance on the right object: 3/4 - 1/4.
    mixed = call(lambda *args: sum(w * m / m.sum((1, 2), keepdim=True) for w, m in weighted(oracle, args)))
    assert_close(mixed, torch.full((5,), 0.5))
    with pytest.warns(UserWarning, match="5 of 5 maps have no positive relevance"):
        assert_close(call(lambda model, x, target: -x), torch.zeros(5))


def weighted(oracle, args):
    right = oracle(*args)
    return (0.75, right), (0.25, oracle(args[0], args[1], 1 - args[2]))


@pytest.mark.filterwarnings("ignore:.*have no positive relevance")
def test_on_scenes_guided_backprop_hardly_asks_for_the_class_and_the_gradient_does():
    network, data = networks.load("scenes_cnn"), scenes(40, seed=3)
    guided = class_sensitivity(METHODS["guided_backprop"], network, data.images)
    gradient = class_sensitivity(saliency, network, data.images)
    assert guided.spearman.mean() > 0.75
    assert guided.ssim.mean() > 0.75
    assert gradient.spearman.mean() < -0.3
    assert gradient.ssim.mean() < 0.4
    two = scenes(40, seed=9, objects=2)
    masks = two.masks["object"], two.masks["second_object"]
    for name, low, high in (("deconvnet", -0.03, 0.03), ("grad_cam", 0.7, 1.0), ("lrp", 0.7, 1.0)):
        result = class_sensitivity(METHODS[name], network, two.images, two.labels, two.second_labels, masks=masks)
        assert low <= result.moved.mean() <= high


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data: photos, and SqueezeNet's weights")
def test_on_photos_deconvnet_and_guided_backprop_ignore_the_class_and_the_gradient_does_not(monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(SHARED / "torch-home"))
    network, data = networks.imagenet("squeezenet1_1")[0], photos(SHARED / "photos", normalize=True)[:6]
    means = {
        name: class_sensitivity(METHODS[name], network, data.images).spearman.mean().item()
        for name in ("deconvnet", "guided_backprop", "saliency")
    }
    assert means["deconvnet"] > 0.98
    assert means["guided_backprop"] > 0.9
    assert abs(means["saliency"]) < 0.2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model, x: class_sensitivity(saliency, model, x, 1, 1), r"must differ, but are equal in rows \[0, 1\]"),
        (lambda model, x: class_sensitivity(saliency, model, x, 7, 1), r"target must lie in 0\.\.2"),
        (
            lambda model, x: class_sensitivity(lambda model, x, target: x / 0, model, x),
            r"the map of target_a holds NaN or infinite values in rows \[0, 1\]",
        ),
        (
            lambda model, x: class_sensitivity(saliency, model, x, masks=(x[:, 0] > 0,) * 2),
            r"mask must be|masks must be",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(call, message):
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=message):
        call(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), torch.rand(2, 1, 4, 4) + 0.1)


def test_ranks_are_those_of_scipy_with_ties_zeros_of_both_signs_and_rows_of_one_value():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(6, (5, 40), generator=generator).double() for _ in range(2))
    a[1], b[2, :9] = torch.randn(40, generator=generator), -0.0
    a[3, 0] = 1e300
    expected = [stats.spearmanr(p, q).statistic for p, q in zip(a.numpy(), b.numpy(), strict=True)]
    assert_close(spearman(a, b).double(), torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)
    assert spearman(a, b).device == a.device
