"""The whole page, as text: what it holds, and that it holds all of it itself."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from report.runs import PLAIN, THREE, Made, classification, failed, regression

from levelhead.backbones.mlp import MLP
from levelhead.recipe import DeepEnsemble, Recipe
from levelhead.report import page as module
from levelhead.report.page import write_report
from levelhead.samplers.sgd import SGD
from levelhead.studies.compare import compare
from levelhead.studies.store import Status, find_cells, read_json, write_json, write_status
from levelhead.tasks.stripes import stripes

UNCLOSED = {"br", "hr", "input", "meta", "wbr"}


class Outline(HTMLParser):
    """Checks that elements nest, and collects headings, ids, references and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.wanted: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag not in UNCLOSED:
            self.open.append(tag)
        self.note(tag, dict(attrs))

    def handle_startendtag(self, tag, attrs):
        self.note(tag, dict(attrs))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def note(self, tag, attrs):
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        self.ids += [attrs["id"]] if "id" in attrs else []
        for name in ("aria-labelledby", "aria-describedby"):
            self.wanted += attrs.get(name, "").split()
        self.addresses += [attrs[name] for name in ("href", "src") if name in attrs]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = classification(tmp_path_factory.mktemp("runs"))
    failed(folder, "vat + sngp")
    return folder


@pytest.fixture(scope="module")
def text(root):
    return write_report(root).read_text(encoding="utf-8")


def test_the_page_lies_beside_the_runs_or_where_it_is_wanted(root, tmp_path):
    assert write_report(root) == root / "report.html"
    assert write_report(root, tmp_path / "deep" / "page.html") == tmp_path / "deep" / "page.html"
    assert sorted(tmp_path.rglob("*.*")) == [tmp_path / "deep" / "page.html"]


def test_the_same_runs_give_the_same_page(root, text):
    assert write_report(root).read_text(encoding="utf-8") == text


def test_elements_nest_ids_are_unique_and_references_lead_somewhere(text):
    outline = Outline(text)
    assert outline.open == []
    assert len(set(outline.ids)) == len(outline.ids)
    assert set(outline.wanted) <= set(outline.ids)
    assert {address.removeprefix("#") for address in outline.addresses} <= set(outline.ids)


def test_headings_skip_no_level(text):
    levels = Outline(text).headings
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))


def test_it_is_one_file_that_loads_nothing(text):
    assert all(address.startswith("#") for address in Outline(text).addresses)
    assert not re.search(r"https?:|url\(|@import|src=", text)
    assert len(text) < 1_000_000


def test_every_section_is_there_in_order(text):
    assert re.findall(r"<h2[^>]*>([^<]+)</h2>", text) == [h for slug, h, _ in module.SECTIONS if slug != "attacks"]


def test_the_lead_says_what_was_compared_on_what(text):
    lead = re.sub("<[^>]+>", "", re.search(r'<p class="lead">.*?</p>', text).group())
    assert lead == (
        "4 recipes for made-up (resnet8) were trained on 6,000 training images, 2 seeds each; 1 run failed. They were "
        "scored on 2,000 test images, on 120 of them under contrast and Gaussian noise (severities 1, 3 and 5), and on "
        "images of digits from outside the distribution."
    )


def test_a_failure_is_shown_with_its_last_line_and_as_text(text):
    assert "NonFiniteLoss: The loss &lt;became&gt; NaN" in text
    assert "<became>" not in text
    assert "vat + sngp" not in re.search(r'<table class="headline.*?</table>', text).group()


def test_receipts_and_command_are_there(text):
    assert "0123456789ab" in text
    assert "2.13.0" in text
    assert "levelhead compare made-up" in text
    assert "--seeds 2" in text
    assert "'resnet8 + deep_ensemble(size=4)'" in text


def test_names_of_recipes_are_text(tmp_path):
    classification(tmp_path, (PLAIN, Made("evil<script>alert(1)</script>")), seeds=(0,), shifts=(), rows=60)
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert text.count("<script>") == 1  # the page's own
    assert "evil&lt;script&gt;" in text.replace("<wbr>", "")


def test_a_tie_is_said(tmp_path):
    twins = (Made("plain", draws=0), Made("twin", draws=0))
    classification(tmp_path, twins, seeds=(0,), shifts=(), rows=60)
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "No clear winner" in text


def test_sections_without_content_are_left_out(tmp_path):
    classification(tmp_path, THREE[:2], seeds=(0,), shifts=(), rows=60)
    text = write_report(tmp_path).read_text(encoding="utf-8")
    headings = re.findall(r"<h2[^>]*>([^<]+)</h2>", text)
    assert "Failures" not in headings
    assert "Quality under shift" not in headings


def test_nothing_finished_is_said(tmp_path):
    failed(tmp_path, "vat")
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "No run has finished" in text
    assert "NonFiniteLoss" in text


def test_unfinished_runs_are_said(tmp_path):
    classification(tmp_path, THREE[:2], seeds=(0,), shifts=(), rows=60)
    write_status(find_cells(tmp_path)[0], Status("running"))
    assert "Not finished yet" in write_report(tmp_path).read_text(encoding="utf-8")


def test_a_recipe_with_fewer_seeds_says_so(tmp_path):
    classification(tmp_path, THREE[:2], seeds=(0, 1, 2), shifts=(), rows=60)
    folder = next(f for f in find_cells(tmp_path) if read_json(f / "recipe.json")["text"] == "mc_dropout")
    write_status(folder, Status("failed", error="ValueError: no"))
    table = re.search(r'<table class="headline.*?</table>', write_report(tmp_path).read_text(encoding="utf-8")).group()
    assert table.count("2 of 3 seeds") == 1


def test_a_regression_study_has_its_own_columns(tmp_path):
    text = write_report(regression(tmp_path)).read_text(encoding="utf-8")
    table = re.search(r'<table class="headline.*?</table>', text).group()
    heads = re.findall(r'<button type="button"[^>]*>([^<]+)</button>', table)
    assert heads[:6] == ["RMSE", "NLL", "Gaussian NLL", "CRPS", "Coverage, %", "Quantile error"]
    assert "over 3 published splits" in text
    assert "Predicted quantile" in text
    assert Outline(text).open == []


def test_several_tasks_share_a_page(tmp_path):
    classification(tmp_path, THREE[:2], seeds=(0,), rows=60)
    regression(tmp_path, seeds=(0, 1))
    outline = Outline(write_report(tmp_path).read_text(encoding="utf-8"))
    assert len(set(outline.ids)) == len(outline.ids)
    assert outline.headings.count(1) == 2


def test_runs_without_receipts_or_predictions_still_make_a_page(tmp_path):
    classification(tmp_path, THREE[:2], seeds=(0,), rows=60)
    for folder in find_cells(tmp_path):
        (folder / "environment.json").unlink()
        for path in (folder / "predictions").iterdir():
            path.unlink()
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "Reliability" not in text
    assert "recorded no environment" in text


def test_a_study_that_really_ran(tmp_path):
    small = Recipe(backbone=MLP(hidden=(8,)), sampler=SGD(epochs=1))
    recipes = [small, DeepEnsemble(member=small, size=2)]
    compare(
        stripes(48),
        recipes,
        seeds=2,
        suites=("clean", "shift(shifts=(contrast, rotation), severities=(1, 5))", "ood", "cost"),
        root=tmp_path,
        workers=1,
    )
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert re.findall(r"<h2[^>]*>([^<]+)</h2>", text) == [
        h for slug, h, _ in module.SECTIONS if slug not in ("failures", "attacks")
    ]
    assert "checkers" in text
    digests = {entry["digest"] for entry in stripes(48).receipt()["splits"].values()}
    assert all(digest in text for digest in digests)


def test_a_changed_suite_is_part_of_the_command(tmp_path):
    classification(tmp_path, (PLAIN,), seeds=(3,), shifts=(), rows=40)
    folder = find_cells(tmp_path)[0]
    write_json(folder / "status.json", read_json(folder / "status.json") | {"suites": ["clean", "shift(limit=500)"]})
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "--suite 'clean,shift(limit=500)'" in text
    assert "--seeds 3," in text


def test_the_palette_can_be_read_on_light_and_dark_paper():
    css = Path(module.__file__).with_name("page.css").read_text(encoding="utf-8")
    light, dark, printed = (
        dict(re.findall(r"--([\w-]+): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\n *\}", css, re.S)
    )
    for palette in (light, light | dark, light | printed):
        for name in ("ink", "soft", "link", *(f"c{k}" for k in range(1, 9))):
            for ground in ("paper", "raised", "best", "tied"):
                if name not in ("ink", "soft") and ground in ("best", "tied"):
                    continue
                assert contrast(palette[name], palette[ground]) >= 4.5, (name, ground, palette[ground])
        assert contrast(palette["error"], palette["raised"]) >= 4.5


def contrast(first: str, second: str) -> float:
    """Of two colours, as WCAG 2.2 counts it."""
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    parts = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
