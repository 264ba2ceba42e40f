"""Fresh queries: where they lie."""

import torch
from torch.testing import assert_close

from interp_lab import fresh_queries


def test_fresh_queries_are_mixtures_of_two_inputs_in_their_range():
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    clean = fresh_queries(x, 50, noise=0.0)
    assert_close(clean[:, 1], 2 * clean[:, 0])
    noisy = fresh_queries(x, 50, noise=0.5)
    assert noisy.min() == 0
    assert noisy.max() == 2
    assert_close(noisy, fresh_queries(x, 50, noise=0.5))
    assert not torch.equal(noisy, fresh_queries(x, 50, noise=0.5, seed=1))
