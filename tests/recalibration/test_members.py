"""Maps through mixtures: the pooled law is mapped exactly, members share it, uncertainty adds up."""

import pytest
import torch

from levelhead.predictive import CategoricalMixture
from levelhead.recalibration.members import through

WEIGHTS = torch.tensor([0.5, 0.3, 0.2]).double().log()


def mixture(members=3, rows=40):
    generator = torch.Generator().manual_seed(0)
    return CategoricalMixture(3 * torch.randn(members, rows, 5, dtype=torch.float64, generator=generator))


def affine(log_probs):
    weight = torch.eye(5).double() + 0.3 * torch.arange(25).reshape(5, 5) / 25
    return (log_probs @ weight.mT + torch.linspace(-1, 1, 5).double()).log_softmax(-1)


def power(log_probs):
    return (2 * log_probs).log_softmax(-1)


@pytest.mark.parametrize("mapping", [affine, power])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_members_mix_to_the_mapped_mixture(mapping, weights):
    belief = mixture() if weights is None else mixture().with_weights(weights)
    out = through(belief, mapping)
    torch.testing.assert_close(out.log_probs, mapping(belief.log_probs), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(out.log_weights, belief.log_weights)
    torch.testing.assert_close(out.logits.exp().sum(-1), torch.ones(3, 40, dtype=torch.float64))
    torch.testing.assert_close(out.total() - out.aleatoric(), out.epistemic(), rtol=0, atol=1e-9)
    assert (out.epistemic() > 0).all()


def test_one_member_is_simply_mapped_and_equal_members_stay_equal():
    belief = mixture(1)
    torch.testing.assert_close(through(belief, affine).logits[0], affine(belief.log_probs))
    same = CategoricalMixture(belief.logits.expand(3, -1, -1))
    out = through(same, affine)
    assert out.epistemic().max() < 1e-9
    torch.testing.assert_close(out.logits[1], affine(belief.log_probs))


def test_the_identity_changes_nothing():
    belief = mixture()
    torch.testing.assert_close(through(belief, lambda log_probs: log_probs).logits, belief.logits)


def test_what_hangs_on_the_old_belief_is_dropped_and_the_density_stays():
    density = torch.randn(40).double()
    out = through(mixture().with_log_density(density).with_sets(torch.ones(40, 5, dtype=torch.bool)), power)
    assert out.sets is None
    assert torch.equal(out.log_density, density)
