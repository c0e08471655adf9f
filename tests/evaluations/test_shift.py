import dataclasses
from typing import ClassVar

import pytest
import torch
from echo import Echo, logits_task

from levelhead.beliefs import join, of_batch
from levelhead.catalogue import parts
from levelhead.evaluation import records
from levelhead.evaluations.shift import BLOCK, Shift
from levelhead.shifts.feature_noise import FeatureNoise
from levelhead.shifts.gaussian_noise import GaussianNoise
from levelhead.shifts.rotation import Rotation
from levelhead.tasks.split import Split
from levelhead.tasks.stripes import stripes


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


def test_all_shifts_that_suit_the_inputs_are_there():
    for task, kind in ((stripes(), "image"), (logits_task(), "tabular")):
        keys = [key for key, _ in Shift(severities=(1,)).sources(task)]
        assert len(keys) == len(set(keys)) == sum(spec().kind == kind for spec in parts("shifts"))


def test_a_severity_counts_the_amounts_of_the_shift():
    source = dict(Shift(shifts=(Rotation(),), severities=(6,)).sources(stripes()))["shift-rotation-6"]
    batch = next(iter(source.ordered(10)))
    clean = next(iter(stripes().test.ordered(10))).x
    torch.testing.assert_close(batch.x, clean.rot90(1, (2, 3)), atol=1e-5, rtol=0)  # the sixth angle is 90 degrees


def shifted(task, spec, size, key):
    return torch.cat([batch.x for batch in dict(spec.sources(task))[key].ordered(size)])


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


@pytest.mark.parametrize(
    "fields",
    [{"severities": ()}, {"severities": (0,)}, {"severities": (1, 1)}, {"limit": 0}, {"shifts": (Rotation(),) * 2}],
)
def test_settings_that_mean_nothing_are_errors(fields):
    with pytest.raises(ValueError, match=f"Shift: {next(iter(fields))}"):
        Shift(**fields)
