"""What to see in a figure, in a line for each recipe."""

from collections.abc import Sequence

from levelhead.report.figure import Series, badge
from levelhead.report.markup import Markup, el, join


def reading(told: Sequence[tuple[Series, str]], *, known: str | None = None) -> Markup:
    """A sentence a recipe, without its recipe where there is only one; `known` is what the literature says."""
    note = None if known is None else el("p", known, class_="note")
    if len(told) == 1:
        text = told[0][1]
        return join(el("p", f"{text[:1].upper()}{text[1:]}", class_="reading"), note)
    return join(el("ul", (el("li", badge(series), el("span", text)) for series, text in told), class_="readings"), note)
