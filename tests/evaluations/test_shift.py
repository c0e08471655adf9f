import dataclasses
from typing import ClassVar

import pytest
import torch
from echo import Echo, logits_task

from levelhead.backbones.resnet import ResNet
from levelhead.beliefs import join, of_batch
from levelhead.catalogue import parts
from levelhead.evaluation import records
from levelhead.evaluations import shift as module
from levelhead.evaluations.shift import BLOCK, Shift
from levelhead.predictor import Point
from levelhead.shifts.feature_noise import FeatureNoise
from levelhead.shifts.frequency_noise import FrequencyNoise
from levelhead.shifts.gaussian_noise import GaussianNoise
from levelhead.shifts.rotation import Rotation
from levelhead.shifts.translation import Translation
from levelhead.tasks.split import Split
from levelhead.tasks.stripes import stripes
from levelhead.values import snake


@dataclasses.dataclass(frozen=True)
class Scaled:
    """Logits times 1 / (severity + 1): a shift with a closed form."""

    kind: ClassVar[str] = "tabular"
    severities: ClassVar[tuple[int, ...]] = (1, 2, 3)

    def __call__(self, x, severity, generator):
        return x / (severity + 1)


def test_each_severity_is_scored_on_its_own_inputs():
    task = logits_task()
    found = {(r.severity, r.metric): r for r in records(Echo(), task, (Shift(shifts=(Scaled(),)),))}
    assert {severity for severity, _ in found} == {1, 2, 3}  # 4 and 5 do not exist
    for severity in (1, 2, 3):
        record = found[severity, "confidence"]
        expected = (task.test.x / (severity + 1)).softmax(-1).amax(-1).mean()
        assert record.value == pytest.approx(float(expected), rel=1e-5)
        assert (record.evaluation, record.data, record.num_examples) == ("shift", "scaled", 60)


def kinds(spec, task):
    return [key.removeprefix("shift-").rpartition("-")[0] for key in spec.computed(task)]


def of_group(*groups):
    return {snake(cls.__name__) for cls in parts("shifts") if cls.group in groups}


@pytest.mark.parametrize(
    "shifts, groups",
    [
        ((), ("noise", "blur", "weather", "digital")),
        ("extra", ("extra",)),
        (("geometric", "frequency"), ("geometric", "frequency")),
        ("corruptions", ("noise", "blur", "weather", "digital", "extra")),
        ("all", ("noise", "blur", "weather", "digital", "extra", "geometric", "frequency", "colour")),
    ],
)
def test_groups_name_their_shifts(shifts, groups):
    found = kinds(Shift(shifts=shifts, severities=(1,)), stripes())
    assert len(found) == len(set(found)) > 0
    assert set(found) == of_group(*groups)


def test_the_words_are_the_groups_that_exist():
    assert set(Shift.words) - {"all", "corruptions"} == {cls.group for cls in parts("shifts")}


def test_tables_get_all_shifts_of_tables():
    for shifts in ((), "all", "tabular"):
        assert set(kinds(Shift(shifts=shifts, severities=(1,)), logits_task())) == of_group("tabular")


def test_a_spec_in_a_group_is_there_once():
    spec = Shift(shifts=("noise", GaussianNoise()), severities=(1,))
    assert set(kinds(spec, stripes())) == of_group("noise")
    assert kinds(Shift(shifts=("noise",), severities=(1,)), stripes()) == kinds(spec, stripes())


def test_two_of_a_kind_are_told_apart_by_their_settings():
    low, high = FrequencyNoise(frequency=0.1), FrequencyNoise()
    found = records(Point(ResNet(depth=8, width=4)(stripes().signature)), stripes(), (Shift((low, high), (2,)),))
    assert {(record.data, record.severity) for record in found} == {
        ("frequency_noise(frequency=0.1)", 2),
        ("frequency_noise", 2),
    }


def test_a_severity_counts_the_amounts_of_the_shift():
    x = shifted(stripes(), Shift(shifts=(Rotation(),), severities=(6,)), 10, "shift-rotation-6")
    clean = next(iter(stripes().test.ordered(10))).x
    torch.testing.assert_close(x[:10], clean.rot90(1, (2, 3)), atol=1e-4, rtol=0)  # the sixth angle is 90 degrees


def test_none_means_all_amounts():
    found = Shift(shifts=(Rotation(), Translation()), severities=None).computed(stripes())
    assert len(found) == 12 + 13


def shifted(task, spec, size, key):
    pairs = [pair for portion in spec.portions(task) for pair in portion.batches(size, torch.device("cpu"))]
    assert all(len(batch.x) <= size for _, batch in pairs)
    return torch.cat([batch.x for found, batch in pairs if found == key])


@pytest.mark.parametrize("size", [1, 100, BLOCK, 333, 1000])
def test_pixels_do_not_depend_on_the_batch_size(size):
    task = stripes(n=1200)
    spec = Shift(shifts=(GaussianNoise(),), severities=(3,))
    whole = shifted(task, spec, 10_000, "shift-gaussian_noise-3")
    assert len(whole) == 600
    assert torch.equal(shifted(task, spec, size, "shift-gaussian_noise-3"), whole)


def test_noise_differs_between_severities_and_blocks():
    grey = Split("test", torch.full((600, 1, 8, 8), 128, dtype=torch.uint8), torch.zeros(600, dtype=torch.long))
    task = dataclasses.replace(stripes(), test=grey, known_overlaps=True)
    spec = Shift(shifts=(GaussianNoise(small=(0.1,) * 5),), severities=(1, 2))
    first, second = (shifted(task, spec, 600, f"shift-gaussian_noise-{s}") for s in (1, 2))
    assert not torch.equal(first, second)
    assert not torch.equal(first[:100], first[BLOCK : BLOCK + 100])


def test_tables_are_shifted_in_one_piece():
    task = logits_task()
    noisy = shifted(task, Shift(shifts=(FeatureNoise(),), severities=(5,)), 7, "shift-feature_noise-5")
    spread = (noisy - task.test.x).std(0) / task.test.x.std(0)
    torch.testing.assert_close(spread, torch.full_like(spread, 1.6), rtol=0.4, atol=0)


def test_a_limit_takes_the_same_rows_everywhere():
    task, spec = logits_task(), Shift(shifts=(Scaled(),), limit=20)
    rows = [shifted(task, spec, 6, f"shift-scaled-{s}") * (s + 1) for s in (1, 2)]
    torch.testing.assert_close(rows[0], rows[1])
    assert len(rows[0]) == 20
    assert {record.num_examples for record in records(Echo(), task, (spec,))} == {20}


def test_stored_sets_are_scored_and_go_before_computed_ones():
    task = logits_task()
    stored = dataclasses.replace(task, shifts={"scaled-2": task.val, "street": task.calibration})
    found = records(Echo(), stored, (Shift(shifts=(Scaled(),)),))
    assert {(record.data, record.severity) for record in found} == {("scaled", 2), ("street", None)}
    beliefs = join([of_batch(Echo()(batch.x), batch) for batch in task.val.ordered(60)])
    total = {(r.data, r.metric): r.value for r in found}["scaled", "total"]
    assert total == pytest.approx(float(beliefs.total.mean()), rel=1e-5)


def test_stored_sets_are_chosen_like_computed_ones():
    task = logits_task()
    stored = dataclasses.replace(task, shifts={"fog-2": task.val, "fog-3": task.val, "street": task.calibration})

    def keys(**fields):
        return list(Shift(**fields).stored(stored))

    assert keys() == ["shift-fog-2", "shift-fog-3", "shift-street"]
    assert keys(severities=(3, 4)) == ["shift-fog-3", "shift-street"]
    assert keys(shifts="tabular") == ["shift-street"]  # fog is a shift, and was not asked for
    assert keys(shifts="weather", severities=None) == ["shift-fog-2", "shift-fog-3", "shift-street"]


def test_each_clean_batch_is_read_once_for_all_shifts_and_severities(monkeypatch):
    task, read = stripes(n=1200), []
    original = module.as_float
    monkeypatch.setattr(module, "as_float", lambda x: read.append(len(x)) or original(x))
    records(Point(ResNet(depth=8, width=4)(task.signature)), task, (Shift(shifts=(GaussianNoise(), Rotation())),))
    assert read == [250, 250, 100]


def test_training_rows_measure_the_shifts_of_tables():
    task = logits_task()
    wide = dataclasses.replace(task, train=Split("train", 100 * task.train.x, task.train.y))
    noisy = shifted(wide, Shift(shifts=(FeatureNoise(),), severities=(5,)), 60, "shift-feature_noise-5")
    spread = (noisy - task.test.x).std(0) / wide.train.x.std(0)
    torch.testing.assert_close(spread, torch.full_like(spread, 1.6), rtol=0.4, atol=0)


@pytest.mark.parametrize(
    "fields",
    [
        {"severities": ()},
        {"severities": (0,)},
        {"severities": (1, 1)},
        {"limit": 0},
        {"shifts": (Rotation(),) * 2},
        {"shifts": "noises"},
    ],
)
def test_settings_that_mean_nothing_are_errors(fields):
    with pytest.raises(ValueError, match=f"Shift: {next(iter(fields))}"):
        Shift(**fields)
