import torch
from torch import nn

from levelhead.layers.initialise import he_normal


def test_convolutions_by_fan_out_and_nothing_else():
    module = nn.Sequential(nn.Conv2d(8, 400, 3), nn.Linear(5, 5), nn.BatchNorm2d(4))
    linear = module[1].weight.clone()
    he_normal(module)
    weight = module[0].weight
    torch.testing.assert_close(weight.var(), torch.tensor(2 / (400 * 9)), rtol=0.05, atol=0)
    torch.testing.assert_close(weight.mean(), torch.tensor(0.0), atol=1e-3, rtol=0)
    assert not module[0].bias.any()
    assert torch.equal(module[1].weight, linear)
    assert torch.equal(module[2].weight, torch.ones(4))


def test_draws_come_from_torchs_global_generator():
    conv = nn.Conv2d(2, 2, 3)
    torch.manual_seed(1)
    he_normal(conv)
    one = conv.weight.clone()
    torch.manual_seed(1)
    he_normal(conv)
    assert torch.equal(conv.weight, one)
