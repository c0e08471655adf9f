"""A picture of all corruptions at all severities, for the docs: python tools/make_corruptions_picture.py

One row a corruption; the image as it is first, then severities 1 to 5. `--changes 1000` prints instead, as a table for
the docs, by how many grey levels the first 1000 images change.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from PIL import Image, ImageDraw
from torch import Tensor

from levelhead.catalogue import name_of, parts
from levelhead.shifts._base import SEVERITIES, Corruption
from levelhead.tasks.cifar10 import read_parquet

ORDER = ("noise", "blur", "weather", "digital", "extra")
LABEL = 120  # pixels for the names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, default=Path("../shared/data/cifar10/test.parquet"))
    parser.add_argument("--index", type=int, default=13, help="which image of the file")
    parser.add_argument("--enlarge", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("docs/images/corruptions.png"))
    parser.add_argument("--changes", type=int, help="print the mean change of so many images")
    options = parser.parse_args()
    x, _ = read_parquet(options.images)
    if options.changes:
        print(changes(x[: options.changes].float() / 255))
        return
    picture = sheet(x[options.index : options.index + 1].float() / 255, options.enlarge)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(256, method=Image.Quantize.MEDIANCUT).save(options.out, optimize=True)
    print(f"{options.out}: {options.out.stat().st_size / 1024:.0f} KB")


def corruptions() -> list[type[Corruption[Any]]]:
    """By group, then by name."""
    found = [spec for spec in parts("shifts") if issubclass(spec, Corruption)]
    return sorted(found, key=lambda spec: ORDER.index(spec.group))


def changes(x: Tensor) -> str:
    """Mean |change| of the pixels in grey levels of 0 to 255, a row a corruption."""
    lines = ["| corruption | 1 | 2 | 3 | 4 | 5 |", "|---|---:|---:|---:|---:|---:|"]
    for spec in corruptions():
        found = []
        for severity in SEVERITIES:
            shifted = spec()(x, severity, torch.Generator().manual_seed(severity))
            found.append(f"{255 * float((shifted - x).abs().mean()):.1f}")
        lines.append(f"| {name_of(spec)} | {' | '.join(found)} |")
    return "\n".join(lines)


def sheet(x: Tensor, enlarge: int) -> Image.Image:
    """Two columns of corruptions; each has a name and six images."""
    specs = corruptions()
    size = 32 * enlarge
    rows, wide = -(-len(specs) // 2), LABEL + 6 * (size + 2) + 10
    page = Image.new("RGB", (2 * wide, rows * (size + 2)), "white")
    pen = ImageDraw.Draw(page)
    for number, spec in enumerate(specs):
        left, top = wide * (number // rows), (size + 2) * (number % rows)
        pen.text((left + 4, top + size // 2 - 6), name_of(spec), fill="black")
        for place, severity in enumerate((0, *SEVERITIES)):
            shifted = spec()(x, severity, torch.Generator().manual_seed(severity))
            levels = rearrange(shifted[0].mul(255).round().to(torch.uint8), "c h w -> h w c").numpy()
            tile = Image.fromarray(levels).resize((size, size), Image.Resampling.NEAREST)
            page.paste(tile, (left + LABEL + place * (size + 2), top))
    return page


if __name__ == "__main__":
    main()
