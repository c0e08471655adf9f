"""What a stranger needs to check or repeat a study: failures, data, versions, machine, and the command."""

import json
import shlex
from collections import Counter
from collections.abc import Iterable
from typing import Any

from levelhead.report.evidence import Contender, Evidence, Run
from levelhead.report.figure import Table, named
from levelhead.report.markup import Markup, el, join
from levelhead.report.words import listed, plural

UNTOLD = "not recorded"


def failures(evidence: Evidence) -> Markup | None:
    """The runs that failed, with the last line of what happened, and those that have not finished."""
    items = [_failure(contender, run) for contender, run in evidence.failed]
    waiting = Counter(contender.series.name for contender, _ in evidence.unfinished)
    parts = [el("ul", items, class_="failures") if items else None]
    if waiting:
        named = listed([f"{name} ({plural(count, 'run')})" for name, count in waiting.items()])
        parts.append(el("p", f"Not finished yet: {named}. The same command goes on where it stopped."))
    if not items and not waiting:
        return None
    return join(el("p", "Failed runs count in no number of this page."), parts)


def _failure(contender: Contender, run: Run) -> Markup:
    status = run.status
    trace = (status.traceback or "").strip()
    last = status.error or (trace.splitlines()[-1] if trace else "no reason was recorded")
    whole = el("details", el("summary", "Traceback"), el("pre", trace, tabindex=0)) if trace else None
    head = el("p", named(contender.series), f" · seed {run.seed}", class_="failed")
    return el("li", head, el("pre", last, class_="error", tabindex=0), whole)


def receipts(evidence: Evidence) -> Markup:
    """The data by digest, and what it ran on."""
    return join(
        el("div", el("div", _data(evidence)), el("div", _machines(evidence)), class_="pair"), _recipes(evidence)
    )


def _data(evidence: Evidence) -> Markup | None:
    receipt = evidence.receipt
    entries = {**receipt.get("splits", {}), **receipt.get("shifts", {}), **receipt.get("ood", {})}
    if not entries:
        return None
    rows = tuple((name, f"{entry['size']:,}", entry["digest"]) for name, entry in entries.items())
    table = Table(("Rows", "Number", "Digest of the content"), rows).markup(f"Data of {evidence.task}")
    notes = []
    if evidence.published_splits:
        notes.append(
            "Each seed has the published split of its number; this is the first, every run folder holds its own."
        )
    overlaps = receipt.get("overlaps", {})
    if overlaps:
        told = listed(
            [f"{count} rows of {pair.replace('/', ' are also in reverse of ')}" for pair, count in overlaps.items()]
        )
        notes.append(f"Published splits that share rows: {told}.")
    else:
        notes.append("No row of one split is in another one.")
    return join(table, el("p", " ".join(notes), class_="note"))


def _machines(evidence: Evidence) -> Markup:
    """Versions and hardware; every value that occurs, with how many runs have it where they differ."""
    runs = [run for run in evidence.runs if run.environment]
    if not runs:
        return el("p", "The runs recorded no environment.", class_="note")
    facts = [
        ("levelhead", _said(run.environment.get("levelhead") for run in runs)),
        ("Commit", _said(_commit(run.environment.get("commit")) for run in runs)),
        ("Python", _said(run.environment.get("python") for run in runs)),
        *((name, _said(run.environment.get("packages", {}).get(name) for run in runs)) for name in _packages(runs)),
        ("System", _said(run.environment.get("system") for run in runs)),
        ("Device", _said(run.environment.get("device") for run in runs)),
        ("Threads a run", _said(run.environment.get("threads") for run in runs)),
        ("Seeds", listed([str(seed) for seed in evidence.seeds])),
        ("Runs", f"{sum(run.status.state == 'done' for run in evidence.runs)} done of {len(evidence.runs)}"),
        ("Date", _dates(runs)),
    ]
    return Table(("What", "Which"), tuple(facts)).markup("Versions and machine")


def _packages(runs: list[Run]) -> list[str]:
    return [name for name in ("torch", "numpy") if any(name in run.environment.get("packages", {}) for run in runs)]


def _said(values: Iterable[Any]) -> str:
    """The one value, or all of them with how often each occurs."""
    counts = Counter(UNTOLD if value is None else str(value) for value in values)
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{value} ({plural(count, 'run')})" for value, count in counts.most_common())


def _commit(commit: str | None) -> str | None:
    """Twelve digits, and whether files differed from it."""
    if commit is None:
        return None
    return commit[:12] + (" with changes" if commit.endswith("+changes") else "")


def _dates(runs: list[Run]) -> str:
    dates = sorted({run.environment["date"][:10] for run in runs if "date" in run.environment})
    return UNTOLD if not dates else dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"


def _recipes(evidence: Evidence) -> Markup:
    """Every recipe's whole text and digest."""
    rows = tuple((str(c.series.number), line(c), c.digest) for c in evidence.contenders)
    return Table(("Number", "Recipe, with its backbone", "Digest"), rows).markup("Recipes in full")


def line(contender: Contender) -> str:
    """The recipe's whole line of text, backbone included; or the line it was made from, where it has none."""
    return contender.runs[0].recipe.get("canonical") or contender.text


def repeat(evidence: Evidence) -> Markup:
    """The command that makes these numbers again."""
    first = evidence.runs[0].recipe
    options = [f"--{key.replace('_', '-')} {shlex.quote(_plain(value))}" for key, value in _options(first).items()]
    seeds = f"--seeds {_seeds(evidence.seeds)}"
    recipes = [shlex.quote(line(contender)) for contender in evidence.contenders]
    suites = _suites(evidence)
    command = " \\\n    ".join([f"levelhead compare {shlex.quote(evidence.task)}", *options, seeds, *suites, *recipes])
    return join(
        el("pre", command, tabindex=0, class_="command"),
        el(
            "p",
            "Finished runs are not repeated: in an empty folder the command trains everything anew. The same seeds on "
            "the same machine give the same numbers. ",
            el("code", "levelhead fit <run folder>/recipe.json"),
            " repeats a single run; its ",
            el("code", "predictions/"),
            " hold the raw predictions behind every figure.",
        ),
    )


def _seeds(seeds: list[int]) -> str:
    """`3` for 0, 1, 2; else the list, which of one has a comma too."""
    if seeds == list(range(len(seeds))):
        return str(len(seeds))
    return ",".join(map(str, seeds)) + ("," if len(seeds) == 1 else "")


def _suites(evidence: Evidence) -> list[str]:
    """The option for suites, where they are not simply all."""
    measured = next((run.status.suites for contender in evidence.done for run in contender.done), ())
    usual = {"clean", "shift", "cost", "ood"} if evidence.ood else {"clean", "shift", "cost"}
    return [] if set(measured) == usual or not measured else [f"--suite {shlex.quote(','.join(measured))}"]


def _options(recipe: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the task that a command can give; the split follows from the seed."""
    return {key: value for key, value in recipe.get("options", {}).items() if key == "data_dir"}


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
