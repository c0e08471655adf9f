"""How the members of each mixture differ: an ensemble of good members that err alike is one of them, paid for often."""

from collections import Counter

from levelhead.report.evidence import Contender, Evidence
from levelhead.report.figure import named, scrolling
from levelhead.report.markup import Markup, el, join
from levelhead.report.words import metric

COLUMNS = (
    *(("clean", name) for name in ("member_accuracy", "disagreement", "pairwise_kl", "error_correlation")),
    ("shift", "disagreement"),
)
HEADS = {"clean": "Clean rows", "shift": "Under shift"}
NOTE = (
    "Members beside each other. Disagreement: the share of pairs of members that prefer different classes. Pairwise "
    "KL: the mean divergence between two members, in nats. Error correlation: 1 where members are wrong on the same "
    "rows, 0 where each is wrong by itself. Bad members differ too, so read it beside the accuracy of one. Samples of "
    "a network count as members. Means ± standard error over seeds."
)


def between_members(evidence: Evidence) -> Markup | None:
    """A row a recipe with several members or samples, on the clean rows and under shift; None where there is none."""
    mixtures = [c for c in evidence.done if c.estimate("disagreement", "clean") is not None]
    if not mixtures:
        return None
    known = {evaluation for evaluation, _, _, name in evidence.names if name == "disagreement"}
    columns = [(suite, name) for suite, name in COLUMNS if suite in known]
    tops = [el("th", "Recipe", rowspan=2, scope="col", class_="first")]
    for suite, count in Counter(suite for suite, _ in columns).items():
        tops.append(el("th", HEADS[suite], colspan=count, scope="colgroup", class_="group"))
    heads = [el("th", metric(name).name, scope="col") for _, name in columns]
    rows = [
        el(
            "tr",
            el("th", named(contender.series), scope="row"),
            [_cell(contender, suite, name) for suite, name in columns],
            data_s=contender.series.number,
        )
        for contender in mixtures
    ]
    table = [el("caption", NOTE, class_="sr"), el("thead", el("tr", tops), el("tr", heads)), el("tbody", rows)]
    note = el("p", NOTE, class_="note", aria_hidden="true")
    return join(note, scrolling(el("table", table, class_="heat tight"), label="Between members"))


def _cell(contender: Contender, suite: str, name: str) -> Markup:
    estimate = contender.estimate(name, suite)
    return el("td", "–" if estimate is None else metric(name).write_estimate(estimate))
