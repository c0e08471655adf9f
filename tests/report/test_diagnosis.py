"""The page of `levelhead diagnose`: from records alone, with a reading and a reason for everything."""

import re
from pathlib import Path

import pytest
from report.test_page import Outline

from levelhead.report.bands import worst
from levelhead.report.depth import by_depth
from levelhead.report.diagnosis import write_diagnosis
from levelhead.report.evidence import Estimate, read
from levelhead.studies.store import Status, find_cells, write_json, write_records, write_status

HEADINGS = (
    "Frequencies by depth",
    "Variance by depth",
    "Noise by frequency",
    "What each block is worth",
    "Aliasing where pixels are stepped over",
    "Moved images",
)


def cell(root: Path, text: str, seed: int, *, attention: bool, suites: tuple[str, ...] | None = None) -> Path:
    """A run folder whose numbers are formulas: attention lowers the profile by 1, convolutions raise it by 1/2."""
    folder = root / "cifar10" / text / str(seed)
    folder.mkdir(parents=True)
    kinds = ("stem", "convolution", "attention" if attention else "convolution")
    labels = ["stem", *(f"{kind} stage{k}.0" for k, kind in enumerate(kinds[1:], start=1))]
    end = [-3.0, -2.5, -3.5 if attention else -2.0]
    found: list[tuple[str, str, int | None, str, float]] = [("clean", "test", None, "accuracy", 0.8 + 0.01 * seed)]
    for place, label in enumerate(labels, start=1):
        for share in (25, 50, 75, 100):
            amplitude = end[place - 1] * share / 100 + 0.01 * seed
            found.append(("fourier_profile", label, place, f"log_amplitude_{share}", amplitude))
        found.append(("feature_map_variance", label, place, "spatial_variance", 0.1 * 3**place))
        if place > 1:
            found.append(("lesion_study", label, place - 1, "accuracy_change", -0.1 / place))
    found.append(("fourier_profile", "network", None, "change_across_convolution", 0.5))
    if attention:
        found.append(("fourier_profile", "network", None, "change_across_attention", -1.0))
    for place, frequency in enumerate((0.1, 0.5, 0.9), start=1):
        for metric, value in (
            ("frequency", frequency),
            ("accuracy", 0.8 - frequency / 10),
            ("accuracy_change", -frequency / 10),
        ):
            found.append(("band_noise", f"{frequency}", place, metric, value))
    found.append(("aliasing", "stage2.0.body.conv1", 1, "relative_aliasing", 0.4 if attention else 0.0))
    found.append(("shift_consistency", "test", None, "consistency", 0.9))
    found.append(("shift_consistency", "test", None, "moved_accuracy", 0.75))
    recipe = {"text": text, "canonical": text, "task": "cifar10", "options": {}, "backbone": "resnet20", "seed": seed}
    write_json(folder / "recipe.json", {**recipe, "digest": text, "content": "x"})
    write_status(folder, Status("done"))
    keys = ("evaluation", "data", "severity", "metric", "value")
    whose = {
        "task": "cifar10",
        "recipe": text,
        "backbone": "resnet20",
        "digest": text,
        "seed": seed,
        "num_examples": 100,
    }
    kept = [row for row in found if suites is None or row[0] in suites]
    write_records(folder, [{**whose, **dict(zip(keys, row, strict=True))} for row in kept])
    return folder


@pytest.fixture
def page(tmp_path):
    for seed in (0, 1):
        cell(tmp_path, "plain", seed, attention=False)
        cell(tmp_path, "alter", seed, attention=True)
    return write_diagnosis(find_cells(tmp_path), tmp_path / "diagnosis.html")


def test_the_page_holds_together_and_loads_nothing(page):
    text = page.read_text()
    outline = Outline(text)
    assert not outline.open
    assert len(set(outline.ids)) == len(outline.ids)
    assert set(outline.wanted) <= set(outline.ids)
    assert all(address.startswith("#") for address in outline.addresses)
    for heading in HEADINGS:
        assert f">{heading}</h2>" in text


def test_each_figure_has_a_reading_and_its_numbers(page):
    text = re.sub(r"<[^>]+>", "", page.read_text())
    moves = "rise (+0.50 a block) across convolutions and fall (−1.00 a block) across attention"
    assert f"high frequencies {moves}, as published." in text
    assert "the last block's maps vary 9 times as much as the stem's." in text
    assert "loses most at 0.9 π (−9.0 points)." in text
    assert "needs stage1.0 most (−5.0 points)." in text
    assert "aliases most at stage2.0.body.conv1 (0.400)." in text
    assert text.count("folds nothing.") == 1
    assert "says the same of 90.0 % of the pairs of moved views." in text
    assert text.count("The numbers as a table") == 5


def test_attention_is_hollow(page):
    text = page.read_text()
    figure = text[text.index("Frequencies by depth</h2>") : text.index("Variance by depth</h2>")]
    assert figure.count('class="o"') == 1


def test_depth_goes_from_the_stem_to_the_last_block_and_seeds_are_averaged(tmp_path):
    for seed in (0, 1):
        cell(tmp_path, "alter", seed, attention=True)
    (evidence,) = read(tmp_path)
    found = by_depth(evidence.done[0], "fourier_profile", "log_amplitude_100")
    assert [(d.place, d.kind, d.name) for d in found] == [
        (0.0, "stem", "stem"),
        (0.5, "convolution", "stage1.0"),
        (1.0, "attention", "stage2.0"),
    ]
    assert found[0].estimate.mean == pytest.approx(-2.995)
    assert found[0].estimate.seeds == 2


@pytest.mark.parametrize("error, reading", [(0.01, "loses most at 0.5 π (−5.0 points)."), (0.04, "beyond chance")])
def test_losses_within_chance_are_told_as_such(error, reading):
    points = [(0.1, Estimate(-0.02, error, 1)), (0.5, Estimate(-0.05, error, 1))]
    assert reading in worst(points)


def test_what_was_left_out_is_told_with_its_reason(tmp_path):
    folder = cell(tmp_path, "plain", 0, attention=False, suites=("band_noise", "shift_consistency"))
    reasons = {folder: {"lesion_study": "no residual branch of this network can be taken out"}}
    text = write_diagnosis([folder], tmp_path / "page.html", reasons=reasons).read_text()
    assert ">What each block is worth</h2>" in text
    assert ": left out, since no residual branch of this network can be taken out." in text
    assert "Frequencies by depth" not in text  # it was not asked for
