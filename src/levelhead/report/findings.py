"""What was compared on what, in two sentences, and what came out, computed and with its doubts."""

import math

from levelhead.report.evidence import Contender, Evidence
from levelhead.report.figure import named
from levelhead.report.headline import levels
from levelhead.report.markup import Markup, el, join
from levelhead.report.ranking import Ranking, ranked
from levelhead.report.words import Metric, listed, metric, plural, spoken, times

NAMED = 2  # ties that are named in full


def lead(evidence: Evidence) -> Markup:
    """The two sentences."""
    receipt = evidence.receipt
    sizes = {name: entry["size"] for name, entry in receipt.get("splits", {}).items()}
    rows = "images" if evidence.images else "rows"
    trained = f" on {sizes['train']:,} training {rows}" if "train" in sizes else ""
    each = plural(len(evidence.seeds), "published split" if evidence.published_splits else "seed")
    first = join(
        f"{plural(len(evidence.contenders), 'recipe')} for ",
        el("b", evidence.task),
        f" ({listed(evidence.backbones)}) were trained{trained}, {each} each{_missing(evidence)}. ",
    )
    scored = [f"{sizes['test']:,} test {rows}" if "test" in sizes else f"the test {rows}"]
    if evidence.shifted_sets:
        scored.append(_shifts(evidence, rows, sizes.get("test", 0)))
    for name in evidence.ood:
        size = receipt.get("ood", {}).get(name, {}).get("size")
        scored.append(f"{f'{size:,} ' if size else ''}{rows} of {spoken(name)} from outside the distribution")
    last = f", and on {scored[-1]}" if len(scored) > 1 else ""
    second = f"They were scored on {', on '.join(scored[:-1] or scored)}{last}."
    return el("p", first, second, class_="lead")


def _shifts(evidence: Evidence, rows: str, num_test: int) -> str:
    """Which rows were shifted, and how."""
    measured = max((run.rows.get("shift", 0) for contender in evidence.done for run in contender.runs), default=0)
    which = f"{measured:,} of them" if measured < num_test else f"the same {rows}"
    kinds = evidence.shifted_sets
    shifts = listed([spoken(kind) for kind in kinds]) if len(kinds) <= 2 else f"{len(kinds)} kinds of shift"
    return f"{which} under {shifts}{f' ({levels(evidence)})' if evidence.severities else ''}"


def _missing(evidence: Evidence) -> str:
    """How many runs failed, where some did."""
    failed = len(evidence.failed)
    return f"; {plural(failed, 'run')} failed" if failed else ""


def findings(evidence: Evidence) -> Markup:
    """A card for each question."""
    if evidence.regression:
        asked = [
            ("Closest predictions", "clean", "rmse"),
            ("Best probabilities", "clean", "nll"),
            ("Under shift", "shift", "nll"),
            ("Outside the distribution", "ood", "auroc_total"),
        ]
    else:
        asked = [
            ("On clean images" if evidence.images else "On clean rows", "clean", "nll"),
            ("Under shift", "shift", "nll"),
            ("Calibrated under shift", "shift", "ece"),
            ("Outside the distribution", "ood", "auroc_total"),
        ]
    cards = [_card(evidence, question, suite, name) for question, suite, name in asked]
    shown = [card for card in cards if card is not None]
    if not shown:
        return join()
    caution = None
    if len(evidence.seeds) == 1:
        caution = el(
            "p",
            "One seed a recipe: what another seed would change is in no error on this page. Small leads may not hold.",
            class_="note",
        )
    return join(el("div", shown, class_="cards"), caution)


def _card(evidence: Evidence, question: str, suite: str, name: str) -> Markup | None:
    ranking, what = ranked(evidence, suite, name), metric(name)
    if ranking.best is None:
        return None
    best, estimate = ranking.best
    error = el("small", f" ± {what.write_error(estimate)}") if math.isfinite(estimate.error) else None
    return el(
        "div",
        el("p", question, class_="question"),
        el("p", named(best.series), class_="winner"),
        el("p", what.write(estimate.mean), error, " ", el("span", what.name), class_="figure-of-merit"),
        el("p", _doubts(ranking, what), " ", _against_plain(evidence, ranking, what, suite), class_="doubts"),
        class_="card",
    )


def _doubts(ranking: Ranking, what: Metric) -> str:
    """Ties, or the distance to the next."""
    (_, best), *others = ranking.order
    tied = [contender.series for contender, estimate in others if estimate.near(best)]
    if len(tied) > NAMED:
        numbers = listed([str(number) for number in sorted(series.number for series in tied)])
        return f"No clear winner: {len(tied)} others ({numbers}) are within one standard error."
    if tied:
        names = listed([f"{series.number} {series.name}" for series in tied])
        return f"No clear winner: {names} {'is' if len(tied) == 1 else 'are'} within one standard error."
    second, other = others[0]
    return f"Next is {second.series.number} {second.series.name} with {what.write(other.mean)}."


def _against_plain(evidence: Evidence, ranking: Ranking, what: Metric, suite: str) -> str | None:
    plain = evidence.plain
    best, estimate = ranking.best or (None, None)
    known = None if plain is None else plain.estimate(ranking.metric, suite)
    if plain is None or best is None or estimate is None or known is None:
        return None
    if best is plain:
        return "No recipe beats the plain one."
    return f"The plain recipe has {what.write_estimate(known)}{_price(plain, best)}."


def _price(plain: Contender, best: Contender) -> str:
    """What the best one costs beside the plain one, where that differs."""
    one, own = (contender.estimate("multiply_adds", "cost") for contender in (plain, best))
    if one is None or own is None or one.mean <= 0 or abs(own.mean / one.mean - 1) < 0.05:
        return ""
    return f"; this one does {times(own.mean / one.mean)} its arithmetic"
