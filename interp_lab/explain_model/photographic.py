"""A parametrisation of pictures in which photographs are near: their spectrum, and their colours."""

from collections.abc import Callable

import torch
from torch import Tensor

from .activation_maximisation import fourier_parametrisation

FAINT, CONTRAST = 0.02, 4.0


def photographic_parametrisation(
    photographs: Tensor, count: int, size: int, *, seed: int = 0
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    r"""Codes of nearly grey pictures, and the function from codes to pictures, for the option ``generator`` of
    :func:`~interp_lab.maximize_activation`.

    A code holds Fourier coefficients, as in :func:`~interp_lab.explain_model.activation_maximisation.fourier_parametrisation`, of
    three channels. These are no colours but the principal axes of the photographs' colours, each as long as the photographs spread
    along it: with :math:`C = U \Lambda U^\top` the covariance of the colours of their pixels and :math:`z(p)` the channels at place p,

    .. math:: x(p) = \mathrm{sigmoid}\bigl(4 \, U (\Lambda / \lambda_1)^{1/2} z(p)\bigr) .

    A step of gradient ascent then changes brightness, along which photographs differ most, more than it changes hue.

    Args:
        photographs: float ``(N, 3, H, W)``, whose colours are taken.
        count: how many codes; each begins as other noise.
        size: height and width of the pictures.
        seed: of the noise.

    Returns:
        Codes ``(count, 3, size, size // 2 + 1, 2)``, and the function from them to pictures ``(count, 3, size, size)`` in (0, 1).

    Source: Olah, Mordvintsev and Schubert 2017, "Feature Visualization", Distill, doi:10.23915/distill.00007.

    >>> codes, decode = photographic_parametrisation(torch.rand(2, 3, 8, 8), 4, 16)
    >>> codes.shape, decode(codes).shape
    (torch.Size([4, 3, 16, 9, 2]), torch.Size([4, 3, 16, 16]))
    """
    noise = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))
    codes, to_channels = fourier_parametrisation(FAINT * noise)
    axes, spread, _ = torch.linalg.svd(photographs.transpose(0, 1).flatten(1).cov())
    colours = axes * (spread / spread[0]).sqrt()

    def decode(codes: Tensor) -> Tensor:
        return torch.einsum("dc,nchw->ndhw", CONTRAST * colours, to_channels(codes)).sigmoid()

    return codes, decode
