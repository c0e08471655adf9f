"""Temperature against grids and closed forms; what it must leave as it was."""

import pytest
import torch
from posthoc.small import blobs, line, mlp, state, trained
from torch import nn

import levelhead as lh
from levelhead.likelihood import Categorical
from levelhead.metrics.held_out import held_out_nll
from levelhead.network import Network
from levelhead.posthoc.temperature import Temperature, Tempered, stretched, tempered
from levelhead.predictive import CategoricalMixture, GaussianMixture
from levelhead.predictor import Ensemble, Point, Predictor, predict
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task


def classifier(task: Task, *, factor: float = 4.0, seed: int = 0) -> Point:
    """Trained, then made over-confident (or not) by a factor on its logits."""
    point = trained(mlp(task, seed=seed), task)
    point.network.head.weight.data *= factor
    point.network.head.bias.data *= factor
    return point


def ensemble(task: Task, *, factor: float = 4.0) -> Predictor:
    return Ensemble([classifier(task, factor=factor, seed=seed) for seed in range(4)])


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("make", [classifier, ensemble])
def test_the_loss_is_the_smallest_of_a_grid(factor, make):
    task = blobs()
    predictor = make(task, factor=factor)
    fitted = Temperature()(predictor, task)
    pooled = predict(predictor, task.calibration).log_probs.double()

    def loss(t: float) -> float:
        return float(nn.functional.nll_loss((pooled / t).log_softmax(-1), task.calibration.y))

    grid = [loss(t) for t in torch.logspace(-1.3, 1.3, 2000).tolist()]
    assert loss(fitted.temperature) <= min(grid) + 1e-9
    assert float(held_out_nll(predict(fitted, task.calibration), task.calibration.y)) == pytest.approx(
        loss(fitted.temperature), abs=1e-6
    )


def test_logits_that_broke_newtons_step_are_fitted():
    """Huge and tiny logits, wrong confident rows, classes of probability zero."""
    torch.manual_seed(1)
    logits = torch.cat([200 * torch.randn(40, 5), 1e-4 * torch.randn(40, 5)])
    logits[::7, 0] = -torch.inf
    y = torch.arange(80) % 5
    task = Task("odd", *[Split(n, torch.randn(80, 2), y) for n in ("train", "val", "calibration", "test")],
                likelihood=Categorical(5))  # fmt: skip
    temperature = Temperature().fitted(CategoricalMixture(logits[None]), task)
    assert 0.05 <= temperature <= 20.0 * (1 + 1e-9)
    out = tempered(CategoricalMixture(torch.stack([logits, logits.flip(0)])), temperature)
    assert torch.isfinite(out.total()).all()


@pytest.mark.parametrize("temperature", [0.3, 0.8, 1.0, 1.7, 10.0])
def test_members_mix_to_the_power_of_the_mixture(temperature):
    weights = torch.tensor([0.5, 0.3, 0.2]).double().log()
    belief = CategoricalMixture(3 * torch.randn(3, 50, 6, dtype=torch.float64), weights)
    out = tempered(belief, temperature)
    torch.testing.assert_close(out.log_probs, (belief.log_probs / temperature).log_softmax(-1), rtol=1e-9, atol=1e-9)
    assert torch.equal(out.label, belief.label)
    torch.testing.assert_close(out.log_weights, belief.log_weights)
    assert (out.aleatoric() <= out.total() + 1e-9).all()
    assert (out.epistemic() > 0).all()
    torch.testing.assert_close(out.logits.exp().sum(-1), torch.ones(3, 50, dtype=torch.float64))


def test_at_temperature_one_nothing_changes():
    belief = CategoricalMixture(3 * torch.randn(3, 20, 6, dtype=torch.float64))
    torch.testing.assert_close(tempered(belief, 1.0).logits, belief.logits, rtol=1e-9, atol=1e-9)


def test_one_member_is_simply_divided():
    belief = CategoricalMixture(torch.randn(1, 20, 6))
    torch.testing.assert_close(tempered(belief, 2.5).logits, (belief.logits / 2.5).log_softmax(-1))


def test_members_that_agree_still_agree():
    belief = CategoricalMixture(torch.randn(1, 20, 6, dtype=torch.float64).expand(3, 20, 6))
    assert tempered(belief, 2.0).epistemic().max() < 1e-9


def test_accuracy_stays_and_the_argument_is_untouched():
    task = blobs()
    predictor = ensemble(task)
    before = state(predictor)
    fitted = Temperature()(predictor, task.sealed())
    assert torch.equal(predict(fitted, task.test).label, predict(predictor, task.test).label)
    assert all(torch.equal(value, before[name]) for name, value in predictor.state_dict().items())
    assert fitted.temperature > 1


def test_calibration_improves_on_rows_it_did_not_see():
    task = blobs((200, 12, 300, 600))
    predictor = classifier(task, factor=6.0)
    fitted = Temperature()(predictor, task)
    before, after = (held_out_nll(predict(p, task.test), task.test.y) for p in (predictor, fitted))
    assert after < before


def test_a_temperature_at_its_bound_is_warned_of():
    torch.manual_seed(0)
    x = torch.randn(200, 2)
    y = (x[:, 0] > 0).long()
    splits = [Split(n, x[i::4], y[i::4]) for i, n in enumerate(("train", "val", "calibration", "test"))]
    task = Task("separable", *splits, likelihood=Categorical(2))
    network = Network(nn.Identity(), nn.Linear(2, 2), task.signature)
    network.head.weight.data = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    network.head.bias.data.zero_()
    with pytest.warns(UserWarning, match="bound 0.05"):
        Temperature()(Point(network), task)


def test_void_sites_and_soft_labels():
    task = blobs()
    y = task.calibration.y
    belief = CategoricalMixture(3 * torch.randn(1, len(y), 3))

    def fitted(y: torch.Tensor, void: int | None = None) -> float:
        split = Split("calibration", task.calibration.x, y)
        likelihood = Categorical(3, void=void)
        changed = Task("t", task.train, task.val, split, task.test, likelihood=likelihood, known_overlaps=True)
        return Temperature().fitted(belief, changed)

    assert fitted(nn.functional.one_hot(y, 3).float()) == pytest.approx(fitted(y), rel=1e-5)
    masked = y.clone()
    masked[10:] = 255
    kept = Task("k", task.train, task.val, task.calibration.take(10), task.test, likelihood=Categorical(3))
    assert fitted(masked, 255) == pytest.approx(Temperature().fitted(belief[slice(10)], kept), rel=1e-5)


def test_regression_multiplies_the_variance_by_the_mean_squared_score():
    task = line()
    point = trained(mlp(task), task)
    fitted = Temperature()(point, task)
    belief = predict(point, task.calibration)
    score = ((task.calibration.y - belief.mean) / belief.stddev).double().square().mean()
    assert fitted.temperature == pytest.approx(float(score), rel=1e-5)
    x = task.test.x
    torch.testing.assert_close(fitted(x).mean, point(x).mean)
    torch.testing.assert_close(fitted(x).variance, fitted.temperature * point(x).variance)


def test_a_gaussian_mixture_is_stretched_about_its_mean():
    belief = GaussianMixture(torch.randn(3, 10, 2), torch.rand(3, 10, 2) + 0.1)
    out = stretched(belief, 2.0)
    torch.testing.assert_close(out.mean, belief.mean)
    torch.testing.assert_close(out.total(), 2 * belief.total())
    torch.testing.assert_close(out.epistemic(), 2 * belief.epistemic(), atol=1e-5, rtol=1e-5)
    y = torch.randn(10, 2)
    moved = belief.mean + (y - belief.mean) / 2**0.5  # density of mean + sqrt(2) (Y - mean), two targets
    torch.testing.assert_close(out.log_prob(y), belief.log_prob(moved) - torch.tensor(2.0).log())


def test_regression_mixtures_are_the_best_of_a_grid():
    task = line()
    predictor = Ensemble([trained(mlp(task, seed=seed), task, steps=60) for seed in range(3)])
    fitted = Temperature()(predictor, task)
    belief = predict(predictor, task.calibration)

    def loss(t: float) -> float:
        return float(held_out_nll(stretched(belief, t), task.calibration.y))

    assert loss(fitted.temperature) <= min(loss(t) for t in torch.logspace(-2, 2, 400).tolist()) + 1e-6


def test_it_is_differentiable_in_x():
    task = blobs()
    fitted = Temperature()(ensemble(task), task).double()
    x = task.test.x[:3].double().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: fitted(x).log_probs, x)
    (gradient,) = torch.autograd.grad(fitted(x).epistemic().sum(), x)
    assert torch.isfinite(gradient).all()


def test_densities_are_kept_and_noise_is_passed_on():
    belief = CategoricalMixture(torch.randn(2, 5, 3), log_density=torch.randn(5))
    assert tempered(belief, 2.0).log_density is belief.log_density
    point = Point(mlp(blobs()), noise=3)
    assert Tempered(point, 2.0).with_noise(None) is not None
    assert point.noise is None


def test_saved_and_loaded_it_predicts_the_same_bits(tmp_path):
    from levelhead.backbones.mlp import MLP
    from levelhead.samplers.sgd import SGD

    task = blobs()
    recipe = lh.Recipe(backbone=MLP(hidden=(5,)), sampler=SGD(epochs=1))
    fitted = lh.DeepEnsemble(member=recipe, size=2, posthoc=(Temperature(),)).fit(task)
    lh.save(fitted, tmp_path / "tempered")
    again = lh.load(tmp_path / "tempered")
    assert again.temperature == fitted.temperature
    assert torch.equal(again(task.test.x).logits, fitted(task.test.x).logits)


def test_settings_without_sense_are_refused():
    with pytest.raises(ValueError, match="lowest"):
        Temperature(lowest=3.0, highest=2.0)
