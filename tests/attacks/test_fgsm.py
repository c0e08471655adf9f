import pytest
import torch
from linear import Linear, images
from torch.testing import assert_close

from levelhead.attacks.fgsm import FGSM
from levelhead.predictor import Ensemble
from levelhead.types import CannotCompose

GENERATOR = torch.Generator()


def test_a_linear_margin_falls_by_eps_times_the_weights_l1_norm():
    predictor, (x, y) = Linear(), images()
    moved = FGSM(eps=0.1)(predictor, x, y, GENERATOR)
    fall = predictor.signed_margin(x, y) - predictor.signed_margin(moved, y)
    assert_close(fall, torch.full_like(fall, 0.1 * float(predictor.weight.detach().abs().sum())), rtol=1e-4, atol=1e-5)


def test_an_ensemble_is_attacked_as_the_mixture_that_it_is():
    first, second = Linear(seed=0), Linear(seed=1)
    x, y = images()
    moved = FGSM(eps=0.05)(Ensemble([first, second]), x, y, GENERATOR)
    point = x.clone().requires_grad_(True)
    probs = torch.stack([member(point).probs for member in (first, second)]).mean(0)
    loss = -probs[torch.arange(len(y)), y].log().sum()
    assert_close(moved, x + 0.05 * torch.autograd.grad(loss, point)[0].sign())
    assert not torch.equal(moved, FGSM(eps=0.05)(first, x, y, GENERATOR))


@pytest.mark.parametrize("eps", [0.0, 0.03, 2.0])
def test_the_result_is_in_the_box_and_in_bounds(eps):
    x, y = images(low=0.0, high=1.0)
    moved = FGSM(eps=eps)(Linear(), x, y, GENERATOR)
    assert float((moved - x).abs().max()) <= eps + 1e-6
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1
    assert torch.equal(moved, x) == (eps == 0)


def test_a_batch_is_attacked_row_by_row():
    predictor, (x, y) = Linear(), images()
    whole = FGSM()(predictor, x, y, GENERATOR)
    assert torch.equal(whole[3:5], FGSM()(predictor, x[3:5], y[3:5], GENERATOR))


def test_the_margin_has_a_gradient_where_the_likelihood_is_flat():
    predictor, (x, y) = Linear(scale=1e4), images()
    y = predictor(x).label  # certain and right: -log p is zero to the last bit
    assert torch.equal(FGSM()(predictor, x, y, GENERATOR), x)
    assert not torch.equal(FGSM(loss="margin")(predictor, x, y, GENERATOR), x)


def test_nothing_of_the_predictor_changes():
    predictor, (x, y) = Linear(), images()
    predictor.train()
    stream = torch.get_rng_state()
    with torch.no_grad():
        moved = FGSM()(predictor, x, y, GENERATOR)
    assert predictor.training
    assert predictor.weight.grad is None
    assert predictor.weight.requires_grad
    assert not moved.requires_grad
    assert torch.equal(torch.get_rng_state(), stream)


def test_draws_are_averaged():
    predictor, (x, y) = Linear(jitter=3.0), images()
    many = FGSM(draws=400)(predictor, x, y, GENERATOR)

    def agreement(draws):
        found = [FGSM(draws=draws)(predictor, x, y, torch.Generator().manual_seed(seed)) for seed in range(10)]
        return float(torch.stack([moved == many for moved in found]).double().mean())

    assert agreement(100) > agreement(1) + 0.1


def test_real_targets_are_refused():
    from echo import EchoGaussian

    with pytest.raises(CannotCompose, match="one label a row"):
        FGSM(loss="margin")(EchoGaussian(), torch.randn(4, 2), torch.randn(4, 1), GENERATOR)


@pytest.mark.parametrize("fields", [{"eps": -1.0}, {"bounds": (1.0, 0.0)}, {"draws": 0}])
def test_settings_that_mean_nothing_are_errors(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        FGSM(**fields)
