"""The report: one HTML page a study, with nothing outside it, made from run folders alone."""

from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from pathlib import Path

from levelhead.report.attacks import attacked
from levelhead.report.between import between_members
from levelhead.report.boxes import boxes
from levelhead.report.confidence import confidence_curves
from levelhead.report.corruption import corruption_table
from levelhead.report.cost import pareto
from levelhead.report.evidence import Evidence, read
from levelhead.report.findings import findings, lead
from levelhead.report.headline import headline
from levelhead.report.heat import heat
from levelhead.report.markup import Markup, el, join
from levelhead.report.outside import histograms
from levelhead.report.quantiles import quantile_plots
from levelhead.report.quartiles import quartile_table
from levelhead.report.receipts import failures, receipts, repeat
from levelhead.report.reliability import reliability_diagrams
from levelhead.report.severity import severity_lines
from levelhead.report.words import plural, spoken
from levelhead.studies.store import replacing

ENOUGH_FOR_BOXES = 3  # kinds of shift: of two, a box says less than the table


def write_report(root: Path, out: Path | None = None, *, cells: Sequence[Path] | None = None) -> Path:
    """Write the page about the run folders under `root` to `out` (default `root`/report.html), and return its path.

    cells  these run folders only, in this order; by default all, the plain recipe first.
    Raises FileNotFoundError where there is no run folder.
    """
    root = Path(root)
    out = root / "report.html" if out is None else Path(out)
    text = page(read(root, cells))
    with replacing(out) as scratch:
        scratch.write_text(text, encoding="utf-8")
    return out


def page(evidences: Sequence[Evidence]) -> str:
    """The whole page."""
    tasks = [evidence.task for evidence in evidences]
    count = sum(len(evidence.contenders) for evidence in evidences)
    title = f"{', '.join(tasks)}: {plural(count, 'recipe')} compared"
    return document(title, evidences[0].slug, (_study(evidence) for evidence in evidences))


def document(title: str, first: str, articles: Iterable[Markup]) -> str:
    """A page of its own: style, script and all; `first` is the id of the first article."""
    body = join(
        el("a", "Skip to the results", href=f"#{first}", class_="skip"),
        el("main", articles),
        el("footer", el("p", "Written by levelhead. This page is one file and loads nothing else.")),
    )
    head = join(
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        el("style", Markup(_resource("page.css"))),
    )
    script = el("script", Markup(_resource("page.js")))
    return f"<!doctype html>\n{el('html', el('head', head), el('body', body, script), lang='en')}\n"


def _resource(name: str) -> str:
    return files("levelhead.report").joinpath(name).read_text(encoding="utf-8")


def _study(evidence: Evidence) -> Markup:
    """Everything about one task."""
    made = [(slug, heading, section) for slug, heading, make in SECTIONS if (section := make(evidence)) is not None]
    sections = [
        el(
            "section",
            el("h2", heading, id=f"{evidence.slug}-{slug}"),
            section,
            aria_labelledby=f"{evidence.slug}-{slug}",
        )
        for slug, heading, section in made
    ]
    links = (el("li", el("a", heading, href=f"#{evidence.slug}-{slug}")) for slug, heading, _ in made)
    return el(
        "article",
        el(
            "header",
            el("p", "levelhead report", class_="brand"),
            el("h1", _title(evidence)),
            lead(evidence),
            findings(evidence),
            el("nav", el("ul", links), aria_label=f"Sections about {evidence.task}"),
        ),
        sections,
        id=evidence.slug,
    )


def _title(evidence: Evidence) -> str:
    return f"{plural(len(evidence.contenders), 'recipe')} on {evidence.task}"


def _results(evidence: Evidence) -> Markup | None:
    if not evidence.done:
        return el("p", "No run has finished, so there is nothing to compare yet.")
    return headline(evidence)


def _shift(evidence: Evidence) -> Markup | None:
    if not evidence.shifts:
        return heat(evidence) if evidence.shifted_sets else None
    intro = el(
        "p",
        f"The test rows are changed in known ways, a little at severity {evidence.severities[0]} and more with every "
        "severity. Two things count: how much quality is lost, and whether confidence is lost with it.",
    )
    kinds = len(evidence.shifts)
    errors = corruption_table(evidence)
    return join(
        intro,
        el("h3", "Against severity"),
        severity_lines(evidence),
        (el("h3", "Spread over the kinds of shift"), boxes(evidence)) if kinds >= ENOUGH_FOR_BOXES else None,
        (el("h3", "Quartiles over kinds and severities"), quartile_table(evidence)),
        (el("h3", "Mean corruption error"), errors) if errors is not None else None,
        (el("h3", "Kind by kind"), heat(evidence)) if len(evidence.shifted_sets) > 1 else None,
    )


def _calibration(evidence: Evidence) -> Markup | None:
    if evidence.regression:
        return quantile_plots(evidence)
    diagrams, curves = reliability_diagrams(evidence), confidence_curves(evidence)
    if diagrams is None and curves is None:
        return None
    return join(
        el("h3", "Reliability") if diagrams is not None else None,
        diagrams,
        el("h3", "Accuracy where the recipe is confident") if curves is not None else None,
        curves,
    )


def _outside(evidence: Evidence) -> Markup | None:
    found = histograms(evidence)
    several = len(found) > 1
    blocks = [join(el("h3", spoken(name).capitalize()) if several else None, made) for name, made in found]
    return join(blocks) if blocks else None


SECTIONS: tuple[tuple[str, str, Callable[[Evidence], Markup | None]], ...] = (
    ("results", "Results", _results),
    ("shift", "Quality under shift", _shift),
    ("attacks", "Under attack", attacked),
    ("calibration", "Calibration", _calibration),
    ("outside", "Outside the distribution", _outside),
    ("between", "Between members", between_members),
    ("cost", "Cost against quality", pareto),
    ("failures", "Failures", failures),
    ("receipts", "Receipts", receipts),
    ("repeat", "How to repeat", repeat),
)
"""Address, heading and content of each section, in the order a stranger wants them; empty ones are left out."""
