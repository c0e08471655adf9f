"""ViT, PiT and Swin with timm's weights compute what timm's do; MSA tails on torchvision's and timm's networks."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from levelhead.backbones.pit import PiT
from levelhead.backbones.swin import Swin
from levelhead.backbones.timm import Timm
from levelhead.backbones.torchvision import Torchvision
from levelhead.backbones.vit import ViT
from levelhead.layers.msa_block import MSABlock
from levelhead.likelihood import Categorical, Signature
from levelhead.network import Network
from levelhead.surgeries.msa_tail import MSATail, rooms
from levelhead.types import NoLayerReplaced

pytest.importorskip("torchvision", reason="needs torchvision: make test-interop")
timm = pytest.importorskip("timm", reason="needs timm: make test-interop")

pytestmark = pytest.mark.interop

BLOCK = {
    "norm1": "msa.body.norm",
    "attn.qkv": "msa.body.inner.qkv",
    "attn.proj": "msa.body.inner.out",
    "norm2": "mlp.body.norm",
    "mlp.fc1": "mlp.body.inner.up",
    "mlp.fc2": "mlp.body.inner.down",
}
TABLE = "attn.relative_position_bias_table"


def signature(side: int) -> Signature:
    return Signature((3, side, side), 10, Categorical(10), (0.0,), (1.0,))


def shaken(model: nn.Module) -> nn.Module:
    """With weights large enough that every part of it shows in the outputs."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def block_weights(theirs: dict[str, Tensor], at: str, ours: str) -> dict[str, Tensor]:
    """The weights of one block under our names."""
    found = {}
    for name, own in BLOCK.items():
        for kind in ("weight", "bias"):
            found[f"{ours}.{own}.{kind}"] = theirs[f"{at}.{name}.{kind}"]
    if f"{at}.{TABLE}" in theirs:
        found[f"{ours}.msa.body.inner.windows.bias.table"] = theirs[f"{at}.{TABLE}"].mT
    return found


def same(network: Network, theirs: nn.Module, weights: dict[str, Tensor], side: int) -> None:
    """Equal outputs, and not a weight left out."""
    before = network.state_dict()
    features = {f"features.{name}": tensor for name, tensor in weights.items() if not name.startswith("head")}
    heads = {name: tensor for name, tensor in weights.items() if name.startswith("head")}
    given = {name: tensor.reshape(before[name].shape) for name, tensor in (features | heads).items()}
    kept = {name: tensor for name, tensor in before.items() if "normalise" in name}
    network.load_state_dict(given | kept)
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        assert_close(network.eval()(x)[0], theirs(x), rtol=1e-4, atol=1e-4)


def renamed(theirs: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    return {
        f"{own}.{kind}": theirs[f"{name}.{kind}"]
        for name, own in names.items()
        for kind in ("weight", "bias")
        if f"{name}.{kind}" in theirs
    }


@pytest.mark.parametrize("head, pool", [("cls", "token"), ("gap", "avg")])
def test_vit(head: str, pool: str) -> None:
    options = {"class_token": head == "cls", "global_pool": pool, "fc_norm": False}
    theirs = shaken(
        timm.create_model("vit_tiny_patch16_224", img_size=48, patch_size=8, depth=3, num_classes=10, **options)
    )
    held = theirs.state_dict()
    weights = renamed(held, {"patch_embed.proj": "stem", "norm": "norm", "head": "head"})
    weights["tokens.positions.table.weight"] = held["pos_embed"]
    if head == "cls":
        weights["tokens.class_token.token.weight"] = held["cls_token"]
    for i in range(3):
        weights |= block_weights(held, f"blocks.{i}", f"stage1.{i}")
    same(ViT(patch=8, depth=3, qkv_bias=True, head=head)(signature(48)), theirs, weights, 48)


def test_pit() -> None:
    theirs = shaken(timm.create_model("pit_ti_224", img_size=80, num_classes=10))
    held = theirs.state_dict()
    weights = renamed(held, {"patch_embed.conv": "stem", "norm": "norm", "head": "head"})
    weights["tokens.positions.table.weight"] = held["pos_embed"].flatten(2).mT
    weights["tokens.class_token.token.weight"] = held["cls_token"]
    for i, depth in enumerate((2, 6, 4)):
        pool = {f"transformers.{i}.pool.conv": f"pool{i}.conv", f"transformers.{i}.pool.fc": f"pool{i}.linear"}
        weights |= renamed(held, pool)
        for j in range(depth):
            weights |= block_weights(held, f"transformers.{i}.blocks.{j}", f"stage{i + 1}.{j}")
    same(PiT(patch=16, stride=8)(signature(80)), theirs, weights, 80)


@pytest.mark.parametrize("window, side", [(4, 64), (7, 56)])
def test_swin(window: int, side: int) -> None:
    """Maps of 16, 8, 4 and 2 pixels, or of 14, 7, 4 and 2: tiled windows with shifts, then whole maps."""
    theirs = shaken(
        timm.create_model("swin_tiny_patch4_window7_224", img_size=side, window_size=window, num_classes=10)
    )
    held = theirs.state_dict()
    names = {
        "patch_embed.proj": "stem.conv",
        "patch_embed.norm": "stem.norm.norm",
        "norm": "norm.norm",
        "head.fc": "head",
    }
    weights = renamed(held, names)
    for i, depth in enumerate((2, 2, 6, 2)):
        down = f"layers.{i}.downsample"
        weights |= renamed(held, {f"{down}.norm": f"merge{i}.norm", f"{down}.reduction": f"merge{i}.linear"})
        for j in range(depth):
            weights |= block_weights(held, f"layers.{i}.blocks.{j}", f"stage{i + 1}.{j}")
    same(Swin(patch=4, window=window)(signature(side)), theirs, weights, side)


@pytest.mark.parametrize(
    "backbone, room, converted",
    [
        (Torchvision("resnet18"), (1, 1, 1, 1), ("layer2.1", "layer3.1", "layer4.1")),
        (Torchvision("resnet50"), (1, 2, 3, 1), ("layer2.3", "layer3.5", "layer4.2")),
        (Torchvision("vgg11"), (0, 1, 1, 1), ("features.8", "features.13", "features.18")),
        (Timm("resnet18"), (1, 1, 1, 1), ("layer2.1", "layer3.1", "layer4.1")),
        (Timm("seresnet18"), (1, 1, 1, 1), ("layer2.1", "layer3.1", "layer4.1")),
        (
            Timm("mobilenetv2_100"),
            (0, 1, 1, 2, 1, 1, 0),
            ("blocks.1.1", "blocks.2.2", "blocks.3.3", "blocks.4.2", "blocks.5.2"),
        ),
        (Timm("regnety_002"), (0, 0, 2, 3), ("s3.b4", "s4.b7")),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_tail_of_other_peoples_networks(backbone, room: tuple[int, ...], converted: tuple[str, ...]) -> None:
    network = backbone(signature(64)).eval()
    made = MSATail()(network)
    assert rooms(network) == room
    assert tuple(place.removeprefix("features.model.") for place in made.notes[-1].converted) == converted
    assert len(made.layers(MSABlock)) == len(converted)
    x = torch.rand(2, 3, 64, 64)
    made.train()(x).square().mean().backward()
    assert all(parameter.grad is not None for parameter in made.parameters())
    kept = {name: tensor for name, tensor in network.state_dict().items() if name in made.state_dict()}
    assert len(kept) > 0.5 * len(network.state_dict())
    assert made.eval()(x).shape == (1, 2, 10)


@pytest.mark.parametrize("backbone", [Torchvision("densenet121"), Torchvision("vit_b_32", options={"image_size": 64})])
def test_networks_without_stages_are_refused(backbone) -> None:
    with pytest.raises(NoLayerReplaced, match=r"found no block .* use alter_net, vit, pit or swin"):
        MSATail()(backbone(signature(64)))
