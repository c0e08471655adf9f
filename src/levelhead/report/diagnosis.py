"""The page of `levelhead diagnose`: what is inside the networks of finished runs, in figures with a reading each."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from levelhead.report.bands import bands
from levelhead.report.bars import aliasing, consistency, lesions
from levelhead.report.depth import fourier, variance
from levelhead.report.evidence import Evidence, read
from levelhead.report.figure import named
from levelhead.report.markup import Markup, el, join
from levelhead.report.page import document
from levelhead.report.receipts import receipts
from levelhead.report.words import listed, metric, plural
from levelhead.studies.store import replacing

Reasons = Mapping[Path, Mapping[str, str]]  # by run folder and analysis, why it says nothing
SECTIONS: tuple[tuple[str, str, Callable[[Evidence], Markup | None]], ...] = (
    ("fourier_profile", "Frequencies by depth", fourier),
    ("feature_map_variance", "Variance by depth", variance),
    ("band_noise", "Noise by frequency", bands),
    ("lesion_study", "What each block is worth", lesions),
    ("aliasing", "Aliasing where pixels are stepped over", aliasing),
    ("shift_consistency", "Moved images", consistency),
)


def write_diagnosis(cells: Sequence[Path], out: Path, *, reasons: Reasons | None = None) -> Path:
    """Write the page about these run folders to `out`, and return its path.

    reasons  what analyses had to leave out, and why: it is told on the page.
    """
    evidences = read(cells[0], cells)
    names = listed([evidence.task for evidence in evidences])
    count = sum(len(evidence.contenders) for evidence in evidences)
    title = f"{names}: {plural(count, 'network')} diagnosed"
    text = document(title, evidences[0].slug, (_study(evidence, reasons or {}) for evidence in evidences))
    with replacing(out) as scratch:
        scratch.write_text(text, encoding="utf-8")
    return out


def _study(evidence: Evidence, reasons: Reasons) -> Markup:
    """Everything about the networks of one task."""
    made = [
        (slug.replace("_", "-"), heading, _section(evidence, slug, make, reasons)) for slug, heading, make in SECTIONS
    ]
    made = [(slug, heading, section) for slug, heading, section in made if section is not None]
    made.append(("receipts", "Receipts", receipts(evidence)))
    sections = [
        el(
            "section",
            el("h2", heading, id=f"{evidence.slug}-{slug}"),
            content,
            aria_labelledby=f"{evidence.slug}-{slug}",
        )
        for slug, heading, content in made
    ]
    links = (el("li", el("a", heading, href=f"#{evidence.slug}-{slug}")) for slug, heading, _ in made)
    header = el(
        "header",
        el("p", "levelhead diagnose", class_="brand"),
        el("h1", f"Inside {plural(len(evidence.contenders), 'network')} on {evidence.task}"),
        _lead(evidence),
        el("nav", el("ul", links), aria_label=f"Sections about {evidence.task}"),
    )
    return el("article", header, sections, id=evidence.slug)


def _section(
    evidence: Evidence, name: str, make: Callable[[Evidence], Markup | None], reasons: Reasons
) -> Markup | None:
    """A figure with its reading, and who has none, with the reason; None where the analysis was not asked for."""
    content = make(evidence)
    left = []
    for contender in evidence.done:
        why = {reasons[run.folder][name] for run in contender.done if name in reasons.get(run.folder, {})}
        left += [el("p", named(contender.series), f": left out, since {text}.", class_="note") for text in sorted(why)]
    return join(content, left) if content is not None or left else None


def _lead(evidence: Evidence) -> Markup:
    """What was examined, and how good it is where that has been measured."""
    told = []
    for contender in evidence.done:
        accuracy = contender.estimate("accuracy", "clean")
        rest = "" if accuracy is None else f", accuracy {metric('accuracy').write_estimate(accuracy)}"
        told.append(el("li", named(contender.series), f" {plural(len(contender.done), 'seed')}{rest}"))
    what = "What the trained networks do with an image, block by block and frequency by frequency. Nothing was trained."
    return join(el("p", what, class_="lead"), el("ul", told, class_="plain-list"))
