"""Hyper-deep ensembles: exact budget, resumable and growing searches, honest selection, and the variants."""

import dataclasses
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from contracts.styles import regression
from torch.testing import assert_close

from levelhead import hyper_deep
from levelhead.backbones.mlp import MLP
from levelhead.hyper_deep import SEARCH, HyperDeepEnsemble, Search
from levelhead.objectives.layer_l2 import LayerL2
from levelhead.posthoc.temperature import Temperature
from levelhead.predictor import Ensemble, predict
from levelhead.processes import held
from levelhead.proposals import Drawn
from levelhead.recipe import DeepEnsemble, Recipe
from levelhead.samplers.adamw import AdamW
from levelhead.selection import greedy_select
from levelhead.spaces.log_uniform import LogUniform
from levelhead.spaces.one_of import OneOf
from levelhead.storage import load, save
from levelhead.studies.select import select
from levelhead.tasks.stripes import stripes
from levelhead.text import parse, to_text
from levelhead.training import Run, Runtime
from levelhead.trials import Trial, believed, joined
from levelhead.types import CannotCompose, MissingExtra, NonFiniteLoss
from levelhead.values import NoSuchPath

TASK = stripes(n=96, size=12, noise=0.4)
X = TASK.test.x / 255
MEMBER = Recipe(
    backbone=MLP(hidden=(8,)),
    regularisers=(LayerL2(),),
    sampler=AdamW(epochs=5, batch_size=16, lr=2e-2, weight_decay=0.0),
)
SPACE = (LogUniform("regularisers.layer_l2.coefficients.0", 1e-2, 1.0), LogUniform("sampler.lr", 1e-2, 3e-2))
SEARCHED = HyperDeepEnsemble(member=MEMBER, space=SPACE, size=3, candidates=5)


def searched(spec: HyperDeepEnsemble, seed: int = 0, runtime: Runtime = Runtime()) -> tuple[Search, Any]:
    search = Search(spec, TASK, Run(seed, runtime))
    return search, search.run()


@pytest.fixture
def counted(monkeypatch) -> list[int]:
    """The seeds of all trainings."""
    seeds: list[int] = []
    whole = Recipe.fit

    def fit(self, task, seed=0, *args, **kwargs):
        seeds.append(seed)
        return whole(self, task, seed, *args, **kwargs)

    monkeypatch.setattr(Recipe, "fit", fit)
    return seeds


@pytest.mark.parametrize("fixed_init", [True, False])
def test_the_budget_is_kappa_and_u_times_k_minus_one(counted, fixed_init):
    search, (grid, _) = searched(dataclasses.replace(SEARCHED, fixed_init=fixed_init), seed=1)
    survivors = {trial.setting for trial in grid}
    assert len(grid) == len(survivors) * 3
    assert len(counted) == search.trainings == 5 + len(survivors) * 2
    assert len(survivors) > 1


def test_without_stratification_it_is_kappa_and_a_refit_adds_the_members(counted):
    search, (_, found) = searched(dataclasses.replace(SEARCHED, stratify=False))
    assert len(counted) == search.trainings == 5
    predictor = dataclasses.replace(SEARCHED, stratify=False, refit=True).fit(TASK, 0, rehearsed=True)
    assert len(counted) == 5 + 5 + len(found.members) == 10 + len(predictor.members)


def test_columns_are_seeds_and_rows_are_settings():
    search, _ = searched(SEARCHED)
    row = [search.seed_of(Trial(number, 0)) for number in range(5)]
    assert len(set(row)) == 1
    column = [search.seed_of(Trial(2, k)) for k in range(3)]
    assert column == [search.seed_of(Trial(4, k)) for k in range(3)] == [Run(0).seed_for("member", k) for k in range(3)]
    free = Search(dataclasses.replace(SEARCHED, fixed_init=False), TASK, Run(0))
    assert len({free.seed_of(Trial(number, 0)) for number in range(5)}) == 5


def test_one_seed_gives_all_settings_the_same_first_weights():
    search, _ = searched(SEARCHED)
    one, other = (search.fit_of(Trial(number, 0)).build(TASK, search.seed_of(Trial(number, 0))) for number in (1, 4))
    assert search.settings[1] != search.settings[4]
    assert all(torch.equal(t, other.state_dict()[key]) for key, t in one.state_dict().items())


def test_the_column_of_the_member_as_it_is_is_a_deep_ensemble():
    search, (grid, _) = searched(SEARCHED)
    if Trial(0, 0) not in grid:
        search.train([Trial(0, k) for k in range(3)])
    ensemble = DeepEnsemble(member=MEMBER, size=3).fit(TASK, 0, rehearsed=True)
    for k, member in enumerate(ensemble.members):
        assert_close(search.predictor(Trial(0, k))(X).log_probs, member(X).log_probs)


def test_more_candidates_keep_the_settings_before_them():
    few, many = (dataclasses.replace(SEARCHED, candidates=n) for n in (3, 9))
    settings = [[spec.setting(Run(7), number) for number in range(spec.candidates)] for spec in (few, many)]
    assert settings[0] == settings[1][:3]
    assert settings[0][0] == {}
    assert len({json.dumps(setting, sort_keys=True) for setting in settings[1]}) == 9


def test_a_search_that_was_killed_goes_on_and_a_larger_one_starts_from_it(counted, tmp_path: Path, monkeypatch):
    whole = SEARCHED.fit(TASK, 0, rehearsed=True)
    trainings = len(counted)
    runtime = Runtime(folder=tmp_path / "search")
    counting = Recipe.fit

    def dying(self, task, seed=0, *args, **kwargs):
        if len(counted) == trainings + 3:
            raise KeyboardInterrupt
        return counting(self, task, seed, *args, **kwargs)

    monkeypatch.setattr(Recipe, "fit", dying)
    with pytest.raises(KeyboardInterrupt):
        SEARCHED.fit(TASK, 0, runtime, rehearsed=True)
    monkeypatch.setattr(Recipe, "fit", counting)
    resumed = SEARCHED.fit(TASK, 0, runtime, rehearsed=True)
    assert len(counted) == 2 * trainings
    assert torch.equal(resumed(X).log_probs, whole(X).log_probs)
    SEARCHED.fit(TASK, 0, runtime, rehearsed=True)
    assert len(counted) == 2 * trainings
    dataclasses.replace(SEARCHED, candidates=7, stratify=False).fit(TASK, 0, runtime, rehearsed=True)
    assert len(counted) == 2 * trainings + 2


def test_searches_share_trials_through_a_common_folder(counted, tmp_path: Path):
    SEARCHED.fit(TASK, 0, Runtime(folder=tmp_path / "one", shared=tmp_path / "trials"), rehearsed=True)
    trainings = len(counted)
    other = dataclasses.replace(SEARCHED, stratify=False, selection="best")
    other.fit(TASK, 0, Runtime(folder=tmp_path / "two", shared=tmp_path / "trials"), rehearsed=True)
    assert len(counted) == trainings
    other.fit(TASK, 1, Runtime(folder=tmp_path / "two", shared=tmp_path / "trials"), rehearsed=True)
    assert len(counted) == trainings + 5


def test_it_says_what_was_tried_and_what_chose(tmp_path: Path):
    predictor = SEARCHED.fit(TASK, 0, Runtime(folder=tmp_path), rehearsed=True)
    told = json.loads((tmp_path / SEARCH).read_text())
    assert told["selected_on"] == {"split": "val", "rows": len(TASK.val), "digest": TASK.val.digest}
    assert len(told["settings"]) == 5
    assert len(told["members"]) == len(predictor.members)
    assert sum(member["weight"] for member in told["members"]) == pytest.approx(1)
    assert told["trainings"] >= 5


def test_the_mixture_is_what_was_selected_and_is_at_least_as_good_as_the_best_alone():
    search, (grid, found) = searched(SEARCHED)
    predictor = SEARCHED.fit(TASK, 0, rehearsed=True)
    assert isinstance(predictor, Ensemble)
    nll = -float(predict(predictor, TASK.val).log_prob(TASK.val.y).mean())
    assert nll == pytest.approx(found.history[-1], abs=1e-5)
    alone = [believed(search.predictor(trial), TASK, "cpu") for trial in grid]
    again = greedy_select(torch.stack(alone), TASK.val.y, 3)
    assert again.members == found.members
    assert found.history[-1] <= found.history[0]


def test_the_best_alone_are_the_best_alone():
    spec = dataclasses.replace(SEARCHED, stratify=False, selection="best")
    search, (row, found) = searched(spec)
    scores = [greedy_select(search.done[t].beliefs[None], TASK.val.y, 1).history[0] for t in row]
    assert list(found.members) == sorted(range(5), key=scores.__getitem__)[:3]
    assert set(found.weights) == {1 / 3}


def test_a_refit_sees_validation_rows_and_keeps_what_coefficients_mean():
    whole = joined(TASK)
    assert len(whole.train) == len(TASK.train) + len(TASK.val)
    assert whole.val is TASK.calibration
    assert whole.signature == TASK.signature
    assert whole.receipt()["splits"]["train"]["size"] == len(whole.train)
    assert TASK.receipt()["splits"]["train"]["size"] == len(TASK.train)
    network = MEMBER.build(TASK)
    smaller, larger = (LayerL2().start(network, task, Run(0)).of(network) for task in (TASK, whole))
    assert_close(smaller * len(TASK.train), larger * len(whole.train))


def test_it_is_saved_with_its_weights(tmp_path: Path):
    predictor = dataclasses.replace(SEARCHED, posthoc=(Temperature(),)).fit(TASK, 0, rehearsed=True)
    assert torch.equal(load(save(predictor, tmp_path / "p"))(X).log_probs, predictor(X).log_probs)


def test_workers_change_nothing():
    spec = dataclasses.replace(SEARCHED, stratify=False, candidates=2)
    alone, together = (spec.fit(TASK, 0, Runtime(workers=n), rehearsed=True) for n in (1, 2))
    assert torch.equal(alone(X).log_probs, together(X).log_probs)


def test_its_text_reads_back():
    spec = dataclasses.replace(SEARCHED, space=(*SPACE, OneOf("sampler.schedule", ("cosine", "constant"))))
    assert parse(to_text(spec)) == spec


def test_a_space_may_write_to_several_paths():
    spec = HyperDeepEnsemble(member=MEMBER, space=(LogUniform("sampler.lr, sampler.eps", 1e-8, 1e-2),))
    values = spec.setting(Run(0), 1)
    assert list(values) == ["sampler.lr", "sampler.eps"]
    assert len(set(values.values())) == 1


def test_paths_that_lead_nowhere_are_refused_at_once():
    with pytest.raises(NoSuchPath, match="did you mean 'lr'"):
        HyperDeepEnsemble(member=MEMBER, space=(LogUniform("sampler.lrr"),))


@pytest.mark.parametrize("changes", [{"size": 0}, {"candidates": 0}, {"objective": "auroc"}, {"selection": "all"}])
def test_wrong_settings_are_refused(changes):
    with pytest.raises(ValueError, match="HyperDeepEnsemble: "):
        dataclasses.replace(SEARCHED, **changes)


def test_targets_without_classes_are_selected_by_their_density_alone():
    task = regression()
    spec = dataclasses.replace(SEARCHED, candidates=3, size=2)
    predictor = spec.fit(task, 0)
    assert torch.isfinite(predictor(task.test.x).log_prob(task.test.y)).all()
    with pytest.raises(CannotCompose, match="objective='nll'"):
        dataclasses.replace(spec, objective="accuracy").fit(task, 0)


class Scripted(Drawn):
    """Random draws, with a pruner that gives up the candidates it is told to; remembers what it hears."""

    def __init__(self, spec: HyperDeepEnsemble, run: Run, gives_up: set[int]) -> None:
        super().__init__(spec.space, lambda number, place: run.generator("setting", number, place))
        self.gives_up = gives_up
        self.asked: list[int] = []
        self.looks: list[tuple[int, int]] = []
        self.told: dict[int, float | None] = {}
        self.known_when_asked: list[int] = []

    def ask(self, number: int) -> dict[str, Any]:
        self.asked.append(number)
        self.known_when_asked.append(len(self.told))
        return super().ask(number)

    def goes_on(self, number: int, look: int, score: float) -> bool:
        self.looks.append((number, look))
        return number not in self.gives_up

    def tell(self, number: int, score: float | None) -> None:
        self.told[number] = score


def scripted(monkeypatch, spec: HyperDeepEnsemble, gives_up: set[int] = frozenset()) -> tuple[Search, Scripted]:
    run = Run(0)
    source = Scripted(spec, run, gives_up)
    monkeypatch.setattr(HyperDeepEnsemble, "source", lambda self, run: source)
    return Search(spec, TASK, run), source


LEARNING = dataclasses.replace(SEARCHED, proposals="tpe", stratify=False)


def test_proposals_hear_of_each_candidate_before_they_make_the_next(monkeypatch):
    search, source = scripted(monkeypatch, LEARNING)
    row = search.search()
    assert (source.asked, source.known_when_asked) == ([1, 2, 3, 4], [0, 1, 2, 3])
    y = TASK.val.y
    for number, score in source.told.items():
        beliefs = search.done[Trial(number, 0)].beliefs
        assert score == pytest.approx(float(torch.nn.functional.nll_loss(beliefs, y)), abs=1e-6)
    assert row == [Trial(number, 0) for number in range(5)]
    _, source = scripted(monkeypatch, dataclasses.replace(LEARNING, at_once=2))
    Search(dataclasses.replace(LEARNING, at_once=2), TASK, Run(0)).search()
    assert source.known_when_asked == [0, 1, 1, 3]  # 0 and 1, then 2 and 3, then 4


def test_a_pruned_candidate_costs_its_looks_and_is_not_selected(monkeypatch, counted, tmp_path: Path):
    spec = dataclasses.replace(LEARNING, pruner="median", looks=(0.2, 0.6))
    search, source = scripted(monkeypatch, spec, gives_up={2, 3})
    row, found = search.run()
    assert [trial.setting for trial in row] == [0, 1, 4]
    assert source.looks == [(1, 1), (1, 2), (2, 1), (3, 1), (4, 1), (4, 2)]
    assert (source.told[2], source.told[3]) == (None, None)
    assert search.trainings == 3
    assert search.shortened == [0.2, 0.6, 0.2, 0.2, 0.2, 0.6]
    assert len(counted) == 3 + 6
    table = search.table(row, found)
    assert (table["given_up"], table["shortened"]) == ([2, 3], 6)
    assert table["cost"] == pytest.approx(3 + 0.2 * 4 + 0.6 * 2)


def test_a_look_is_a_training_of_that_share_of_the_epochs(monkeypatch):
    epochs: list[int] = []
    whole = Recipe.fit

    def fit(self, *args, **kwargs):
        epochs.append(self.sampler.epochs)
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(Recipe, "fit", fit)
    search, _ = scripted(monkeypatch, dataclasses.replace(LEARNING, candidates=2, pruner="median", looks=(0.2, 0.6)))
    search.search()
    assert epochs == [5, 1, 3, 5]  # the member as it is, and candidate 1


def test_a_candidate_that_diverges_is_paid_for_and_left_out(monkeypatch):
    whole = Recipe.fit

    def fit(self, *args, **kwargs):
        if self.sampler.lr != MEMBER.sampler.lr and len(seen) < 2:
            seen.append(self.sampler.lr)
            raise NonFiniteLoss("The loss became nan")
        return whole(self, *args, **kwargs)

    seen: list[float] = []
    monkeypatch.setattr(Recipe, "fit", fit)
    search, source = scripted(monkeypatch, dataclasses.replace(LEARNING, candidates=4))
    row, found = search.run()
    assert [trial.setting for trial in row] == [0, 3]
    assert (source.told[1], source.told[2], search.trainings) == (None, None, 4)
    assert search.table(row, found)["diverged"] == [1, 2]
    seen.clear()
    with pytest.raises(NonFiniteLoss, match="all 1 trainings"):
        search.came_to_something([Trial(1, 0)])


def test_without_optuna_the_error_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtra, match=r"levelhead\[search\]"):
        LEARNING.fit(TASK, 0)


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"proposals": "grid"}, "proposals must be 'random' or one of"),
        ({"proposals": "tpe", "space": ()}, "want a space"),
        ({"pruner": "median"}, "beside proposals of Optuna"),
        ({"proposals": "tpe", "pruner": "worst"}, "pruner must be None, or one of"),
        ({"looks": (0.5, 0.25)}, "growing shares"),
        ({"looks": (1.0,)}, "growing shares"),
        ({"at_once": 0}, "at_once must be at least 1"),
    ],
)
def test_wrong_proposals_are_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(SEARCHED, **changes)


def test_the_trials_of_a_search_are_candidates_for_a_selection(tmp_path: Path):
    spec = dataclasses.replace(SEARCHED, stratify=False)
    spec.fit(TASK, 0, Runtime(folder=tmp_path / "run", shared=tmp_path / "trials"), rehearsed=True)
    known = [json.loads(path.read_text()) for path in (tmp_path / "trials").glob("*/recipe.json")]
    assert len(known) == 5
    assert all(one["content"] == TASK.digest and one["json"]["class"] == "levelhead.recipe:Recipe" for one in known)
    found = select(tmp_path / "trials", task=TASK, k=3)
    assert len(found.considered) == 5
    _, (_, ours) = searched(spec)
    assert found.selection.history == pytest.approx(ours.history, abs=1e-6)


def test_a_trial_that_another_process_has_is_waited_for(monkeypatch, counted, tmp_path: Path):
    spec = dataclasses.replace(SEARCHED, stratify=False, candidates=3)
    runtime = Runtime(folder=tmp_path / "one", shared=tmp_path / "trials")
    search = Search(spec, TASK, Run(0, runtime))
    search.settings = [spec.setting(search.run_, number) for number in range(3)]
    _, busy = search.places(search.fit_of(Trial(1, 0)), Trial(1, 0))
    order: list[int] = []
    with ExitStack() as others:
        assert others.enter_context(held(busy))

        def waited(seconds: float) -> None:
            order.append(len(counted))
            others.close()

        monkeypatch.setattr(hyper_deep.time, "sleep", waited)
        search.train([Trial(number, 0) for number in range(3)])
    assert order == [2]  # both others had been trained by then
    assert len(counted) == 3
    assert set(search.done) == {Trial(0, 0), Trial(1, 0), Trial(2, 0)}
