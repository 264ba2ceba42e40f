"""An image cut into segments of similar colour."""

import torch
from torch import Tensor


def segment(image: Tensor, segments: int = 40, *, compactness: float = 0.5) -> Tensor:
    r"""An image cut into segments of similar colour, as a map ``(H, W)`` of the numbers 0 .. S - 1.

    .. math:: \min \sum_p \lVert \mathrm{colour}_p - \mathrm{colour}_{s(p)} \rVert^2
        + \frac{m^2}{d^2} \lVert \mathrm{place}_p - \mathrm{place}_{s(p)} \rVert^2

    k-means on colour and place, from centres on a regular grid whose step is d pixels. Like SLIC (Achanta et al. 2012,
    doi:10.1109/TPAMI.2012.120) but without its local search, so a segment may come in several pieces.

    Args:
        image: ``(C, H, W)``.
        segments: about how many to find, 1 to H x W.
        compactness: :math:`m`, how much a step from one grid centre to the next counts, beside a step of 1 in colour.

    Returns:
        LongTensor ``(H, W)`` on the device of the image, in which every number from 0 to the largest occurs.

    Raises:
        ValueError: another shape, or ``segments`` out of range.

    Example:
        >>> import torch
        >>> from interp_lab import segment
        >>> segment(torch.tensor([[[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]]]), 2, compactness=0.1)
        tensor([[0, 0, 0, 1],
                [0, 0, 0, 1]])
    """
    if image.dim() != 3 or not 1 <= segments <= image[0].numel():
        raise ValueError(
            f"segment needs an image (C, H, W) and 1 to H x W segments, got {tuple(image.shape)} and {segments}"
        )
    height, width = image.shape[1:]
    spacing = (height * width / segments) ** 0.5
    rows, columns = (torch.arange(round(length / spacing) or 1) for length in (height, width))
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([y, x]).double() * compactness / spacing
    points = torch.cat([image.detach().cpu().double(), place])
    rows = (rows + 0.5) * height / len(rows)
    columns = (columns + 0.5) * width / len(columns)
    centres = points[:, rows.long()[:, None], columns.long()].flatten(1).T
    points = points.flatten(1).T
    from sklearn.cluster import KMeans  # here: it takes a second to import

    found = KMeans(len(centres), init=centres.numpy(), n_init=1, max_iter=20).fit_predict(points.numpy())
    numbers = torch.from_numpy(found).long().unique(return_inverse=True)[1]  # a cluster may have become empty
    return numbers.view(height, width).to(image.device)
