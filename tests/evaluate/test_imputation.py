"""ROAD's imputation: against a dense solve from the definition, closed forms, and what every function keeps."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from interp_lab import impute


def dense(image: Tensor, removed: Tensor) -> Tensor:
    """One channel ``(H, W)``, from the definition: one equation per removed pixel, solved as a dense system."""
    height, width = image.shape
    holes = removed.nonzero().tolist()
    index = {tuple(p): i for i, p in enumerate(holes)}
    a, b = torch.zeros(len(holes), len(holes), dtype=torch.float64), torch.zeros(len(holes), dtype=torch.float64)
    for i, (y, x) in enumerate(holes):
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                q = (y + dy, x + dx)
                if (dy, dx) == (0, 0) or not (0 <= q[0] < height and 0 <= q[1] < width):
                    continue
                weight = 1 / 12 if dy and dx else 1 / 6
                a[i, i] += weight
                if q in index:
                    a[i, index[q]] -= weight
                else:
                    b[i] += weight * image[q]
    result = image.clone()
    result[removed] = torch.linalg.solve(a, b)
    return result


@pytest.mark.parametrize("fraction", [0.1, 0.6, 0.95])
def test_equals_a_dense_solve(fraction):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 2, 9, 7, generator=generator, dtype=torch.float64)
    removed = torch.rand(3, 9, 7, generator=generator) < fraction
    expected = torch.stack([torch.stack([dense(c, m) for c in image]) for image, m in zip(x, removed, strict=True)])
    assert_close(impute(x, removed, noise=0), expected, rtol=0, atol=1e-8)


def test_one_removed_pixel_by_hand():
    x = torch.zeros(1, 1, 3, 3)
    x[0, 0, 0], x[0, 0, 1, 0] = torch.tensor([12.0, 6.0, 0.0]), 3.0
    centre, corner = torch.zeros(2, 1, 3, 3, dtype=torch.bool)
    centre[0, 1, 1], corner[0, 2, 0] = True, True
    assert_close(impute(x, centre, noise=0)[0, 0, 1, 1].item(), 12 / 12 + 6 / 6 + 3 / 6)
    # In the corner: two direct neighbours (3 and 0) and one diagonal (the centre, 0), of total weight 5/12.
    assert_close(impute(x, corner, noise=0)[0, 0, 2, 0].item(), (3 / 6) / (5 / 12))


def test_a_ramp_is_continued_and_a_constant_kept():
    ramp = torch.arange(12.0).expand(1, 1, 12, 12)
    removed = torch.zeros(1, 12, 12, dtype=torch.bool)
    removed[:, 3:9, 4:10] = True  # away from the border the mean of the neighbours of a linear function is its value
    assert_close(impute(ramp, removed, noise=0), ramp, rtol=0, atol=1e-5)
    only = torch.ones(1, 12, 12, dtype=torch.bool)
    only[0, 5, 5] = False
    assert_close(impute(ramp, only, noise=0), torch.full_like(ramp, 5.0), rtol=0, atol=1e-4)


def test_noise_and_what_is_kept():
    x = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    removed = torch.rand(2, 40, 40, generator=torch.Generator().manual_seed(1)) < 0.5
    state = torch.get_rng_state()
    smooth, noisy = impute(x, removed, noise=0), impute(x, removed, noise=0.1)
    hole = removed[:, None].expand_as(x)
    assert torch.equal(noisy[~hole], x[~hole])
    assert torch.equal(smooth[~hole], x[~hole])
    assert abs((noisy - smooth)[hole].std() - 0.1) < 0.005
    assert torch.equal(impute(x, removed, noise=0.1), noisy)
    assert not torch.equal(impute(x, removed, noise=0.1, seed=1), noisy)
    assert_close(impute(x[1:], removed[1:], noise=0.1), noisy[1:], rtol=0, atol=1e-6)
    assert abs((impute(x, removed) - smooth)[hole].std() - 0.01) < 0.0005  # without being asked for
    assert torch.equal(impute(x, torch.zeros_like(removed)), x)
    assert torch.equal(torch.get_rng_state(), state)
    assert noisy.dtype == x.dtype


@pytest.mark.parametrize(
    ("x", "removed", "words"),
    [
        (torch.rand(2, 3, 4), torch.zeros(2, 3, 4, dtype=torch.bool), "float images"),
        (torch.full((1, 1, 4, 4), torch.nan), torch.zeros(1, 4, 4, dtype=torch.bool), "finite"),
        (torch.rand(1, 1, 4, 4), torch.zeros(1, 4, 4), "removed must be bool"),
        (torch.rand(1, 1, 4, 4), torch.zeros(1, 4, 5, dtype=torch.bool), "removed must be bool"),
        (torch.rand(1, 1, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool), "keep at least one"),
    ],
)
def test_refuses(x, removed, words):
    with pytest.raises(ValueError, match=words):
        impute(x, removed)


def test_refuses_negative_noise():
    with pytest.raises(ValueError, match="noise"):
        impute(torch.rand(1, 1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool), noise=-1)
