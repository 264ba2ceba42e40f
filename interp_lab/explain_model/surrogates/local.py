"""A linear model of one logit near one image, in the manner of LIME."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...contract import Model, Target, check_input, check_target, explaining, logits_of, pick
from .queries import ROWS
from .segmentation import segment


@dataclass(frozen=True, eq=False)
class LocalSurrogate:
    """A linear model of one logit near one image: what each segment adds when it is there.

    Attributes:
        image: ``(C, H, W)``.
        segments: LongTensor ``(H, W)``, 0 .. S - 1.
        effects: ``(S,)``.
        bias: the score without any segment, according to the linear model.
        target: the class.
        r2: weighted coefficient of determination on fresh maskings of the image that were not fitted; 1 is perfect.
    """

    image: Tensor
    segments: Tensor
    effects: Tensor
    bias: float
    target: int
    r2: float

    @property
    def attribution(self) -> Tensor:
        """Each segment's effect laid over its pixels, ``(H, W)``."""
        return self.effects[self.segments]


def surrogate_local(
    model: Model,
    x: Tensor,
    target: Target = None,
    *,
    segments: Tensor | int = 40,
    n: int = 1000,
    width: float = 0.25,
    ridge: float = 1e-6,
    fill: float | Tensor | None = None,
    seed: int = 0,
) -> LocalSurrogate:
    r"""Local linear surrogate of a logit, in the manner of LIME: switch segments of one image on and off.

    .. math:: & \min_{\beta} \sum_k \pi_k \Bigl( f_c(x_k) - \beta_0 - \sum_s z_{ks} \beta_s \Bigr)^2
        + \lambda \sum_s \beta_s^2 , \\ & \pi_k = \exp\bigl(-(1 - \sqrt{\bar z_k})^2 / w^2 \bigr)

    :math:`z_{ks}`, 0 or 1 with equal probability, says whether :math:`x_k` shows segment s; :math:`1 - \sqrt{\bar z_k}`
    is the cosine distance of :math:`z_k` to all ones. The width decides what "near" means, and so the answer, unless
    the logit is additive in the segments. Ribeiro, Singh & Guestrin 2016, arXiv:1602.04938.

    Args:
        model: a module or function from ``(N, C, H, W)`` to logits ``(N, K)``.
        x: one image, ``(1, C, H, W)``.
        target: None (the predicted class) or a class.
        segments: a map ``(H, W)`` of the numbers 0 .. S - 1, or about how many :func:`~interp_lab.segment` is to find.
        n: how many maskings to fit, more than segments; half as many more measure ``r2``.
        width: :math:`w > 0`.
        ridge: :math:`\lambda \ge 0`.
        fill: what hides a segment: a number, or a tensor that broadcasts to x; None is the mean colour of each segment.
        seed: of the maskings; the global random state is not used.

    Raises:
        ValueError: x, target, the logits or an option are not as above.

    Example:
        >>> import torch
        >>> from interp_lab import surrogate_local
        >>> halves = torch.arange(6).expand(4, 6) // 3
        >>> def model(x):  # adds up the left half and takes away the right
        ...     return torch.stack([x[..., :3].mean((1, 2, 3)) - x[..., 3:].mean((1, 2, 3)), x.mean((1, 2, 3))], 1)
        >>> local = surrogate_local(model, torch.ones(1, 1, 4, 6), 0, segments=halves, n=50, fill=0.0)
        >>> local.effects.round(decimals=3), local.attribution.shape
        (tensor([ 1., -1.]), torch.Size([4, 6]))
    """
    check_input(model, x)
    if x.dim() != 4 or len(x) != 1:
        raise ValueError(f"x must be one image (1, C, H, W), got shape {tuple(x.shape)}")
    if not width > 0 or not ridge >= 0:
        raise ValueError(f"width must be above 0 and ridge at least 0, got {width} and {ridge}")
    with explaining(model, x) as x, torch.no_grad():
        if isinstance(segments, int):
            segments = segment(x[0], segments)
        segments = _check_segments(segments, x)
        count = int(segments.max()) + 1
        if n <= count:
            raise ValueError(f"n must exceed the number of segments, {count}, got {n}")
        hidden = _mean_colours(x, segments) if fill is None else torch.as_tensor(fill).to(x).expand_as(x)
        logits = logits_of(model, x)
        chosen = int(logits.argmax() if target is None else check_target(target, 1))
        pick(logits, chosen)  # refuses a class that there is not
        z = torch.rand(n + n // 2, count, generator=torch.Generator().manual_seed(seed)) < 0.5
        z[0] = True  # the image itself
        z = z.to(x.device)
        parts = [
            pick(logits_of(model, torch.where(rows[:, segments][:, None], x, hidden)), chosen)
            for rows in z.split(max(1, ROWS * 64 * 64 // x[0, 0].numel()))
        ]
        y, z = torch.cat(parts).double(), z.double()
        pi = torch.exp(-((1 - z.mean(1).sqrt()) ** 2) / width**2)
        design = torch.cat([z, torch.ones_like(z[:, :1])], 1)
        penalty = ridge * torch.eye(count + 1).to(design)
        penalty[-1, -1] = 0
        fitted, fresh = slice(n), slice(n, None)
        weighted = design[fitted].T * pi[fitted]
        beta = torch.linalg.solve(weighted @ design[fitted] + penalty, weighted @ y[fitted])
        error = (pi[fresh] * (y[fresh] - design[fresh] @ beta).square()).sum()
        mean = (pi[fresh] * y[fresh]).sum() / pi[fresh].sum()
        spread = (pi[fresh] * (y[fresh] - mean).square()).sum()
        r2 = 1 - (error / spread).item() if spread > 0 else 1.0
        return LocalSurrogate(x[0], segments, beta[:-1].to(x), beta[-1].item(), chosen, r2)


def _check_segments(segments: Tensor, x: Tensor) -> Tensor:
    if segments.shape != x.shape[2:] or segments.dtype != torch.int64:
        raise ValueError(
            f"segments must be a LongTensor {tuple(x.shape[2:])}, got {segments.dtype} {tuple(segments.shape)}"
        )
    numbers = segments.unique()
    if not torch.equal(numbers, torch.arange(len(numbers), device=numbers.device)):
        raise ValueError(f"segments must be numbered 0 .. S - 1 without a gap, got {numbers.tolist()[:10]}")
    return segments.to(x.device)


def _mean_colours(x: Tensor, segments: Tensor) -> Tensor:
    """The image with every segment in its mean colour."""
    onehot = torch.nn.functional.one_hot(segments.flatten()).to(x)
    means = x.flatten(2) @ onehot / onehot.sum(0)
    return means[:, :, segments]
