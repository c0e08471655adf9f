"""Figures: panels of SVG in a grid, with a caption, a key to the recipes, and their numbers as a table.

A recipe is known by a number, a colour and a marker, the same in every figure of a page; no figure needs colour alone.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import cos, pi, sin

from levelhead.report.markup import Markup, el, join, number
from levelhead.report.scale import Scale, tick_text

COLOURS = 8  # in page.css, as --c1 to --c8
MARKERS = 7  # prime to the colours, so that 56 recipes look different
LABEL_HEIGHT = 11.0


@dataclass(frozen=True)
class Series:
    """A recipe as figures show it: counted from 1 in the order of the study."""

    number: int
    name: str

    @property
    def colour(self) -> str:
        """The class that gives the colour."""
        return f"k{(self.number - 1) % COLOURS + 1}"

    def group(self, *content: object) -> Markup:
        """Marks of this recipe, in its colour; highlighted together."""
        return el("g", *content, class_=f"s {self.colour}", data_s=self.number)

    def marker(self, x: float, y: float, *, radius: float = 3.6, title: str | None = None) -> Markup:
        """This recipe's marker, with a title that shows when pointed at."""
        tip = None if title is None else el("title", title)
        return el("path", tip, d=_marker_path((self.number - 1) % MARKERS, x, y, radius), class_="m")


@dataclass(frozen=True)
class Table:
    """Numbers as rows of text under column heads; the first column names the row."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markup(self, caption: str) -> Markup:
        """As HTML, in a box that scrolls."""
        head = el("tr", (el("th", text, scope="col") for text in self.heads))
        rows = (el("tr", el("th", first, scope="row"), (el("td", text) for text in rest)) for first, *rest in self.rows)
        table = el("table", el("caption", caption), el("thead", head), el("tbody", rows), class_="plain")
        return scrolling(table, label=caption)


def scrolling(content: Markup, *, label: str) -> Markup:
    """A box that scrolls sideways, reachable by keyboard."""
    return el("div", content, class_="scroll", tabindex=0, role="region", aria_label=label)


def svg(slug: str, size: tuple[float, float], *content: object, title: str, text: str) -> Markup:
    """A picture with its accessible name and a description in words; `slug` must be unique in the page."""
    width, height = size
    return el(
        "svg",
        el("title", title, id=f"{slug}-t"),
        el("desc", text, id=f"{slug}-d"),
        *content,
        viewbox=f"0 0 {number(width)} {number(height)}",
        role="img",
        aria_labelledby=f"{slug}-t",
        aria_describedby=f"{slug}-d",
    )


def frame(
    x: Scale,
    y: Scale,
    *,
    x_label: str,
    x_ticks: Sequence[float] | None = None,
    y_ticks: Sequence[float] | None = None,
    room: float = 0.0,
) -> Markup:
    """Grid lines, tick labels and the label of the x axis; a panel's heading names the y axis.

    room  kept free between the y axis and its tick labels.
    """
    across = x.ticks() if x_ticks is None else x_ticks
    up = y.ticks() if y_ticks is None else y_ticks
    lines = [
        *(el("line", x1=x.start, x2=x.stop, y1=y(tick), y2=y(tick), class_="grid") for tick in up),
        el("line", x1=x.start, x2=x.stop, y1=y.start, y2=y.start, class_="axis"),
        *(el("line", x1=x(tick), x2=x(tick), y1=y.start, y2=y.start + 4, class_="axis") for tick in across),
    ]
    texts = [
        *(el("text", tick_text(tick), x=x.start - 6 - room, y=y(tick) + 3.5, class_="t e") for tick in up),
        *(el("text", tick_text(tick), x=x(tick), y=y.start + 15, class_="t c") for tick in across),
        el("text", x_label, x=(x.start + x.stop) / 2, y=y.start + 30, class_="l c"),
    ]
    return el("g", lines, texts, aria_hidden="true")


def whisker(x: float, low: float, high: float) -> Markup:
    """A vertical error bar between two places."""
    return el("path", d=f"M{number(x)} {number(low)}V{number(high)}", class_="w")


def polyline(points: Iterable[tuple[float, float]], class_: str = "ln") -> Markup:
    """A line through places."""
    return el("polyline", points=" ".join(f"{number(x)},{number(y)}" for x, y in points), class_=class_)


def end_labels(ends: Sequence[tuple[Series, float, float]], *, x: float, low: float, high: float) -> Markup:
    """The recipes' numbers in a column beside `x`, each at the end of its line, apart where they would overlap.

    The column stands right of the lines' ends, or left of them where x is.
    """
    side = -1 if ends and x < min(end for _, end, _ in ends) else 1
    order = sorted(ends, key=lambda end: end[2])
    places = spread([y for _, _, y in order], gap=LABEL_HEIGHT, low=low, high=high)
    labels = []
    for (series, end, y), place in zip(order, places, strict=True):
        leader = el("path", d=f"M{number(end + 5 * side)} {number(y)}L{number(x)} {number(place)}", class_="lead")
        text = el("text", series.number, x=x + 2 * side, y=place + 3.5, class_="n" if side > 0 else "n e")
        labels.append(series.group(leader, text))
    return el("g", labels, aria_hidden="true")


def spread(wanted: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Places near the wanted ones (in order), at least `gap` apart, inside [low, high] where there is room."""
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    places: list[float] = []
    for place in wanted:
        places.append(max(place, low, places[-1] + gap if places else low))
    limit = high
    for k in reversed(range(len(places))):
        places[k] = min(places[k], limit)
        limit = places[k] - gap
    return places


def key(series: Iterable[Series]) -> Markup:
    """Which number, colour and marker is which recipe; each a button that highlights it in all figures."""
    entries = (el("li", el("button", named(one), type="button", data_s=one.number)) for one in series)
    return el("ul", entries, class_="key", aria_label="Recipes")


def badge(series: Series) -> Markup:
    """A recipe's marker and number."""
    marker = el("svg", series.marker(6, 6, radius=4), viewbox="0 0 12 12", width=12, height=12, aria_hidden="true")
    return el("span", marker, el("b", series.number), class_=f"badge {series.colour}")


def figure(
    panels: Iterable[tuple[Markup | str, Markup]],
    *,
    caption: str | Markup,
    of: Iterable[Series] = (),
    numbers: Markup | None = None,
    small: bool = False,
) -> Markup:
    """Panels (heading, picture) in a grid that folds; `numbers` are what the pictures show, behind a switch."""
    cells = [el("div", el("p", heading, class_="panel-head"), picture, class_="panel") for heading, picture in panels]
    entries = list(of)
    details = None if numbers is None else el("details", el("summary", "The numbers as a table"), numbers)
    return el(
        "figure",
        el("div", cells, class_="panels small" if small else "panels"),
        key(entries) if entries else None,
        el("figcaption", caption),
        details,
    )


def named(series: Series) -> Markup:
    """A recipe's marker, number and name."""
    return el("span", badge(series), el("span", breakable(series.name), class_="recipe"), class_="named")


def breakable(name: str) -> Markup:
    """A recipe's text that may be broken where its words end."""
    return join((piece, Markup("<wbr>")) for piece in re.findall(r"[^_(,]+[_(,]*|[_(,]+", name))


def views(slug: str, parts: Sequence[tuple[str, Markup]]) -> Markup:
    """The same thing in several measures, below one another; with scripts, one at a time behind a row of buttons."""
    if len(parts) == 1:
        return parts[0][1]
    blocks = (
        el("div", el("p", label, class_="view-head"), content, class_="view", data_label=label)
        for label, content in parts
    )
    return el("div", blocks, class_="views", id=slug)


def _marker_path(kind: int, x: float, y: float, r: float) -> str:
    if kind == 0:  # circle
        return f"M{number(x - r)} {number(y)}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z"
    if kind == 6:  # plus
        a, b = r * 1.15, r * 0.4
        corners = [
            (-b, -a),
            (b, -a),
            (b, -b),
            (a, -b),
            (a, b),
            (b, b),
            (b, a),
            (-b, a),
            (-b, b),
            (-a, b),
            (-a, -b),
            (-b, -b),
        ]
        return _closed([(x + dx, y + dy) for dx, dy in corners])
    # square, triangle, diamond, triangle down, pentagon: corners, turn and size that makes their areas alike
    corners_of = {
        1: (4, pi / 4, 1.25),
        2: (3, -pi / 2, 1.4),
        3: (4, 0.0, 1.3),
        4: (3, pi / 2, 1.4),
        5: (5, -pi / 2, 1.15),
    }
    count, turn, size = corners_of[kind]
    angles = [turn + 2 * pi * k / count for k in range(count)]
    return _closed([(x + r * size * cos(angle), y + r * size * sin(angle)) for angle in angles])


def _closed(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points) + "z"
