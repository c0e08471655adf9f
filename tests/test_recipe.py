"""Fits of recipes and ensembles, rehearsal, and parallel members."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.forward import Forward, Objective, Stateless
from levelhead.network import Network
from levelhead.posthoc.aps import APS
from levelhead.posthoc.lac import LAC
from levelhead.posthoc.temperature import Temperature
from levelhead.predictor import Ensemble, Point, Predictor, predict
from levelhead.recipe import DeepEnsemble, Recipe, rehearse
from levelhead.samplers.sgd import SGD
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.tasks.stripes import stripes
from levelhead.tasks.task import Task, TestDataLeak
from levelhead.training import Runtime
from levelhead.types import CannotCompose, Scalar

TASK = stripes(n=60)
RECIPE = Recipe(backbone=MLP(), sampler=SGD(epochs=2, batch_size=16))
X = TASK.test.x / 255


def test_an_ensemble_is_the_mean_of_its_independent_members() -> None:
    predictor = DeepEnsemble(member=RECIPE, size=3).fit(TASK, 0)
    assert isinstance(predictor, Ensemble)
    members = [member(X).probs for member in predictor.members]
    assert_close(predictor(X).probs, torch.stack(members).mean(0))
    assert not torch.allclose(members[0], members[1])
    first, second = (dict(member.named_parameters()) for member in predictor.members[:2])
    assert all(not torch.equal(first[name], second[name]) for name in first)


def test_members_side_by_side_equal_members_in_turn() -> None:
    ensemble = DeepEnsemble(member=RECIPE, size=2)
    assert torch.equal(ensemble.fit(TASK, 4)(X).probs, ensemble.fit(TASK, 4, Runtime(workers=2))(X).probs)


def test_finished_members_are_not_fitted_again(tmp_path: Path) -> None:
    ensemble = DeepEnsemble(member=RECIPE, size=2)
    first = ensemble.fit(TASK, 0, Runtime(folder=tmp_path))
    heard: list[object] = []
    again = ensemble.fit(TASK, 0, Runtime(folder=tmp_path, report=heard.append))
    assert heard == []
    assert torch.equal(first(X).probs, again(X).probs)


@dataclass(frozen=True)
class Peeking(Stateless):
    """A regulariser that wants to see the test split."""

    def start(self, network: object, task: Task, run: object) -> "Peeking":
        task.test  # noqa: B018
        return self

    def __call__(self, inner: Objective, forward: Forward) -> Scalar:
        return inner(forward)


@dataclass(frozen=True)
class Breaking:
    """A post-hoc step that spoils every number."""

    def __call__(self, predictor: Predictor, task: Task) -> Predictor:
        for parameter in predictor.parameters():
            parameter.data.fill_(float("nan"))
        return predictor


@dataclass(frozen=True)
class Peeping:
    """A post-hoc step that fits on the test split."""

    def __call__(self, predictor: Predictor, task: Task) -> Predictor:
        predict(predictor, task.test)
        return predictor


def test_nothing_that_fits_may_see_the_test_split() -> None:
    with pytest.raises(TestDataLeak):
        Recipe(backbone=MLP(), regularisers=(Peeking(),)).fit(TASK, 0)
    with pytest.raises(TestDataLeak):
        Recipe(backbone=MLP(), posthoc=(Peeping(),)).fit(TASK, 0)
    with pytest.raises(TestDataLeak):
        DeepEnsemble(member=RECIPE, size=2, posthoc=(Peeping(),)).fit(TASK, 0)


def test_what_cannot_work_says_so_before_training() -> None:
    heard: list[object] = []
    with pytest.raises(CannotCompose, match="not finite"):
        Recipe(backbone=MLP(), sampler=SGD(epochs=50), posthoc=(Breaking(),)).fit(TASK, 0, Runtime(report=heard.append))
    assert heard == []


def test_rehearsal_is_short() -> None:
    short = DeepEnsemble(member=Recipe(backbone=MLP(), sampler=SGD(epochs=90)), size=9).shortened()
    assert (short.size, short.member.sampler.epochs, short.member.sampler.batch_size) == (2, 1, 8)  # type: ignore[attr-defined]
    rehearse(RECIPE, TASK)


def test_bad_fields_are_refused() -> None:
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        DeepEnsemble(member=RECIPE, size=0)


def test_recipes_are_values() -> None:
    assert hash(RECIPE) == hash(Recipe(backbone=MLP(), sampler=SGD(epochs=2, batch_size=16)))
    assert isinstance(RECIPE.fit(TASK, 0), Point)


def test_steps_that_promise_something_get_rows_that_nothing_else_was_fitted_on() -> None:
    first, second = TASK.shared_calibration()
    tempered = replace(RECIPE, posthoc=(Temperature(), LAC())).fit(TASK, 0)
    assert tempered.calibrated_on == second.calibration.digest
    assert tempered.inner.fitted_on == first.calibration.digest
    alone = replace(RECIPE, posthoc=(LAC(),)).fit(TASK, 0)
    assert alone.calibrated_on == TASK.calibration.digest
    mixture = DeepEnsemble(member=replace(RECIPE, posthoc=(Temperature(),)), size=2, posthoc=(APS(),)).fit(TASK, 0)
    assert mixture.calibrated_on == second.calibration.digest
    assert {member.fitted_on for member in mixture.inner.members} == {first.calibration.digest}


def test_by_hand_the_same_rows_are_refused_and_shares_work() -> None:
    point = RECIPE.fit(TASK, 0)
    tempered = Temperature()(point, TASK)
    with pytest.raises(CannotCompose, match="shared_calibration"):
        LAC()(tempered, TASK)
    first, second = TASK.shared_calibration()
    assert LAC()(Temperature()(point, first), second)(X).sets is not None


def test_what_changes_beliefs_comes_before_what_hangs_on_them() -> None:
    with pytest.raises(CannotCompose, match="last"):
        replace(RECIPE, posthoc=(LAC(), Temperature())).fit(TASK, 0)
    with pytest.raises(CannotCompose, match="last"):
        replace(RECIPE, posthoc=(LAC(), APS())).fit(TASK, 0)


def test_a_compiled_fit_is_compiled_and_equals_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = []

    def kept(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch.compiler.reset()
    monkeypatch.setattr(Network, "compile", lambda self: nn.Module.compile(self, backend=kept, fullgraph=True))
    recipe = Recipe(backbone=MLP((8,)), surgery=(BatchEnsemble(num_members=2),), sampler=SGD(epochs=1, batch_size=12))
    plain, compiled = (recipe.fit(TASK, 0, Runtime(compile=on), rehearsed=True) for on in (False, True))
    assert graphs
    assert_close(compiled(X).logits, plain(X).logits)
