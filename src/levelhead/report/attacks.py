"""Attacked images: what each attack leaves, quality and uncertainty as it may move further, and what to doubt."""

from levelhead.attack_check import CHECKS
from levelhead.report.evidence import Contender, Estimate, Evidence
from levelhead.report.figure import Series, Table, end_labels, figure, frame, named, polyline, svg, whisker
from levelhead.report.markup import Markup, el, join
from levelhead.report.scale import Scale, around
from levelhead.report.words import Metric, listed, metric, plural, unit

SIZE = (340.0, 250.0)
SUITE, CLEAN, WORST, CHECK, ALONG = "attack", "clean", "worst", "check", "_by_radius"
FOLLOWED = {
    "accuracy": metric("accuracy"),
    "nll": metric("nll"),
    "ece": metric("ece"),
    "total": Metric("Entropy", "mean predictive entropy, in nats"),
    "epistemic": Metric("Mutual information", "mean disagreement of the members, in nats"),
    "auroc_total": Metric("AUROC", "attacked images told from the same images unattacked, by entropy; 0.5 is chance"),
}
NOT_NEGATIVE = ("accuracy", "ece", "total", "epistemic", "auroc_total")
NAMES = {
    **{name: name.upper() for name in ("fgsm", "pgd", "mim", "apgd", "cw")},
    "deep_fool": "DeepFool",
    CLEAN: "Clean",
    WORST: "Worst of all",
}

Curve = list[tuple[float, Estimate]]  # radius and value


def attacked(evidence: Evidence) -> Markup | None:
    """The section; None where nothing was attacked."""
    sets = _sets(evidence)
    if not sets:
        return None
    intro = el(
        "p",
        "Somebody moves each image a little, with the recipe in hand. Accuracy under attack is an upper bound: a "
        "stronger attack leaves less.",
    )
    curves = [_curves(evidence, data) for data in sorted(measured_sets(evidence)) if data.endswith(ALONG)]
    flags = _flags(evidence)
    return join(
        intro,
        el("h3", "Under each attack"),
        _accuracies(evidence, sets),
        (el("h3", "As the attack may move further"), curves) if curves else None,
        (el("h3", "Whether to believe it"), flags) if flags is not None else None,
    )


def measured_sets(evidence: Evidence) -> set[str]:
    """The sets that the attack suite measured."""
    return {data for evaluation, data, _, _ in evidence.names if evaluation == SUITE}


def title(data: str) -> str:
    """An attack's name for readers: `pgd_l2` is PGD, L2."""
    kind, l2 = (data.removesuffix("_l2"), ", L2") if data.endswith("_l2") else (data, "")
    return NAMES.get(kind, kind.replace("_", " ").capitalize()) + l2


def _sets(evidence: Evidence) -> list[str]:
    """Attacks in alphabetical order between the clean images and the worst case."""
    data = measured_sets(evidence)
    kinds = sorted(one for one in data - {CLEAN, WORST, CHECK} if not one.endswith(ALONG))
    return [CLEAN, *kinds, WORST] if kinds else []


def _accuracies(evidence: Evidence, sets: list[str]) -> Markup:
    what = FOLLOWED["accuracy"]
    rows = []
    for contender in evidence.done:
        cells = []
        for data in sets:
            estimate = contender.estimate("accuracy", SUITE, data)
            cells.append(el("td", "–" if estimate is None else what.write_estimate(estimate).removesuffix(what.unit)))
        rows.append(el("tr", el("th", named(contender.series), scope="row"), cells, data_s=contender.series.number))
    heads = [el("th", "Recipe", scope="col", class_="first"), *(el("th", title(data), scope="col") for data in sets)]
    caption = f"{what.name}{unit(what)} ± standard error. Worst of all: each image under the attack that hurts it most."
    body = [el("caption", caption), el("thead", el("tr", heads)), el("tbody", rows)]
    return el(
        "div", el("table", body, class_="plain"), class_="scroll", tabindex=0, role="region", aria_label=what.name
    )


def curve(contender: Contender, name: str, data: str) -> Curve:
    """A metric at each radius; radius 0 is clean, where telling attacked from clean images is no question."""
    found: list[tuple[float, Estimate | None]] = []
    if not name.startswith("auroc"):
        found.append((0.0, contender.estimate(name, SUITE, CLEAN)))
    for place in range(1, 100):
        radius = contender.estimate("eps", SUITE, data, place)
        if radius is None:
            break
        found.append((radius.mean, contender.estimate(name, SUITE, data, place)))
    return [(radius, estimate) for radius, estimate in found if estimate is not None]


def _curves(evidence: Evidence, data: str) -> Markup:
    panels, tables = [], []
    for name, what in FOLLOWED.items():
        curves = {contender.series: curve(contender, name, data) for contender in evidence.done}
        curves = {series: points for series, points in curves.items() if points}
        if not curves or all(estimate.mean == 0 for points in curves.values() for _, estimate in points):
            continue  # one network has no members that could disagree
        slug = f"attack-{evidence.slug}-{data.replace('_', '-')}-{name.replace('_', '-')}"
        panels.append((f"{what.name}{unit(what)}", _panel(slug, name, what, curves)))
        tables.append(_table(what, curves))
    caption = (
        f"{title(data.removesuffix(ALONG))} at each radius; 0 is clean. AUROC: how well entropy tells attacked images "
        "from the same images unattacked; 0.5 is chance. Bars are one standard error."
    )
    return figure(panels, caption=caption, of=[c.series for c in evidence.done], numbers=join(tables))


def _panel(slug: str, name: str, what: Metric, curves: dict[Series, Curve]) -> Markup:
    width, height = SIZE
    radii = [radius for points in curves.values() for radius, _ in points]
    reach = [edge * what.factor for points in curves.values() for _, estimate in points for edge in estimate.band]
    low, high = around(reach, include=[0.5] if name.startswith("auroc") else [0.0] if name == "ece" else [])
    low = max(low, 0.0) if name in NOT_NEGATIVE else low
    x, y = Scale(0, max(radii), 42, width - 30), Scale(low, high, height - 38, 8)
    marks = [_line(series, points, what, x, y) for series, points in curves.items()]
    ends = [(series, x(points[-1][0]), y(points[-1][1].mean * what.factor)) for series, points in curves.items()]
    labels = end_labels(ends, x=x.stop + 10, low=8, high=height - 38)
    text = "; ".join(
        f"{series.name}: {what.write(points[0][1].mean)} at radius {points[0][0]:.3g}, "
        f"{what.write(points[-1][1].mean)} at {points[-1][0]:.3g}"
        for series, points in curves.items()
    )
    grid = frame(x, y, x_label="Radius of the attack")
    return svg(slug, SIZE, grid, *marks, labels, title=f"{what.name} against the radius", text=f"{text}.")


def _line(series: Series, points: Curve, what: Metric, x: Scale, y: Scale) -> Markup:
    places = [(x(radius), y(estimate.mean * what.factor)) for radius, estimate in points]
    bars, markers = [], []
    for place, (radius, estimate) in zip(places, points, strict=True):
        low, high = (y(edge * what.factor) for edge in estimate.band)
        bars.append(whisker(place[0], low, high) if low != high else None)
        markers.append(
            series.marker(*place, title=f"{series.name}: {what.write_estimate(estimate)} at radius {radius:.3g}")
        )
    return series.group(polyline(places), bars, markers)


def _table(what: Metric, curves: dict[Series, Curve]) -> Markup:
    radii = sorted({radius for points in curves.values() for radius, _ in points})
    rows = []
    for series, points in curves.items():
        known = {radius: what.write_estimate(estimate) for radius, estimate in points}
        rows.append((series.name, *(known.get(radius, "–") for radius in radii)))
    return Table(("Recipe", *(f"radius {radius:.3g}" for radius in radii)), tuple(rows)).markup(
        f"{what.name} by radius ± standard error"
    )


def _flags(evidence: Evidence) -> Markup | None:
    """What the checklist raised, and for how many seeds; None where nothing was checked."""
    items, checked = [], False
    for contender in evidence.done:
        raised = {}
        for name in CHECKS:
            estimate = contender.estimate(name, SUITE, CHECK)
            checked |= estimate is not None
            if estimate is not None and estimate.mean > 0:
                raised[name] = round(estimate.mean * estimate.seeds)
        if raised:
            texts = [
                el("li", f"{CHECKS[name]} ({plural(count, 'seed')} of {len(contender.done)})")
                for name, count in raised.items()
            ]
            items.append(el("li", named(contender.series), el("ul", texts)))
    if not checked:
        return None
    if not items:
        return el("p", f"The checks found nothing to doubt for {listed([c.series.name for c in evidence.done])}.")
    return join(el("p", "The checks for attacks that fail for the wrong reason found something:"), el("ul", items))
