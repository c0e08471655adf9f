"""The published recipe: what it is made of, and that its members beat one of them."""

import torch

from levelhead.backbones.mlp import MLP
from levelhead.objectives.adversarial_training import AdversarialTraining
from levelhead.predictor import Ensemble
from levelhead.recipe import DeepEnsemble, Recipe
from levelhead.recipes.deep_ensembles import deep_ensembles
from levelhead.samplers.adamw import AdamW
from levelhead.tasks.cubic import cubic


def test_it_is_five_members_with_fgsm_inside() -> None:
    sampler = AdamW(epochs=40, batch_size=100, lr=1e-2, weight_decay=0.0, schedule="constant")
    member = Recipe(backbone=MLP(), regularisers=(AdversarialTraining(eps=0.01),), sampler=sampler)
    assert deep_ensembles(MLP()) == DeepEnsemble(member=member, size=5)
    assert deep_ensembles(MLP(), eps=0.0).member.regularisers == ()  # type: ignore[attr-defined]


def test_members_disagree_where_there_are_no_data() -> None:
    task = cubic()
    predictor = deep_ensembles(MLP((100,)), epochs=200, batch_size=20).fit(task, seed=0)
    assert isinstance(predictor, Ensemble)
    low, high = (float(bound) for bound in (task.train.x.min(), task.train.x.max()))
    inside = predictor(torch.linspace(low, high, 21)[:, None]).epistemic().mean()
    outside = predictor(torch.tensor([[low - 3.0], [high + 3.0]])).epistemic().mean()
    assert outside > 3 * inside
