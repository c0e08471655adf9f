"""The published recipe: ranges by stage, and the alternation."""

from levelhead.backbones.resnet import ResNet
from levelhead.recipes.hyper_batch_ensembles import hyper_batch_ensembles
from levelhead.samplers.alternating import Alternating
from levelhead.tasks.stripes import stripes


def test_a_resnet_gets_the_papers_six_coefficients():
    recipe = hyper_batch_ensembles(ResNet(depth=8, width=4))
    hyper = recipe.build(stripes(n=24, size=12)).hyper
    assert hyper.names == ("l2.stem", "l2.stage1", "l2.stage2", "l2.stage3", "l2.head", "l2.head.bias")
    assert {(r.low, r.high) for r in hyper.ranges} == {(0.1, 100.0)}


def test_the_alternation_is_the_published_one():
    sampler = hyper_batch_ensembles(ResNet()).sampler
    assert isinstance(sampler, Alternating)
    assert (sampler.every, sampler.lr, sampler.tau, sampler.entropy, sampler.split) == (3, 1e-3, 1e-3, "mean", "val")
    assert sampler.inner.weight_decay == 0
