"""Fifty draws of dropout in the last stage, the stages before it computed once, beside fifty full passes.

ResNet-20 on 32 x 32 colour images, one thread. Both give the mean of the draws' probabilities.
"""

from collections.abc import Iterator

import torch

from benchmarks.harness import Contest, Rival
from benchmarks.implicit_ensembles import SIGNATURE, repeated
from levelhead.backbones.resnet import ResNet
from levelhead.network import build
from levelhead.predictor import Point
from levelhead.surgeries.mc_dropout import MCDropout

SAMPLES = 50
BATCH, QUICK_BATCH = 64, 8


def contests(*, quick: bool) -> Iterator[Contest]:
    """One prediction of a batch."""
    network = build(ResNet(depth=20), (MCDropout(p=0.1, num_samples=SAMPLES, where="blocks", last=3),), SIGNATURE)
    predictor = Point(network)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(QUICK_BATCH if quick else BATCH, *SIGNATURE.input_shape, generator=generator)

    @torch.no_grad()
    def ours() -> object:
        return predictor(x).probs  # type: ignore[attr-defined]

    @torch.no_grad()
    def full_passes() -> object:
        draws = [network(x, num_samples=1)[0].softmax(-1) for _ in range(SAMPLES)]
        return torch.stack(draws).mean(0)

    what = f"the same network, {SAMPLES} times from the pixels on"
    yield Contest(
        repeated(1 if quick else 3, ours), {"full_passes": Rival(repeated(1 if quick else 3, full_passes), what=what)}
    )
