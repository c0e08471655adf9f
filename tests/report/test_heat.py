"""The coloured table."""

import re

import pytest
from report.runs import PLAIN, THREE, Made, classification

from levelhead.report.evidence import read
from levelhead.report.heat import heat


def cells(made: str, label: str) -> dict[str, list[tuple[str, float]]]:
    """By recipe, value and strength of colour (negative for worse) of every cell of one measure's table."""
    table = re.search(f'data-label="{label}".*?</table>', made).group()
    found = {}
    for row in re.findall("<tr data-s.*?</tr>", table):
        name = re.sub("<[^>]+>", "", re.search('class="recipe">(.*?)</span></span>', row).group(1))
        found[name] = [
            (re.search(r"[\d.]+", re.sub("<[^>]+>", "", content)).group(), _strength(attributes))
            for attributes, content in re.findall("<td(.*?)>(.*?)</td>", row)
        ]
    return found


def _strength(attributes: str) -> float:
    shown = re.search(r"--h:(\d+)%", attributes)
    return (-1 if "worse" in attributes else 1) * float(shown.group(1)) if shown else 0.0


def test_cells_hold_means_and_are_coloured_by_their_lead_over_plain(tmp_path):
    evidence = read(classification(tmp_path))[0]
    for label, metric, factor, sign in (("Accuracy", "accuracy", 100, 1), ("NLL", "nll", 1, -1)):
        found = cells(heat(evidence), label)
        for contender in evidence.done:
            means = [contender.estimate(metric, "clean")]
            means += [contender.estimate(metric, "shift", shift) for shift in evidence.shifts]
            plain = [evidence.plain.estimate(metric, "clean")]
            plain += [evidence.plain.estimate(metric, "shift", shift) for shift in evidence.shifts]
            for (text, strength), mean, base in zip(found[contender.series.name], means, plain, strict=True):
                assert float(text) == pytest.approx(factor * mean.mean, abs=0.06 if factor == 100 else 6e-3)
                assert strength * sign * (mean.mean - base.mean) >= 0
                assert abs(strength) <= 46
        assert all(strength == 0 for _, strength in found["plain"])


def test_without_a_plain_recipe_there_is_no_colour(tmp_path):
    evidence = read(classification(tmp_path, (Made("vat"), Made("swag")), seeds=(0,), rows=60))[0]
    assert "--h" not in heat(evidence)
    assert "plain recipe" not in heat(evidence)


def test_a_single_recipe_is_not_the_best_of_anything(tmp_path):
    assert "(best)" not in heat(read(classification(tmp_path, (PLAIN,), seeds=(0,), rows=60))[0])


def test_the_best_of_each_column_is_marked(tmp_path):
    made = heat(read(classification(tmp_path, THREE, seeds=(0,), rows=60))[0])
    assert made.count("(best)") == 4 * 3  # measures, columns
