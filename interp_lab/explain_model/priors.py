r"""Priors of pictures for activation maximisation: densities with ``log_prob``, generators with ``decode``.

The densities live in the span of the data's first principal components; what is left of a picture is white noise of
small variance: :math:`x = \bar x + U h + \epsilon`, :math:`\log p(x) = \log p(h) + \log N(\epsilon; 0, s^2 I)`. That is
probabilistic PCA (Tipping and Bishop 1999) with other densities of :math:`h`. Pixels of real pictures are so correlated
that a density without it would rest on differences that no picture has.

``python -m interp_lab.explain_model.priors`` fits every prior of ``TRAINED`` to the digits and writes its weights.
"""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data import Dataset
from ..weights import load_weights, save_weights


def _shrunk(covariance: Tensor, shrinkage: float) -> Tensor:
    level = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    return (1 - shrinkage) * covariance + shrinkage * level * torch.eye(covariance.shape[-1]).to(covariance)


class Subspace(nn.Module):
    r"""Coordinates :math:`h = U^T (x - \bar x)` of pictures, and the density of what they leave out.

    Args:
        centre: ``(d,)``.
        basis: ``(d, r)`` with orthonormal columns.
        noise: variance per direction of what is left; not used where ``r = d``.
    """

    centre: Tensor
    basis: Tensor
    noise: Tensor

    def __init__(self, centre: Tensor, basis: Tensor, noise: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", centre)
        self.register_buffer("basis", basis)
        self.register_buffer("noise", noise)

    @classmethod
    def fit(cls, images: Tensor, dim: int | None) -> "Subspace":
        """The first ``dim`` principal components of ``(N, ...)``; None keeps all directions as they are.

        The noise is the mean variance of the other directions in which the images vary at all: enlarged images vary
        in few, and a mean over all would make of every real picture an outlier.
        """
        if not images.is_floating_point() or images.dim() < 2 or not torch.isfinite(images).all():
            raise ValueError(f"images must be a finite float batch (N, ...), got {images.dtype} {tuple(images.shape)}")
        x = images.flatten(1)
        count, size = x.shape
        centre = x.mean(0)
        if dim is None:
            return cls(centre, torch.eye(size, dtype=x.dtype, device=x.device), x.new_ones(()))
        if not 1 <= dim < min(count, size):
            raise ValueError(
                f"dim must lie in 1..{min(count, size) - 1} for {count} images of {size} pixels, got {dim}"
            )
        _, scale, basis = torch.linalg.svd(x - centre, full_matrices=False)
        left = scale[dim:][scale[dim:] > 1e-4 * scale[0]]
        if len(left) == 0:
            raise ValueError(f"{dim} components already span the images, which leaves no noise; lower dim")
        return cls(centre, basis[:dim].T.contiguous(), left.square().mean() / count)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The coordinates ``(N, r)`` and the log-density ``(N,)`` of the remainder of pictures ``(N, ...)``."""
        size, kept = self.basis.shape
        if x[0].numel() != size:
            raise ValueError(f"this density is of pictures of {size} pixels, got x of shape {tuple(x.shape)}")
        if (x.dtype, x.device) != (self.centre.dtype, self.centre.device):
            raise ValueError(f"x is {x.dtype} on {x.device}, the density {self.centre.dtype} on {self.centre.device}")
        x = x.flatten(1) - self.centre
        h = x @ self.basis
        if kept == size:
            return h, torch.zeros_like(h[:, 0])
        rest = (x - h @ self.basis.T).square().sum(1)
        return h, -0.5 * rest / self.noise - 0.5 * (size - kept) * torch.log(2 * math.pi * self.noise)


class Gaussians(nn.Module):
    r"""A weighted sum of Gaussians, one per class or found by EM: :math:`p(h) = \sum_k \pi_k N(h; m_k, C_k)`.

    Args:
        weights: ``(K,)``, positive with sum one.
        means: ``(K, r)`` in coordinates of the subspace.
        covariances: ``(K, r, r)``, or ``(r, r)`` for all.
        subspace: where ``h`` comes from; None: ``h`` is the picture itself.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor, subspace: Subspace | None = None) -> None:
        super().__init__()
        size = means.shape[1]
        if subspace is None:
            subspace = Subspace(torch.zeros_like(means[0]), torch.eye(size).to(means), torch.ones(()).to(means))
        self.subspace = subspace
        self.register_buffer("weights", weights)
        self.register_buffer("means", means)
        self.register_buffer("covariances", covariances.expand(len(means), size, size).contiguous())

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        r"""``(N,)``: :math:`\log p(x)`, or with classes ``y (N,)`` :math:`\log p(x \mid y)`."""
        h, rest = self.subspace(x)
        factors = torch.linalg.cholesky(self.covariances)
        white = torch.linalg.solve_triangular(factors, (h[:, None] - self.means).permute(1, 2, 0), upper=False)
        log_det = 2 * factors.diagonal(dim1=1, dim2=2).log().sum(1)
        each = -0.5 * (white.square().sum(1).T + log_det + h.shape[1] * math.log(2 * math.pi))  # (N, K)
        if y is not None:
            if y.shape != h.shape[:1] or not ((0 <= y) & (y < len(self.means))).all():
                raise ValueError(f"y must be ({len(h)},) with classes in 0..{len(self.means) - 1}, got {y.tolist()}")
            return rest + each.gather(1, y[:, None]).squeeze(1)
        return rest + torch.logsumexp(each + self.weights.log(), 1)


class GaussianRBM(nn.Module):
    r"""Restricted Boltzmann machine with Gaussian visible and binary hidden units, up to its constant.

    .. math:: \log p(h) = -\frac{\|h - a\|^2}{2 \sigma^2}
              + \sum_j \mathrm{softplus}\Big(b_j + \frac{w_j \cdot h}{\sigma^2}\Big) - \log Z

    The quadratic term keeps its maxima inside; an RBM with binary pixels has a log-density that is nearly linear in
    pieces, which drives every pixel to black or white.

    Args:
        weight: ``(r, H)``, the vectors :math:`w_j` as columns.
        visible: the bias a ``(r,)``.
        hidden: the bias b ``(H,)``.
        variance: :math:`\sigma^2`.
        subspace: where the visible ``h`` come from.
    """

    weight: Tensor
    visible: Tensor
    hidden: Tensor
    variance: Tensor

    def __init__(self, weight: Tensor, visible: Tensor, hidden: Tensor, variance: Tensor, subspace: Subspace) -> None:
        super().__init__()
        self.subspace = subspace
        for name, value in (("weight", weight), ("visible", visible), ("hidden", hidden), ("variance", variance)):
            self.register_buffer(name, value)

    def log_prob(self, x: Tensor) -> Tensor:
        r"""``(N,)``: :math:`\log p(x) + \log Z`."""
        h, rest = self.subspace(x)
        quadratic = (h - self.visible).square().sum(1) / (2 * self.variance)
        return rest - quadratic + F.softplus(self.hidden + h @ self.weight / self.variance).sum(1)


class VAE(nn.Module):
    r"""Variational autoencoder with the code prior :math:`N(0, I)` and pictures in [0, 1].

    One hidden layer on each side; a pixel is normal around the decoded picture. Kingma and Welling 2013,
    arXiv:1312.6114.
    """

    def __init__(self, shape: tuple[int, ...] = (1, 28, 28), latent: int = 10, hidden: int = 128) -> None:
        super().__init__()
        size = math.prod(shape)
        self.latent = latent
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent))
        self.decoder = nn.Sequential(
            nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, size), nn.Sigmoid(), nn.Unflatten(1, shape)
        )

    def encode(self, x: Tensor) -> Tensor:
        """Mean codes ``(N, latent)`` of pictures."""
        return self.encoder(x)[:, : self.latent]

    def decode(self, z: Tensor) -> Tensor:
        """Pictures ``(N, *shape)`` of codes ``(N, latent)``."""
        return self.decoder(z)

    def code_log_prob(self, z: Tensor) -> Tensor:
        r"""The code prior, ``(N,)``: :math:`-\|z\|^2 / 2 - (k / 2) \log 2 \pi`."""
        return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))


def fit_gaussians(
    images: Tensor, labels: Tensor, *, dim: int | None = None, shared: bool = False, shrinkage: float = 0.05
) -> Gaussians:
    r"""One Gaussian per class, by its mean and covariance.

    Args:
        images: float ``(N, ...)``.
        labels: LongTensor ``(N,)``.
        dim: principal components kept; None works on the pixels.
        shared: one covariance, pooled within the classes, for all.
        shrinkage: share of :math:`(\mathrm{tr}\, C / r) I` in each covariance, which makes it invertible.

    Raises:
        ValueError: no picture of a class below the highest label, or images as in :class:`Subspace`.

    >>> images, labels = torch.rand(60, 1, 4, 4), torch.arange(60) % 3
    >>> fit_gaussians(images, labels, dim=5).log_prob(images[:2]).shape
    torch.Size([2])
    """
    counts = torch.bincount(labels)
    if labels.shape != (len(images),) or (counts == 0).any():
        empty = (counts == 0).nonzero().flatten().tolist()
        raise ValueError(f"labels must be ({len(images)},) with every class present; empty classes: {empty}")
    subspace = Subspace.fit(images, dim)
    h, _ = subspace(images)
    means = torch.stack([h[labels == k].mean(0) for k in range(len(counts))])
    spread = h - means[labels]
    groups = [spread] if shared else [spread[labels == k] for k in range(len(counts))]
    covariances = torch.stack([_shrunk(s.T @ s / len(s), shrinkage) for s in groups])
    return Gaussians(counts.to(h) / len(h), means, covariances, subspace)


def fit_mixture(
    images: Tensor, components: int = 20, *, dim: int | None = None, shrinkage: float = 0.05, seed: int = 0
) -> Gaussians:
    """A mixture of Gaussians by scikit-learn's EM, which sees no labels; arguments as in :func:`fit_gaussians`.

    Raises:
        ValueError: more components than images, or images as in :class:`Subspace`.

    >>> fit_mixture(torch.rand(60, 1, 4, 4), components=2, dim=5).log_prob(torch.rand(3, 1, 4, 4)).shape
    torch.Size([3])
    """
    subspace = Subspace.fit(images, dim)
    h, _ = subspace(images)
    if not 1 <= components <= len(h):
        raise ValueError(f"components must lie in 1..{len(h)}, the number of images, got {components}")
    from sklearn.mixture import GaussianMixture  # here: it takes a second to import

    em = GaussianMixture(components, random_state=seed, reg_covar=float(h.var(0).mean()) * 0.01).fit(h.cpu().double())
    weights, means, covariances = (torch.as_tensor(a).to(h) for a in (em.weights_, em.means_, em.covariances_))
    return Gaussians(weights, means, _shrunk(covariances, shrinkage), subspace)


def fit_rbm(
    images: Tensor,
    *,
    hidden: int = 64,
    dim: int | None = None,
    variance: float = 0.25,
    steps: int = 4000,
    lr: float = 0.05,
    batch_size: int = 100,
    seed: int = 0,
) -> GaussianRBM:
    r"""Gaussian-Bernoulli RBM by persistent contrastive divergence: one Gibbs step of as many chains as a batch.

    Args:
        variance: :math:`\sigma^2` of a coordinate given the hidden units, as a share of the coordinates' mean variance.

    Raises:
        ValueError: images as in :class:`Subspace`, or parameters that are no longer finite.

    Sources: Hinton and Salakhutdinov 2006, Science 313 (Gaussian units); Tieleman 2008, ICML (persistent chains).
    """
    subspace = Subspace.fit(images, dim)
    h, _ = subspace(images)
    random = torch.Generator(h.device).manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=random, device=h.device, dtype=h.dtype)

    def picked() -> Tensor:
        return h[torch.randint(len(h), (batch_size,), generator=random, device=h.device)]

    sigma2 = variance * h.var(0).mean()
    weight, visible, bias = 0.01 * normal(h.shape[1], hidden), h.mean(0), torch.zeros_like(h[0, 0]).repeat(hidden)
    chain = picked()
    for step in range(steps):
        data, rate = picked(), lr * (1 - step / steps)
        on_data = torch.sigmoid(bias + data @ weight / sigma2)
        on_chain = torch.sigmoid(bias + chain @ weight / sigma2)
        sampled = (torch.rand(on_chain.shape, generator=random, device=h.device, dtype=h.dtype) < on_chain).to(h)
        chain = visible + sampled @ weight.T + sigma2.sqrt() * normal(batch_size, h.shape[1])
        on_chain = torch.sigmoid(bias + chain @ weight / sigma2)
        # sigma^2 times the gradient of the mean log-density with respect to weight and visible bias.
        weight = weight + rate * (data.T @ on_data - chain.T @ on_chain) / batch_size
        visible = visible + rate * (data - chain).mean(0)
        bias = bias + rate * (on_data - on_chain).mean(0)
    if not torch.isfinite(weight).all():
        raise ValueError(f"the weights of the RBM are no longer finite; lower lr (now {lr})")
    return GaussianRBM(weight, visible, bias, sigma2, subspace)


def fit_vae(
    images: Tensor,
    *,
    latent: int = 10,
    hidden: int = 128,
    variance: float = 0.1,
    steps: int = 2000,
    lr: float = 4e-3,
    batch_size: int = 100,
    seed: int = 0,
) -> VAE:
    """Variational autoencoder of pictures in [0, 1], by Adam on the evidence bound.

    Args:
        variance: of a pixel given its code. Neighbouring pixels err together, which the bound takes for independent
            evidence: with the variance of the true error the codes spread far beyond their prior, and codes drawn
            from the prior decode to nothing. Wider, as here, the squared norm of real codes is near its mean, the
            code's size.

    Raises:
        ValueError: images outside [0, 1].
    """
    if not images.is_floating_point() or not ((images >= 0) & (images <= 1)).all():
        raise ValueError("images must be a float batch in [0, 1]")
    cuda = [images.device] if images.is_cuda else []
    with torch.random.fork_rng(cuda), torch.enable_grad():
        torch.manual_seed(seed)
        vae = VAE(images.shape[1:], latent, hidden).to(images)
        optimizer = torch.optim.Adam(vae.parameters(), lr=lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            x = images[torch.randint(len(images), (batch_size,), device=images.device)]
            mean, log_var = vae.encoder(x).chunk(2, 1)
            decoded = vae.decode(mean + (0.5 * log_var).exp() * torch.randn_like(mean))
            misfit = (x - decoded).square().flatten(1).sum(1).mean() / (2 * variance)
            divergence = 0.5 * (mean.square() + log_var.exp() - log_var - 1).sum(1).mean()
            optimizer.zero_grad()
            (misfit + divergence).backward()
            optimizer.step()
            schedule.step()
    return vae.eval().requires_grad_(False)


TRAINED: dict[str, Callable[[Dataset], nn.Module]] = {
    "digits_gaussians": lambda data: fit_gaussians(data.images, data.labels, dim=32),
    "digits_mixture": lambda data: fit_mixture(data.images, dim=32),
    "digits_rbm": lambda data: fit_rbm(data.images, dim=32),
    "digits_vae": lambda data: fit_vae(data.images),
}


def load(name: str) -> nn.Module:
    """A prior fitted to ``digits("train")``, from the weights that come with the package.

    ``"digits_gaussians"``: one Gaussian per class. ``"digits_mixture"``: 20 Gaussians that saw no labels.
    ``"digits_rbm"``: Gaussian-Bernoulli RBM with 64 hidden units. ``"digits_vae"``: generator with 10 codes.

    Raises:
        ValueError: unknown name.

    >>> from interp_lab.data import digits
    >>> density, x = load("digits_gaussians"), digits("test").images[:5]
    >>> bool((density.log_prob(x) > density.log_prob(torch.rand_like(x))).all())  # noise is no digit
    True
    """
    if name not in TRAINED:
        raise ValueError(f"no fitted prior {name!r}; there are {', '.join(TRAINED)}")
    tensors = load_weights(name)
    if name == "digits_vae":
        with torch.random.fork_rng([]):  # the random weights that are overwritten here
            vae = VAE()
        vae.load_state_dict(tensors)
        return vae.eval().requires_grad_(False)
    subspace = Subspace(**{key: tensors.pop(f"subspace.{key}") for key in ("centre", "basis", "noise")})
    return (GaussianRBM if name == "digits_rbm" else Gaussians)(**tensors, subspace=subspace)


def _main() -> None:
    """Fit all priors and write their weights; those of the autoencoder in half precision."""
    from ..data import digits

    for name, fit in TRAINED.items():
        start = time.perf_counter()
        prior = fit(digits("train"))
        seconds = time.perf_counter() - start
        size = save_weights(name, prior.state_dict(), torch.float16 if name == "digits_vae" else torch.float32)
        print(f"{name:16} {seconds:5.1f} s {size / 1e3:6.0f} kB", flush=True)


if __name__ == "__main__":
    _main()
