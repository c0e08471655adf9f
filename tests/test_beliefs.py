import pytest
import torch
from torch.testing import assert_close

from levelhead.beliefs import ClassBeliefs, Stored, TargetBeliefs, join, of_batch, read, write
from levelhead.predictive import CategoricalMixture, GaussianMixture
from levelhead.types import Batch


def batch(y):
    return Batch(torch.zeros(len(y), 1), y, torch.arange(len(y)))


def some_classes(n=6, density=False, sets=False):
    belief = CategoricalMixture(torch.randn(2, n, 3))
    if density:
        belief = belief.with_log_density(torch.randn(n))
    if sets:
        belief = belief.with_sets(torch.rand(n, 3) > 0.5)
    return belief, of_batch(belief, batch(torch.randint(3, (n,))))


def some_targets(n=6):
    belief = GaussianMixture(torch.randn(2, n, 1), torch.rand(2, n, 1) + 0.1, torch.tensor([0.3, -1.0]))
    return belief, of_batch(belief, batch(torch.randn(n, 1)))


def test_the_mixture_and_its_uncertainties_are_kept():
    belief, kept = some_classes(density=True)
    assert isinstance(kept, ClassBeliefs)
    assert_close(kept.log_probs, belief.log_probs)
    assert_close(kept.total - kept.aleatoric, kept.epistemic, atol=1e-6, rtol=0)
    assert_close(kept.log_density, belief.log_density)
    assert kept.sets is None


def test_sites_become_rows_and_void_ones_go():
    logits = torch.randn(1, 2, 4, 4, 3)
    y = torch.randint(3, (2, 4, 4))
    y[0, 0, 0] = 255
    kept = of_batch(CategoricalMixture(logits), Batch(torch.zeros(2, 1, 4, 4), y, torch.arange(2)), void=255)
    assert len(kept) == 31
    assert_close(kept.log_probs, logits.log_softmax(-1)[0].reshape(-1, 3)[1:])


def test_half_precision_is_normalised_again():
    kept = of_batch(CategoricalMixture(torch.randn(1, 50, 10).half()), batch(torch.zeros(50, dtype=torch.long)))
    assert_close(kept.log_probs.logsumexp(-1), torch.zeros(50), atol=1e-6, rtol=0)


def test_soft_labels_are_kept_as_their_mode():
    kept = of_batch(CategoricalMixture(torch.randn(1, 2, 3)), batch(torch.tensor([[0.1, 0.7, 0.2], [0.6, 0.2, 0.2]])))
    assert kept.y.tolist() == [1, 0]


@pytest.mark.parametrize("some", [some_classes, some_targets])
def test_joined_parts_are_the_whole(some):
    belief, whole = some()
    rows = [slice(0, 4), slice(4, 6)]
    joined = join([of_batch(belief[part], batch(whole.y[part])) for part in rows])
    for name, tensor in whole.tensors().items():
        assert_close(joined.tensors()[name], tensor)


@pytest.mark.parametrize(
    "beliefs",
    [some_classes()[1], some_classes(density=True, sets=True)[1], some_targets()[1]],
    ids=["classes", "density and sets", "targets"],
)
def test_files_hold_the_beliefs_to_the_bit(beliefs, tmp_path):
    path = write(beliefs, "shift-a/b-3", tmp_path)
    again = read(path)
    assert type(again) is type(beliefs)
    assert again.tensors().keys() == beliefs.tensors().keys()
    assert all(torch.equal(again.tensors()[name], tensor) for name, tensor in beliefs.tensors().items())
    assert list(Stored(tmp_path)) == ["shift-a/b-3"]
    assert "shift-a/b-3" in Stored(tmp_path)
    assert [p.name for p in (tmp_path / "predictions").iterdir()] == [path.name]


def test_a_file_of_targets_holds_the_mixtures_moments(tmp_path):
    belief, kept = some_targets()
    from safetensors.torch import load_file

    tensors = load_file(write(kept, "test", tmp_path))
    assert isinstance(kept, TargetBeliefs)
    assert_close(tensors["mean"], belief.mean)
    assert_close(tensors["variance"], belief.variance)


def test_an_empty_folder_says_how_to_fill_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="keep="):
        Stored(tmp_path)
