"""PGD, Carlini-Wagner and DeepFool on a ResNet-8 and the same images, beside foolbox and torchattacks; one thread.

All have the same steps, step sizes and rounds of the search over c. `pgd_stop_*` is ours with rows that leave the batch
once they have fallen, which gives the same success; the rivals have no such thing. torchattacks' Carlini-Wagner has no
search over c, so it is no rival. It installs a package named robustbench over the real one: `pip install --no-deps
--target FOLDER torchattacks`, and FOLDER in PYTHONPATH.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from benchmarks.harness import Contest, Rival
from levelhead.attacks.cw import CW
from levelhead.attacks.deep_fool import DeepFool
from levelhead.attacks.pgd import PGD
from levelhead.backbones.resnet import ResNet
from levelhead.recipe import Recipe
from levelhead.samplers.sgd import SGD
from levelhead.tasks.load import load_task

EPS, STEPS = 4 / 255, 40
CW_STEPS, ROUNDS = 50, 5


def contests(*, quick: bool) -> Iterator[Contest]:
    """One batch of images that the network gets right, attacked in the three ways."""
    task = load_task("fashion-mini")
    predictor = Recipe(backbone=ResNet(depth=8), sampler=SGD(epochs=1)).fit(task, seed=0)
    batch = next(task.test.ordered(400))
    kept = (predictor(batch.x).label == batch.y).nonzero()[: 10 if quick else 30, 0]
    x, y = batch.x[kept], batch.y[kept]
    (network,) = predictor.networks()
    logits = nn.Sequential(network, nn.Flatten(0, 1)).eval()  # of the one member

    def ours(attack: Any) -> Callable[[], object]:
        return lambda: attack(predictor, x, y, torch.Generator().manual_seed(0))

    def foolbox(name: str, eps: float | None, **fields: Any) -> Rival:
        def run() -> object:
            import foolbox

            model = foolbox.PyTorchModel(logits, bounds=(0, 1), device="cpu")
            return getattr(foolbox.attacks, name)(**fields)(model, x, y, epsilons=eps)

        return Rival(run, needs=("foolbox",), what=f"foolbox {name}")

    def torchattacks(name: str, **fields: Any) -> Rival:
        def run() -> object:
            import torchattacks

            return getattr(torchattacks, name)(logits, **fields)(x, y)

        return Rival(run, needs=("torchattacks",), what=f"torchattacks {name}")

    size = 2.5 * EPS / STEPS
    pgd = {
        "foolbox": foolbox("LinfPGD", EPS, steps=STEPS, rel_stepsize=2.5 / STEPS),
        "torchattacks": torchattacks("PGD", eps=EPS, alpha=size, steps=STEPS),
    }
    for name, stop in (("pgd", False), ("pgd_stop", True)):
        attack = PGD(eps=EPS, steps=STEPS, step_size=size, stop=stop)
        yield Contest(ours(attack), {f"{name}_{library}": rival for library, rival in pgd.items()})
    x, y = x[:10], y[:10]  # the rivals' DeepFool takes most of a second an image
    fooling = {
        "deep_fool_foolbox": foolbox("L2DeepFoolAttack", None, steps=50, candidates=10, overshoot=0.02),
        "deep_fool_torchattacks": torchattacks("DeepFool", steps=50, overshoot=0.02),
    }
    yield Contest(ours(DeepFool()), fooling)
    searching = foolbox("L2CarliniWagnerAttack", None, binary_search_steps=ROUNDS, steps=CW_STEPS, initial_const=0.1)
    yield Contest(ours(CW(steps=CW_STEPS, rounds=ROUNDS, c=0.1)), {"cw_foolbox": searching})
