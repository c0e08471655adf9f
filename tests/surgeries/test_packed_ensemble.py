"""Packed-Ensembles against thin networks built by themselves."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from levelhead.backbones.lenet import LeNet
from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.layers.packed import PackedLinear, packed
from levelhead.likelihood import Categorical, Signature
from levelhead.network import Network, build
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.packed_ensemble import PackedEnsemble
from levelhead.surgeries.random_feature_head import RandomFeatureHead
from levelhead.types import CannotCompose

IMAGES = Signature(input_shape=(3, 16, 16), num_outputs=5, likelihood=Categorical(5))
TABLE = Signature(input_shape=(6,), num_outputs=3, likelihood=Categorical(3))
CASES = [  # the network, the same network as thin as a member, signature, surgery
    (MLP(hidden=(16, 8)), MLP(hidden=(8, 4)), TABLE, PackedEnsemble()),
    (MLP(hidden=(8, 8), batch_norm=True), MLP(hidden=(8, 8), batch_norm=True), TABLE, PackedEnsemble(3, alpha=3)),
    (LeNet(), LeNet(), IMAGES, PackedEnsemble(2, alpha=2)),
    (ResNet(depth=8, width=8), ResNet(depth=8, width=4), IMAGES, PackedEnsemble()),
    (ResNet(depth=8, width=8, norm="group", preact=True), ResNet(depth=8, width=8, norm="group", preact=True), IMAGES,
     PackedEnsemble(4, alpha=4)),
]  # fmt: skip


def thin(network: Network, member: Network, k: int) -> Network:
    """Member k alone: its blocks copied into a network of its width."""
    own = member.state_dict()
    for key, tensor in network.state_dict().items():
        if key.startswith("head.members"):
            if key.startswith(f"head.members.{k}."):
                own[key.replace(f"members.{k}.", "")] = tensor
        elif own[key].shape == tensor.shape:  # normalisation of the input, counters
            own[key] = tensor
        else:
            own[key] = tensor.chunk(network.num_members)[k].reshape(own[key].shape)
    member.load_state_dict(own)
    return member


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("wide, narrow, signature, surgery", CASES, ids=repr)
def test_the_network_is_as_many_thin_ones(wide, narrow, signature: Signature, surgery, training: bool) -> None:
    made = surgery(wide(signature)).double()
    made(signature.example(8, seed=1).double())
    members = [thin(made, narrow(signature).double(), k).train(training) for k in range(surgery.num_members)]
    made.train(training)
    x = signature.example(6).double()
    outputs = made(x)
    assert outputs.shape == (surgery.num_members, 6, signature.num_outputs)
    for k, member in enumerate(members):
        assert_close(outputs[k], member(x)[0])
    assert not torch.allclose(outputs[0], outputs[1])


@pytest.mark.parametrize("wide, narrow, signature, surgery", CASES, ids=repr)
def test_weights_of_one_member_get_its_gradients_alone(wide, narrow, signature: Signature, surgery) -> None:
    made = surgery(wide(signature)).double()
    made(signature.example(6).double())[1].square().sum().backward()
    for key, parameter in made.features.named_parameters():
        moved = [bool(block.any()) for block in parameter.grad.chunk(surgery.num_members)]
        assert not any(moved[:1] + moved[2:]), key
        assert moved[1] or key.endswith("bias"), key


def test_the_number_of_weights() -> None:
    network = ResNet(depth=8, width=16)(IMAGES)
    made = PackedEnsemble(num_members=4, alpha=2, gamma=2)(network)
    for (name, old), new in zip(
        ((n, m) for n, m in network.features.named_modules() if isinstance(m, nn.Conv2d)),
        (m for m in made.features.modules() if isinstance(m, nn.Conv2d)),
        strict=True,
    ):
        factor = 2 if name == "stem.conv" else 4 / (4 * 2)
        assert new.weight.numel() == factor * old.weight.numel(), name


def test_signals_keep_their_size() -> None:
    torch.manual_seed(0)
    old = nn.Conv2d(64, 64, 3, padding=1, bias=False)
    new = packed(old, 4, alpha=2, gamma=1, first=False)
    x, wide = torch.randn(8, 64, 12, 12), torch.randn(8, 128, 12, 12)
    assert_close(new(wide).std(), old(x).std(), rtol=0.05, atol=0)


def test_a_batched_product_is_a_block_diagonal_one() -> None:
    torch.manual_seed(0)
    layer = PackedLinear(12, 8, 4, bias=True)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    x = torch.randn(2, 3, 12)
    assert_close(layer(x), nn.functional.linear(x, torch.block_diag(*layer.weight), layer.bias))


def test_depthwise_grouped_and_transposed_convolutions() -> None:
    stages = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 8, 1, groups=2),
        nn.ConvTranspose2d(8, 4, 2, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    made = PackedEnsemble(2, alpha=2)(Network(stages, nn.Linear(4, 5), IMAGES))
    groups = [m.groups for m in made.features.modules() if hasattr(m, "groups")]
    assert groups == [1, 16, 4, 2]
    assert made(IMAGES.example(2)).shape == (2, 2, 5)


class Concatenating(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.last, self.fc = nn.Conv2d(8, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(x).relu()
        z = self.last(torch.cat([z, self.second(z)], dim=1))
        return self.fc(z.relu().mean((2, 3)))


def test_what_cannot_be_packed_is_refused_with_advice() -> None:
    surgery = PackedEnsemble()
    with pytest.raises(CannotCompose, match="its members would not be apart"):
        surgery(Network.wrap(Concatenating(), head="fc", signature=IMAGES))
    normed = Network(nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 8)), nn.Linear(8, 3), TABLE)
    with pytest.raises(CannotCompose, match="does not run with wider layers"):
        surgery(normed)
    with pytest.raises(CannotCompose, match=r"hidden1\.linear: 4 members cannot share 6 channels in"):
        PackedEnsemble(alpha=1)(MLP(hidden=(6, 6))(TABLE))
    with pytest.raises(CannotCompose, match="put it before surgeries"):
        surgery(BatchEnsemble()(LeNet()(IMAGES)))
    with pytest.raises(CannotCompose, match="wants a linear head, got"):
        surgery(RandomFeatureHead(rank=8)(LeNet()(IMAGES)))
    frozen = LeNet()(IMAGES)
    frozen.features.requires_grad_(False)
    with pytest.raises(CannotCompose, match="is frozen"):
        surgery(frozen)


def test_it_composes_with_vectors_of_as_many_members() -> None:
    both = BatchEnsemble()(PackedEnsemble()(ResNet(depth=8)(IMAGES)))
    assert both(IMAGES.example(3)).shape == (4, 3, 5)


def test_a_rebuilt_network_takes_the_saved_weights() -> None:
    made, rebuilt = (build(ResNet(depth=8), (PackedEnsemble(),), IMAGES) for _ in range(2))
    made(IMAGES.example(8))
    rebuilt.load_state_dict(made.state_dict())
    x = IMAGES.example(4)
    assert torch.equal(rebuilt.eval()(x), made.eval()(x))


def test_validation() -> None:
    for name in ("num_members", "alpha", "gamma"):
        with pytest.raises(ValueError, match=f"PackedEnsemble: {name} must"):
            PackedEnsemble(**{name: 0})
