"""Blocks by depth: found by the sums that a network computes, in our networks and in anybody's."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from levelhead.analyses.blocks import as_map, blocks, watched
from levelhead.backbones.alter_net import AlterNet
from levelhead.backbones.lenet import LeNet
from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.backbones.vit import ViT
from levelhead.likelihood import Categorical, Signature
from levelhead.predictor import Ensemble, Point
from levelhead.types import CannotCompose

SIGNATURE = Signature(input_shape=(3, 16, 16), num_outputs=4, likelihood=Categorical(4))


def seen(module: nn.Module, x: Tensor) -> dict[str, list[Tensor]]:
    found: dict[str, list[Tensor]] = {}
    with watched(module, blocks(module, x), lambda block, z: found.setdefault(block.label, []).append(z)):
        module(x)
    return found


class InPlace(nn.Module):
    """A block as torchvision's: the sum and the activation write into the branch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        out += x
        return self.act(out)


class Twice(nn.Module):
    """A block as timm's transformers have it: two branches in one module."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.attn = nn.MultiheadAttention(6, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm(x))


def test_a_residual_network_has_its_stem_and_its_blocks():
    network = ResNet(depth=8, width=4)(SIGNATURE)
    x = torch.rand(5, 3, 16, 16)
    found = seen(network, x)
    assert list(found) == ["stem", *(f"convolution stage{k}.0" for k in (1, 2, 3))]
    network.eval()
    with torch.no_grad():
        stages = dict(network.features.named_children())
        z = stages["stem"](stages["normalise"](x))
        assert torch.equal(found["stem"][0], z)
        for k in (1, 2, 3):
            z = stages[f"stage{k}"](z)
            assert torch.equal(found[f"convolution stage{k}.0"][0], z)


def test_what_is_seen_is_what_it_was_before_the_next_layer_wrote_into_it():
    module = nn.Sequential(InPlace(), nn.ReLU6(inplace=True), InPlace())
    x = torch.randn(2, 3, 8, 8)
    found = seen(module, x)
    module[1] = nn.Identity()
    with torch.no_grad():
        assert torch.equal(found["convolution 0"][0], module[0](x))


def test_attention_and_multilayer_perceptrons_are_told_apart():
    kinds = [block.kind for block in blocks(AlterNet(depth=18, width=4)(SIGNATURE), torch.rand(2, 3, 16, 16))]
    conv, attn = "convolution", "attention"
    assert kinds == ["stem", conv, conv, conv, attn, conv, attn, conv, attn]
    vit = ViT(patch=4, depth=2, dim_head=4)(SIGNATURE)
    found = seen(vit, torch.rand(2, 3, 16, 16))
    assert [label.split()[0] for label in found] == ["stem", "attention", "mlp", "attention", "mlp"]
    assert all(z.shape == (2, 12, 4, 4) for (z,) in found.values())  # without the class token


def test_a_module_with_two_branches_is_two_blocks():
    module = nn.Sequential(Twice(), Twice())
    x = torch.randn(2, 10, 6)  # a class token and 3 x 3 others
    found = blocks_of_tokens(module, x)
    assert [(b.name, b.kind, b.whole) for b in found[1:]] == [
        (f"{i} ({k})", kind, True) for i in (0, 1) for k, kind in ((1, "attention"), (2, "mlp"))
    ]
    maps: dict[str, Tensor] = {}
    with watched(module, found, lambda block, z: maps.setdefault(block.name, z)):
        out = module(x)
    assert torch.equal(maps["1 (2)"], out[:, 1:].unflatten(1, (3, 3)).movedim(-1, 1))
    assert maps["0 (1)"].shape == (2, 6, 3, 3)


def blocks_of_tokens(module, x):
    class Tokens(nn.Module):
        """Makes the tokens from an image, so that `blocks` has one to read."""

        def forward(self, image: Tensor) -> Tensor:
            return x

    found = blocks(nn.Sequential(Tokens(), module), torch.rand(2, 1, 4, 4))
    return tuple(b._replace(module=b.module.removeprefix("1."), name=b.name.removeprefix("1.")) for b in found)


def test_networks_that_add_nothing_have_a_block_a_convolution():
    signature = replace(SIGNATURE, input_shape=(1, 16, 16))
    found = seen(LeNet()(signature), torch.rand(2, 1, 16, 16))
    assert list(found) == [f"convolution stage{k}.{end}" for k in (1, 2) for end in ("act", "pool")]


def test_a_predictor_has_the_blocks_of_its_networks_together():
    members = [Point(ResNet(depth=8, width=4)(SIGNATURE)) for _ in range(3)]
    found = seen(Ensemble(members), torch.rand(2, 3, 16, 16))
    assert all(len(maps) == 3 for maps in found.values())
    assert list(found) == list(seen(members[0], torch.rand(2, 3, 16, 16)))


def test_nothing_stays_behind():
    network = ResNet(depth=8, width=4)(SIGNATURE).train()
    seen(network, torch.rand(2, 3, 16, 16))
    assert all(not child._forward_hooks and not child._forward_pre_hooks for child in network.modules())
    assert all(child.training for child in network.modules())


def test_multilayer_perceptrons_have_no_maps():
    with pytest.raises(CannotCompose, match="no blocks that return maps"):
        blocks(MLP(hidden=(4, 4))(SIGNATURE), torch.rand(2, 3, 16, 16))


def test_maps_whose_channels_stand_behind_are_turned():
    z = torch.randn(2, 4, 4, 6)
    assert torch.equal(as_map(z), z.movedim(-1, 1))
    assert as_map(torch.randn(2, 6, 4, 4)).shape == (2, 6, 4, 4)
