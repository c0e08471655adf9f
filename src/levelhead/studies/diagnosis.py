"""What is inside finished runs: analyses measured once, kept beside the run, with the reason where one says nothing."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from levelhead.storage import load
from levelhead.studies.store import DONE, read_json, read_records, read_status, write_json
from levelhead.studies.suites import suite_name, suite_of, suite_texts
from levelhead.studies.work import measure, task_of

ANALYSES = (
    "fourier_profile",
    "feature_map_variance",
    "band_noise",
    "lesion_study",
    "aliasing",
    "shift_consistency",
)
FILE = "diagnosis.json"


@dataclass(frozen=True)
class Diagnosed:
    """A run and what was said about it.

    measured  the suites that gave numbers, as text.
    left_out  by the name of an analysis, why it says nothing about this predictor on its task.
    """

    folder: Path
    measured: tuple[str, ...]
    left_out: dict[str, str]


def diagnose(
    folder: Path,
    analyses: Sequence[str] = ANALYSES,
    *,
    again: bool = False,
    options: tuple[tuple[str, Any], ...] = (),
    device: str = "cpu",
    trust: tuple[str, ...] = (),
) -> Diagnosed:
    """Measure a finished run by the analyses that have not been measured on it, and keep what was said.

    analyses  names of evaluations that know what they cannot say (`ANALYSES`), or their text with settings:
              `lesion_study(limit=1000)`. The numbers go into the run's records.parquet, and with the reasons into its
              diagnosis.json: asking again takes no time, unless `again`.

    Raises FileNotFoundError where the run has not finished, and ValueError for other suites.
    """
    status = read_status(folder)
    if status is None or status.state != DONE or not (folder / "predictor").exists():
        raise FileNotFoundError(f"{folder} holds no finished predictor; run `levelhead fit` or `compare` first")
    known = read_json(folder / FILE) or {"measured": [], "left_out": {}}
    suites = checked(analyses)
    done = {*(suite for suite in status.suites if suite in known["measured"]), *known["left_out"]}
    missing = suites if again else tuple(suite for suite in suites if suite not in done)
    if missing:
        task = task_of(folder, options=options, trust=trust)
        predictor = load(folder / "predictor", trust=trust).to(device)
        reasons = {suite: suite_of(suite).why_not(predictor, task) for suite in missing}
        wanted = tuple(suite for suite, reason in reasons.items() if reason is None)
        if wanted:
            measure(folder, task, suites=wanted, device=device, trust=trust)
        replaced = {suite_name(suite) for suite in missing}
        known = {
            "measured": [*(s for s in known["measured"] if suite_name(s) not in replaced), *wanted],
            "left_out": {
                **{s: why for s, why in known["left_out"].items() if suite_name(s) not in replaced},
                **{suite: reason for suite, reason in reasons.items() if reason is not None},
            },
        }
        write_json(folder / FILE, {**known, "records": numbers(folder, known["measured"])})
    names = {suite_name(suite) for suite in suites}
    return Diagnosed(
        folder,
        tuple(suite for suite in known["measured"] if suite_name(suite) in names),
        {suite_name(suite): why for suite, why in known["left_out"].items() if suite_name(suite) in names},
    )


def checked(analyses: Sequence[str]) -> tuple[str, ...]:
    """The analyses in their canonical text. Raises ValueError for suites that are none."""
    for text in analyses:
        name = suite_name(text)
        if name not in ANALYSES:
            raise ValueError(f"diagnose: there is no analysis {name!r}; there are {', '.join(ANALYSES)}")
    return suite_texts(analyses)


def numbers(folder: Path, measured: Sequence[str]) -> list[dict[str, Any]]:
    """The records of a run's analyses."""
    names = {suite_name(suite) for suite in measured}
    keys = ("evaluation", "data", "severity", "metric", "value", "num_examples")
    return [{key: row[key] for key in keys} for row in read_records(folder) if row["evaluation"] in names]


def as_data(found: Diagnosed) -> dict[str, Any]:
    """Everything that was said about a run, as plain values."""
    return {**asdict(found), "records": numbers(found.folder, found.measured)}
