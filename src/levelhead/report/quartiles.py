"""The whole of a shift suite in three numbers a metric: quartiles over all kinds and severities."""

import torch

from levelhead.metrics.statistics import over_seeds
from levelhead.report.evidence import Contender, Estimate, Evidence
from levelhead.report.figure import named, scrolling
from levelhead.report.markup import Markup, el, join
from levelhead.report.severity import quantities
from levelhead.report.words import metric, plural, unit
from levelhead.scores import better

SHARES = (0.25, 0.5, 0.75)

Column = dict[Contender, Estimate]


def quartile_table(evidence: Evidence) -> Markup | None:
    """Recipes by metrics, each at 25, 50 and 75 % of the shifted sets; None where there are no severities."""
    if not evidence.shifts:
        return None
    names = quantities(evidence)
    columns = {(name, share): _column(evidence, name, share) for name in names for share in SHARES}
    heads = [el("th", "Recipe", rowspan=2, scope="col", class_="first")]
    heads += [
        el("th", f"{metric(name).name}{unit(metric(name))}", colspan=len(SHARES), scope="colgroup", class_="group")
        for name in names
    ]
    shares = [el("th", f"{100 * share:.0f} %", scope="col") for _ in names for share in SHARES]
    best = {place: _best(place[0], column) for place, column in columns.items()}
    rows = []
    for contender in evidence.done:
        cells = [
            _cell(name, column.get(contender), best=contender is best[name, share])
            for (name, share), column in columns.items()
        ]
        rows.append(el("tr", el("th", named(contender.series), scope="row"), cells, data_s=contender.series.number))
    sets = len({(data, level) for evaluation, data, level, _ in evidence.names if evaluation == "shift" and level})
    caption = (
        f"Quartiles over {plural(sets, 'shifted set')}, all kinds and severities: a quarter of the sets is at most the "
        "first number, half at most the second. Means over seeds; the best of each column is bold."
    )
    body = [
        el("caption", caption, class_="sr"),
        el("thead", el("tr", heads), el("tr", shares)),
        el("tbody", rows),
    ]
    shown = el("p", caption, class_="note", aria_hidden="true")
    return join(shown, scrolling(el("table", body, class_="heat tight"), label="Quartiles over all shifted sets"))


def quartile(contender: Contender, name: str, share: float) -> Estimate | None:
    """A quantile over all shifted sets, within each seed; then mean and standard error over seeds."""
    per_seed = [
        torch.tensor([value for _, level, value in run.by_metric.get(("shift", name), []) if level is not None])
        for run in contender.done
    ]
    found = [values.double().quantile(share) for values in per_seed if len(values)]
    if not found:
        return None
    if len(found) == 1:
        return Estimate(float(found[0]), float("nan"), 1)
    mean, error = over_seeds(torch.stack(found))
    return Estimate(float(mean), float(error), len(found))


def _column(evidence: Evidence, name: str, share: float) -> Column:
    found = {contender: quartile(contender, name, share) for contender in evidence.done}
    return {contender: estimate for contender, estimate in found.items() if estimate is not None}


def _best(name: str, column: Column) -> Contender | None:
    way = better(name)
    if way is None or len(column) < 2:
        return None
    choose = max if way == "higher" else min
    return choose(column, key=lambda contender: column[contender].mean)


def _cell(name: str, estimate: Estimate | None, *, best: bool) -> Markup:
    if estimate is None:
        return el("td", "–")
    what = metric(name)
    text = what.bare(estimate.mean)
    tip = what.write_estimate(estimate)
    return el("td", el("b", text, el("span", " (best)", class_="sr")) if best else text, title=tip)
