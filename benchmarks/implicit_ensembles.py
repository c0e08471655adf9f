"""Ensembles of four inside one ResNet-20 (three for MIMO), beside torch-uncertainty's: a training step, a prediction.

Both show every example to every member, on 32 x 32 colour images, one thread. Its networks are written for each method;
ours are the same ResNet-20 after a surgery. In both BatchEnsembles one BatchNorm is over all rows. Its Masksembles has
a mask in front of every convolution, ours in front of each block's last, so part of that ratio is less work.
"""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.harness import Contest, Rival
from levelhead.backbones.resnet import ResNet
from levelhead.forward import Forward, network_loss
from levelhead.likelihood import Categorical, Signature
from levelhead.network import build
from levelhead.predictor import Point
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.masksembles import Masksembles
from levelhead.surgeries.mimo import MIMO
from levelhead.surgeries.packed_ensemble import PackedEnsemble
from levelhead.types import Batch

CLASSES = 10
BATCH, QUICK_BATCH = 64, 8
NEEDS = ("torch_uncertainty", "lightning", "rich")
SIGNATURE = Signature((3, 32, 32), CLASSES, Categorical(CLASSES), (0.5,) * 3, (0.25,) * 3)


class Pair(NamedTuple):
    """One method, ours and theirs.

    surgery   ours.
    rival     the name of its builder, and what the builder wants beside the sizes.
    by_slot   whether rows of a training step come a slot each, in both.
    """

    surgery: Any
    rival: str
    options: dict[str, Any]
    by_slot: bool = False

    @property
    def members(self) -> int:
        """Networks in one."""
        return int(self.surgery.num_members)


PAIRS = {
    "batch_ensemble": Pair(BatchEnsemble(per_member_norm=False), "batched_resnet", {"repeat_strategy": "legacy"}),
    "masksembles": Pair(Masksembles(scale=2.0), "masked_resnet", {"repeat_strategy": "legacy", "scale": 2.0}),
    "packed_ensemble": Pair(PackedEnsemble(alpha=2), "packed_resnet", {"alpha": 2, "gamma": 1}),
    "mimo": Pair(MIMO(num_members=3), "mimo_resnet", {}, by_slot=True),
}


def contests(*, quick: bool) -> Iterator[Contest]:
    """Training, then prediction, on one batch, a method after the other."""
    size = QUICK_BATCH if quick else BATCH
    steps, predictions = (1, 1) if quick else (5, 10)
    for name, pair in PAIRS.items():
        x, y = rows(size)
        many, labels = rows(size * pair.members) if pair.by_slot else (x, y)
        what = f"torch-uncertainty's {pair.rival}, {pair.members} members, one thread"
        step = Rival(lazy(steps, their_step, pair, many, labels), needs=NEEDS, what=what)
        yield Contest(repeated(steps, our_step(pair, many, labels)), {f"{name}_train": step})
        prediction = Rival(lazy(predictions, their_prediction, pair, x), needs=NEEDS, what=what)
        yield Contest(repeated(predictions, our_prediction(pair, x)), {f"{name}_predict": prediction})


def rows(size: int) -> tuple[Tensor, Tensor]:
    """Images and labels."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(size, *SIGNATURE.input_shape, generator=generator)
    return x, torch.randint(CLASSES, (size,), generator=generator)


def repeated(times: int, work: Callable[[], object]) -> Callable[[], None]:
    """The work, several times."""

    def run() -> None:
        for _ in range(times):
            work()

    return run


def lazy(times: int, make: Callable[..., Callable[[], object]], *args: Any) -> Callable[[], None]:
    """The same for work that can be made only where the rival is installed; it is made by the warm-up."""
    made: list[Callable[[], None]] = []

    def run() -> None:
        if not made:
            made.append(repeated(times, make(*args)))
        made[0]()

    return run


def our_step(pair: Pair, x: Tensor, y: Tensor) -> Callable[[], None]:
    """Forward, loss, backward and optimiser."""
    network = build(ResNet(depth=20), (pair.surgery,), SIGNATURE).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    labels = y.unflatten(0, (pair.members, -1)) if pair.by_slot else y
    batch = Batch(x, labels, torch.arange(len(x)), per_member=pair.by_slot)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        network_loss(Forward(network, batch)).backward()
        optimiser.step()

    return step


def their_step(pair: Pair, x: Tensor, y: Tensor) -> Callable[[], None]:
    """The same on its network, with the targets repeated as its routine does."""
    network = their_network(pair).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    labels = y if pair.by_slot else y.repeat(pair.members)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(network(x), labels).backward()
        optimiser.step()

    return step


def our_prediction(pair: Pair, x: Tensor) -> Callable[[], Tensor]:
    """Mean probabilities of the members."""
    predictor = Point(build(ResNet(depth=20), (pair.surgery,), SIGNATURE))

    def predict() -> Tensor:
        with torch.no_grad():
            return predictor(x).probs  # type: ignore[attr-defined]

    return predict


def their_prediction(pair: Pair, x: Tensor) -> Callable[[], Tensor]:
    """The same."""
    network = their_network(pair).eval()

    def predict() -> Tensor:
        with torch.no_grad():
            return network(x).unflatten(0, (pair.members, len(x))).softmax(-1).mean(0)

    return predict


def their_network(pair: Pair) -> nn.Module:
    """Its ResNet-20 for small images."""
    build_rival = getattr(import_module("torch_uncertainty.models.classification.resnet"), pair.rival)
    sizes = {"in_channels": 3, "num_classes": CLASSES, "arch": 20, "num_estimators": pair.members}
    return build_rival(**sizes, conv_bias=False, style="cifar", **pair.options)
