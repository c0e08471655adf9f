"""What corruptions cost in one number: mean corruption error and its twins of NLL and ECE, against the plain recipe."""

import math
from typing import Any

from levelhead.metrics.mean_corruption_error import CORRUPTIONS
from levelhead.report.evidence import Contender, Estimate, Evidence
from levelhead.report.figure import named, scrolling
from levelhead.report.markup import Markup, el, join
from levelhead.report.words import Metric, plural
from levelhead.studies.corruption_error import corruption_error

ENOUGH = 3  # kinds of corruption
COLUMNS = (
    ("error", "mce", "mCE"),
    ("error", "relative", "Relative mCE"),
    ("nll", "mce", "NLL"),
    ("nll", "relative", "Relative NLL"),
    ("ece", "mce", "ECE"),
)
PLAIN_NUMBER = Metric("", "", 3)


def corruption_table(evidence: Evidence) -> Markup | None:
    """A row a recipe; None where fewer than three of the fifteen corruptions were measured."""
    kinds = [shift for shift in evidence.shifts if shift in CORRUPTIONS]
    if evidence.regression or len(kinds) < ENOUGH:
        return None
    baseline = None if evidence.plain is None else evidence.plain.text
    columns = _measured(evidence, baseline)
    best = {place: _best(column) for place, column in columns.items()}
    rows = []
    for contender in evidence.done:
        cells = [_cell(column.get(contender), best=contender is best[place]) for place, column in columns.items()]
        rows.append(el("tr", el("th", named(contender.series), scope="row"), cells, data_s=contender.series.number))
    heads = [el("th", "Recipe", scope="col", class_="first"), *(el("th", head, scope="col") for *_, head in COLUMNS)]
    body = [el("caption", _caption(kinds, baseline), class_="sr"), el("thead", el("tr", heads)), el("tbody", rows)]
    note = el("p", _caption(kinds, baseline), class_="note", aria_hidden="true")
    return join(note, scrolling(el("table", body, class_="heat tight"), label="Mean corruption error"))


def _measured(evidence: Evidence, baseline: str | None) -> dict[tuple[str, str], dict[Contender, Estimate]]:
    """By column and recipe, mean and standard error over seeds."""
    folders = [run.folder for contender in evidence.done for run in contender.done]
    found: Any = corruption_error(*folders, baseline=baseline)
    by_digest = {(line.digest, line.metric): line for line in found.itertuples(index=False)}
    columns: dict[tuple[str, str], dict[Contender, Estimate]] = {}
    for metric, field, _ in COLUMNS:
        column = columns.setdefault((metric, field), {})
        for contender in evidence.done:
            line = by_digest.get((contender.digest, metric))
            if line is not None and math.isfinite(getattr(line, field)):
                column[contender] = Estimate(getattr(line, field), getattr(line, f"{field}_se"), int(line.seeds))
    return columns


def _best(column: dict[Contender, Estimate]) -> Contender | None:
    return min(column, key=lambda contender: column[contender].mean) if len(column) > 1 else None


def _caption(kinds: list[str], baseline: str | None) -> str:
    unit = "" if baseline is None else f", in units of what {baseline!r} has there: below 1 is better than it"
    few = "" if len(kinds) == len(CORRUPTIONS) else f" {plural(len(kinds), 'kind')} of the usual {len(CORRUPTIONS)}."
    return (
        f"Mean over corruptions of the error rate (mCE), of the NLL and of the ECE{unit}. Relative: of what a "
        f"corruption adds to the clean value.{few} Means ± standard error over seeds; the best of each column is bold."
    )


def _cell(estimate: Estimate | None, *, best: bool) -> Markup:
    if estimate is None:
        return el("td", "–")
    text = PLAIN_NUMBER.write_estimate(estimate)
    return el("td", el("b", text, el("span", " (best)", class_="sr")) if best else text)
