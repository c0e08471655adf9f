"""The table to look at first: every recipe, on clean data, under shift, outside the distribution, and what it costs."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from levelhead.report.evidence import Contender, Estimate, Evidence
from levelhead.report.figure import named, scrolling
from levelhead.report.markup import Markup, el, join
from levelhead.report.ranking import ranked
from levelhead.report.words import Metric, compact, listed, metric, plural, spoken, times, unit

MARKS = {"best": ("●", "best"), "tied": ("○", "within one standard error of the best")}


@dataclass(frozen=True)
class Group:
    """Columns under one head: a suite, and what of it."""

    head: str
    evaluation: str
    metrics: tuple[str, ...]


def groups(evidence: Evidence) -> list[Group]:
    """The columns that the evidence can fill."""
    if evidence.regression:
        wanted = [
            Group("Test rows", "clean", ("rmse", "nll", "gaussian_nll", "crps", "coverage95", "quantile_error")),
            Group(_shifted(evidence), "shift", ("rmse", "nll")),
        ]
    else:
        wanted = [
            Group("Clean test images" if evidence.images else "Clean test rows", "clean", ("accuracy", "nll", "ece")),
            Group(_shifted(evidence), "shift", ("accuracy", "nll", "ece")),
        ]
    sets = listed([spoken(name) for name in evidence.ood])
    wanted.append(Group(f"OOD: {sets}", "ood", ("auroc_total",)))
    known = {(evaluation, name) for evaluation, _, _, name in evidence.names}
    kept = [Group(g.head, g.evaluation, tuple(m for m in g.metrics if (g.evaluation, m) in known)) for g in wanted]
    return [group for group in kept if group.metrics]


def headline(evidence: Evidence) -> Markup:
    """The section's table, with marks for the best of each column and for what is within its standard error."""
    columns = [(group, name) for group in groups(evidence) for name in group.metrics]
    marks = {(g.evaluation, m): ranked(evidence, g.evaluation, m).marks() for g, m in columns}
    costs = list(_costs(evidence))
    heads = [el("th", "Recipe", rowspan=2, scope="col", class_="first")]
    heads += [el("th", g.head, colspan=len(g.metrics), scope="colgroup", class_="group") for g in groups(evidence)]
    if costs:
        heads.append(el("th", "Cost", colspan=len(costs), scope="colgroup", class_="group"))
    opening = {id_of(g, g.metrics[0]) for g in groups(evidence)}
    names = [_head(metric(m), starts=id_of(g, m) in opening) for g, m in columns]
    names += [_head(cost, starts=place == 0) for place, (cost, _) in enumerate(costs)]
    rows = []
    for contender in evidence.done:
        cells = [
            _cell(
                contender, g.evaluation, m, marks[g.evaluation, m].get(contender.digest), starts=id_of(g, m) in opening
            )
            for g, m in columns
        ]
        cells += [_cost_cell(values[contender.digest], place == 0) for place, (_, values) in enumerate(costs)]
        rows.append(el("tr", el("th", named(contender.series), scope="row"), cells, data_s=contender.series.number))
    table = el(
        "table",
        el("caption", "Means over seeds ± one standard error", class_="sr"),
        el("thead", el("tr", heads), el("tr", names)),
        el("tbody", rows),
        class_="headline sortable",
        id=f"headline-{evidence.slug}",
    )
    return join(scrolling(table, label="Headline table"), _legend(evidence))


def id_of(group: Group, name: str) -> str:
    """A column's own name."""
    return f"{group.evaluation}-{name}"


def _shifted(evidence: Evidence) -> str:
    """What the columns under shift are a mean of."""
    amount = f", {levels(evidence)}" if evidence.severities else ""
    if len(evidence.shifted_sets) == 1:
        return f"Under {spoken(evidence.shifted_sets[0])}{amount}"
    return f"Shifted: mean over {len(evidence.shifted_sets)} kinds{amount}"


def levels(evidence: Evidence) -> str:
    """The severities in words."""
    found = evidence.severities
    whole = len(found) > 2 and found == list(range(found[0], found[-1] + 1))
    named = f"{found[0]} to {found[-1]}" if whole else listed([str(level) for level in found])
    return f"{'severity' if len(found) == 1 else 'severities'} {named}"


def _head(what: Metric, *, starts: bool) -> Markup:
    button = el("button", what.name, unit(what), type="button", title=what.text)
    return el("th", button, scope="col", class_="starts" if starts else None)


def _cell(contender: Contender, evaluation: str, name: str, mark: str | None, *, starts: bool) -> Markup:
    what, estimate = metric(name), contender.estimate(name, evaluation)
    class_ = " ".join(word for word in (mark, "starts" if starts else "") if word) or None
    if estimate is None:
        return el("td", el("span", "not measured", class_="sr"), "–", class_=class_)
    sign = None
    if mark is not None:
        symbol, meaning = MARKS[mark]
        sign = join(el("i", symbol, aria_hidden="true"), el("span", f" ({meaning})", class_="sr"))
    floor = contender.estimate("ece_floor", evaluation) if name == "ece" and evaluation == "clean" else None
    notes = [f"± {what.write_error(estimate)}"] if math.isfinite(estimate.error) else []
    notes += [f"floor {metric('ece_floor').bare(floor.mean)}"] if floor is not None else []
    below = el("small", ", ".join(notes)) if notes else None
    return el("td", sign, what.bare(estimate.mean), below, data_v=f"{estimate.mean:.6g}", class_=class_)


def _costs(evidence: Evidence) -> Iterator[tuple[Metric, dict[str, tuple[str, float]]]]:
    """Cost columns: by digest, the text and the number to sort by."""
    wanted = [
        (Metric("Weights", "learned numbers that the predictor keeps"), "parameters", "test", compact),
        (
            Metric("Arithmetic", "multiply-adds a prediction, relative to the plain recipe"),
            "multiply_adds",
            "test",
            times,
        ),
        (Metric("Training", "seconds to train one seed"), "train_seconds", "train", _seconds),
    ]
    for what, name, data, write in wanted:
        found = {c.digest: c.estimate(name, "cost", data) for c in evidence.done}
        if not any(found.values()):
            continue
        one = reference(evidence, found) if name == "multiply_adds" else 1.0
        yield what, {key: _written(e, one, write) for key, e in found.items()}


def reference(evidence: Evidence, found: dict[str, Estimate | None]) -> float:
    """The cost that counts as one: the plain recipe's, else the cheapest."""
    plain = None if evidence.plain is None else found.get(evidence.plain.digest)
    return plain.mean if plain is not None else min(e.mean for e in found.values() if e is not None)


def _written(estimate: Estimate | None, one: float, write) -> tuple[str, float]:  # type: ignore[no-untyped-def]
    return ("–", math.nan) if estimate is None else (write(estimate.mean / one), estimate.mean)


def _seconds(value: float) -> str:
    return (
        f"{value:.1f} s"
        if value < 9.95
        else f"{value:.0f} s"
        if value < 600
        else f"{value / 60:.0f} min"
        if value < 36_000
        else f"{value / 3600:.1f} h"
    )


def _cost_cell(written: tuple[str, float], starts: bool) -> Markup:
    text, value = written
    return el("td", text, data_v=f"{value:.6g}" if math.isfinite(value) else None, class_="starts" if starts else None)


def _legend(evidence: Evidence) -> Markup:
    over = plural(len(evidence.seeds), "published split" if evidence.published_splits else "seed")
    several = len(evidence.seeds) > 1
    spread = (
        f"over {over}"
        if several
        else "over the choice of test rows (one seed shows no spread of its own); where it is missing it is not known"
    )
    return el(
        "p",
        el("b", "●"),
        " best in its column. ",
        el("b", "○"),
        " within one standard error of the best, so no evidence that it is worse. ",
        f"± is one standard error {spread}. ",
        None
        if evidence.regression
        else "Floor is what ECE reads on as many rows when the probabilities are exactly right. ",
        "A column's head sorts the table.",
        class_="note",
    )
