"""Copies that see their own rows only."""

import torch
from torch import nn
from torch.testing import assert_close

from levelhead.layers.per_member import PerMember


def test_every_member_has_its_own_statistics_and_parameters() -> None:
    layer = PerMember(nn.BatchNorm2d(3), 2)
    with torch.no_grad():
        layer.members[1].weight.fill_(2.0)
    x = torch.randn(8, 3, 4, 4)
    x[4:] = x[4:] * 5 + 1
    out = layer(x)
    plain = [nn.BatchNorm2d(3), nn.BatchNorm2d(3)]
    nn.init.constant_(plain[1].weight, 2.0)
    assert_close(out, torch.cat([plain[0](x[:4]), plain[1](x[4:])]))
    for member, own in zip(layer.members, plain, strict=True):
        assert_close(member.running_mean, own.running_mean)
        assert_close(member.running_var, own.running_var)
    assert_close(layer.eval()(x), torch.cat([plain[0].eval()(x[:4]), plain[1].eval()(x[4:])]))


def test_rows_of_one_member_move_nobody_else() -> None:
    layer, shared = PerMember(nn.BatchNorm1d(3), 2), nn.BatchNorm1d(3)
    x = torch.randn(8, 3)
    y = x.clone()
    y[4:] += torch.randn(4, 3)
    assert torch.equal(layer(x)[:4], layer(y)[:4])
    assert not torch.allclose(shared(x)[:4], shared(y)[:4])
