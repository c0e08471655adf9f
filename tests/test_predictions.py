import hashlib

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from levelhead.beliefs import ClassBeliefs, TargetBeliefs, of_batch, write
from levelhead.predictions import BadPredictions, of_arrays, read_predictions
from levelhead.predictive import CategoricalMixture, GaussianMixture
from levelhead.types import Batch


def batch(y):
    return Batch(torch.zeros(len(y), 1), y, torch.arange(len(y)))


def classes(members=3, rows=20, num_classes=4):
    logits = 2 * torch.randn(members, rows, num_classes, dtype=torch.float64)
    return CategoricalMixture(logits), torch.randint(num_classes, (rows,))


@pytest.mark.parametrize("kind", ["probs", "log_probs", "logits"])
@pytest.mark.parametrize("members", [1, 3])
def test_classes_become_what_the_predictive_says(kind, members):
    belief, y = classes(members)
    array = {
        "probs": belief.logits.exp(),
        "log_probs": belief.logits,
        "logits": belief.logits + torch.randn(members, 20, 1),
    }[kind]
    found = of_arrays({kind: array if members > 1 else array[0], "labels": y.double()})
    assert isinstance(found.beliefs, ClassBeliefs)
    assert_close(found.beliefs.log_probs, belief.log_probs)
    for name in ("total", "aleatoric", "epistemic"):
        assert_close(getattr(found.beliefs, name), getattr(belief, name)(), atol=1e-12, rtol=1e-9)
    assert torch.equal(found.beliefs.y, y)
    assert (found.members is None) == (members == 1)
    assert found.receipt["members"] == members
    assert found.receipt["checked"]["labels_of_probability_zero"] == 0


def test_weights_of_members():
    belief, y = classes()
    weighted = belief.with_weights(torch.tensor([0.5, 0.3, 0.2]).double().log())
    for given in ({"weights": torch.tensor([5.0, 3.0, 2.0])}, {"log_weights": weighted.log_weights}):
        found = of_arrays({"log_probs": belief.logits, "y": y, **given}).beliefs
        assert_close(found.log_probs, weighted.log_probs)
        assert_close(found.aleatoric, weighted.aleatoric())


def test_maps_and_void_sites():
    logits, y = torch.randn(2, 5, 4, 4, 3, dtype=torch.float64), torch.randint(3, (5, 4, 4))
    y[0, 0] = 255
    found = of_arrays({"logits": logits, "y": y}, void=255)
    assert found.receipt["rows"] == 76
    assert found.receipt["void_rows"] == 4
    assert_close(found.beliefs.log_probs, CategoricalMixture(logits).log_probs.reshape(80, 3)[4:])


def test_rows_of_no_class_have_no_labels():
    belief, _ = classes(1)
    found = of_arrays({"log_probs": belief.logits[0]}, labelled=False)
    assert set(found.beliefs.y.tolist()) == {-1}
    assert len(of_arrays({"log_probs": belief.logits}, labelled=False).beliefs) == 20


@pytest.mark.parametrize("shape", [(20,), (20, 1), (20, 2)], ids=str)
@pytest.mark.parametrize("members", [None, 3])
def test_targets_become_what_the_predictive_says(shape, members):
    y = torch.randn(shape, dtype=torch.float64)
    full = shape if members is None else (members, *shape)
    means, stds = torch.randn(full, dtype=torch.float64), torch.rand(full, dtype=torch.float64) + 0.1
    found = of_arrays({"mean": means, "std": stds, "y": y})
    targets = 1 if len(shape) == 1 else shape[1]
    belief = GaussianMixture(means.reshape(-1, 20, targets), stds.square().reshape(-1, 20, targets))
    assert isinstance(found.beliefs, TargetBeliefs)
    assert_close(found.beliefs.total, belief.total())
    assert_close(found.beliefs.epistemic, belief.epistemic())
    assert found.receipt["members"] == (members or 1)
    assert found.receipt["computed"]["variances"] == "squares of stds"
    same = of_arrays({"means": means, "variances": stds.square(), "y": y}).beliefs
    assert_close(same.variances, found.beliefs.variances)


def test_samples():
    found = of_arrays({"samples": torch.randn(8, 20), "y": torch.randn(20)})
    assert found.beliefs is None
    assert found.samples.shape == (8, 20, 1)
    assert found.receipt["samples"] == 8


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_own_files_are_taken_to_the_bit(dtype, tmp_path):
    logits = torch.randn(3, 30, 5).to(dtype)
    kept = of_batch(CategoricalMixture(logits).with_log_density(torch.randn(30)), batch(torch.randint(5, (30,))))
    found = read_predictions(write(kept, "test", tmp_path))
    assert found.beliefs.tensors().keys() == kept.tensors().keys()
    assert all(torch.equal(found.beliefs.tensors()[name], t) for name, t in kept.tensors().items())
    mixture = GaussianMixture(torch.randn(2, 9, 1), torch.rand(2, 9, 1) + 0.1)
    kept = of_batch(mixture, batch(torch.randn(9, 1)))
    found = read_predictions(write(kept, "other", tmp_path))
    assert all(torch.equal(found.beliefs.tensors()[name], t) for name, t in kept.tensors().items())


def test_the_receipt_names_the_bytes(tmp_path):
    belief, y = classes()
    path = tmp_path / "p.npz"
    np.savez(path, probs=belief.logits.exp().float().numpy(), y=y.numpy(), epistemic=belief.epistemic().numpy())
    receipt = read_predictions(path).receipt
    assert receipt["file"] == "p.npz"
    assert receipt["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert receipt["bytes"] == path.stat().st_size
    assert receipt["arrays"]["probs"] == "float32 (3, 20, 4)"
    assert receipt["computed"].keys() == {"log_probs", "mixture", "total", "aleatoric"}
    assert 0 < receipt["checked"]["worst_sum_is_off_by"] < 1e-6


P = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).double()
Y = torch.tensor([0, 1])
ONE = torch.ones(2).double()


@pytest.mark.parametrize(
    "arrays, said",
    [
        ({"probs": P}, "y is missing"),
        ({"y": Y}, "exactly one of"),
        ({"probs": P, "logits": P, "y": Y}, "exactly one of"),
        ({"probs": P, "y": Y, "confidences": ONE}, "confidences is no array"),
        ({"probs": P, "y": Y, "labels": Y}, "both y"),
        ({"probs": P * 0.9, "y": Y}, "row 0 sums to 0.9|row 1 sums to 0.9"),
        ({"probs": torch.stack([P, P * 0.9]), "y": Y}, "member 1, row"),
        ({"probs": torch.tensor([[1.5, -0.5]] * 2), "y": Y}, r"in \[0, 1\]"),
        ({"probs": P.where(P < 0.8, torch.nan), "y": Y}, "1 of 4 values are NaN"),
        ({"log_probs": P, "y": Y}, "log_probs: probabilities must sum to one"),
        ({"probs": P, "y": Y + 1}, "labels must lie in"),
        ({"probs": P, "y": Y - 1}, "labels must lie in"),
        ({"probs": P, "y": Y + 0.5}, "whole numbers"),
        ({"probs": P, "y": P}, "probs: wants shape|whole numbers"),
        ({"probs": P, "y": torch.tensor([0, 1, 1])}, "to match y"),
        ({"probs": P, "y": Y, "total": ONE * 0}, "total: differs"),
        ({"probs": P, "y": Y, "log_density": torch.ones(3)}, "one number a row"),
        ({"probs": P[None], "y": Y, "weights": torch.zeros(1)}, "weights"),
        ({"probs": P[None], "y": Y, "log_weights": torch.zeros(2)}, "log_weights"),
        ({"mean": ONE, "y": ONE}, "exactly one of variances, stds"),
        ({"mean": ONE, "std": 0 * ONE, "y": ONE}, "stds: wants numbers above 0"),
        ({"mean": ONE, "variance": -ONE, "y": ONE}, "variances: wants numbers above 0"),
        ({"mean": ONE * torch.inf, "variance": ONE, "y": ONE}, "means: 2 of 2 values are not finite"),
        ({"mean": torch.ones(3), "variance": torch.ones(3), "y": ONE}, "means: wants shape"),
        ({"mean": ONE, "variance": ONE, "y": ONE, "total": 2 * ONE}, "total: differs"),
        ({"mean": ONE, "variance": ONE}, "y is missing"),
        ({"samples": torch.ones(4, 3), "y": ONE}, "samples: wants shape"),
        ({"samples": torch.ones(4, 2) / 0, "y": ONE}, "samples: 8 of 8"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_cannot_be_right_is_refused(arrays, said):
    with pytest.raises(ValueError, match=said):
        of_arrays(arrays)


def test_own_files_are_checked_too(tmp_path):
    belief, y = classes()
    tensors = of_batch(belief, batch(y)).tensors()
    with pytest.raises(ValueError, match="labels must lie in"):
        of_arrays({**tensors, "y": y + 2})
    with pytest.raises(ValueError, match="total: differs"):
        of_arrays({**tensors, "total": tensors["total"] / 0.693})  # bits for nats
    np.savez(tmp_path / "bad.npz", **{name: t.numpy() for name, t in {**tensors, "y": y - 1}.items()})
    with pytest.raises(BadPredictions, match=r"bad\.npz: y: labels"):
        read_predictions(tmp_path / "bad.npz")
