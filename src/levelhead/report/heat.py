"""Which shifts hurt which recipe: a table whose cells are coloured by their value."""

from levelhead.report.evidence import Contender, Estimate, Evidence
from levelhead.report.figure import named, scrolling, views
from levelhead.report.markup import Markup, el, join
from levelhead.report.severity import quantities
from levelhead.report.words import Metric, metric, spoken, unit
from levelhead.scores import better

STRONGEST = 46  # per cent of the colour: text on it keeps its contrast, on light paper and on dark
FULL = 0.9  # share of the differences that are coloured in proportion; the largest ones are all at their strongest

CLEAN = ""  # in place of a shift's name
MANY = 10  # columns: more are set smaller

Columns = dict[str, dict[Contender, Estimate]]


def heat(evidence: Evidence) -> Markup:
    """A table a metric: recipes by kinds of shift, averaged over severities."""
    parts = [(metric(name).name, _table(evidence, name)) for name in quantities(evidence)]
    return views(f"heat-{evidence.slug}", parts)


def _table(evidence: Evidence, name: str) -> Markup:
    what = metric(name)
    columns = {shift: _column(evidence, name, shift) for shift in (CLEAN, *evidence.shifted_sets)}
    leads = _leads(evidence, name, columns)
    best = {shift: _best(name, column) for shift, column in columns.items()}
    heads = [el("th", "Recipe", scope="col", class_="first")]
    heads += [el("th", spoken(shift).capitalize() or "Clean", scope="col") for shift in columns]
    rows = []
    for contender in evidence.done:
        cells = [
            _cell(column.get(contender), what, leads.get((shift, contender)), best=contender is best[shift])
            for shift, column in columns.items()
        ]
        rows.append(el("tr", el("th", named(contender.series), scope="row"), cells, data_s=contender.series.number))
    colours = " Blue is better than the plain recipe, orange is worse;" if leads else ""
    caption = f"{what.name}{unit(what)}, mean over severities.{colours} the best of each column is bold."
    caption = caption if leads else caption.replace(" the best", " The best")
    body = [el("caption", caption, class_="sr"), el("thead", el("tr", heads)), el("tbody", rows)]
    shown = el("p", caption, class_="note", aria_hidden="true")  # the caption, which would scroll away with the table
    kind = "heat tight many" if len(columns) > MANY else "heat"
    return join(shown, scrolling(el("table", body, class_=kind), label=f"{what.name} by kind of shift"))


def _leads(evidence: Evidence, name: str, columns: Columns) -> dict[tuple[str, Contender], float]:
    """How much better than the plain recipe each cell is, from -1 to 1; empty where that is no question."""
    plain, way = evidence.plain, better(name)
    if plain is None or way is None or len(evidence.done) < 2:
        return {}
    sign = 1 if way == "higher" else -1
    found = {
        (shift, contender): sign * (estimate.mean - column[plain].mean)
        for shift, column in columns.items()
        if plain in column
        for contender, estimate in column.items()
    }
    sizes = sorted(abs(lead) for lead in found.values())
    full = sizes[round(FULL * (len(sizes) - 1))] or sizes[-1] or 1.0
    return {place: max(-1.0, min(1.0, lead / full)) for place, lead in found.items()}


def _column(evidence: Evidence, name: str, shift: str) -> dict[Contender, Estimate]:
    found = {
        contender: contender.estimate(name, "clean") if shift == CLEAN else contender.estimate(name, "shift", shift)
        for contender in evidence.done
    }
    return {contender: estimate for contender, estimate in found.items() if estimate is not None}


def _best(name: str, column: dict[Contender, Estimate]) -> Contender | None:
    way = better(name)
    if way is None or len(column) < 2:
        return None
    choose = max if way == "higher" else min
    return choose(column, key=lambda contender: column[contender].mean)


def _cell(estimate: Estimate | None, what: Metric, lead: float | None, *, best: bool) -> Markup:
    if estimate is None:
        return el("td", "–")
    text = what.bare(estimate.mean)
    content = el("b", text, el("span", " (best)", class_="sr")) if best else text
    strength = round(STRONGEST * abs(lead or 0.0))
    if strength == 0:
        return el("td", content)
    return el("td", content, class_="worse" if (lead or 0.0) < 0 else None, style=f"--h:{strength}%")
