"""As strong as foolbox: on a small network that was trained against attacks, where strength shows."""

import pytest
import torch
from attacks.bent import generator

from levelhead.attacks.cw import CW
from levelhead.attacks.deep_fool import DeepFool
from levelhead.attacks.pgd import PGD
from levelhead.backbones.mlp import MLP
from levelhead.objectives.adversarial_training import AdversarialTraining
from levelhead.recipe import Recipe
from levelhead.samplers.sgd import SGD
from levelhead.tasks.load import load_task

foolbox = pytest.importorskip("foolbox")
EPS = 0.1


@pytest.fixture(scope="module")
def trained():
    """Predictor, foolbox's view of it, and images that it gets right."""
    task = load_task("digits")
    robust = AdversarialTraining(eps=EPS, clean_weight=0.0, steps=4, random_start=True, clamp=True)
    recipe = Recipe(backbone=MLP(hidden=(64,)), regularisers=(robust,), sampler=SGD(epochs=8, lr=0.05))
    predictor = recipe.fit(task, seed=0)
    batch = next(task.test.ordered(400))
    kept = predictor(batch.x).label == batch.y
    (network,) = predictor.networks()
    first = torch.nn.Sequential(network, torch.nn.Flatten(0, 1)).eval()  # one row: (1, batch, class)
    return predictor, foolbox.PyTorchModel(first, bounds=(0, 1), device="cpu"), batch.x[kept], batch.y[kept]


def success(predictor, x, y):
    return float((predictor(x).label != y).double().mean())


def test_forty_steps_fool_as_many_as_foolboxs(trained):
    predictor, model, x, y = trained
    theirs = foolbox.attacks.LinfPGD(rel_stepsize=2.5 / 40, steps=40, random_start=True)
    torch.manual_seed(0)
    _, moved, _ = theirs(model, x, y, epsilons=EPS)
    ours = PGD(eps=EPS, steps=40)(predictor, x, y, generator())
    rate = success(predictor, ours, y)
    assert 0.02 < rate < 0.9  # a model on which strength shows
    assert rate == pytest.approx(success(predictor, moved, y), abs=0.01)


def test_distances_are_no_longer_than_foolboxs(trained):
    predictor, model, x, y = trained
    x, y = x[:40], y[:40]
    pairs = {
        "deep_fool": (DeepFool(), foolbox.attacks.L2DeepFoolAttack(steps=50, candidates=10, overshoot=0.02)),
        "deep_fool_linf": (
            DeepFool(norm="linf"),
            foolbox.attacks.LinfDeepFoolAttack(steps=50, candidates=10, overshoot=0.02),
        ),
        "cw": (CW(steps=100, rounds=6), foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=6, steps=100)),
    }
    for name, (ours, theirs) in pairs.items():
        found = ours.nearest(predictor, x, y, generator())
        _, moved, fooled = theirs(model, x, y, epsilons=None)
        order = torch.inf if name.endswith("linf") else 2
        fooled = fooled & (moved != 0).flatten(1).any(1)  # where theirs finds nothing it returns an empty image
        rival = torch.linalg.vector_norm((moved - x).flatten(1), ord=order, dim=1)
        both = found.success & fooled
        assert found.success.double().mean() >= fooled.double().mean(), name
        assert float((found.distance / rival)[both].median()) < 1.02, name
