"""Which shifts hurt which recipe: a table whose cells are coloured by their value."""

from levelhead.report.evidence import Contender, Estimate, Evidence
from levelhead.report.figure import named, scrolling, views
from levelhead.report.markup import Markup, el, join
from levelhead.report.severity import quantities
from levelhead.report.words import Metric, metric, spoken, unit
from levelhead.scores import BETTER

STRONGEST = 46  # per cent of the colour: text on it keeps its contrast, on light paper and on dark

CLEAN = ""  # in place of a shift's name


def heat(evidence: Evidence) -> Markup:
    """A table a metric: recipes by kinds of shift, averaged over severities."""
    parts = [(metric(name).name, _table(evidence, name)) for name in quantities(evidence)]
    return views(f"heat-{evidence.slug}", parts)


def _table(evidence: Evidence, name: str) -> Markup:
    what = metric(name)
    columns = {shift: _column(evidence, name, shift) for shift in (CLEAN, *evidence.shifted_sets)}
    means = [estimate.mean for column in columns.values() for estimate in column.values()]
    limits = min(means), max(means)
    best = {shift: _best(name, column) for shift, column in columns.items()}
    heads = [el("th", "Recipe", scope="col", class_="first")]
    heads += [el("th", spoken(shift).capitalize() or "Clean", scope="col") for shift in columns]
    rows = []
    for contender in evidence.done:
        cells = [
            _cell(column.get(contender), what, limits, best=contender is best[shift])
            for shift, column in columns.items()
        ]
        rows.append(el("tr", el("th", named(contender.series), scope="row"), cells, data_s=contender.series.number))
    caption = (
        f"{what.name}{unit(what)}, mean over severities. Stronger colour is a higher value; the best of each column is "
        "bold."
    )
    body = [el("caption", caption, class_="sr"), el("thead", el("tr", heads)), el("tbody", rows)]
    shown = el("p", caption, class_="note", aria_hidden="true")  # the caption, which would scroll away with the table
    return join(shown, scrolling(el("table", body, class_="heat"), label=f"{what.name} by kind of shift"))


def _column(evidence: Evidence, name: str, shift: str) -> dict[Contender, Estimate]:
    found = {
        contender: contender.estimate(name, "clean") if shift == CLEAN else contender.estimate(name, "shift", shift)
        for contender in evidence.done
    }
    return {contender: estimate for contender, estimate in found.items() if estimate is not None}


def _best(name: str, column: dict[Contender, Estimate]) -> Contender | None:
    better = BETTER.get(name)
    if better is None or len(column) < 2:
        return None
    choose = max if better == "higher" else min
    return choose(column, key=lambda contender: column[contender].mean)


def _cell(estimate: Estimate | None, what: Metric, limits: tuple[float, float], *, best: bool) -> Markup:
    if estimate is None:
        return el("td", "–")
    low, high = limits
    share = (estimate.mean - low) / (high - low) if high > low else 0.0
    text = what.bare(estimate.mean)
    content = el("b", text, el("span", " (best)", class_="sr")) if best else text
    return el("td", content, style=f"--h:{round(STRONGEST * share)}%")
