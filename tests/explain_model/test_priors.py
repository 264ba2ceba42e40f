"""Priors: densities against independent formulas, fits against data whose law is known, the shipped weights."""

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch.distributions import MultivariateNormal
from torch.testing import assert_close

from interp_lab import priors
from interp_lab.data import digits


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def covariance(size, seed):
    factor = random(size, size, seed=seed)
    return factor @ factor.T + 0.1 * torch.eye(size)


X = random(20, 4, seed=1)
BLOBS = torch.cat([random(300, 4, seed=2) * 0.5 - 2, random(100, 4, seed=3) + 2])
SIDES = torch.arange(400).ge(300).long()


def test_a_mixture_is_the_weighted_sum_of_its_gaussians():
    weights, means = torch.tensor([0.2, 0.5, 0.3]).double(), random(3, 4, seed=4)
    covariances = torch.stack([covariance(4, seed) for seed in range(3)])
    mixture = priors.Gaussians(weights, means, covariances)
    each = torch.stack([MultivariateNormal(m, c).log_prob(X) for m, c in zip(means, covariances, strict=True)], 1)
    assert_close(mixture.log_prob(X), (each.exp() @ weights).log())
    y = torch.arange(20) % 3
    assert_close(mixture.log_prob(X, y), each[torch.arange(20), y])
    assert_close(mixture.log_prob(X.view(20, 1, 2, 2)), mixture.log_prob(X))


def test_in_a_subspace_it_is_a_gaussian_of_all_pixels():
    basis = torch.linalg.qr(random(4, 2, seed=5)).Q
    centre, noise, inner = random(4, seed=6), torch.tensor(0.3).double(), covariance(2, 7)
    prior = priors.Gaussians(torch.ones(1).double(), random(1, 2, seed=8), inner, priors.Subspace(centre, basis, noise))
    whole = MultivariateNormal(
        centre + basis @ prior.means[0], basis @ inner @ basis.T + noise * (torch.eye(4) - basis @ basis.T)
    )
    assert_close(prior.log_prob(X), whole.log_prob(X))


def test_the_subspace_holds_the_principal_components_and_the_variance_they_leave_out():
    subspace = priors.Subspace.fit(BLOBS, 3)
    values = torch.linalg.eigvalsh(torch.cov(BLOBS.T, correction=0))
    assert_close(subspace.noise, values[0])
    twice = priors.Subspace.fit(BLOBS.repeat_interleave(2, 1), 3)  # directions without any variance do not count
    assert_close(twice.noise, 2 * values[0])
    h, rest = subspace(BLOBS)
    assert_close(torch.cov(h.T, correction=0), torch.diag(values[1:].flip(0)), atol=1e-10, rtol=0)
    assert_close(rest.mean(), -0.5 * torch.log(2 * math.pi * values[0]) - 0.5)


def test_gaussians_per_class_have_the_moments_of_their_class():
    own = priors.fit_gaussians(BLOBS, SIDES, shrinkage=0)
    shared = priors.fit_gaussians(BLOBS, SIDES, shared=True, shrinkage=0)
    scatter = [np.cov(BLOBS[SIDES == k].T, bias=True) for k in (0, 1)]
    pooled = torch.as_tensor(0.75 * scatter[0] + 0.25 * scatter[1])
    assert_close(own.weights, torch.tensor([0.75, 0.25]).double())
    assert_close(own.covariances, torch.as_tensor(np.stack(scatter)))
    assert_close(shared.covariances, pooled.expand(2, 4, 4))
    mean = BLOBS[SIDES == 1].mean(0)
    y = torch.ones(20).long()
    assert_close(own.log_prob(X, y), MultivariateNormal(mean, own.covariances[1]).log_prob(X))
    assert_close(shared.log_prob(X, y), MultivariateNormal(mean, pooled).log_prob(X))


def test_shrinkage_moves_a_covariance_toward_a_multiple_of_the_identity_and_keeps_its_trace():
    plain, shrunk, round_ = (priors.fit_gaussians(BLOBS, SIDES, shrinkage=s).covariances[1] for s in (0, 0.3, 1))
    assert_close(round_, plain.trace() / 4 * torch.eye(4).double())
    assert_close(shrunk, 0.7 * plain + 0.3 * round_)
    assert_close(priors.fit_gaussians(BLOBS, SIDES).covariances[1], 0.95 * plain + 0.05 * round_)
    few = torch.cat([BLOBS[:2], BLOBS[-2:]])  # two pictures of four pixels: singular without it
    assert torch.isfinite(priors.fit_gaussians(few, torch.tensor([0, 0, 1, 1])).log_prob(X)).all()


def test_the_mixture_is_that_of_scikit_learn_and_finds_the_blobs():
    mixture = priors.fit_mixture(BLOBS, 2, shrinkage=0)
    reference = GaussianMixture(2, random_state=0, reg_covar=0.01 * BLOBS.var(0).mean().item()).fit(BLOBS)
    assert_close(mixture.log_prob(X), torch.as_tensor(reference.score_samples(X)), atol=1e-6, rtol=1e-6)
    light = mixture.weights.argmin()
    assert_close(mixture.weights[light].item(), 0.25, atol=0.02, rtol=0)
    assert_close(mixture.means[light] + mixture.subspace.centre, BLOBS[SIDES == 1].mean(0), atol=0.1, rtol=0)


def exact(rbm):
    """Weights and means of the RBM as a mixture of 2^H Gaussians, and log Z, from the joint density."""
    states = torch.tensor(list(itertools.product((0.0, 1.0), repeat=len(rbm.hidden)))).to(rbm.weight)
    means = rbm.visible + states @ rbm.weight.T
    log = states @ rbm.hidden + (means.square().sum(1) - rbm.visible.square().sum()) / (2 * rbm.variance)
    log_z = torch.logsumexp(log, 0) + 0.5 * rbm.weight.shape[0] * torch.log(2 * math.pi * rbm.variance)
    return log.softmax(0), means, log_z


def test_an_rbm_is_a_mixture_of_two_to_the_hidden_gaussians():
    everything = priors.Subspace.fit(BLOBS, None)
    rbm = priors.GaussianRBM(
        random(4, 3, seed=1), random(4, seed=2), random(3, seed=3), torch.tensor(0.7).double(), everything
    )
    weights, means, log_z = exact(rbm)
    h = X - everything.centre
    components = torch.stack([MultivariateNormal(m, 0.7 * torch.eye(4).double()).log_prob(h) for m in means], 1)
    assert_close(rbm.log_prob(X) - log_z, (components.exp() @ weights).log())


def test_training_an_rbm_comes_close_to_the_law_of_the_data(seed, verdict):
    """Independent coordinates with two values each, and normal noise, are an RBM with as many hidden units."""

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        high = (torch.rand(2000, 4, generator=generator) < 0.3).double()
        return 2 * high - 1 + 0.4 * torch.randn(2000, 4, generator=generator).double()

    images, held_out = draw(2 * seed + 1), draw(2 * seed + 2)
    rbm = priors.fit_rbm(images, hidden=4, variance=0.16 / images.var(0).mean().item(), lr=0.1, seed=seed)
    values = torch.distributions.Normal(torch.tensor([-1.0, 1.0]).double(), 0.4).log_prob(held_out[..., None]).exp()
    best = (values @ torch.tensor([0.7, 0.3]).double()).log().sum(1).mean()
    single = MultivariateNormal(images.mean(0), torch.cov(images.T)).log_prob(held_out).mean()
    assert best > single + 1
    verdict("mean log p, less the best", (rbm.log_prob(held_out) - exact(rbm)[2]).mean() - best, above=-0.15)


def test_the_chains_of_an_rbm_draw_their_hidden_units(seed, verdict):
    """Two Gaussians so close that a unit's probability is often near a half: chains of probabilities hardly spread."""
    generator = torch.Generator().manual_seed(seed)
    side = 2 * (torch.rand(4000, 1, generator=generator) < 0.5).double() - 1
    images = 0.7 * side + torch.randn(4000, 1, generator=generator).double()
    rbm = priors.fit_rbm(images, hidden=1, variance=1 / images.var().item(), lr=0.2, steps=1000, seed=seed)
    weights, means, _ = exact(rbm)
    between = weights @ (means[:, 0] - weights @ means[:, 0]).square()
    # With the likelihood at its maximum the law's variance is that of the images, of which 1 lies within the Gaussians.
    verdict("variance between the Gaussians / that of the images", between / (images.var() - 1), above=0.7, below=1.3)


def test_an_autoencoder_codes_where_its_prior_is_and_decodes_what_it_coded(seed, verdict):
    data = digits("train")
    before = torch.get_rng_state()
    vae = priors.fit_vae(data.images, steps=300, seed=seed)
    assert torch.equal(before, torch.get_rng_state())
    codes = vae.encode(data.images)
    assert codes.shape == (len(data), 10)
    decoded = vae.decode(codes)
    assert decoded.shape == data.images.shape
    spread = (data.images - data.images.mean(0)).square().mean()
    verdict("squared error / variance", (decoded - data.images).square().mean() / spread, below=0.3)
    verdict("squared code", codes.square().mean(), above=0.5, below=1.5)
    normal = torch.distributions.Normal(0, 1)
    assert_close(vae.code_log_prob(codes), normal.log_prob(codes).sum(1))
    assert not any(p.requires_grad for p in vae.parameters())


def test_a_seed_repeats_a_fit():
    for fit in (
        lambda seed: priors.fit_mixture(BLOBS, 8, seed=seed).means,
        lambda seed: priors.fit_rbm(BLOBS, hidden=2, steps=20, seed=seed).weight,
        lambda seed: priors.fit_vae(digits("train").images[:200], steps=5, seed=seed).decoder[0].weight,
    ):
        assert torch.equal(fit(1), fit(1))
        assert not torch.equal(fit(1), fit(2))


@pytest.mark.parametrize("name", ["digits_gaussians", "digits_mixture", "digits_rbm"])
def test_the_shipped_densities_prefer_new_digits_to_other_pictures(name):
    prior, real = priors.load(name), digits("test").images
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    level = prior.log_prob(real)
    assert level.shape == (len(real),)
    for other in (1 - real, real.flip(2), real + 0.1 * noise):
        assert prior.log_prob(other).mean() < level.mean() - 20


def test_the_shipped_gaussians_classify():
    data, prior = digits("test"), priors.load("digits_gaussians")
    each = torch.stack([prior.log_prob(data.images, torch.full_like(data.labels, k)) for k in range(10)], 1)
    assert ((each.argmax(1) == data.labels).float().mean()) > 0.95


def test_the_shipped_autoencoder_decodes_new_digits():
    vae, x = priors.load("digits_vae"), digits("test").images
    codes = vae.encode(x)
    assert (vae.decode(codes) - x).square().mean().sqrt() < 0.08
    assert 0.6 < codes.square().sum(1).mean() / 10 < 1.4


@pytest.mark.slow
@pytest.mark.parametrize("name", priors.TRAINED)
def test_every_prior_is_fitted_to_what_is_shipped(name):
    fitted = priors.TRAINED[name](digits("train"))
    shipped, x = priors.load(name), digits("test").images
    if name == "digits_vae":
        fitted, shipped = (p.decode(p.encode(x)).sub(x).square().flatten(1).sum(1) for p in (fitted, shipped))
        assert_close(fitted.mean(), shipped.mean(), atol=0, rtol=0.1)
    else:
        assert_close(fitted.log_prob(x).mean(), shipped.log_prob(x).mean(), atol=5, rtol=0)


IMAGES = torch.rand(30, 1, 4, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: priors.load("resnet"), r"no fitted prior 'resnet'; there are digits_gaussians, .*digits_vae"),
        (lambda: priors.fit_mixture(IMAGES, 31), r"components must lie in 1..30"),
        (lambda: priors.fit_mixture(IMAGES, dim=16), r"dim must lie in 1..15 for 30 images of 16 pixels, got 16"),
        (lambda: priors.fit_mixture(IMAGES, dim=0), r"dim must lie in 1..15 for 30 images of 16 pixels, got 0"),
        (lambda: priors.fit_mixture(IMAGES * torch.inf), "finite float batch"),
        (lambda: priors.fit_mixture((IMAGES * 9).long()), "finite float batch"),
        (lambda: priors.fit_mixture(torch.ones(30, 16), dim=2), "leaves no noise"),
        (lambda: priors.fit_gaussians(IMAGES, torch.full((30,), 2)), r"empty classes: \[0, 1\]"),
        (lambda: priors.fit_gaussians(IMAGES, torch.zeros(29).long()), r"labels must be \(30,\)"),
        (lambda: priors.fit_rbm(IMAGES, lr=1e6, steps=20), "no longer finite; lower lr"),
        (lambda: priors.fit_vae(IMAGES * 2), r"in \[0, 1\]"),
        (lambda: priors.load("digits_rbm").log_prob(IMAGES), "pictures of 784 pixels"),
        (lambda: priors.load("digits_rbm").log_prob(torch.rand(1, 784).double()), "x is torch.float64 on cpu"),
        (
            lambda: priors.load("digits_gaussians").log_prob(torch.rand(1, 784), torch.tensor([10])),
            r"y must be \(1,\) with classes in 0..9, got \[10\]",
        ),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
