"""ResNet-18 of torchvision and of timm under the parts that other libraries crash or drift on: healthy, and fitted."""

import copy

import pytest
import torch

from levelhead.backbones.timm import Timm
from levelhead.backbones.torchvision import Torchvision
from levelhead.doctor import examine
from levelhead.network import Network
from levelhead.posthoc.gp_posterior import GPPosterior
from levelhead.posthoc.laplace import Laplace
from levelhead.recipe import DeepEnsemble, Recipe
from levelhead.samplers.sgd import SGD
from levelhead.storage import load, save
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.mc_dropout import MCDropout
from levelhead.surgeries.random_feature_head import RandomFeatureHead
from levelhead.surgeries.spatial_smoothing import SpatialSmoothing
from levelhead.surgeries.spectral_norm import SpectralNorm
from levelhead.tasks.stripes import stripes

models = pytest.importorskip("torchvision.models", reason="needs torchvision: make test-interop")
timm = pytest.importorskip("timm", reason="needs timm: make test-interop")

pytestmark = pytest.mark.interop

TASK = stripes(n=24, channels=3, size=32)
X = TASK.test.x / 255
BACKBONES = {
    "torchvision": Torchvision("resnet18"),
    "timm": Timm("resnet18", options={"drop_rate": 0.3}),  # dropout called as a function, in forward_head
}
TREATMENTS = {
    "plain": ((), ()),
    "smoothed": ((SpatialSmoothing(),), ()),
    "batch-ensembled": ((BatchEnsemble(num_members=2),), ()),
    "MC-dropped": ((MCDropout(p=0.1, num_samples=3),), ()),
    "SNGP-ed": ((SpectralNorm(), RandomFeatureHead(rank=64)), (GPPosterior(),)),
    "Laplace-fitted": ((), (Laplace(),)),
    "smoothed, MC-dropped, Laplace-fitted": ((SpatialSmoothing(), MCDropout(num_samples=2)), (Laplace(),)),
    "all at once": ((SpatialSmoothing(), BatchEnsemble(num_members=2), MCDropout(num_samples=2), SpectralNorm()), ()),
}
each_backbone = pytest.mark.parametrize("backbone", BACKBONES)
each_treatment = pytest.mark.parametrize("treatment", TREATMENTS)


@each_backbone
@each_treatment
def test_the_doctor_finds_nothing_wrong(backbone, treatment):
    diagnosis = examine(BACKBONES[backbone], TREATMENTS[treatment][0], TASK)
    assert diagnosis.healthy, str(diagnosis)


@each_backbone
@each_treatment
def test_it_trains_and_predicts_and_prediction_moves_nothing(backbone, treatment, tmp_path):
    surgery, posthoc = TREATMENTS[treatment]
    recipe = Recipe(
        backbone=BACKBONES[backbone],
        surgery=surgery,
        sampler=SGD(epochs=1, batch_size=12, lr=0.01),
        posthoc=posthoc,
    )
    predictor = recipe.fit(TASK, 0)
    held = copy.deepcopy(predictor.state_dict())
    moved = [name for name, t in held.items() if name.endswith("num_batches_tracked") and int(t) == 0]
    assert not moved, "training did not reach these statistics"
    with torch.no_grad():
        belief = predictor(X)
    assert belief.probs.shape == (len(X), 3)
    assert belief.log_probs.isfinite().all()
    assert all(torch.equal(tensor, held[name]) for name, tensor in predictor.state_dict().items())
    network = next(predictor.networks())
    assert belief.num_members >= network.num_members
    loaded = load(save(predictor, tmp_path / "predictor"))
    with torch.no_grad():
        assert torch.equal(loaded(X).log_probs, belief.log_probs)
    x = X[:2].clone().requires_grad_(True)
    predictor(x).log_prob(TASK.test.y[:2]).sum().backward()
    assert x.grad is not None
    assert x.grad.any()


@each_backbone
def test_a_mixture_of_laplace_approximations(backbone):
    member = Recipe(backbone=BACKBONES[backbone], sampler=SGD(epochs=1, batch_size=12, lr=0.01), posthoc=(Laplace(),))
    belief = DeepEnsemble(member=member, size=2).fit(TASK, 0)(X)
    assert belief.log_probs.isfinite().all()


def test_functional_dropout_is_seen_and_drawn():
    network = BACKBONES["timm"](TASK.signature)
    assert network.trace().functional_dropout == (0.3,)
    operated = MCDropout(num_samples=4)(network).eval()
    draws = operated(X, num_samples=4)
    assert not torch.allclose(draws[0], draws[1])
    assert torch.equal(operated(X), operated(X))
    torch.testing.assert_close(operated(X), network.eval()(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "densenet121", "vit_b_32"])
def test_their_modules_as_they_are(name):
    options = {"image_size": 32} if name.startswith("vit") else {}
    diagnosis = examine(models.get_model(name, num_classes=3, **options), (MCDropout(num_samples=2),), TASK)
    assert diagnosis.healthy, str(diagnosis)


def test_a_head_is_found_by_running_an_example():
    module = models.get_model("resnet18", num_classes=3)
    diagnosis = examine(module, task=TASK)
    assert "'fc' by running an example" in str(diagnosis)
    network = Network.wrap(module, head="fc", signature=TASK.signature).eval()
    with torch.no_grad():
        torch.testing.assert_close(network(X)[0], module.eval()(X), rtol=1e-4, atol=1e-5)
