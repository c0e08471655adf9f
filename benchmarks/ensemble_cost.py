"""What four members inside one ResNet-20 cost beside one network: a training step, a prediction, parameters.

Every member sees all 64 images of a batch, 32 x 32 in colour; one thread. A step of the networks that tune themselves
is a third of three training steps and one tuning step. Here a ratio is an ensemble's time over one network's.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.harness import Contest, Rival
from benchmarks.implicit_ensembles import repeated
from levelhead.backbones.resnet import ResNet
from levelhead.forward import network_loss
from levelhead.network import Network, build
from levelhead.predictor import Point
from levelhead.samplers.alternating import Alternating
from levelhead.samplers.sgd import SGD
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.film_ensemble import FilmEnsemble
from levelhead.surgeries.hyper_batch import HyperBatch
from levelhead.surgeries.self_tuning import SelfTuning
from levelhead.tasks.stripes import stripes
from levelhead.tasks.task import Task
from levelhead.training import Run, Sampler

BATCH, QUICK_BATCH = 64, 8
STEPS = 3  # of which the last is followed by a tuning step, where there is one
PLAIN = SGD(weight_decay=0.0)
TUNED = Alternating(inner=PLAIN, every=STEPS)
METHODS: dict[str, tuple[Any, Sampler[Any]]] = {
    "batch_ensemble": (BatchEnsemble(), PLAIN),
    "batch_ensemble_shared_norm": (BatchEnsemble(per_member_norm=False), PLAIN),
    "film_ensemble": (FilmEnsemble(), PLAIN),
    "hyper_batch": (HyperBatch(), TUNED),
    "hyper_batch_shared_norm": (HyperBatch(per_member_norm=False), TUNED),
    "self_tuning_one_member": (SelfTuning(), TUNED),
}


def contests(*, quick: bool) -> Iterator[Contest]:
    """Training, then prediction, a method after the other."""
    size = QUICK_BATCH if quick else BATCH
    task = stripes(4 * size if 4 * size >= 40 else 40, num_classes=10, channels=3, size=32)
    alone = network(task)
    for name, (surgery, sampler) in METHODS.items():
        ensemble = network(task, surgery)
        more = count(ensemble) / count(alone)
        what = f"one network alone; parameters {more:.3f} times its {count(alone):,}"
        step = Rival(steps(network(task), PLAIN, task, size), what=what)
        yield Contest(steps(ensemble, sampler, task, size), {f"{name}_train": step})
        yield Contest(
            prediction(network(task, surgery), task, size), {f"{name}_predict": Rival(prediction(alone, task, size))}
        )


def network(task: Task, *surgeries: Any) -> Network:
    """ResNet-20 after surgeries."""
    return build(ResNet(depth=20), surgeries, task.signature)


def count(network: Network) -> int:
    """Trained parameters, ranges of hyper-parameters included."""
    return sum(p.numel() for p in network.parameters())


def steps(network: Network, sampler: Sampler[Any], task: Task, size: int) -> Callable[[], None]:
    """Three training steps, as `fit` does them."""
    state = sampler.init(network.train(), task.sealed(), Run(0))
    batch = next(task.train.ordered(size)).to(torch.device("cpu"), torch.float32)
    return repeated(STEPS, lambda: sampler.step(state, network_loss, batch))


def prediction(network: Network, task: Task, size: int) -> Callable[[], None]:
    """Mean probabilities of the members, three times."""
    predictor = Point(network)
    x = next(task.train.ordered(size)).to(torch.device("cpu"), torch.float32).x

    @torch.no_grad()
    def predict() -> object:
        return predictor(x).probs

    return repeated(STEPS, predict)
