"""Shared by these tests."""

import pytest
import torch


@pytest.fixture
def double():
    """Networks and tensors made in a test are float64, from a fixed seed."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
