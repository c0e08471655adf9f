"""The evaluations of what is inside a network: what their records say, and what they say nothing about."""

import pytest
import torch
from torch import nn

from levelhead.analyses.aliasing import aliasing_by_layer
from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.evaluation import records, rescore
from levelhead.evaluations.aliasing import Aliasing
from levelhead.evaluations.band_noise import BandNoise
from levelhead.evaluations.feature_map_variance import FeatureMapVariance
from levelhead.evaluations.fourier_profile import FourierProfile
from levelhead.evaluations.lesion_study import LesionStudy
from levelhead.evaluations.shift_consistency import ShiftConsistency
from levelhead.layers.normalise import Normalise
from levelhead.network import Network
from levelhead.predictor import Point
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.hyper_batch import HyperBatch
from levelhead.surgeries.mc_dropout import MCDropout
from levelhead.surgeries.spectral_norm import SpectralNorm
from levelhead.tasks.cubic import cubic
from levelhead.tasks.stripes import stripes

TASK = stripes(48)
SPECS = (FourierProfile, FeatureMapVariance, BandNoise, LesionStudy, Aliasing, ShiftConsistency)


@pytest.fixture(scope="module")
def predictor():
    torch.manual_seed(0)
    return Point(ResNet(depth=8, width=4)(TASK.signature))


def told(spec, predictor, task=TASK):
    return {(r.data, r.severity, r.metric): r.value for r in records(predictor, task, (spec,))}


def test_blocks_come_in_the_order_of_depth(predictor):
    found = told(FourierProfile(), predictor)
    places = {place: data for data, place, metric in found if metric == "log_amplitude_100"}
    assert places == {1: "stem", 2: "convolution stage1.0", 3: "convolution stage2.0"}
    blocks = {data: place for data, place, metric in told(FeatureMapVariance(), predictor)}
    assert list(blocks) == ["stem", *(f"convolution stage{k}.0" for k in (1, 2, 3))]


def test_the_change_across_convolutions_is_that_of_the_records(predictor):
    found = told(FourierProfile(), predictor)
    change = found["convolution stage1.0", 2, "log_amplitude_100"] - found["stem", 1, "log_amplitude_100"]
    assert found["network", None, "change_across_convolution"] == pytest.approx(change)


def test_passes_vary_where_something_draws(predictor):
    assert not any(metric == "pass_variance" for _, _, metric in told(FeatureMapVariance(), predictor))
    drawing = Point(MCDropout(p=0.3)(predictor.network))
    found = {place: value for (_, place, metric), value in told(FeatureMapVariance(), drawing).items()
             if metric == "pass_variance"}  # fmt: skip
    assert found[1] == 0
    assert found[4] > 0


def test_without_a_unit_accuracy_changes_by_what_the_records_say(predictor):
    found = told(LesionStudy(limit=None), predictor)
    whole = found["whole", None, "accuracy"]
    unit = ("convolution stage1.0", 1)
    assert found[(*unit, "accuracy_change")] == pytest.approx(found[(*unit, "accuracy")] - whole)
    clean = {r.metric: r.value for r in records(predictor, TASK, ("clean",))}
    assert whole == clean["accuracy"]


def test_layers_are_measured_as_by_the_function(predictor):
    found = told(Aliasing(limit=None), predictor)
    by_hand = aliasing_by_layer(predictor, next(TASK.test.ordered(len(TASK.test))).x)
    for place, (name, layer) in enumerate(by_hand.items(), start=1):
        assert found[name, place, "aliasing"] == pytest.approx(layer.absolute)
        assert found[name, place, "relative_aliasing"] == pytest.approx(layer.relative)


@pytest.mark.parametrize("surgery", [SpectralNorm(), HyperBatch(num_members=2), BatchEnsemble(num_members=2)], ids=repr)
def test_layers_that_make_their_weights_are_measured_too(predictor, surgery):
    """Bounded, conditional and members' convolutions: blocks are still of convolutions, steps are still steps."""
    changed = Point(surgery(ResNet(depth=8, width=4)(TASK.signature)))
    kinds = {data.partition(" ")[0] for data, place, _ in told(FourierProfile(), changed) if place}
    assert kinds == {"stem", "convolution"}
    assert len({data for data, _, _ in told(Aliasing(), changed)}) == 4


def test_what_sees_no_place_is_consistent_and_what_answers_one_thing_too():
    signature = TASK.signature
    brightness = nn.Sequential(Normalise(signature.mean, signature.std), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    constant = Point(Network(brightness, nn.Linear(1, 3), signature, width=1))
    nn.init.zeros_(constant.network.head.weight)
    assert told(ShiftConsistency(), constant)["test", None, "consistency"] == 1


def test_no_noise_is_no_change(predictor):
    found = told(BandNoise(frequencies=(0.3, 0.7), limit=None), predictor)
    clean = found["clean", None, "accuracy"]
    for place, frequency in enumerate((0.3, 0.7), start=1):
        assert found[f"{frequency}", place, "frequency"] == frequency
        change = found[f"{frequency}", place, "accuracy"] - clean
        assert found[f"{frequency}", place, "accuracy_change"] == pytest.approx(change)


def test_what_is_kept_is_scored_again(predictor, tmp_path):
    suites = (LesionStudy(), BandNoise(frequencies=(0.5,)), ShiftConsistency())
    found = records(predictor, TASK, suites, keep=tmp_path)
    again = rescore(tmp_path, suites)
    assert set(again) == set(found)


@pytest.mark.parametrize("spec", SPECS, ids=lambda cls: cls.__name__)
def test_of_tables_nothing_is_said_and_why(spec):
    task = cubic()
    table = Point(MLP(hidden=(4,))(task.signature))
    assert records(table, task, (spec(),)) == []
    assert "images" in spec().why_not(table, task)


@pytest.mark.parametrize(
    "spec", [FourierProfile, FeatureMapVariance, LesionStudy, Aliasing], ids=lambda cls: cls.__name__
)
def test_of_multilayer_perceptrons_nothing_is_said_and_why(spec):
    flat = Point(MLP(hidden=(4,))(TASK.signature))
    assert records(flat, TASK, (spec(),)) == []
    assert spec().why_not(flat, TASK)


def test_images_that_are_too_small_to_move_are_told(predictor):
    reason = ShiftConsistency(max_shift=8).why_not(predictor, TASK)
    assert reason == "images of 8 x 8 pixels cannot move by 8"


@pytest.mark.parametrize(
    "make",
    [
        lambda: FourierProfile(limit=0),
        lambda: FeatureMapVariance(passes=1),
        lambda: FeatureMapVariance(limit=0),
        lambda: BandNoise(frequencies=(0.5, 0.2)),
        lambda: BandNoise(severity=9),
        lambda: BandNoise(limit=0),
        lambda: LesionStudy(mode="all"),
        lambda: LesionStudy(limit=0),
        lambda: Aliasing(p=3),
        lambda: Aliasing(on="phase"),
        lambda: Aliasing(limit=0),
        lambda: ShiftConsistency(max_shift=0),
        lambda: ShiftConsistency(num_views=1),
        lambda: ShiftConsistency(pad="mirror"),
        lambda: ShiftConsistency(limit=0),
    ],
)
def test_bad_settings_are_named(make):
    with pytest.raises(ValueError, match=r"[a-z_]+ (must|wants)"):
        make()
