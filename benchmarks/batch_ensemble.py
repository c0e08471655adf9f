"""BatchEnsemble of four members, ResNet-20, beside torch-uncertainty's: a training step and a prediction.

Both show every example to every member and normalise over all rows (per_member_norm=False here), on 32 x 32 colour
images, one thread. Its shortcuts are plain convolutions, shared by the members; ours have vectors of their own.
"""

from collections.abc import Callable, Iterator

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
from levelhead.types import Batch

MEMBERS, CLASSES = 4, 10
BATCH, QUICK_BATCH = 64, 8
NEEDS = ("torch_uncertainty", "lightning", "rich")
WHAT = "torch-uncertainty's batched_resnet, one thread"
SIGNATURE = Signature((3, 32, 32), CLASSES, Categorical(CLASSES), (0.5,) * 3, (0.25,) * 3)


def contests(*, quick: bool) -> Iterator[Contest]:
    """Training, then prediction, on one batch."""
    size = QUICK_BATCH if quick else BATCH
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(size, *SIGNATURE.input_shape, generator=generator)
    y = torch.randint(CLASSES, (size,), generator=generator)
    steps, predictions = (1, 1) if quick else (5, 10)
    yield Contest(
        repeated(steps, our_step(x, y)), {"train": Rival(lazy(steps, their_step, x, y), needs=NEEDS, what=WHAT)}
    )
    yield Contest(
        repeated(predictions, our_prediction(x)),
        {"predict": Rival(lazy(predictions, their_prediction, x), needs=NEEDS, what=WHAT)},
    )


def repeated(times: int, work: Callable[[], object]) -> Callable[[], None]:
    """The work, several times."""

    def run() -> None:
        for _ in range(times):
            work()

    return run


def lazy(times: int, make: Callable[..., Callable[[], object]], *args: Tensor) -> Callable[[], None]:
    """The same for work that can be made only where the rival is installed; it is made by the warm-up."""
    made: list[Callable[[], None]] = []

    def run() -> None:
        if not made:
            made.append(repeated(times, make(*args)))
        made[0]()

    return run


def our_step(x: Tensor, y: Tensor) -> Callable[[], None]:
    """Forward, loss, backward and optimiser."""
    network = build(ResNet(depth=20), (BatchEnsemble(num_members=MEMBERS, per_member_norm=False),), SIGNATURE).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    batch = Batch(x, y, torch.arange(len(x)))

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        network_loss(Forward(network, batch)).backward()
        optimiser.step()

    return step


def their_step(x: Tensor, y: Tensor) -> Callable[[], None]:
    """The same on its network, with the targets repeated as its routine does."""
    network = their_network().train()
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(network(x), y.repeat(MEMBERS)).backward()
        optimiser.step()

    return step


def our_prediction(x: Tensor) -> Callable[[], Tensor]:
    """Mean probabilities of the members."""
    surgery = (BatchEnsemble(num_members=MEMBERS, per_member_norm=False),)
    predictor = Point(build(ResNet(depth=20), surgery, SIGNATURE))

    def predict() -> Tensor:
        with torch.no_grad():
            return predictor(x).probs  # type: ignore[attr-defined]

    return predict


def their_prediction(x: Tensor) -> Callable[[], Tensor]:
    """The same."""
    network = their_network().eval()

    def predict() -> Tensor:
        with torch.no_grad():
            return network(x).unflatten(0, (MEMBERS, len(x))).softmax(-1).mean(0)

    return predict


def their_network() -> nn.Module:
    """Its ResNet-20 for small images, members seeing all examples in training too."""
    from torch_uncertainty.models.classification.resnet import batched_resnet

    return batched_resnet(
        in_channels=3,
        num_classes=CLASSES,
        arch=20,
        num_estimators=MEMBERS,
        conv_bias=False,
        style="cifar",
        repeat_strategy="legacy",
    )
