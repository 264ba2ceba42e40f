"""A bag of local features: the evidence is what the network computes, place by place."""

import torch
from torch import nn
from torch.testing import assert_close

from interp_lab import BagOfLocalFeatures, networks
from interp_lab.backprop.receptive_field import receptive_field
from interp_lab.data import digits


def test_evidence_is_local_and_sums_to_the_logits():
    torch.manual_seed(0)
    bag = BagOfLocalFeatures(networks.digits_cnn()[:6], 32, 10).eval()
    x = digits("test").images[:4]
    evidence = bag.evidence(x)
    assert_close(evidence.sum((2, 3)), bag(x).detach())
    rows, columns = (field.windows(torch.tensor(3), 28) for field in receptive_field(bag, bag.body, x[:1]))
    changed = torch.rand(4, 1, 28, 28)
    changed[..., rows[0] : rows[1], columns[0] : columns[1]] = x[..., rows[0] : rows[1], columns[0] : columns[1]]
    other = bag.evidence(changed)
    assert_close(other[:, :, 3, 3], evidence[:, :, 3, 3])
    assert (other[:, :, 0, 0] != evidence[:, :, 0, 0]).any()


def test_the_order_of_patches_plays_no_role_in_a_bag_of_local_features():
    torch.manual_seed(0)
    bag = BagOfLocalFeatures(nn.Sequential(nn.Conv2d(1, 8, 4, stride=4), nn.ReLU()), 8, 3)
    patches = torch.rand(4, 2, 4, 4)
    assert_close(
        bag(torch.cat([torch.cat([*patches[:2]], 2), torch.cat([*patches[2:]], 2)], 1)[:, None]),
        bag(torch.cat([torch.cat([*patches[[3, 1]]], 2), torch.cat([*patches[[2, 0]]], 2)], 1)[:, None]),
    )
