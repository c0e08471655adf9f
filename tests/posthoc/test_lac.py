"""LAC: its threshold, its law of coverage, within classes and under covariate shift."""

import dataclasses

import pytest
import torch
from posthoc.covered import CALIBRATION, classes, covered, follows_the_beta
from posthoc.small import Table, line, mlp, tabled

from levelhead.backbones.mlp import MLP
from levelhead.posthoc.aps import APS
from levelhead.posthoc.lac import LAC
from levelhead.posthoc.temperature import Temperature
from levelhead.predictor import Ensemble, Point, predict
from levelhead.recipe import Recipe
from levelhead.samplers.sgd import SGD
from levelhead.storage import load, save
from levelhead.tasks.split import Split, unlabelled
from levelhead.tasks.stripes import stripes
from levelhead.tasks.task import Task
from levelhead.types import CannotCompose


def table_and_task(n=CALIBRATION, k=6):
    table, y = classes(0, k)
    return table, tabled(y, (n, 200), num_classes=k)


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_coverage_has_its_law(alpha):
    follows_the_beta(covered(LAC(alpha), classes), alpha)


def test_sets_are_the_labels_above_one_minus_the_threshold():
    table, task = table_and_task()
    fitted = LAC()(table, task)
    held = predict(table, task.calibration)
    q = (1 - held.probs.gather(-1, task.calibration.y[:, None])[:, 0]).sort().values[89]  # rank 90 of 99
    belief = predict(fitted, task.test)
    assert torch.equal(belief.sets, belief.probs >= 1 - q - 1e-12)
    torch.testing.assert_close(belief.log_probs, predict(table, task.test).log_probs)
    torch.testing.assert_close(fitted.thresholds(task.test.x, 6), q.expand(1, 6))


def test_sets_are_nested_in_alpha_and_few_rows_give_everything():
    table, task = table_and_task()
    sets = [predict(LAC(alpha)(table, task), task.test).sets for alpha in (0.3, 0.1, 0.02)]
    assert (sets[0] <= sets[1]).all()
    assert (sets[1] <= sets[2]).all()
    assert predict(LAC(0.009)(table, task), task.test).sets.all()


def test_each_class_has_its_own_threshold_and_coverage():
    step = LAC(per_class=True)
    hits, counts = torch.zeros(4), torch.zeros(4)
    for seed in range(60):
        table, y = classes(seed, 4, rows=600)
        task = tabled(y, (300, 300), num_classes=4)
        sets = predict(step(table, task), task.test).sets
        inside = sets.gather(-1, task.test.y[:, None])[:, 0]
        counts += task.test.y.bincount(minlength=4)
        hits += task.test.y[inside].bincount(minlength=4)
    assert ((hits / counts) > 0.885).all()
    assert ((hits / counts) < 0.93).all()
    rare = torch.cat([torch.zeros(99, dtype=torch.long), torch.ones(6, dtype=torch.long)])
    belief = predict(LAC(per_class=True)(Table(torch.randn(1, 105, 2)), tabled(rare, (102, 3), num_classes=2)),
                     tabled(rare, (102, 3), num_classes=2).test)  # fmt: skip
    assert belief.sets[:, 1].all()  # 3 rows of class 1: too few for a threshold


def shifted(seed: int) -> Task:
    """Features whose mean moves; labels depend on them as before."""
    generator = torch.Generator().manual_seed(seed)

    def draw(name: str, n: int, shift: float) -> Split:
        x = torch.randn(n, 1, generator=generator) + shift
        y = (torch.rand(n, 1, generator=generator) < (2 * x).sigmoid())[:, 0].long()
        return Split(name, x, torch.where(torch.rand(n, generator=generator) < 0.4 * (x[:, 0] > 1), 1 - y, y))

    splits = [draw(n, size, 0.0) for n, size in (("train", 5), ("val", 5), ("calibration", 400))]
    test = draw("test", 400, 1.2)
    task = tabled(torch.tensor([0, 1, 0]), (2, 1), num_classes=2)
    new = unlabelled("new", torch.randn(400, 1, generator=generator) + 1.2)
    return Task("shifted", *splits, test, likelihood=task.likelihood, unlabelled=new)


class Sigmoid(Table):
    """P(y = 1) = sigmoid(2 x), which is wrong where labels are noisy."""

    def forward(self, x):
        return Table(torch.cat([-x, x], -1)[None].double())(torch.arange(len(x))[:, None])


def test_weights_bring_coverage_back_under_covariate_shift():
    found = {}
    for name, step in (("plain", LAC()), ("weighted", LAC(covariate_shift=True, ratio_penalty=1e-4))):
        shares = []
        for seed in range(25):
            task = shifted(seed)
            sets = predict(step(Sigmoid(), task), task.test).sets
            shares.append(float(sets.gather(-1, task.test.y[:, None]).double().mean()))
        found[name] = sum(shares) / len(shares)
    assert found["plain"] < 0.85
    assert found["weighted"] > 0.885


def test_it_is_saved_and_says_what_it_was_calibrated_on(tmp_path):
    task = stripes(n=24, size=8)
    recipe = Recipe(backbone=MLP(hidden=(8,)), sampler=SGD(epochs=1, batch_size=8))
    point, new = recipe.fit(task, rehearsed=True), unlabelled("new", task.val.x)
    fitted = APS(covariate_shift=True, ratio_penalty=1.0)(point, dataclasses.replace(task, unlabelled=new))
    restored = load(save(fitted, tmp_path / "predictor"))
    assert torch.equal(restored(task.test.x / 255).sets, fitted(task.test.x / 255).sets)
    assert restored.calibrated_on == task.calibration.digest


def test_refusals_say_what_to_write():
    table, task = table_and_task()
    with pytest.raises(CannotCompose, match="shared_calibration"):
        LAC()(Temperature()(table, task), task)
    with pytest.raises(CannotCompose, match="last"):
        LAC()(LAC()(table, task), task)
    with pytest.raises(CannotCompose, match="unlabelled="):
        LAC(covariate_shift=True)(table, task)
    real = line()
    with pytest.raises(CannotCompose, match="CQR"):
        LAC()(Point(mlp(real)), real)
    pixels = Split("calibration", task.calibration.x, task.calibration.y[:, None].expand(-1, 3))
    with pytest.raises(CannotCompose, match="pixels"):
        LAC()(table, dataclasses.replace(task, calibration=pixels))


def test_void_rows_do_not_count_and_mixing_drops_sets():
    table, y = classes(0)
    y = y.clone()
    y[:40] = 255
    task = tabled(y, (CALIBRATION, 200), num_classes=6, void=255)
    fitted = LAC()(table, task)
    assert len(fitted.scores) == CALIBRATION - 40
    assert Ensemble([fitted, fitted])(task.test.x).sets is None
