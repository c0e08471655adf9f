"""The table to look at first: every recipe, on clean data, under shift, outside the distribution, and what it costs."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from levelhead.report.evidence import Contender, Evidence
from levelhead.report.figure import named, scrolling
from levelhead.report.markup import Markup, el, join
from levelhead.report.ranking import ranked
from levelhead.report.words import Metric, compact, duration, listed, metric, plural, spoken, times, unit

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
        name = el("th", named(contender.series), _fewer(evidence, contender), scope="row")
        rows.append(el("tr", name, cells, data_s=contender.series.number))
    table = el(
        "table",
        el("caption", "Means over seeds ± one standard error", class_="sr"),
        el("thead", el("tr", heads), el("tr", names)),
        el("tbody", rows),
        class_="headline sortable",
        id=f"headline-{evidence.slug}",
    )
    return join(scrolling(table, label="Headline table"), _legend(evidence))


def _fewer(evidence: Evidence, contender: Contender) -> Markup | None:
    """How many seeds a recipe finished, where others finished more."""
    most = max(len(other.done) for other in evidence.done)
    count = len(contender.done)
    return el("small", f"{count} of {plural(most, 'seed')}", class_="fewer") if count < most else None


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


@dataclass(frozen=True)
class Cost:
    """A cost column: what it is, which measurement, and how its numbers are written."""

    head: Metric
    metric: str
    data: str
    write: Callable[[float], str]
    relative: bool = False


WEIGHTS = Cost(Metric("Weights", "learned numbers that the predictor keeps"), "parameters", "test", compact)
ARITHMETIC = Cost(
    Metric("Arithmetic", "multiply-adds a prediction, relative to the plain recipe, or else to the cheapest"),
    "multiply_adds",
    "test",
    times,
    relative=True,
)
TRAINING = Cost(Metric("Training", "seconds to train one seed"), "train_seconds", "train", duration)


def _costs(evidence: Evidence) -> Iterator[tuple[Metric, dict[str, tuple[str, float]]]]:
    """Cost columns: by digest, the text and the number to sort by."""
    for cost in (WEIGHTS, ARITHMETIC, TRAINING):
        found = {c.digest: c.estimate(cost.metric, "cost", cost.data) for c in evidence.done}
        known = {digest: estimate.mean for digest, estimate in found.items() if estimate is not None}
        if not known:
            continue
        one = reference(evidence, known) if cost.relative else 1.0
        texts = {digest: (cost.write(value / one), value) for digest, value in known.items()}
        yield cost.head, {digest: texts.get(digest, ("–", math.nan)) for digest in found}


def reference(evidence: Evidence, costs: Mapping[str, float]) -> float:
    """The cost that counts as one, of costs by digest: the plain recipe's, else the cheapest."""
    plain = None if evidence.plain is None else costs.get(evidence.plain.digest)
    return min(costs.values()) if plain is None else plain


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
