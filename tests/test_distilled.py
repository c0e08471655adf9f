"""Distillation: each head learns its member, the split of uncertainty stays, and a killed fit finds its teacher."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.distilled import Distilled, Lesson, targets
from levelhead.forward import Forward, network_loss
from levelhead.predictive import CategoricalMixture, GaussianMixture
from levelhead.predictor import Point, predict
from levelhead.recipe import DeepEnsemble, Recipe
from levelhead.samplers.adamw import AdamW
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.multi_head import MultiHead
from levelhead.tasks.cubic import cubic
from levelhead.tasks.stripes import stripes
from levelhead.text import parse, to_text
from levelhead.training import Run, Runtime
from levelhead.types import CannotCompose

TASK = stripes(n=96)
MEMBER = Recipe(backbone=MLP(hidden=(24,)), sampler=AdamW(epochs=8, batch_size=32, lr=5e-3))
STUDENT = Recipe(backbone=MLP(hidden=(64,)), sampler=AdamW(epochs=120, batch_size=32, lr=5e-3))
TEACHER = DeepEnsemble(member=MEMBER, size=3)


def test_the_objective_is_the_mean_cross_entropy_with_the_members() -> None:
    teacher = TEACHER.fit(TASK, 0)
    network = MultiHead(num_members=3)(MLP()(TASK.signature))
    batch = next(TASK.train.ordered(8))
    found = Lesson(teacher, TASK)(network_loss, Forward(network, batch))
    taught, said = teacher(batch.x).logits.exp(), network(batch.x).log_softmax(-1)
    assert_close(found, -(taught * said).sum(-1).mean())
    assert_close(Lesson(teacher, None)(network_loss, Forward(network, batch)), found)
    shared = batch._replace(x=batch.x[:6], y=batch.y[:6].reshape(3, 2), index=batch.index[:6], per_member=True)
    own = [-(taught[k, 2 * k : 2 * k + 2] * said[k, 2 * k : 2 * k + 2]).sum(-1).mean() for k in range(3)]
    assert_close(Lesson(teacher, TASK)(network_loss, Forward(network, shared)), torch.stack(own).mean())


def test_heads_follow_their_members_and_the_split_stays() -> None:
    recipe = Distilled(member=TEACHER, student=STUDENT)
    student = recipe.fit(TASK, 0)
    assert isinstance(student, Point)
    assert student.network.num_members == 3
    teacher = TEACHER.fit(TASK, Run(0).seed_for("teacher"))
    said, taught = predict(student, TASK.train), predict(teacher, TASK.train)
    distance = torch.stack([kl(taught.logits[i], said.logits[j]) for i in range(3) for j in range(3)]).reshape(3, 3)
    assert (distance.argmin(1) == torch.arange(3)).all(), distance
    assert distance.diagonal().max() < 0.3 * distance.mean()
    assert_close(said.epistemic().mean(), taught.epistemic().mean(), rtol=0.5, atol=0)


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return (p.exp() * (p - q)).sum(-1).mean()


def test_draws_from_gaussians_for_real_targets() -> None:
    torch.manual_seed(0)
    belief = GaussianMixture(torch.tensor([[[1.0]], [[5.0]]]), torch.tensor([[[0.25]], [[4.0]]]))
    draws = torch.stack([targets(belief) for _ in range(20_000)])
    assert_close(draws.mean(0), belief.means, rtol=0.02, atol=0.02)
    assert_close(draws.var(0), belief.variances, rtol=0.05, atol=0)
    task = cubic()
    predictor = Distilled(member=dataclasses.replace(TEACHER, size=2)).fit(task, 0)
    assert predictor(task.test.x[:4]).num_members == 2


def test_the_default_student_is_the_innermost_recipe() -> None:
    trunk = Distilled(member=TEACHER).trunk()
    assert trunk == MEMBER
    assert_close(targets(CategoricalMixture(torch.zeros(2, 1, 3))), torch.full((2, 1, 3), 1 / 3))


def test_the_teacher_is_found_again(tmp_path: Path) -> None:
    recipe = Distilled(member=TEACHER)
    first = recipe.fit(TASK, 0, Runtime(folder=tmp_path))
    kept = tmp_path / "teacher" / "predictor"
    before = kept.stat().st_mtime_ns
    again = recipe.fit(TASK, 0, Runtime(folder=tmp_path))
    assert kept.stat().st_mtime_ns == before
    assert torch.equal(first(TASK.test.x[:4].float()).logits, again(TASK.test.x[:4].float()).logits)


def test_teachers_that_cannot_be_kept_apart_are_refused() -> None:
    with pytest.raises(CannotCompose, match="is a single member"):
        Distilled(member=MEMBER).fit(TASK, 0)
    both = dataclasses.replace(MEMBER, surgery=(BatchEnsemble(num_members=2),))
    with pytest.raises(CannotCompose, match="wants a linear head"):
        Distilled(member=both).fit(TASK, 0)
    assert Distilled(member=both, student=MEMBER).fit(TASK, 0).network.num_members == 2


def test_it_reads_and_writes_as_text() -> None:
    text = "mlp + deep_ensemble(size=3) + distilled + temperature"
    recipe = parse(text)
    assert isinstance(recipe, Distilled)
    assert isinstance(recipe.member, DeepEnsemble)
    assert parse(to_text(recipe)) == recipe
