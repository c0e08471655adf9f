"""ViT, PiT and Swin: published sizes, maps and tokens by stage, what each option changes, and mistakes."""

import pytest
import torch
from backbones.count import num_parameters
from torch import nn
from torch.testing import assert_close

from levelhead.backbones.alter_net import AlterNet
from levelhead.backbones.pit import PiT
from levelhead.backbones.swin import Swin
from levelhead.backbones.vit import ViT
from levelhead.layers.attention import Neighbourhood
from levelhead.layers.drop_path import DropPath
from levelhead.layers.tokens import Residual
from levelhead.layers.windows import RelativeBias
from levelhead.likelihood import Signature
from levelhead.recipe import Recipe
from levelhead.samplers.adamw import AdamW
from levelhead.tasks.stripes import stripes

COLOUR, LARGE = (3, 32, 32), (3, 224, 224)
TINY_VIT = ViT(patch=8, depth=2, heads=2, dim_head=4)
TINY_PIT = PiT(patch=8, stride=4, depth=(1, 1), heads=(1, 2), dim_head=4)
TINY_SWIN = Swin(patch=4, depth=(2, 2), heads=(1, 2), dim_head=4)


@pytest.mark.parametrize(
    "spec, published",
    [
        (ViT(patch=16, qkv_bias=True), 5_717_416),
        (ViT(patch=16, heads=6, qkv_bias=True), 22_050_664),
        (ViT(patch=16, heads=12, qkv_bias=True), 86_567_656),
        (PiT(patch=16, stride=8), 4_847_272),
        (Swin(patch=4, window=7), 28_288_354),
    ],
    ids=str,
)
def test_parameters_of_the_published_sizes(spec, published) -> None:
    assert num_parameters(spec, LARGE, 1000) == published


@pytest.mark.parametrize(
    "spec, grids",
    [
        (ViT(depth=1), [(16, 16)]),
        (PiT(depth=(1, 1, 1)), [(31, 31), (16, 16), (8, 8)]),
        (PiT(patch=4, stride=2, depth=(1, 1, 1)), [(15, 15), (8, 8), (4, 4)]),
    ],
    ids=str,
)
def test_tokens_know_their_grid(spec, grids) -> None:
    network = spec(Signature(COLOUR, 10)).eval()
    seen = []
    for module in network.layers(Residual):
        module.register_forward_hook(lambda m, args, out: seen.append((m.grid, out.shape[1] - m.prefix)))
    network(torch.rand(1, *COLOUR))
    assert seen == [(grid, grid[0] * grid[1]) for grid in grids for _ in range(2)]


def test_maps_of_swin() -> None:
    network = Swin(depth=(1, 1, 1, 1), heads=(1, 2, 4, 8), dim_head=4)(Signature(COLOUR, 10)).eval()
    shapes = [call.output_shape[1:] for call in network.trace().calls if isinstance(call.module, Residual)]
    assert shapes == [(4 * 2**i, 32 // 2**i, 32 // 2**i) for i in range(4) for _ in range(2)]


def test_swin_shifts_every_other_block_but_not_whole_maps() -> None:
    network = Swin(depth=(2, 2, 2, 2))
    with torch.device("meta"):
        biases = network(Signature(COLOUR, 10)).layers(RelativeBias)
    assert [tuple(bias.windows) for bias in biases] == [(4, 0), (4, 2)] * 3 + [(4, 0), (4, 0)]


@pytest.mark.parametrize(
    "spec",
    [
        AlterNet(depth=18, width=4, msa=(0, 0, 1, 1)),
        ViT(patch=4, depth=2, heads=2, dim_head=8),
        PiT(patch=4, stride=2, depth=(1, 1), heads=(2, 4), dim_head=8),
        Swin(patch=2, depth=(2, 2), heads=(1, 2), dim_head=8),
    ],
    ids=lambda spec: type(spec).__name__,
)
def test_they_learn(spec) -> None:
    task = stripes(n=96, size=16)
    predictor = Recipe(backbone=spec, sampler=AdamW(epochs=12, batch_size=16, lr=5e-3)).fit(task, seed=0)
    labels = predictor(task.test.x / 255).probs.argmax(-1)
    assert (labels == task.test.y).double().mean() > 0.8  # of three kinds


@pytest.mark.parametrize("spec", [ViT, PiT])
def test_heads_read_the_class_token_or_the_mean(spec) -> None:
    small = {"patch": 8, "dim_head": 4}
    depth = {"depth": 1} if spec is ViT else {"depth": (1, 1), "heads": (1, 2), "stride": 4}
    x = torch.rand(2, *COLOUR)
    for head, last in (("cls", ["norm", "first"]), ("gap", ["norm", "map", "pool", "flatten"])):
        network = spec(head=head, **small, **depth)(Signature(COLOUR, 10)).eval()
        assert [name for name, _ in network.features.named_children()][-len(last) :] == last
        z = network.features[: -len(last)](x)
        z = network.features.norm(z)
        assert_close(network.embed(x)[0], z[:, 0] if head == "cls" else z.mean(1))


def test_pixels_of_the_image_reach_every_token_or_their_neighbourhood() -> None:
    x = torch.rand(1, *COLOUR)
    other = x.clone()
    other[..., :8, :8] += 1
    for size, reached in ((None, 16), (3, 4), (5, 9)):
        spec = ViT(patch=8, depth=1, heads=1, dim_head=8, head="gap", neighbourhood=size)
        network = spec(Signature(COLOUR, 10)).eval()
        moved = (network.features[:4](x) != network.features[:4](other)).any(-1)
        assert int(moved.sum()) == reached
        assert len(network.layers(Neighbourhood)) == (size is not None)


@pytest.mark.parametrize("spec", [TINY_VIT, TINY_PIT, TINY_SWIN], ids=str)
def test_linear_layers_start_small(spec) -> None:
    layers = [m for m in spec(Signature(COLOUR, 10)).features.modules() if isinstance(m, nn.Linear)]
    weights = torch.cat([layer.weight.detach().flatten() for layer in layers])
    assert 0.018 < float(weights.std()) < 0.022
    assert not any(layer.bias.any() for layer in layers if layer.bias is not None)


@pytest.mark.parametrize("spec, blocks", [(ViT(), 12), (PiT(), 12), (Swin(), 12)], ids=str)
def test_stochastic_depth_is_on_every_branch_but_the_first_blocks(spec, blocks: int) -> None:
    with torch.device("meta"):
        rates = [m.p for m in spec(Signature(COLOUR, 10)).modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.1 * j / (blocks - 1) for j in range(1, blocks) for _ in range(2)])


@pytest.mark.parametrize(
    "text, spec", [("vit_ti", ViT()), ("vit-s_16", ViT(heads=6, patch=16)), ("vitb4", None), ("vit_b", ViT(heads=12))]
)
def test_shorthand(text, spec) -> None:
    assert ViT.shorthand(text) == spec


@pytest.mark.parametrize("spec", [ViT(patch=5), PiT(patch=5), Swin(patch=5)], ids=str)
def test_patches_must_tile_the_image(spec) -> None:
    if isinstance(spec, PiT):
        spec = PiT(patch=5, stride=4)
    with pytest.raises(ValueError, match=rf"{type(spec).__name__}: patches of 5 x 5 pixels, .* do not tile"):
        spec(Signature(COLOUR, 10))


@pytest.mark.parametrize(
    "spec, fields, says",
    [
        (ViT, {"patch": 0}, "patch"),
        (ViT, {"depth": 0}, "depth"),
        (ViT, {"heads": 0}, "heads"),
        (ViT, {"mlp_ratio": 0.0}, "mlp_ratio"),
        (ViT, {"head": "mean"}, "head .*'mean'"),
        (ViT, {"head": "gap", "neighbourhood": 0}, "neighbourhood"),
        (ViT, {"neighbourhood": 3}, 'neighbourhood needs head="gap"'),
        (ViT, {"drop_path": 1.0}, "drop_path"),
        (PiT, {"stride": 0}, "stride"),
        (PiT, {"depth": (1, 2)}, "heads wants one positive number a stage, as many as depth"),
        (PiT, {"depth": (1, 2), "heads": (2, 3)}, "heads of a stage"),
        (PiT, {"head": "mean"}, "head"),
        (Swin, {"window": 0}, "window"),
        (Swin, {"depth": ()}, "depth"),
        (Swin, {"depth": (1, 2), "heads": (2, 2)}, "heads of a stage wants twice"),
    ],
)
def test_mistakes(spec, fields, says) -> None:
    with pytest.raises(ValueError, match=f"{spec.__name__}: {says}"):
        spec(**fields)
