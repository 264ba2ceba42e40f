"""The formula of influence by plain loops over autograd, and the small problems that it is tried on."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from interp_lab import networks


def half_square(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return ((z - y) ** 2).sum(1).mean() / 2


def small_digits(n: int, n_test: int, dtype=torch.float64, side: int = 8):
    """Digits of 8 x 8 pixels, or of their means in 2 x 2 squares (side 4)."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    x = F.avg_pool2d(torch.from_numpy(data.images / 16).to(dtype)[order, None], 8 // side)
    y = torch.from_numpy(data.target).long()[order]
    return (x[:n], y[:n]), (x[n : n + n_test], y[n : n + n_test])


def fit_softmax(x, y, weight_decay: float, weights=None, start=None) -> torch.Tensor:
    """Softmax regression ``(K, D + 1)`` by Newton's method on the weighted sum of losses, Hessian by hand."""
    a = F.pad(x.flatten(1), (0, 1), value=1.0)
    n, d = a.shape
    weights = a.new_full((n,), 1 / n) if weights is None else weights
    w = a.new_zeros(10, d) if start is None else start

    def objective(w):
        return weights @ F.cross_entropy(a @ w.T, y, reduction="none") + weight_decay / 2 * (w**2).sum()

    squares = (a[:, :, None] * a[:, None, :]).flatten(1)
    for _ in range(50):
        p = (a @ w.T).softmax(1)
        gradient = ((p - F.one_hot(y, 10)) * weights[:, None]).T @ a + weight_decay * w
        if gradient.norm() < 1e-11:
            return w
        r = (torch.diag_embed(p) - p[:, :, None] * p[:, None]) * weights[:, None, None]
        curvature = (r.flatten(1).T @ squares).view(10, 10, d, d).transpose(1, 2).reshape(10 * d, 10 * d)
        curvature.diagonal().add_(weight_decay)
        step, length = torch.linalg.solve(curvature, gradient.flatten()).view_as(w), 1.0
        while gradient.norm() > 1e-6 and objective(w - length * step) > objective(w):  # below, rounding decides
            length /= 2
        w = w - length * step
    raise AssertionError("Newton's method did not converge")


def softmax_model(w: torch.Tensor) -> nn.Sequential:
    model = networks.softmax_regression(w.shape[1] - 1).to(w.dtype)
    with torch.no_grad():
        model[1].weight.copy_(w[:, :-1])
        model[1].bias.copy_(w[:, -1])
    return model


def two_layers(seed: int = 0, width: int = 6) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(8, width), nn.Tanh(), nn.Linear(width, 3)).double()


def cloud(n: int, seed: int = 1, shape=(8,), classes: int = 3):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *shape, generator=generator, dtype=torch.float64)
    return x, torch.randint(classes, (n,), generator=generator)


def gradients_by_loop(model: nn.Module, x, y, loss=F.cross_entropy) -> torch.Tensor:
    rows = []
    for i in range(len(x)):
        grads = torch.autograd.grad(loss(model(x[i : i + 1]), y[i : i + 1]), list(model.parameters()))
        rows.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(rows)


def influence_by_hand(model: nn.Module, train, test, ridge: float, loss=F.cross_entropy) -> torch.Tensor:
    """The formula on the Hessian that torch.autograd builds from the plain batched loss."""
    named = dict(model.named_parameters())
    sizes = [p.numel() for p in named.values()]

    def objective(theta):
        parts = [t.view_as(p) for t, p in zip(theta.split(sizes), named.values(), strict=True)]
        return loss(functional_call(model, dict(zip(named, parts, strict=True)), (train[0],)), train[1])

    theta = torch.cat([p.detach().flatten() for p in named.values()])
    matrix = torch.autograd.functional.hessian(objective, theta) + ridge * torch.eye(len(theta), dtype=theta.dtype)
    solved = torch.linalg.solve(matrix, gradients_by_loop(model, *test, loss).T)
    return (gradients_by_loop(model, *train, loss) @ solved).T / len(train[0])


TRAIN, TEST = cloud(40), cloud(3, seed=2)
