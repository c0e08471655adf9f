"""The section about attacked images, from records that a formula makes."""

import re

import pytest
from report.runs import THREE, classification

from levelhead.report.attacks import attacked, curve, title
from levelhead.report.evidence import read
from levelhead.report.page import page
from levelhead.studies.store import find_cells, read_json, read_records, write_records

RADII = (0.02, 0.05, 0.1)


def add_attacks(root, *, flags=True):
    """Records of an attack suite for every run under `root`."""
    for folder in find_cells(root):
        known = read_json(folder / "recipe.json")
        whose = {name: known[key] for name, key in (("task", "task"), ("recipe", "text"), ("backbone", "backbone"))}
        whose |= {"digest": known["digest"], "seed": known["seed"], "evaluation": "attack", "num_examples": 50}
        rows = []

        def row(data, severity, metric, value, whose=whose, rows=rows):
            rows.append({**whose, "data": data, "severity": severity, "metric": metric, "value": value})

        for data, accuracy in (("clean", 0.9), ("fgsm", 0.5), ("pgd", 0.2), ("worst", 0.15)):
            for metric, value in (("accuracy", accuracy), ("nll", 1 - accuracy), ("ece", 0.1), ("total", 0.4)):
                row(data, None, metric, value + 0.01 * known["seed"])
        for place, radius in enumerate(RADII, start=1):
            found = {
                "eps": radius,
                "accuracy": 0.9 - 7 * radius,
                "nll": 1 + radius,
                "ece": radius,
                "total": 0.4 + radius,
            }
            for metric, value in {**found, "epistemic": 0.0, "auroc_total": 0.5 + radius}.items():
                row("pgd_by_radius", place, metric, value)
        if flags:
            row("check", None, "gradients", 0.0)
            row("check", None, "black_box", float(known["text"] == "mc_dropout" and known["seed"] == 1))
        write_records(folder, [*read_records(folder), *rows])
    return root


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    return read(add_attacks(classification(tmp_path_factory.mktemp("runs"), THREE)))[0]


def test_the_page_has_the_section_and_the_menu_names_it(evidence):
    text = page([evidence])
    assert 'href="#made-up-attacks"' in text
    assert text.count("Under attack") == 2


def test_accuracies_stand_between_clean_and_worst(evidence):
    text = str(attacked(evidence))
    heads = re.findall(r'<th scope="col">([^<]+)</th>', text)
    assert heads[:4] == ["Clean", "FGSM", "PGD", "Worst of all"]
    assert "<td>90.5 ± 0.5</td>" in text


def test_curves_go_from_clean_along_the_radii(evidence):
    points = curve(evidence.done[0], "accuracy", "pgd_by_radius")
    assert [radius for radius, _ in points] == pytest.approx([0.0, *RADII])
    assert [estimate.mean for _, estimate in points] == pytest.approx([0.905, 0.76, 0.55, 0.2])
    assert len(curve(evidence.done[0], "auroc_total", "pgd_by_radius")) == len(RADII)


def test_what_nobody_has_is_not_drawn(evidence):
    text = str(attacked(evidence))
    assert "Entropy" in text
    assert "Mutual information" not in text  # zero everywhere


def test_raised_checks_are_spelled_out_and_quiet_ones_are_not(evidence):
    text = str(attacked(evidence))
    assert "random squares, without any gradient, fool more rows than the attack (1 seed of 2)" in text
    assert "a gradient that is zero" not in text


def test_without_flags_or_attacks_nothing_is_said(tmp_path):
    bare = read(classification(tmp_path / "bare", THREE[:1]))[0]
    assert attacked(bare) is None
    unchecked = read(add_attacks(classification(tmp_path / "unchecked", THREE[:1]), flags=False))[0]
    assert "Whether to believe it" not in str(attacked(unchecked))


def test_attacks_are_named_for_readers():
    names = [title(data) for data in ("pgd", "pgd_l2", "deep_fool_l2", "standard_ensemble", "worst")]
    assert names == ["PGD", "PGD, L2", "DeepFool, L2", "Standard ensemble", "Worst of all"]
