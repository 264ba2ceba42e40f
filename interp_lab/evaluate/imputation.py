r"""ROAD's imputation: replace removed pixels so that one can hardly see which ones were removed.

Rong, Leemann, Borisov, Kasneci & Kasneci 2022, A Consistent and Efficient Evaluation Strategy for Attribution Methods,
arXiv:2202.00449. A removed pixel gets the weighted mean of its eight neighbours, of which some are removed themselves:
a system of linear equations.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# The four direct neighbours weigh 1/6, the four diagonal ones 1/12.
NEIGHBOURS = torch.tensor([[1.0, 2.0, 1.0], [2.0, 0.0, 2.0], [1.0, 2.0, 1.0]], dtype=torch.float64) / 12


def impute(x: Tensor, removed: Tensor, *, noise: float = 0.01, seed: int = 0) -> Tensor:
    r"""The images with their removed pixels replaced by noisy linear imputation.

    For every removed pixel p, with the weights :math:`w_{pq}` of its neighbours inside the image,

    .. math:: \sum_q w_{pq}\,(u_p - u_q) = 0, \qquad u_q = x_q \text{ where q is kept,}

    so that kept pixels are exactly unchanged. Gaussian noise is added to the solution u: without it, removed pixels
    would be known by their smoothness. The symmetric positive definite system is solved by conjugate gradients.

    Args:
        x: float images ``(N, C, H, W)``.
        removed: bool ``(N, H, W)``, the pixels to replace; at least one pixel of each image is kept.
        noise: standard deviation of the noise, at least 0, in units of x.
        seed: of the noise, which is the same for all images and drawn on the CPU.

    Returns:
        The images, of the shape, dtype and device of x. Values may leave the range of x by the noise.

    Raises:
        ValueError: another shape or type, NaN in x, an image without kept pixel, or negative noise.

    >>> x = torch.arange(9.0).view(1, 1, 3, 3)  # a slope: the mean of the neighbours is the pixel itself
    >>> removed = torch.zeros(1, 3, 3, dtype=torch.bool)
    >>> removed[0, 1, 1] = True
    >>> impute(x, removed, noise=0.0)[0, 0, 1]
    tensor([3., 4., 5.])
    """
    if x.dim() != 4 or not x.is_floating_point() or not torch.isfinite(x).all():
        raise ValueError(f"x must be finite float images (N, C, H, W), got {x.dtype} {tuple(x.shape)}")
    if removed.dtype != torch.bool or removed.shape != (len(x), *x.shape[2:]):
        raise ValueError(f"removed must be bool {(len(x), *x.shape[2:])}, got {removed.dtype} {tuple(removed.shape)}")
    if removed.flatten(1).all(1).any() or not noise >= 0:
        raise ValueError(f"every image must keep at least one pixel, and noise must be at least 0, got noise {noise}")
    hole, known = removed.to(x.device)[:, None], x.detach().double()
    solution = _solve(known, hole, tolerance=10 * torch.finfo(x.dtype).eps)
    draw = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.where(hole, (solution + noise * draw.to(x.device)).to(x.dtype), x.detach())


def _solve(known: Tensor, hole: Tensor, tolerance: float) -> Tensor:
    """Conjugate gradients for all images and channels at once, started at the mean of the kept pixels."""
    channels = known.shape[1]
    kernel = NEIGHBOURS.to(known.device).expand(channels, 1, 3, 3)

    def neighbours(values: Tensor) -> Tensor:
        return F.conv2d(values, kernel, padding=1, groups=channels)

    total = neighbours(torch.ones_like(known))  # less than 1 at the border

    def inner(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum((2, 3), keepdim=True)

    kept = ~hole
    u = torch.where(hole, (known * kept).sum((2, 3), keepdim=True) / kept.sum((2, 3), keepdim=True), known)
    residual = (neighbours(u) - total * u) * hole
    direction, size = residual, inner(residual, residual)
    goal = tolerance**2 * size.clamp(min=1e-30)
    while (size > goal).any():
        image = (total * direction - neighbours(direction)) * hole
        step = size / inner(direction, image).clamp(min=torch.finfo(size.dtype).tiny)
        u, residual = u + step * direction, residual - step * image
        size, before = inner(residual, residual), size
        direction = residual + size / before.clamp(min=torch.finfo(size.dtype).tiny) * direction
    return u
