"""Many features in few units, and how to get them back: for the page on mechanistic interpretability and for its claims."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


def present(n: int, features: int, density: float) -> Tensor:
    """Inputs (n, features) in [0, 1], each of which holds a feature with this probability."""
    return torch.rand(n, features) * (torch.rand(n, features) < density)


def superposed(features: int, hidden: int, density: float, steps: int = 1200, seed: int = 0) -> Tensor:
    """W (hidden, features) of x -> ReLU(W'W x + b), trained; the i-th feature has the importance 0.9^i."""
    torch.manual_seed(seed)
    w, b = nn.Parameter(0.3 * torch.randn(hidden, features)), nn.Parameter(torch.zeros(features))
    optimizer = torch.optim.Adam([w, b], 1e-2)
    importance = 0.9 ** torch.arange(features)
    for _ in range(steps):
        x = present(512, features, density)
        loss = (importance * (x - (x @ w.T @ w + b).relu()) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return w.detach()


def sparse_autoencoder(h: Tensor, size: int, penalty: float, steps: int = 2000, seed: int = 0) -> Tensor:
    """The learned directions (size, m) of activations (n, m), each of length 1."""
    torch.manual_seed(seed)
    decode = nn.Parameter(normalize(torch.randn(size, h.shape[1])))
    encode, bias = nn.Parameter(decode.detach().T.clone()), nn.Parameter(torch.zeros(size))
    optimizer = torch.optim.Adam([decode, encode, bias], 3e-3)
    for _ in range(steps):
        batch = h[torch.randint(len(h), (512,))]
        f = (batch @ encode + bias).relu()
        loss = (batch - f @ decode).square().sum(1).mean() + penalty * f.sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decode.data = normalize(decode.data)
    return decode.detach()


def nearest_cosine(truth: Tensor, directions: Tensor) -> Tensor:
    """For each true direction (n, m), the largest cosine with any of those found (k, m), all of length 1."""
    return (truth @ directions.T).amax(1)
