"""`levelhead predict`: images or rows of a table in, probabilities and uncertainty out."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import Tensor

from levelhead.cli.console import err, print_json, simple_table
from levelhead.cli.console import out as stdout
from levelhead.cli.options import RUNNING, AsJson, Device, Trust
from levelhead.likelihood import Signature
from levelhead.predictive import CategoricalMixture, Predictive
from levelhead.storage import load
from levelhead.studies.store import read_json, write_json
from levelhead.types import require

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


def predict(
    predictor: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTOR", help="A saved predictor, or the run folder that holds one.", show_default=False
        ),
    ],
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...", help="Images, folders of images, or one CSV file with a header.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Write the table to this file (.csv or .json) instead of the terminal.",
            rich_help_panel=RUNNING,
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option("--columns", help="The CSV columns to read, in the order of training: a,b,c.", show_default=False),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option("--classes", help="Names of the classes: cat,dog. Run folders know theirs.", show_default=False),
    ] = None,
    trust: Trust = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Rows a pass.", rich_help_panel=RUNNING)] = 256,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Predict images or rows of a CSV file: a table with probabilities and how sure they are.

    \b
    [bold]Columns[/bold]
      label, confidence   the most likely class, and its probability
      p(NAME)             the probability of each class
      total               how unsure the prediction is altogether: entropy, in nats
      aleatoric           the part that lies in the input: more training would not remove it
      epistemic           the part that lies in the predictor: how far its members disagree
      set                 the labels of the prediction set (a | b), where the recipe makes sets (lac, aps, raps)
      accepted            whether the prediction is given at all, where the recipe may abstain (selective)
    For real targets: mean and sd, and the three as variances; low and high where the recipe makes intervals (cqr).

    \b
    [bold]Examples[/bold]
      levelhead predict my_predictor photos/ --out beliefs.csv
      levelhead predict runs/fashion-mini/lenet-0123456789ab/0 shoe.png --json
      levelhead predict runs/uci-yacht/mlp-0123456789ab/0 boats.csv --columns length,beam,speed
    """
    folder = predictor if (predictor / "predictor.json").exists() else predictor / "predictor"
    known = read_json(folder.parent / "recipe.json") or {}
    model = load(folder, trust=tuple(trust or ())).to(device)
    signature = next(model.networks()).signature
    names = classes.split(",") if classes else known.get("classes") or []
    wanted = None if columns is None else columns.split(",")
    rows: list[dict[str, Any]] = []
    remarks: dict[str, None] = {}
    for keys, x in read_inputs(inputs, signature, wanted, batch_size, remarks):
        rows += believe(model, keys, x.to(device), names)
    for remark in remarks:
        err().print(f"[yellow]note[/yellow] {remark}")
    if out is not None:
        write(out, rows)
        err().print(f"{len(rows)} rows in {out}", markup=False)
    elif as_json:
        print_json(rows)
    else:
        shown = [[text(value) for value in row.values()] for row in rows]
        stdout().print(simple_table(list(rows[0]) if rows else [], shown))


def believe(model: Any, keys: Sequence[str], x: Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
    """One row of the table for each input."""
    import torch

    with torch.no_grad():
        belief: Predictive = model(x)
    sure = {name: getattr(belief, name)().tolist() for name in ("total", "aleatoric", "epistemic")}
    if isinstance(belief, CategoricalMixture):
        probs = belief.probs
        names = list(names) if len(names) == probs.shape[-1] else [str(k) for k in range(probs.shape[-1])]
        found = [
            {
                "input": key,
                "label": names[label],
                "confidence": confidence,
                **{f"p({name})": p for name, p in zip(names, row, strict=True)},
            }
            for key, label, confidence, row in zip(
                keys, belief.label.tolist(), belief.confidence.tolist(), probs.tolist(), strict=True
            )
        ]
    else:
        found = [
            {"input": key, **moments(mean, variance)}
            for key, mean, variance in zip(keys, belief.mean.tolist(), belief.variance.tolist(), strict=True)  # type: ignore[attr-defined]
        ]
    more = decisions(belief, names)
    return [
        {**row, **{name: values[place] for name, values in sure.items()}, **more[place]}
        for place, row in enumerate(found)
    ]


def decisions(belief: Predictive, names: Sequence[str]) -> list[dict[str, Any]]:
    """What conformal and selective steps add to a row: its set or intervals, and whether it is accepted."""
    rows: list[dict[str, Any]] = [{} for _ in belief.total()]
    if belief.sets is not None:
        for row, kept in zip(rows, belief.sets.tolist(), strict=True):
            row["set"] = " | ".join(name for name, inside in zip(names, kept, strict=True) if inside)
    if belief.intervals is not None:
        for row, sides in zip(rows, belief.intervals.tolist(), strict=True):
            for k, (low, high) in enumerate(sides):
                mark = "" if len(sides) == 1 else f" {k}"
                row |= {f"low{mark}": low, f"high{mark}": high}
    if belief.accepted is not None:
        for row, accepted in zip(rows, belief.accepted.tolist(), strict=True):
            row["accepted"] = accepted
    return rows


def moments(mean: list[float], variance: list[float]) -> dict[str, float]:
    """mean and sd, numbered where there are several targets."""
    marks = [""] if len(mean) == 1 else [f" {k}" for k in range(len(mean))]
    return {
        name: value
        for mark, m, v in zip(marks, mean, variance, strict=True)
        for name, value in ((f"mean{mark}", m), (f"sd{mark}", v**0.5))
    }


def read_inputs(
    inputs: Sequence[Path], signature: Signature, columns: list[str] | None, size: int, remarks: dict[str, None]
) -> Iterator[tuple[list[str], Tensor]]:
    """Names and inputs, some rows at a time."""
    for path in inputs:
        if not path.exists():
            raise FileNotFoundError(f"{path}: there is no such file or folder")
    if len(signature.input_shape) == 1:
        if len(inputs) != 1 or inputs[0].suffix.lower() not in (".csv", ".tsv"):
            raise ValueError("this predictor reads rows of features: give one CSV file with a header")
        yield from read_table(inputs[0], signature.input_shape[0], columns, size)
        return
    files = sorted(
        file
        for path in inputs
        for file in ([path] if path.is_file() else path.rglob("*"))
        if file.suffix.lower() in IMAGES
    )
    if not files:
        raise ValueError(f"no images among {', '.join(map(str, inputs))}; wants files that end in {', '.join(IMAGES)}")
    for start in range(0, len(files), size):
        some = files[start : start + size]
        yield [str(file) for file in some], read_images(some, signature.input_shape, remarks)


def read_images(files: Sequence[Path], shape: tuple[int, ...], remarks: dict[str, None]) -> Tensor:
    """Pixels in [0, 1] as the predictor's network takes them: grey or colour, resized where they have another size."""
    import numpy
    import torch
    from einops import rearrange

    image = require("PIL.Image", extra="study")
    channels, height, width = shape
    mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(channels)
    if mode is None:
        raise ValueError(f"this predictor takes {channels} channels, which no image file has")
    pixels = []
    for file in files:
        try:
            with image.open(file) as opened:
                picture = opened.convert(mode)
        except (OSError, ValueError) as error:
            raise ValueError(f"{file} is no image that can be read: {error}") from None
        if picture.size != (width, height):
            remarks[f"images were resized to the {width} x {height} pixels that this predictor was trained on"] = None
            picture = picture.resize((width, height), image.Resampling.BILINEAR)
        pixels.append(rearrange(numpy.atleast_3d(numpy.asarray(picture)), "h w c -> c h w"))
    return torch.from_numpy(numpy.stack(pixels)).float() / 255


def read_table(path: Path, width: int, columns: list[str] | None, size: int) -> Iterator[tuple[list[str], Tensor]]:
    """Rows of a CSV file with a header."""
    import torch

    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ","))
    if len(lines) < 2:
        raise ValueError(f"{path}: wants a header and at least one row")
    header, body = [name.strip() for name in lines[0]], [line for line in lines[1:] if line]
    wanted = header if columns is None else [name.strip() for name in columns]
    unknown = [name for name in wanted if name not in header]
    if unknown:
        raise ValueError(f"{path}: there is no column {', '.join(unknown)}; there are {', '.join(header)}")
    if len(wanted) != width:
        raise ValueError(
            f"{path}: this predictor takes {width} features, got the {len(wanted)} columns {', '.join(wanted)}; "
            "choose them with --columns, in the order of training"
        )
    places = [header.index(name) for name in wanted]
    for start in range(0, len(body), size):
        some = body[start : start + size]
        try:
            values = [[float(line[place]) for place in places] for line in some]
        except (ValueError, IndexError) as error:
            raise ValueError(f"{path}: rows {start + 2} to {start + 1 + len(some)}: {error}; wants numbers") from None
        yield [str(start + place) for place in range(len(some))], torch.tensor(values)


def write(out: Path, rows: list[dict[str, Any]]) -> None:
    """The table as a file."""
    if out.suffix == ".json":
        write_json(out, rows)
        return
    if out.suffix != ".csv":
        raise ValueError(f"--out wants a name that ends in .csv or .json, got {out}")
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def text(value: Any) -> str:
    """A value in the terminal's table."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
