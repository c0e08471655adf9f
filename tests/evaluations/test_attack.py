import dataclasses

import pytest
import torch
from echo import Echo, logits_task
from einops import rearrange

from levelhead.attacks.deep_fool import DeepFool
from levelhead.attacks.fgsm import FGSM
from levelhead.attacks.pgd import PGD
from levelhead.evaluation import records, rescore
from levelhead.evaluations.attack import Attack
from levelhead.predictive import CategoricalMixture
from levelhead.tasks.stripes import stripes
from levelhead.types import CannotCompose

EPS = 8 / 255


class Bright(Echo):
    """Two classes by the mean of the pixels: logit difference 20 (mean - 1/2)."""

    def forward(self, x):
        self.calls.append((len(x), self.noise))
        z = 20 * (x.mean((1, 2, 3)) - 0.5) + self.bias
        return CategoricalMixture(rearrange(torch.stack([-z / 2, z / 2]), "k b -> 1 b k"))


def task():
    return stripes(num_classes=2, n=160)


def test_the_attacked_accuracy_of_a_linear_predictor_is_known():
    found = {(r.data, r.metric): r.value for r in records(Bright(), task(), (Attack(),))}
    test = task().test
    signed = (test.x / 255).mean((1, 2, 3)).double() - 0.5
    signed = torch.where(test.y == 1, signed, -signed)
    # pixels at 0 or 255 cannot move outwards, so the whole eps is a bound and not the answer
    clean, bound = (signed > 0).double().mean(), (signed > EPS).double().mean()
    assert found["clean", "accuracy"] == pytest.approx(float(clean))
    assert float(bound) <= found["fgsm", "accuracy"] <= float(clean) - 0.1
    assert found["worst", "accuracy"] == min(found[name, "accuracy"] for name in ("clean", "fgsm", "pgd"))


def test_attacks_draw_afresh_and_scores_do_not():
    predictor = Bright(noise=7)
    records(predictor, task(), (Attack(attacks=(FGSM(),), radii=(), check=None),), noise=3)
    assert [noise for _, noise in predictor.calls] == [3, None, 3]
    assert predictor.noise == 7


def test_along_the_radii_accuracy_falls_and_attacked_images_become_easier_to_tell():
    spec = Attack(attacks=(PGD(steps=3),), radii=(0.001, 0.01, 0.1), check=None)
    found = {(r.data, r.severity, r.metric): r.value for r in records(Bright(), task(), (spec,))}
    curve = {
        metric: [found["pgd_by_radius", place, metric] for place in (1, 2, 3, 4)] for metric in ("eps", "accuracy")
    }
    assert curve["eps"] == pytest.approx([0.001, 0.01, EPS, 0.1], rel=1e-5)
    assert curve["accuracy"] == sorted(curve["accuracy"], reverse=True)
    assert curve["accuracy"][0] > curve["accuracy"][-1]
    assert curve["accuracy"][2] == found["pgd", None, "accuracy"]  # its own radius is a point of the curve
    assert {"nll", "ece", "total", "epistemic", "auroc_total"} <= {metric for _, _, metric in found}
    assert found["worst", None, "accuracy"] == found["pgd", None, "accuracy"]  # the other radii are no part of it


def test_the_checks_are_records():
    found = {
        r.metric: (r.value, r.num_examples) for r in records(Bright(), task(), (Attack(check=16),)) if r.data == "check"
    }
    assert {"unbounded", "black_box", "gradients"} <= set(found)
    assert set(found.values()) <= {(0.0, 16), (1.0, 16)}


def test_norms_make_different_attacks():
    spec = Attack(attacks=(PGD(steps=2), PGD(steps=2, norm="l2", eps=0.5)), radii=(), limit=20, check=None)
    assert {r.data for r in records(Bright(), task(), (spec,))} == {"clean", "pgd", "pgd_l2", "worst"}


def test_attacks_of_minimum_norm_have_no_radius():
    spec = Attack(attacks=(DeepFool(steps=5),), radii=(), limit=20, check=10)
    found = records(Bright(), task(), (spec,))
    assert {r.data for r in found} == {"clean", "deep_fool_l2", "worst"}
    with pytest.raises(ValueError, match="radii"):
        Attack(attacks=(DeepFool(),))


def test_rescoring_equals_scoring(tmp_path):
    scored = records(Bright(), task(), (Attack(limit=30, check=10),), keep=tmp_path)
    from_beliefs = [record for record in scored if record.data != "check"]
    assert sorted(rescore(tmp_path, ("attack",)), key=str) == sorted(from_beliefs, key=str)
    assert {record.num_examples for record in from_beliefs} == {30}


def test_tables_are_not_attacked():
    assert records(Echo(), logits_task(), (Attack(),)) == []


def test_a_predictor_without_a_gradient_is_refused():
    class Rounded(Bright):
        differentiable = False

    with pytest.raises(CannotCompose, match="Rounded"):
        records(Rounded(), task(), (Attack(),))


@pytest.mark.parametrize(
    "fields",
    [
        {"attacks": ()},
        {"attacks": (PGD(), PGD(eps=0.1))},
        {"limit": 0},
        {"check": 0},
        {"radii": (0.1, 0.1)},
        {"radii": (0.0,)},
    ],
)
def test_settings_that_mean_nothing_are_errors(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        dataclasses.replace(Attack(), **fields)
