import pytest
import torch
from backbones.count import num_parameters
from torch import nn

from levelhead.backbones.alter_net import AlterNet, map_sizes
from levelhead.backbones.resnet import ResNet
from levelhead.layers.drop_path import DropPath
from levelhead.layers.msa_block import MSABlock
from levelhead.likelihood import Signature

COLOUR = (3, 32, 32)


def built(spec: AlterNet, shape: tuple[int, ...] = COLOUR):
    with torch.device("meta"):
        return spec(Signature(shape, 10))


@pytest.mark.parametrize(
    "spec, patterns",
    [
        (AlterNet(depth=18), ["CC", "CA", "CA", "CA"]),
        (AlterNet(depth=34), ["CCC", "CCCA", "CCCCCA", "CACA"]),
        (AlterNet(), ["CCC", "CCCA", "CCCCCA", "CACA"]),
        (AlterNet(stem="imagenet"), ["CCC", "CCCA", "CACACA", "CACA"]),
        (AlterNet(depth=18, msa=(1, 0, 0, 1)), ["CA", "CC", "CC", "CA"]),
    ],
    ids=str,
)
def test_patterns(spec, patterns) -> None:
    features = built(spec).features
    stages = [features.get_submodule(f"stage{i}") for i in (1, 2, 3, 4)]
    assert ["".join("CA"[isinstance(b, MSABlock)] for b in stage) for stage in stages] == patterns


def test_without_attention_it_is_a_pre_activation_resnet() -> None:
    alter = AlterNet(depth=18, width=4, msa=(0, 0, 0, 0))(Signature(COLOUR, 10)).eval()
    plain = ResNet(depth=18, width=4, preact=True)(Signature(COLOUR, 10)).eval()
    plain.load_state_dict(alter.state_dict())
    x = torch.rand(2, *COLOUR)
    assert torch.equal(alter(x), plain(x))


def test_parameters_of_an_attention_block() -> None:
    """Norms, narrowing convolution, q k v, the table, and the way back with its bias, in place of a bottleneck."""
    without, one = (num_parameters(AlterNet(msa=(0, 0, 0, m)), COLOUR, 10) for m in (0, 1))
    bottleneck = 2 * 2048 + 2048 * 512 + 2 * 512 + 9 * 512**2 + 2 * 512 + 512 * 2048
    attention = 2 * 2048 + 2048 * 512 + 2 * 512 + 3 * 512 * 24 * 64 + 7**2 + (24 * 64 + 1) * 2048
    assert one - without == attention - bottleneck


@pytest.mark.parametrize(
    "spec, shape, windows",
    [
        (AlterNet(depth=18, msa=(1, 1, 1, 1)), COLOUR, [4, 4, 4, 4]),
        (AlterNet(depth=18, stem="imagenet"), (3, 224, 224), [7, 7, 7]),
        (AlterNet(depth=18), (1, 28, 28), [7, 7, 4]),
        (AlterNet(depth=18, window=5), COLOUR, [5, 5, 5]),
    ],
    ids=str,
)
def test_windows(spec, shape, windows) -> None:
    made = built(spec, shape).layers(MSABlock)
    assert [block.attention.windows.cut.windows.size for block in made] == windows
    assert [block.attention.windows.bias.table.shape for block in made] == [(1, (2 * w - 1) ** 2) for w in windows]


def test_heads_grow_by_stage() -> None:
    made = built(AlterNet(depth=18, per_head_bias=True)).layers(MSABlock)
    assert [block.attention.windows.cut.heads for block in made] == [6, 12, 24]
    assert {block.attention.out.in_channels // block.attention.windows.cut.heads for block in made} == {64}
    assert [len(block.attention.windows.bias.table) for block in made] == [6, 12, 24]


def test_sizes_of_maps() -> None:
    assert map_sizes(32, 30, 3, stem="small") == [(32, 30), (16, 15), (8, 8)]
    assert map_sizes(224, 65, 4, stem="imagenet") == [(56, 17), (28, 9), (14, 5), (7, 3)]


def test_stochastic_depth_grows_linearly() -> None:
    rates = [m.p for m in built(AlterNet(depth=18, drop_path=0.7)).modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.1 * j for j in range(1, 8)])
    assert not any(isinstance(m, DropPath) for m in built(AlterNet(depth=18, drop_path=0.0)).modules())


def test_stages() -> None:
    stages = [name for name, _ in built(AlterNet(depth=18)).features.named_children()]
    assert stages == ["normalise", "stem", "stage1", "stage2", "stage3", "stage4", "final", "pool", "flatten"]


def test_norms() -> None:
    made = built(AlterNet(depth=18, norm="group"))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in made.modules())


@pytest.mark.parametrize(
    "text, spec",
    [
        ("alternet18", AlterNet(depth=18)),
        ("alter_resnet50", AlterNet(depth=50)),
        ("alter-net-34", AlterNet(depth=34)),
        ("alternet", None),
        ("resnet18", None),
    ],
)
def test_shorthand(text, spec) -> None:
    assert AlterNet.shorthand(text) == spec


@pytest.mark.parametrize(
    "fields, says",
    [
        ({"depth": 20}, "depth must be one of 18, 34, 50, 101; got 20"),
        ({"depth": 18, "msa": (0, 2, 0, 0)}, r"msa=\(0, 2, 0, 0\): a stage of 2 blocks holds 0 to 1 MSA blocks, got 2"),
        ({"msa": (1, 1)}, "msa wants 4 numbers"),
        ({"heads": (1,)}, "heads wants 4 numbers"),
        ({"heads": (0, 1, 1, 1)}, "heads"),
        ({"dim_head": 0}, "dim_head"),
        ({"window": 0}, "window"),
        ({"width": 0}, "width"),
        ({"stem": "large"}, "stem .*'large'"),
        ({"norm": "none"}, "norm .*'none'"),
        ({"variant": "C"}, "variant .*'C'"),
        ({"drop_path": 1.0}, "drop_path"),
    ],
)
def test_mistakes(fields, says) -> None:
    with pytest.raises(ValueError, match=f"AlterNet: {says}"):
        AlterNet(**fields)
