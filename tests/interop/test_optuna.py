"""Optuna's samplers and pruners behind the hyper-deep search: the same ensemble again, and given-up candidates."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from levelhead.backbones.mlp import MLP
from levelhead.hyper_deep import HyperDeepEnsemble, Search
from levelhead.proposals import PRUNERS, OptunaProposals
from levelhead.recipe import Recipe
from levelhead.samplers.adamw import AdamW
from levelhead.spaces.log_uniform import LogUniform
from levelhead.spaces.one_of import OneOf
from levelhead.spaces.uniform import Uniform
from levelhead.tasks.stripes import stripes
from levelhead.training import Run, Runtime
from levelhead.types import CannotCompose

pytest.importorskip("optuna", reason="needs optuna: make test-interop")

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]  # theirs warn of experimental samplers

TASK = stripes(n=96, size=12, noise=0.4)
MEMBER = Recipe(backbone=MLP(hidden=(8,)), sampler=AdamW(epochs=4, batch_size=16, lr=2e-2, weight_decay=0.0))
SPACE = (
    LogUniform("sampler.lr", 1e-4, 1e-1),
    Uniform("sampler.beta1", 0.5, 0.95),
    OneOf("sampler.schedule", ("cosine", "constant")),
)
SPEC = HyperDeepEnsemble(member=MEMBER, space=SPACE, size=2, candidates=6, stratify=False, proposals="tpe")


def values(source: OptunaProposals, score, num: int = 30) -> list[dict]:
    found = []
    for number in range(1, num):
        found.append(source.ask(number))
        source.tell(number, score(found[-1]))
    return found


@pytest.mark.parametrize("sampler", ["tpe", "gp", "qmc"])
def test_proposals_stay_in_the_space_and_repeat_themselves(sampler):
    def score(setting: dict) -> float:
        return abs(math.log(setting["sampler.lr"] / 1e-2))

    one, other = (values(OptunaProposals(SPACE, sampler=sampler, pruner=None, seed=3), score, 8) for _ in range(2))
    assert one == other
    for setting in one:
        assert 1e-4 <= setting["sampler.lr"] <= 1e-1
        assert 0.5 <= setting["sampler.beta1"] <= 0.95
        assert setting["sampler.schedule"] in ("cosine", "constant")


def test_what_is_told_is_learnt():
    def score(setting: dict) -> float:
        return abs(math.log(setting["sampler.lr"] / 1e-2)) + (setting["sampler.schedule"] == "constant")

    found = values(OptunaProposals(SPACE, sampler="tpe", pruner=None, seed=0), score, 60)
    scores = [score(setting) for setting in found]
    assert sum(scores[30:]) < 0.6 * sum(scores[:10]) * 3


def test_a_search_goes_on_where_it_stood_and_grows(tmp_path: Path, monkeypatch):
    whole = SPEC.fit(TASK, 0)
    x = TASK.test.x / 255
    runtime = Runtime(folder=tmp_path)
    dataclasses.replace(SPEC, candidates=3).fit(TASK, 0, runtime)
    seen = []
    fit = Recipe.fit

    def counted(self, *args, **kwargs):
        seen.append(self)
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(Recipe, "fit", counted)
    grown = SPEC.fit(TASK, 0, runtime, rehearsed=True)
    assert len(seen) == 3
    assert torch.equal(grown(x).log_probs, whole(x).log_probs)


@pytest.mark.parametrize("pruner", PRUNERS)
def test_pruners_give_up_bad_candidates(pruner):
    spec = dataclasses.replace(SPEC, pruner=pruner, candidates=16)
    search = Search(spec, TASK, Run(0))
    row, _ = search.run()
    assert len(row) + len(search.given_up) == 16
    assert search.given_up
    assert search.trainings == len(row)
    assert len(search.shortened) == 15


def test_spaces_of_others_are_refused():
    class Own(Uniform):
        pass

    class Strange:
        path = "sampler.lr"

        def draw(self, generator):
            return 0.1

    OptunaProposals((Own("sampler.lr"),), sampler="tpe", pruner=None, seed=0)
    with pytest.raises(CannotCompose, match="Optuna does not know Strange"):
        OptunaProposals((Strange(),), sampler="tpe", pruner=None, seed=0)
