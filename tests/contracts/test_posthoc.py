"""What every post-hoc step must do: it makes a new predictor from calibration (or training) rows, and nothing else."""

import copy
import dataclasses
from functools import cache
from typing import Any

import pytest
import torch
from contracts.styles import (
    STYLES,
    TASK,
    X,
    Y,
    applicable,
    attempt,
    fit,
    for_targets,
    host,
    label_steps,
    name,
    regression,
    specs,
    target_steps,
)

from levelhead.passes import seeded
from levelhead.predictor import Ensemble, Predictor
from levelhead.recipe import DeepEnsemble, Recipe
from levelhead.samplers.sgd import SGD
from levelhead.storage import load, save
from levelhead.tasks.task import Task, TestDataLeak

STEPS, TARGET_STEPS = label_steps(), target_steps()
SURGERIES = specs("surgeries")
each_step = pytest.mark.parametrize("step", STEPS, ids=name)


def fitted(step: Any, predictor: Predictor | None = None, task: Task = TASK, seed: int = 0) -> Predictor:
    with seeded(seed):
        return step(host(step) if predictor is None else predictor, task.sealed()).eval()


@each_step
def test_the_predictor_it_is_given_is_untouched(step):
    predictor = host(step)
    state, belief = copy.deepcopy(predictor.state_dict()), predictor(X).logits
    modes = [module.training for module in predictor.modules()]
    required = [p.requires_grad for p in predictor.parameters()]
    after = fitted(step)
    assert after is not predictor
    assert all(torch.equal(tensor, state[key]) for key, tensor in predictor.state_dict().items())
    assert torch.equal(predictor(X).logits, belief)
    assert [module.training for module in predictor.modules()] == modes
    assert [p.requires_grad for p in predictor.parameters()] == required
    assert all(p.grad is None for p in predictor.parameters())


@each_step
def test_it_predicts_finitely_in_the_same_shape(step):
    belief = fitted(step)(X)
    assert belief.probs.shape == host(step)(X).probs.shape
    for numbers in (belief.log_probs, belief.total(), belief.aleatoric(), belief.epistemic(), belief.log_prob(Y)):
        assert numbers.isfinite().all()


@each_step
def test_labels_stay_where_it_promises_so(step):
    """`keeps_labels: ClassVar = True` says that no most likely class changes."""
    if getattr(step, "keeps_labels", False):
        assert torch.equal(fitted(step)(X).label, host(step)(X).label)
        ensemble = Ensemble([host(step), fit("mlp", seed=1)])
        after, _ = attempt(lambda: fitted(step, ensemble))
        assert after is None or torch.equal(after(X).label, ensemble(X).label)


@each_step
def test_it_does_not_look_at_test_rows(step):
    hidden = TASK.sealed()
    with pytest.raises(TestDataLeak):
        hidden.test  # noqa: B018
    other = dataclasses.replace(TASK, test=TASK.test.take(torch.arange(5)), ood={})
    one, same = fitted(step), fitted(step, task=other)
    assert torch.equal(one(X).log_probs, same(X).log_probs)


@each_step
def test_equal_seeds_give_equal_predictors(step):
    one, same = fitted(step, seed=4), fitted(step, seed=4)
    assert type(one) is type(same)
    assert all(torch.equal(tensor, same.state_dict()[key]) for key, tensor in one.state_dict().items())
    assert torch.equal(one(X).log_probs, same(X).log_probs)


@each_step
def test_it_leaves_gradients_alone_and_the_caller_may_be_without(step):
    with torch.no_grad():
        quiet = fitted(step)
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
    assert torch.equal(quiet(X).log_probs, fitted(step)(X).log_probs)


@each_step
def test_it_takes_an_ensemble_or_says_what_to_write(step):
    ensemble = Ensemble([host(step), copy.deepcopy(host(step))])
    after, _ = attempt(lambda: fitted(step, ensemble))
    assert after is None or after(X).log_probs.isfinite().all()


@each_step
def test_inside_an_ensemble_every_member_gets_its_own(step):
    network = next(host(step).networks())
    assert network.origin is not None
    recipe = Recipe(
        backbone=network.origin.backbone,
        surgery=network.origin.surgery,
        sampler=SGD(epochs=1, batch_size=8, lr=0.02),
        posthoc=(step,),
    )
    predictor = DeepEnsemble(member=recipe, size=2).fit(TASK, 0)
    assert isinstance(predictor, Ensemble)
    assert {type(member) for member in predictor.members} == {type(fitted(step))}
    assert predictor(X).log_probs.isfinite().all()


@pytest.mark.partners(6, "step", "second")
@each_step
@pytest.mark.parametrize("second", STEPS, ids=name)
def test_another_step_on_top_works_or_says_why_not(step, second):
    after, _ = attempt(lambda: fitted(second, fitted(step)))
    assert after is None or after(X).log_probs.isfinite().all()


@cache
def operated(style: str, surgeries: tuple[Any, ...]) -> Predictor:
    """Fitted once for all steps, which leave it as it is."""
    return fit(style, *surgeries)


@pytest.mark.partners(6, "step", "surgery")
@each_step
@pytest.mark.parametrize("surgery", [None, *SURGERIES], ids=lambda part: "none" if part is None else name(part))
def test_it_takes_networks_after_any_surgery_or_says_why_not(step, surgery):
    surgeries = () if surgery is None else (surgery,)
    for style in list(STYLES)[:4] if surgery is None else [next(applicable(surgery))]:
        predictor = operated(style, surgeries)
        after, _ = attempt(lambda predictor=predictor: fitted(step, predictor))
        assert after is None or after(X).log_probs.isfinite().all(), style


@each_step
def test_regression_is_understood_or_refused_with_advice(step):
    task = regression()
    network = next(host(step).networks())
    assert network.origin is not None
    surgeries = network.origin.surgery

    def belief():
        predictor = fit("mlp", *surgeries, task=task, epochs=2)
        return fitted(step, predictor, task)(task.test.x)

    found, _ = attempt(belief)
    if found is not None:
        assert found.mean.shape == (24, 1)
        assert found.mean.isfinite().all()
        assert (found.variance > 0).all()


each_target_step = pytest.mark.parametrize("step", TARGET_STEPS, ids=name)


@cache
def target_company(step: Any) -> tuple[Any, ...]:
    """The surgery without which a step for targets refuses every network; none where it needs none."""
    for surgery in ((), *((spec,) for spec in for_targets("surgeries"))):
        predictor = fit("mlp", *surgery, task=regression())
        if attempt(lambda predictor=predictor: fitted(step, predictor, regression()))[0] is not None:
            return surgery
    raise AssertionError(f"{step} refuses everything")


def about_targets(step: Any, seed: int = 0) -> tuple[Predictor, Task]:
    task = regression()
    return fit("mlp", *target_company(step), task=task, epochs=2, seed=seed), task


@each_target_step
def test_labels_are_refused_with_advice_where_targets_are_wanted(step):
    assert attempt(lambda: fitted(step, fit("mlp")))[0] is None


@each_target_step
def test_on_targets_it_keeps_the_same_promises(step):
    predictor, task = about_targets(step)
    x = task.test.x
    state, belief = copy.deepcopy(predictor.state_dict()), predictor(x)
    with torch.no_grad():
        after = fitted(step, predictor, task)
    assert after is not predictor
    assert all(torch.equal(tensor, state[key]) for key, tensor in predictor.state_dict().items())
    assert torch.equal(predictor(x).mean, belief.mean)
    assert all(p.grad is None for p in predictor.parameters())
    same = fitted(step, predictor, dataclasses.replace(task, test=task.test.take(torch.arange(5))))
    said = after(x)
    for one, other in ((said.mean, same(x).mean), (said.variance, same(x).variance)):
        assert torch.equal(one, other)
    assert said.intervals is None or torch.equal(said.intervals, same(x).intervals)
    for numbers in (said.total(), said.aleatoric(), said.epistemic(), said.log_prob(task.test.y)):
        assert numbers.isfinite().all()


@each_target_step
def test_on_targets_it_takes_ensembles_double_precision_and_files(step, tmp_path):
    (first, task), (second, _) = about_targets(step), about_targets(step, 1)
    mixture, _ = attempt(lambda: fitted(step, Ensemble([first, second]), task))
    after = fitted(step, first, task) if mixture is None else mixture  # a step for one network refuses several
    restored = load(save(after, tmp_path / "predictor"))
    assert torch.equal(restored(task.test.x).variance, after(task.test.x).variance)
    double = fitted(step, copy.deepcopy(first).double(), task)
    assert double(task.test.x.double()).variance.dtype == torch.float64


@each_target_step
@pytest.mark.parametrize("second", TARGET_STEPS, ids=name)
def test_another_step_on_top_of_targets_works_or_says_why_not(step, second):
    predictor, task = about_targets(step)
    after, _ = attempt(lambda: fitted(second, fitted(step, predictor, task), task))
    assert after is None or after(task.test.x).variance.isfinite().all()


@each_step
def test_a_network_in_double_precision_stays_one(step):
    predictor = copy.deepcopy(host(step)).double()
    belief = fitted(step, predictor)(X.double())
    assert belief.log_probs.dtype == torch.float64
    assert belief.log_probs.isfinite().all()
