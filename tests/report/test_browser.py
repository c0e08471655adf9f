"""A real study's page in a real browser: what a reader, a keyboard, a phone and a screen reader meet."""

import re
from pathlib import Path

import pytest
from report.runs import failed, regression
from report.test_diagnosis import cell

from levelhead.backbones.mlp import MLP
from levelhead.recipe import DeepEnsemble, Recipe
from levelhead.report.diagnosis import write_diagnosis
from levelhead.report.page import write_report
from levelhead.samplers.sgd import SGD
from levelhead.studies.compare import compare
from levelhead.studies.store import find_cells
from levelhead.tasks.stripes import stripes

pytestmark = pytest.mark.browser
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync")
QUIET = ("--disable-background-networking", "--disable-component-update")
NARROW = 360
PAPER = 718  # A4 within margins of a centimetre

SVG_NAMES = """() => [...document.querySelectorAll('svg[role=img]')].map((svg) => {
  const text = (name) => document.getElementById(svg.getAttribute(name)).textContent;
  return [text('aria-labelledby'), text('aria-describedby')];
})"""
COLUMN = (
    "(place) => [...document.querySelectorAll('.headline tbody tr')].map((row) => Number(row.cells[place].dataset.v))"
)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("study")
    small = Recipe(backbone=MLP(hidden=(8,)), sampler=SGD(epochs=2))
    recipes = [small, DeepEnsemble(member=small, size=2), Recipe(backbone=MLP(hidden=(16, 16)), sampler=SGD(epochs=2))]
    suites = ("clean", "shift(shifts=(contrast, rotation), severities=(1, 5))", "ood", "cost")
    compare(stripes(48), recipes, seeds=2, suites=suites, root=root, workers=1)
    failed(root, "vat + a_part_with_a_very_long_name(and=1, many=2, arguments=(3, 4, 5, 6, 7, 8))", task="stripes")
    return write_report(root)


@pytest.fixture(scope="module")
def browser(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(chromium), args=[*FLAGS, *QUIET])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser):
    """Opens a page of some width; nothing may go wrong in it and nothing may be loaded, to the end of the test."""
    complaints: list[str] = []
    contexts = []

    def opened(path: Path, *, width: int = 1280, **settings):
        context = browser.new_context(viewport={"width": width, "height": 900}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if request.url != path.as_uri() else None)
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def inside(root: Path) -> Path:
    """The page about two diagnosed networks, one of them with a long name."""
    cell(root, "plain", 0, attention=False)
    cell(root, "a_part_with_a_very_long_name(and=1, many=2, arguments=(3, 4, 5, 6, 7, 8))", 0, attention=True)
    return write_diagnosis(find_cells(root), root / "diagnosis.html")


def test_pictures_of_a_diagnosis_have_names_and_descriptions(visit, tmp_path):
    page = visit(inside(tmp_path))
    found = page.evaluate(SVG_NAMES)
    assert len(found) == 10
    assert all(name and text for name, text in found)
    assert len({name for name, _ in found}) == len(found)
    page.locator(".key button").nth(1).click()
    assert page.locator(".s.on").count() > 5


def test_the_headline_table_has_every_finished_recipe(visit, path):
    page = visit(path)
    names = page.locator(".headline tbody th .recipe").all_inner_texts()
    assert len(names) == 3
    assert any("deep_ensemble(size=2)" in name for name in names)
    assert page.locator(".failures").inner_text().count("NonFiniteLoss") >= 1


def test_every_picture_has_a_name_of_its_own_and_a_description(visit, path):
    found = visit(path).evaluate(SVG_NAMES)
    assert len(found) > 10
    assert all(name and text for name, text in found)
    assert len({name for name, _ in found}) == len(found)


def test_a_screen_reader_finds_pictures_tables_and_sections(visit, path):
    page = visit(path)
    assert page.get_by_role("img", name=re.compile("Accuracy under contrast")).count() == 1
    assert page.get_by_role("heading", level=1).count() == 1
    assert page.get_by_role("heading", name="Calibration").count() == 1
    assert page.get_by_role("rowheader").count() >= 3
    assert page.get_by_role("columnheader", name="Accuracy").count() >= 2


def test_a_head_sorts_its_column_and_again_the_other_way(visit, path):
    page = visit(path)
    head = page.locator(".headline thead button").nth(1)
    before = page.evaluate(COLUMN, 2)
    head.click()
    assert page.evaluate(COLUMN, 2) == sorted(before)
    assert page.locator("th[aria-sort=ascending]").count() == 1
    head.press("Enter")
    assert page.evaluate(COLUMN, 2) == sorted(before, reverse=True)
    assert page.locator("th[aria-sort=descending]").count() == 1


def test_one_measure_is_shown_and_another_can_be_chosen(visit, path):
    page = visit(path)
    boxes = page.locator(".views[id^=heat]")
    shown = boxes.locator(".view:visible")
    assert shown.count() == 1
    boxes.get_by_role("button", name="NLL").click()
    assert shown.get_attribute("data-label") == "NLL"
    assert boxes.locator("[aria-pressed=true]").all_inner_texts() == ["NLL"]


def test_a_recipe_chosen_in_a_key_stands_out_everywhere(visit, path):
    page = visit(path)
    page.locator(".key button").nth(1).click()
    assert page.locator(".key button[aria-pressed=true]").count() == page.locator(".key").count()
    opacity = "(name) => getComputedStyle(document.querySelector(name)).opacity"
    assert page.evaluate(opacity, ".s[data-s='2']") == "1"
    assert float(page.evaluate(opacity, ".s[data-s='1']")) < 0.5
    page.locator(".key button").nth(1).click()
    assert page.evaluate(opacity, ".s[data-s='1']") == "1"


@pytest.mark.parametrize("width", [NARROW, 768, 1280])
@pytest.mark.parametrize("kind", ["classification", "regression", "diagnosis"])
def test_nothing_hangs_over_the_edge(visit, path, tmp_path, width, kind):
    made = {
        "regression": lambda: write_report(regression(tmp_path, seeds=(0, 1))),
        "diagnosis": lambda: inside(tmp_path),
    }
    shown = path if kind == "classification" else made[kind]()
    page = visit(shown, width=width)
    page.evaluate("document.querySelectorAll('details').forEach((box) => { box.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_without_scripts_every_measure_is_shown(visit, path):
    page = visit(path, java_script_enabled=False)
    views = page.locator(".view")
    assert views.count() == page.locator(".view:visible").count() > 2
    assert page.locator(".switch").count() == 0


def test_dark_paper_is_dark_and_print_is_white(visit, path):
    page = visit(path, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert max(int(part) for part in re.findall(r"\d+", page.evaluate(ground))) < 60
    page.emulate_media(media="print")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    assert page.locator("nav").is_hidden()
    page.set_viewport_size({"width": PAPER, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= PAPER
    assert page.pdf(format="A4").startswith(b"%PDF")
