"""Unequal weights against brute force, by classes and by targets, in every number that a mixture says."""

import copy
import math
from functools import cache

import pytest
import torch
from posthoc.small import blobs, line, mlp, trained

import levelhead as lh
from levelhead.backbones.mlp import MLP
from levelhead.metrics.held_out import held_out_nll
from levelhead.posthoc.lac import LAC
from levelhead.posthoc.laplace import Laplace
from levelhead.posthoc.mixture_weights import MixtureWeights
from levelhead.posthoc.temperature import Temperature
from levelhead.predictor import Ensemble, predict
from levelhead.samplers.sgd import SGD
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.text import parse
from levelhead.types import CannotCompose

BLOBS, LINE = blobs(), line()


CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@cache
def points(task, count):
    return [trained(mlp(task, seed=k), task, steps=(5, 40, 80)[k]) for k in range(count)]


def members(task=BLOBS, count=3, **options):
    return [Laplace(**options)(point, task) for point in points(task, count)] if options else points(task, count)


def test_evidence_weighs_members_by_their_marginal_likelihood():
    parts = members(prior_precision=1.0)
    ensemble = Ensemble(parts)
    evidence = torch.tensor([part.evidence for part in parts], dtype=torch.float64)
    fitted = MixtureWeights(by="evidence")(ensemble, BLOBS)
    probs = torch.stack([part(BLOBS.test.x).probs.double() for part in parts])
    weights = (evidence - evidence.max()).exp()
    expected = torch.einsum("m n k, m -> n k", probs, weights / weights.sum())
    torch.testing.assert_close(fitted(BLOBS.test.x).probs.double(), expected)
    even = MixtureWeights(by="evidence", per_row=True)(ensemble, BLOBS)
    torch.testing.assert_close(even.log_weights, (evidence / len(BLOBS.train)).log_softmax(0))
    own = Ensemble(parts, torch.tensor([0.7, 0.2, 0.1]).log())
    both = MixtureWeights(by="evidence")(own, BLOBS).log_weights
    torch.testing.assert_close(both, (evidence + own.log_weights.double()).log_softmax(0))


def test_evidence_is_found_below_other_steps_and_its_absence_is_said():
    parts = members(count=2, prior_precision=1.0)
    tempered = Ensemble([Temperature()(part, BLOBS) for part in parts])
    plain = MixtureWeights(by="evidence")(Ensemble(parts), BLOBS)
    torch.testing.assert_close(MixtureWeights(by="evidence")(tempered, BLOBS).log_weights, plain.log_weights)
    with pytest.raises(CannotCompose, match="Put Laplace"):
        MixtureWeights(by="evidence")(Ensemble(members(count=2)), BLOBS)


def test_the_mixture_says_what_brute_force_says_about_classes():
    parts = members()
    fitted = MixtureWeights()(Ensemble(parts), BLOBS)
    weights = fitted.log_weights.exp()
    assert weights.max() - weights.min() > 0.2
    belief, x, y = fitted(BLOBS.test.x), BLOBS.test.x, BLOBS.test.y
    probs = torch.stack([part(x).probs for part in parts]).double()
    mixed = torch.einsum("m n k, m -> n k", probs, weights)
    entropies = -(probs * probs.log()).sum(-1)
    torch.testing.assert_close(belief.log_prob(y).double(), mixed[torch.arange(len(y)), y].log(), **CLOSE)
    torch.testing.assert_close(belief.total().double(), -(mixed * mixed.log()).sum(-1), **CLOSE)
    torch.testing.assert_close(belief.aleatoric().double(), torch.einsum("m n, m -> n", entropies, weights), **CLOSE)
    torch.testing.assert_close(belief.epistemic(), belief.total() - belief.aleatoric(), atol=1e-6, rtol=1e-4)


def test_the_mixture_says_what_brute_force_says_about_targets():
    parts = members(LINE, prior_precision=1.0)
    fitted = MixtureWeights()(Ensemble(parts), LINE)
    w = fitted.log_weights.exp()[:, None, None]
    assert w.max() - w.min() > 0.1
    belief, y = fitted(LINE.test.x), LINE.test.y
    means = torch.stack([part(LINE.test.x).mean for part in parts]).double()
    variances = torch.stack([part(LINE.test.x).variance for part in parts]).double()
    mean = (w * means).sum(0)
    torch.testing.assert_close(belief.mean.double(), mean, **CLOSE)
    between = (w * (means - mean).square()).sum(0)
    torch.testing.assert_close(belief.variance.double(), (w * variances).sum(0) + between, **CLOSE)
    density = (-0.5 * (y - means).square() / variances).exp() / (2 * math.pi * variances).sqrt()
    torch.testing.assert_close(belief.log_prob(y).double(), (w * density).sum(0).log()[:, 0], **CLOSE)
    far = belief.mean + 40 * belief.stddev
    assert belief.log_prob(far).isfinite().all()


def test_no_weights_lose_less_on_the_calibration_rows():
    parts = members()
    fitted = MixtureWeights()(Ensemble(parts), BLOBS)

    def loss(predictor):
        return float(held_out_nll(predict(predictor, BLOBS.calibration), BLOBS.calibration.y))

    best = loss(fitted)
    grid = torch.cartesian_prod(*[torch.linspace(0.01, 1, 12)] * 3)
    assert best <= min(loss(Ensemble(parts, w.log())) for w in grid[::100]) + 1e-6
    assert best <= loss(Ensemble(parts))


def test_draws_inside_a_member_share_its_weight():
    parts = members(link="mc", num_draws=5, prior_precision=3.0)
    fitted = MixtureWeights()(Ensemble(parts), BLOBS)
    belief = fitted(BLOBS.test.x)
    assert belief.num_members == 15
    per_member = belief.log_weights.exp().reshape(3, 5)
    torch.testing.assert_close(per_member.sum(1).double(), fitted.log_weights.exp())
    torch.testing.assert_close(per_member, per_member[:, :1].expand(3, 5))


def test_members_that_share_a_network_are_weighed_too():
    recipe = lh.Recipe(
        backbone=MLP(hidden=(8,)),
        surgery=(BatchEnsemble(num_members=3),),
        sampler=SGD(epochs=5, lr=0.05, batch_size=20),
    )
    inner = recipe.fit(BLOBS, 0)
    fitted = MixtureWeights()(inner, BLOBS)
    belief, own = fitted(BLOBS.test.x), inner(BLOBS.test.x)
    torch.testing.assert_close(belief.log_weights.double(), fitted.log_weights)
    torch.testing.assert_close(belief.logits, own.logits)
    with pytest.raises(CannotCompose, match="share one network"):
        MixtureWeights(by="evidence")(inner, BLOBS)


def test_weights_are_saved_and_permuted_with_their_members(tmp_path):
    recipe = parse(
        "mlp(hidden=(6,)) + sgd(epochs=3, batch_size=20, lr=0.05) + laplace + deep_ensemble(size=3)"
        " + mixture_weights(by='evidence')"
    )
    fitted = recipe.fit(BLOBS, 0)
    lh.save(fitted, tmp_path / "p")
    restored = lh.load(tmp_path / "p")
    assert torch.equal(restored(BLOBS.test.x).logits, fitted(BLOBS.test.x).logits)
    assert torch.equal(restored(BLOBS.test.x).log_weights, fitted(BLOBS.test.x).log_weights)
    parts = list(fitted.inner.members)
    turned = MixtureWeights(by="evidence")(Ensemble([parts[2], parts[0], parts[1]]), BLOBS)
    torch.testing.assert_close(turned(BLOBS.test.x).probs, fitted(BLOBS.test.x).probs)


def test_a_temperature_on_top_keeps_the_mixture_a_mixture():
    fitted = MixtureWeights()(Ensemble(members()), BLOBS)
    cooled = Temperature()(fitted, BLOBS)(BLOBS.test.x)
    torch.testing.assert_close(cooled.log_weights, fitted(BLOBS.test.x).log_weights)
    torch.testing.assert_close(cooled.total(), cooled.aleatoric() + cooled.epistemic(), atol=1e-5, rtol=1e-4)


def test_what_it_cannot_do_it_says():
    parts = members(count=2)
    with pytest.raises(CannotCompose, match="right behind a combinator"):
        MixtureWeights()(parts[0], BLOBS)
    with pytest.raises(CannotCompose, match="Put the conformal"):
        MixtureWeights()(Ensemble([LAC()(copy.deepcopy(part), BLOBS) for part in parts]), BLOBS)
    with pytest.raises(ValueError, match="by must be one of"):
        MixtureWeights(by="luck")
    with pytest.raises(ValueError, match="per_row divides evidence"):
        MixtureWeights(per_row=True)
