"""Run every two parts together and write which of them compose into docs/compositions.md.

    python tools/pairs_grid.py [--page docs/compositions.md]

Each cell is a recipe of two parts on a tiny task: two training steps, the post-hoc steps, one prediction. It works, or
it is refused with advice, which stands below the table; anything else ends this program with an error. Runs the same
code as tests/products, and takes a minute or two.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests")]

from products.pairs import (  # noqa: E402
    BASE,
    INSIDE,
    NEEDY,
    OUTSIDE,
    STYLES,
    Choices,
    companion,
    label,
    outcome,
    specs,
    wrapped,
)

BEGIN, END = "<!-- pairs: begin -->", "<!-- pairs: end -->"
SLOTS = {
    "surgeries": ("surgery", "second_surgery"),
    "objectives": ("regulariser", "second_regulariser"),
    "samplers": ("sampler", "sampler"),
    "posthoc": ("posthoc", "second_posthoc"),
}
NEEDY_FAMILIES = {family for family, slots in SLOTS.items() if set(slots) & set(NEEDY)}
WORKS, NONE = "✓", "·"


class Grid:
    """Cells as they are run, and the advice that refusals gave, numbered."""

    def __init__(self, run: Callable[[Choices], str] = outcome) -> None:
        self.run = run
        self.advice: dict[str, int] = {}
        self.counts = {"works": 0, "refused": 0}

    def cell(self, choices: Choices | None) -> str:
        """What stands in the table for these choices."""
        if choices is None:
            return NONE
        text = " ".join(self.run(choices).split())
        if not text:
            self.counts["works"] += 1
            return WORKS
        self.counts["refused"] += 1
        number = self.advice.setdefault(text, len(self.advice) + 1)
        return f"[{number}](#advice)"

    def table(self, title: str, columns: list[str], lines: Iterator[tuple[str, list[str]]]) -> str:
        """A Markdown table."""
        rows = [f"| {title} | {' | '.join(columns)} |", f"|---|{'|'.join([':-:'] * len(columns))}|"]
        return "\n".join(rows + [f"| {name} | {' | '.join(cells)} |" for name, cells in lines])

    def notes(self) -> str:
        """The advice, numbered."""
        return "\n".join(f"{number}. {text}" for text, number in self.advice.items())


def alone(family: str, part: Any, backbone: str = "resnet") -> Choices:
    """A recipe of one part, and the surgery that it needs."""
    choices = replace(BASE, backbone=backbone, **{SLOTS[family][0]: part})
    return replace(choices, surgery=companion(part)) if family in NEEDY_FAMILIES else choices


def together(first: tuple[str, Any], second: tuple[str, Any]) -> Choices | None:
    """A recipe of two parts, the first acting first (or outside); None where they cannot stand in one recipe at all."""
    (family, part), (other_family, other) = first, second
    if family == other_family == "samplers":
        inside = wrapped(other, part)
        return None if inside is None else replace(BASE, sampler=inside)
    slot, other_slot = SLOTS[family][0], SLOTS[other_family][family == other_family]
    choices = replace(BASE, backbone=home(family, part, other_family, other), **{slot: part, other_slot: other})
    for place in NEEDY:
        needy = getattr(choices, place)
        needed = None if needy is None else companion(needy)
        if needed is not None and needed not in (choices.surgery, choices.second_surgery):
            free = "surgery" if choices.surgery is None else "second_surgery"
            choices = replace(choices, **{free: needed})
    return choices


def home(family: str, part: Any, other_family: str, other: Any) -> str:
    """The first style of network on which each of the two works alone."""
    for style in STYLES:
        if not outcome(alone(family, part, style)) and not outcome(alone(other_family, other, style)):
            return style
    return next(iter(STYLES))


def generated(parts: list[tuple[str, Any]], grid: Grid) -> str:
    """Both tables and their notes."""

    def on_networks() -> Iterator[tuple[str, list[str]]]:
        for family, part in parts:
            cells = [grid.cell(alone(family, part, style)) for style in STYLES]
            cells.append(grid.cell(replace(alone(family, part), combinator=INSIDE)))
            after = replace(alone(family, part), combinator=OUTSIDE) if family == "posthoc" else None
            yield f"`{label(part)}`", [*cells, grid.cell(after)]

    def with_others() -> Iterator[tuple[str, list[str]]]:
        for part in parts:
            yield f"`{label(part[1])}`", [grid.cell(together(part, other)) for other in parts]

    columns = [*STYLES, "in deep_ensemble", "after deep_ensemble"]
    first = grid.table("alone on", columns, on_networks())
    names = [f"`{label(part)}`" for _, part in parts]
    second = grid.table("first, then", names, with_others())
    candidates = [part for family, part in parts if family in NEEDY_FAMILIES]
    needy = [(label(part), label(companion(part))) for part in candidates if companion(part)]
    needs = "".join(f"\n`{part}` runs on networks with `{surgery}`, which it needs.\n" for part, surgery in needy)
    return f"{first}\n\n{second}\n{needs}\n### Advice\n\n{grid.notes()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, default=ROOT / "docs/compositions.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    grid = Grid()
    text = generated([(family, part) for family in SLOTS for part in specs(family)], grid)
    when = datetime.now(UTC).date().isoformat()
    counts = f"{grid.counts['works']} recipes work, {grid.counts['refused']} are refused with advice"
    stamp = f"`python tools/pairs_grid.py`, {when}, torch {torch.__version__.split('+')[0]}: {counts}."
    page = arguments.page.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    arguments.page.write_text(f"{before}{BEGIN}\n{stamp}\n\n{text}\n{END}{after}", encoding="utf-8")
    print(f"{arguments.page}: {counts}")


if __name__ == "__main__":
    main()
