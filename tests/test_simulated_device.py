"""The simulated device: what works on an accelerator works there, and a tensor left on the CPU is found."""

import pytest
import torch
from torch.nn import functional as F

from interp_lab import simulated_device

RIGHT = {
    "a list of rows": lambda A, v: A[[0, 2]],
    "a range": lambda A, v: A[range(3), [2, 0, 1]],
    "a CPU index": lambda A, v: A[torch.arange(3), A.argmax(1)],
    "an array": lambda A, v: A[torch.arange(2).numpy()],
    "a list of bool": lambda A, v: A[[True, False, True]],
    "a mask": lambda A, v: A[A > 0],
    "a quadratic form": lambda A, v: v @ A @ v,
    "vector by matrix": lambda A, v: v @ A,
    "solve": lambda A, v: torch.linalg.solve(A, v),
    "eigenvalues": lambda A, v: torch.linalg.eigvalsh(A @ A.T),
    "einsum": lambda A, v: torch.einsum("i,ij,j->", v, A, v),
    "in place": lambda A, v: v.clone().unsqueeze_(0).t_().squeeze_(1).mul_(2),
    "a cell set": lambda A, v: torch.zeros_like(A).index_put_((torch.arange(3), A.argmax(1)), v),
    "made there": lambda A, v: A + torch.eye(3, device=A.device),
    "sorted": lambda A, v: A.sort(dim=1, descending=True).values,
    "convolution": lambda A, v: F.conv2d(A[None, None], A[None, None, :2, :2]),
    "patches": lambda A, v: F.unfold(A[None, None], 2),
    "distances": lambda A, v: torch.cdist(A, A),
    "one hot": lambda A, v: F.one_hot(A.argmax(1), 3).to(A),
    "gradient": lambda A, v: torch.func.grad(lambda u: (u**3).sum())(v),
    "Hessian": lambda A, v: torch.func.hessian(lambda u: (u**3).sum())(v),
    "per row": lambda A, v: torch.func.vmap(torch.func.grad(lambda u: (u**3).sum()))(A),
    "formatted": lambda A, v: v + float(f"{v.sum():.3f}"),
    "generator": lambda A, v: v + 0 * torch.randn(3, generator=torch.Generator(device=v.device), device=v.device),
}
WRONG = {
    "zeros of the CPU": lambda A, v: A + torch.zeros(3),
    "eye of the CPU": lambda A, v: A @ torch.eye(3),
    "a tensor of the CPU": lambda A, v: v * torch.tensor([1.0, 2.0, 3.0]),
    "returned to the CPU": lambda A, v: A.cpu(),
    "a new result": lambda A, v: torch.tensor(A.tolist()),
}


@pytest.fixture
def pair():
    g = torch.Generator().manual_seed(0)
    return torch.randn(3, 3, generator=g), torch.randn(3, generator=g)


@pytest.mark.parametrize("name", RIGHT)
def test_what_an_accelerator_can_do(name, pair):
    with simulated_device.DeviceMode():
        result = RIGHT[name](*map(simulated_device.move, pair))
    expected = RIGHT[name](*pair)
    assert result.device == simulated_device.DEVICE
    assert result.shape == expected.shape
    torch.testing.assert_close(simulated_device.fetch(result), expected)


@pytest.mark.parametrize("name", WRONG)
def test_a_tensor_left_on_the_cpu_is_found(name, pair):
    with simulated_device.DeviceMode(), pytest.raises(RuntimeError, match="follow x"):
        simulated_device.fetch(WRONG[name](*map(simulated_device.move, pair)))


def test_torch_is_as_before():
    before = torch.Generator, torch.tensor, torch.as_tensor
    with simulated_device.DeviceMode():
        assert torch.Generator | None  # as in an annotation that is evaluated here
    assert (torch.Generator, torch.tensor, torch.as_tensor) == before
