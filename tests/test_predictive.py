"""Mixtures against torch.distributions and the identities of entropy and variance."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, MixtureSameFamily, Normal, kl_divergence
from torch.testing import assert_close

from levelhead.likelihood import Categorical, Gaussian, Signature, soft
from levelhead.predictive import CategoricalMixture, GaussianMixture, concatenate, entropy, mix, normalised

WEIGHTS = torch.tensor([0.2, 0.5, 0.3])


def categorical(shape: tuple[int, ...] = (3, 7, 4)) -> CategoricalMixture:
    return CategoricalMixture(3 * torch.randn(shape), log_weights=WEIGHTS.log())


def gaussian() -> GaussianMixture:
    return GaussianMixture(torch.randn(3, 7, 2), torch.rand(3, 7, 2) + 0.1, log_weights=WEIGHTS.log())


def test_probabilities_are_the_weighted_mean_of_the_members() -> None:
    belief = categorical()
    assert_close(belief.probs, torch.einsum("m,mbk->bk", WEIGHTS, belief.logits.exp()))
    assert_close(belief.probs.sum(-1), torch.ones(7))


def test_log_prob_stays_finite_for_extreme_logits() -> None:
    belief = CategoricalMixture(torch.tensor([[[1e4, -1e4]], [[1e4, -1e4]]]))
    assert_close(belief.log_prob(torch.tensor([1])), torch.tensor([-2e4]))
    assert_close(belief.total(), torch.zeros(1))


def test_total_is_aleatoric_plus_mutual_information() -> None:
    belief = categorical()
    members = TorchCategorical(logits=belief.logits)
    disagreement = kl_divergence(members, TorchCategorical(probs=belief.probs.expand(3, 7, 4)))
    assert_close(belief.epistemic(), (WEIGHTS[:, None] * disagreement).sum(0), atol=1e-6, rtol=1e-5)
    assert_close(belief.total(), TorchCategorical(probs=belief.probs).entropy())


@given(st.integers(1, 5), st.integers(2, 6), st.integers(0, 1000))
def test_uncertainties_keep_their_bounds(members: int, classes: int, seed: int) -> None:
    belief = CategoricalMixture(5 * torch.randn(members, 3, classes, generator=torch.Generator().manual_seed(seed)))
    assert (belief.total() <= math.log(classes) + 1e-5).all()
    assert (belief.aleatoric() <= belief.total() + 1e-5).all()
    assert (belief.epistemic() >= 0).all()
    assert (belief.confidence >= 1 / classes - 1e-6).all()


def test_equal_members_disagree_about_nothing() -> None:
    logits = torch.randn(1, 6, 4)
    belief = CategoricalMixture(logits.expand(5, 6, 4))
    assert_close(belief.epistemic(), torch.zeros(6), atol=1e-6, rtol=0)
    assert_close(belief.probs, logits[0].softmax(-1))


def test_the_mixture_loses_no_more_than_its_members() -> None:
    belief, y = CategoricalMixture(2 * torch.randn(4, 50, 5)), torch.randint(5, (50,))
    assert (-belief.log_prob(y) <= -belief.member_log_prob(y).mean(0) + 1e-6).all()


def test_segmentation_shapes() -> None:
    belief = CategoricalMixture(torch.randn(2, 3, 4, 5, 6))
    y = torch.randint(6, (3, 4, 5))
    assert belief.log_prob(y).shape == belief.total().shape == belief.label.shape == (3, 4, 5)


def test_gaussian_mixture_agrees_with_torch() -> None:
    belief, y = gaussian(), torch.randn(7, 2)
    parts = Independent(Normal(belief.means.movedim(0, 1), belief.variances.sqrt().movedim(0, 1)), 1)
    expected = MixtureSameFamily(TorchCategorical(probs=WEIGHTS.expand(7, 3)), parts)
    assert_close(belief.log_prob(y), expected.log_prob(y))
    assert_close(belief.mean, expected.mean)
    assert_close(belief.variance, expected.variance)
    assert_close(belief.total(), belief.aleatoric() + belief.epistemic())


def with_model_part() -> GaussianMixture:
    plain = gaussian()
    return GaussianMixture(plain.means, plain.variances, plain.log_weights, model_variances=0.25 * plain.variances)


def test_the_models_part_of_a_variance_is_epistemic() -> None:
    belief, plain = with_model_part(), gaussian()
    expected = torch.einsum("m,mbt->b", WEIGHTS, 0.75 * belief.variances)
    assert_close(belief.aleatoric(), expected)
    assert_close(belief.total(), belief.aleatoric() + belief.epistemic())
    one = GaussianMixture(plain.means[:1], plain.variances[:1], model_variances=plain.variances[:1])
    assert_close(one.epistemic(), plain.variances[0].sum(-1))
    assert_close(one.aleatoric(), torch.zeros(7))


def test_a_mixture_keeps_the_models_parts_of_those_who_say_one() -> None:
    some, none = with_model_part(), gaussian()
    for parts in ([some, none], [none, some]):
        mixed = mix(parts)
        assert_close(mixed.aleatoric(), (some.aleatoric() + none.aleatoric()) / 2)
    assert mix([none, none]).model_variances is None


def test_wrong_target_shape_names_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(6,\).*\(7,\)"):
        categorical().log_prob(torch.zeros(6, dtype=torch.long))


def test_mix_of_mixtures_is_the_mixture_of_all_members() -> None:
    first, second = categorical(), CategoricalMixture(torch.randn(2, 7, 4))
    mixed = mix([first, second])
    assert mixed.num_members == 5
    assert_close(mixed.probs, (first.probs + second.probs) / 2)
    weighted = mix([first, second], torch.tensor([0.9, 0.1]).log())
    assert_close(weighted.probs, 0.9 * first.probs + 0.1 * second.probs)


def test_mix_averages_densities_only_when_all_have_one() -> None:
    low, high = (categorical().with_log_density(torch.full((7,), value)) for value in (-1.0, -3.0))
    mixed = mix([low, high])
    assert_close(mixed.log_density, torch.full((7,), math.log((math.exp(-1) + math.exp(-3)) / 2)))
    assert mix([low, categorical()]).log_density is None
    with pytest.raises(ValueError, match="one kind"):
        mix([low, gaussian()])


def test_slices_concatenate_to_the_whole() -> None:
    for belief in (categorical(), gaussian(), with_model_part(), categorical().with_log_density(torch.randn(7))):
        again = concatenate([belief[:3], belief[3:]])
        for name, tensor in belief.tensors().items():
            assert (tensor is None) == (again.tensors()[name] is None)
            if tensor is not None:
                assert_close(again.tensors()[name], tensor, atol=1e-6, rtol=1e-6)


def test_entropy_of_impossible_classes_is_a_number() -> None:
    assert_close(entropy(torch.tensor([0.0, -math.inf])), torch.tensor(0.0))


def test_categorical_loss_is_the_mean_cross_entropy_of_rows() -> None:
    outputs, y = torch.randn(3, 5, 4), torch.randint(4, (5,))
    expected = torch.stack([torch.nn.functional.cross_entropy(row, y) for row in outputs]).mean()
    assert_close(Categorical(4).loss(outputs, y), expected)
    assert_close(Categorical(4).loss(outputs, soft(y, 4)), expected)


def test_members_may_have_labels_of_their_own() -> None:
    outputs, y = torch.randn(6, 5, 4), torch.randint(4, (3, 5))  # 3 members x 2 samples
    expected = TorchCategorical(logits=outputs).log_prob(y.repeat_interleave(2, 0)).neg().mean()
    assert_close(Categorical(4).loss(outputs, y), expected)


def test_void_sites_do_not_count() -> None:
    outputs, y = torch.randn(2, 3, 4, 4, 5), torch.randint(5, (3, 4, 4))
    y[:, :2] = 255
    likelihood = Categorical(5, void=255)
    assert_close(likelihood.loss(outputs, y), Categorical(5).loss(outputs[:, :, 2:], y[:, 2:]))


def test_gaussian_loss_in_standardised_units_and_density_in_raw_ones() -> None:
    likelihood = Gaussian(1, shift=(10.0,), scale=(4.0,))
    outputs, y = torch.randn(1, 6, 2), 10 + 4 * torch.randn(6, 1)
    belief = likelihood.predictive(outputs)
    # nll in raw units = nll in standardised units + log scale (change of variables)
    assert_close(-belief.log_prob(y).mean(), likelihood.loss(outputs, y) + math.log(4))
    assert_close(belief.mean, 10 + 4 * outputs[0, :, :1])


def test_gaussian_gradients_have_their_closed_forms() -> None:
    outputs = torch.randn(1, 5, 2, dtype=torch.float64, requires_grad=True)
    y = torch.randn(5, 1, dtype=torch.float64)
    likelihood = Gaussian()
    (slope,) = torch.autograd.grad(likelihood.member_loss(outputs, y).sum(), outputs)
    mean, variance = (t.detach() for t in likelihood.moments(outputs))
    by_variance = 1 / (2 * variance) - (y - mean) ** 2 / (2 * variance**2)
    assert_close(slope[..., :1], (mean - y) / variance)
    assert_close(slope[..., 1:], by_variance * outputs.detach()[..., 1:].sigmoid())


@pytest.mark.parametrize("likelihood", [Categorical(4), Gaussian(2, (0.0, 0.0), (1.0, 1.0))], ids=repr)
def test_divergence_is_torchs_kl(likelihood: Categorical | Gaussian) -> None:
    p, q = torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    if isinstance(likelihood, Categorical):
        expected = kl_divergence(TorchCategorical(logits=p), TorchCategorical(logits=q))
    else:
        first, second = (Normal(m, v.sqrt()) for m, v in (likelihood.moments(p), likelihood.moments(q)))
        expected = kl_divergence(first, second).sum(-1)
    assert_close(likelihood.example_divergence(p, q), expected, atol=1e-5, rtol=1e-4)
    assert_close(likelihood.divergence(p, q), expected.mean(), atol=1e-5, rtol=1e-4)
    assert_close(likelihood.divergence(p, p), torch.tensor(0.0))


def test_weights_must_be_one_a_member() -> None:
    with pytest.raises(ValueError, match="one weight for each of 3 members"):
        normalised(torch.zeros(2), torch.randn(3, 2, 2))


def test_bad_specs_say_what_they_want() -> None:
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
        Categorical(1)
    with pytest.raises(ValueError, match="scale wants 2 numbers"):
        Gaussian(2, (0.0, 0.0), (1.0,))
    with pytest.raises(ValueError, match="std must be positive"):
        Signature(std=(0.0,))
