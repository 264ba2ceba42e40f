"""Pictures with the spectrum and the colours of photographs."""

import math

import torch
from torch.testing import assert_close

from interp_lab.explain_model.activation_maximisation import fourier_parametrisation
from interp_lab.explain_model.photographic import photographic_parametrisation


def test_channels_that_vary_alike_become_colours_that_vary_as_those_of_the_photographs():
    photographs = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [1, 0.5, 0.2]
    ).view(3, 1, 1)
    photographs[:, 1] += 0.4 * photographs[:, 0]
    decode = photographic_parametrisation(photographs, 1, 32)[1]
    place = torch.arange(32) * 2 * math.pi / 32
    waves = 0.1 * torch.stack([(k * place).cos() for k in (1, 2, 3)])  # without correlation, of variance 0.01 / 2
    codes = fourier_parametrisation(waves[None, :, None].expand(1, 3, 32, 32))[0]
    colours = decode(codes).logit()[0].flatten(1)
    covariance = photographs.transpose(0, 1).flatten(1).cov()
    largest = torch.linalg.eigvalsh(covariance)[-1]
    assert_close(colours.cov(correction=0), 4**2 * covariance / largest * 0.005, atol=1e-6, rtol=1e-3)


def test_the_codes_are_other_faint_pictures_for_each_row_and_seed():
    photographs = torch.rand(2, 3, 8, 8)
    codes, decode = photographic_parametrisation(photographs, 2, 24)
    pictures = decode(codes)
    assert pictures.shape == (2, 3, 24, 24)
    assert (pictures - 0.5).abs().max() < 0.1
    assert not torch.equal(pictures[0], pictures[1])
    assert torch.equal(photographic_parametrisation(photographs, 2, 24)[0], codes)
    assert not torch.equal(photographic_parametrisation(photographs, 2, 24, seed=1)[0], codes)
