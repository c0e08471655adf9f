"""What a study measures: suites as text, their names, and which suit a task."""

from collections.abc import Sequence
from typing import Any

from levelhead.evaluation import SUITES
from levelhead.studies.study import BadStudy
from levelhead.tasks.task import Task
from levelhead.text import parse_part, part_text


def study_suites(given: Sequence[str] | None, task: Task) -> tuple[str, ...]:
    """The suites in their canonical text; by default all that suit the task, cost last.

    Raises BadStudy for unknown suites and for two of a kind.
    """
    if given is None:
        return tuple(suite for suite in SUITES if suite != "ood" or task.ood)
    return suite_texts(given)


def suite_texts(given: Sequence[str]) -> tuple[str, ...]:
    """Suites in their canonical text. Raises BadStudy for unknown ones, for none, and for two of a kind."""
    texts = []
    for text in given:
        try:
            texts.append(part_text(suite_of(text)))
        except (ValueError, TypeError) as error:
            raise BadStudy(f"suites: {error}") from None
    names = [suite_name(text) for text in texts]
    if not names or len(set(names)) < len(names):
        raise BadStudy(f"suites: wants different suites, at least one of {', '.join(SUITES)}; got {list(given)}")
    return tuple(texts)


def suite_of(text: str) -> Any:
    """The suite that `clean` or `shift(severities=(1, 3, 5), limit=500)` means."""
    return parse_part(text, ("evaluations",))


def suite_name(text: str) -> str:
    """`shift` of `shift(limit=500)`."""
    return text.partition("(")[0].strip()


def merged(old: Sequence[str], new: Sequence[str]) -> tuple[str, ...]:
    """The suites that have been measured after `new` ones were: a suite of other settings gives way."""
    names = {suite_name(text) for text in new}
    return (*(text for text in old if suite_name(text) not in names), *new)
