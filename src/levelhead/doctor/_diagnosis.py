"""What an examination found, as a value."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]
SHOWN = 4  # names in a text; the rest is counted


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    subject    what was examined: network, a surgery's name, data.
    check      what was looked at, in a word or two.
    text       what was seen.
    next_step  what to do about it; empty where nothing is to be done.
    """

    level: Level
    subject: str
    check: str
    text: str
    next_step: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """The findings about a target, in the order in which they were made, and the layers that an example met.

    layers  one line a call of a layer: name, kind, shape in -> shape out.
    """

    target: str
    findings: tuple[Finding, ...]
    layers: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[Finding, ...]:
        """What must be mended before results mean anything."""
        return tuple(finding for finding in self.findings if finding.level == "problem")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What should be known."""
        return tuple(finding for finding in self.findings if finding.level == "warning")

    @property
    def healthy(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def __str__(self) -> str:
        counts = [counted(len(self.problems), "problem"), counted(len(self.warnings), "warning")]
        counts.append(f"{len(self.findings) - len(self.problems) - len(self.warnings)} ok")
        lines = [f"{self.target}: {', '.join(counts)}"]
        width = max((len(finding.check) for finding in self.findings), default=0)
        subject = ""
        for finding in self.findings:
            if finding.subject != subject:
                subject = finding.subject
                lines += ["", subject]
            lines.append(f"  {finding.level:8} {finding.check:{width}}  {finding.text}")
            if finding.next_step:
                lines.append(f"  {'':8} {'':{width}}  -> {finding.next_step}")
        return "\n".join(lines)


class Findings:
    """Findings of one subject, as they are made."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.made: list[Finding] = []

    def note(self, check: str, text: str) -> None:
        """All is well."""
        self.made.append(Finding("ok", self.subject, check, text))

    def warn(self, check: str, text: str, next_step: str) -> None:
        """Something should be known."""
        self.made.append(Finding("warning", self.subject, check, text, next_step))

    def fail(self, check: str, text: str, next_step: str) -> None:
        """Something must be mended."""
        self.made.append(Finding("problem", self.subject, check, text, next_step))

    def judge(self, fine: bool, check: str, text: str, otherwise: str, next_step: str) -> bool:
        """Note `text` where all is fine; else the problem and its next step. Returns `fine`."""
        if fine:
            self.note(check, text)
        else:
            self.fail(check, otherwise, next_step)
        return fine

    def attempt(self, check: str, action: Callable[[], None], next_step: str) -> bool:
        """Run one check; an exception of the examined code is a problem, not the end. Returns whether it ran."""
        try:
            action()
        except Exception as error:  # anybody's code runs in here
            self.fail(check, f"{type(error).__name__}: {first_line(str(error))}", next_step)
            return False
        return True

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.made)


def counted(number: int, word: str) -> str:
    """`1 problem`, `2 problems`."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def listed(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    known = list(names)
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    return ", ".join(known[:SHOWN]) + more


def first_line(text: str) -> str:
    """The first line of an error, cut to a readable length."""
    line = text.strip().split("\n")[0]
    return line if len(line) <= 200 else line[:197] + "..."
