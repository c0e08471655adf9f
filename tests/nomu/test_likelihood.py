"""Raw uncertainty behind a network's outputs: out of the loss, into the predictive."""

import torch
from torch.testing import assert_close

from levelhead.likelihood import Gaussian
from levelhead.noiseless import Noiseless
from levelhead.nomu.likelihood import WithModelUncertainty, model_std, with_model_std
from levelhead.nomu.readout import Readout
from levelhead.predictive import GaussianMixture

READOUT = Readout(0.01, 2.0)


def test_the_loss_does_not_see_it():
    likelihood = WithModelUncertainty(Gaussian(1, (2.0,), (3.0,)), READOUT)
    outputs, y = torch.randn(2, 5, 3, requires_grad=True), torch.randn(5, 1)
    loss = likelihood.loss(outputs, y)
    assert_close(loss, likelihood.inner.loss(outputs[..., :2], y))
    assert_close(likelihood.divergence(outputs, 2 * outputs), likelihood.inner.divergence(*_own(outputs)))
    (gradient,) = torch.autograd.grad(loss, outputs)
    assert not gradient[..., 2].any()


def _own(outputs):
    return outputs[..., :2], 2 * outputs[..., :2]


def test_without_noise_all_of_the_variance_is_the_models():
    likelihood = WithModelUncertainty(Noiseless(1, (5.0,), (3.0,)), READOUT)
    outputs = torch.randn(1, 7, 2)
    belief = likelihood.predictive(outputs)
    assert_close(belief.mean, 5 + 3 * outputs[0, :, :1])
    sigma = 3 * READOUT(outputs[0, :, 1:])  # a factor, no shift
    assert_close(belief.stddev, sigma)
    assert_close(model_std(belief), sigma)
    assert_close(belief.epistemic(), sigma[:, 0].square())
    assert_close(belief.aleatoric(), torch.zeros(7))


def test_with_noise_it_comes_on_top():
    likelihood = WithModelUncertainty(Gaussian(1, (5.0,), (3.0,)), READOUT)
    outputs = torch.randn(1, 7, 3)
    belief, inner = likelihood.predictive(outputs), likelihood.inner.predictive(outputs[..., :2])
    assert_close(belief.aleatoric(), inner.total())
    assert_close(belief.epistemic(), (3 * READOUT(outputs[0, :, 2])).square())


def test_the_models_part_is_replaced_and_not_added():
    belief = GaussianMixture(torch.randn(2, 4, 1), torch.ones(2, 4, 1), model_variances=torch.full((2, 4, 1), 0.25))
    again = with_model_std(belief, torch.full((2, 4, 1), 2.0))
    assert_close(again.variances, torch.full((2, 4, 1), 4.75))
    assert_close(again.aleatoric(), belief.aleatoric())
    spread = belief.means.var(0, correction=0)
    assert_close(model_std(again), (spread + 4).sqrt())
