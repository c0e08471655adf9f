"""What every evaluation must do, whatever it measures."""

import copy
import math

import pytest
import torch

from levelhead.attacks.fgsm import FGSM
from levelhead.attacks.pgd import PGD
from levelhead.backbones.resnet import ResNet
from levelhead.catalogue import parts
from levelhead.evaluation import Passes, records
from levelhead.evaluations.attack import Attack
from levelhead.predictor import Ensemble, Point
from levelhead.tasks.stripes import stripes

QUICK = {Attack: lambda: Attack(attacks=(FGSM(), PGD(steps=2)), radii=(2 / 255,), limit=40, check=10)}
TIMES = ("seconds_per_example", "latency", "peak_memory")


@pytest.fixture(scope="module")
def task():
    return stripes(n=160)


@pytest.fixture
def predictor(task):
    members = [Point(ResNet(depth=8, width=4)(task.signature)) for _ in range(2)]
    return Ensemble(members)


@pytest.fixture(params=parts("evaluations"), ids=lambda cls: cls.__name__)
def spec(request):
    return QUICK.get(request.param, request.param)()


def test_names_are_unique_and_numbers_finite(spec, predictor, task):
    found = records(predictor, task, (spec,))  # raises for two of a name
    assert found
    assert all(math.isfinite(record.value) and record.num_examples > 0 for record in found)
    assert {record.evaluation for record in found} == {type(spec).__module__.rpartition(".")[2]}


def test_numbers_do_not_depend_on_the_batch_size(spec, predictor, task):
    first, second = (records(predictor, task, (spec,), batch_size=size) for size in (13, 80))
    for a, b in zip(first, second, strict=True):
        assert a[:4] == b[:4]
        if a.metric not in TIMES:
            # ranks and bins may flip where float32 sums differ in the last bit
            assert a.value == pytest.approx(b.value, rel=1e-3, abs=5e-3), a


def test_the_predictor_and_the_random_stream_are_left_alone(spec, predictor, task):
    before, stream = copy.deepcopy(predictor.state_dict()), torch.get_rng_state()
    records(predictor, task, (spec,))
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(torch.equal(before[name], tensor) for name, tensor in predictor.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in predictor.parameters())


def test_stored_beliefs_score_as_passes_do(spec, predictor, task):
    held = {}

    class Recording(Passes):
        def __call__(self, key, source, **how):
            held[key] = super().__call__(key, source, **how)
            return held[key]

        def portions(self, *what):
            for key, beliefs in super().portions(*what):
                held[key] = beliefs
                yield key, beliefs

    found = spec(predictor, task, Recording(predictor, task))
    rescored = spec.score(held)
    assert rescored == [record for record in found if record in rescored]
    assert bool(rescored) == bool(held)
    # a set is scored from beliefs altogether, or measured otherwise altogether
    assert not {r.data for r in rescored} & {r.data for r in found if r not in rescored}
