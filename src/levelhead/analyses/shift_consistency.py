"""Whether a network says the same of an image that has moved by some pixels."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

PADS = {"reflect": "reflect", "circular": "circular", "replicate": "replicate", "zeros": "constant"}
CROP = "crop"


class Consistency(NamedTuple):
    """The share of pairs of views of one image with the same answer, and its standard error over images."""

    share: float
    error: float
    rows: int


def shift_consistency(
    predict: Callable[[Tensor], Float[Tensor, "batch class"]],
    x: Float[Tensor, "batch channel h w"],
    *,
    max_shift: int = 4,
    num_views: int = 4,
    pad: str = "reflect",
    seed: int = 0,
    batch_size: int = 100,
) -> Consistency:
    """P(argmax of one randomly moved view = argmax of another), over pairs of `num_views` views of every image.

    predict  scores of classes, of which the largest is the answer.
    pad      how the pixels that come in are made up: "reflect", "circular", "replicate", "zeros". "crop" makes up none:
             views are crops smaller by `max_shift`, as Zhang (arXiv 1904.11486) has it (224 of 256 pixels, two views);
             only for networks that read any size.

    Moves are whole pixels, uniform from -max_shift to max_shift along each axis (crops: 0 to max_shift), each image's
    own, from `seed` and the image's place in x: the same for every network.
    """
    answers = torch.stack(
        [
            torch.cat([predict(some).argmax(-1).cpu() for some in view.split(batch_size)])
            for view in views(x, max_shift=max_shift, num_views=num_views, pad=pad, seed=seed)
        ]
    )
    return agreement(answers)


def views(
    x: Float[Tensor, "batch channel h w"], *, max_shift: int, num_views: int, pad: str = "reflect", seed: int = 0
) -> Iterator[Float[Tensor, "batch channel g v"]]:
    """The moved views that `shift_consistency` compares, one after the other."""
    if max_shift < 1 or num_views < 2:
        raise ValueError(
            f"shift_consistency: wants max_shift from 1 and num_views from 2, got {max_shift} and {num_views}"
        )
    if pad not in (*PADS, CROP):
        raise ValueError(f"shift_consistency: pad must be one of {', '.join(map(repr, (*PADS, CROP)))}; got {pad!r}")
    height, width = x.shape[-2:]
    if min(height, width) <= max_shift:
        raise ValueError(
            f"shift_consistency: max_shift={max_shift} moves images of {height} x {width} pixels out of themselves"
        )
    crops = pad == CROP
    around = x if crops else F.pad(x, (max_shift,) * 4, mode=PADS[pad])
    size = (height - max_shift, width - max_shift) if crops else (height, width)
    reach = max_shift if crops else 2 * max_shift
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(reach + 1, (len(x), num_views, 2), generator=generator)
    for view in range(num_views):
        yield cut(around, corners[:, view].to(x.device), size)


def cut(
    x: Float[Tensor, "batch channel h w"], corners: Int[Tensor, "batch 2"], size: tuple[int, int]
) -> Float[Tensor, "batch channel g v"]:
    """A window of each image, from its own upper left corner (row, column)."""
    rows = rearrange(corners[:, 0], "b -> b 1 1") + rearrange(torch.arange(size[0], device=x.device), "g -> 1 g 1")
    columns = rearrange(corners[:, 1], "b -> b 1 1") + rearrange(torch.arange(size[1], device=x.device), "v -> 1 1 v")
    images = rearrange(torch.arange(len(x), device=x.device), "b -> b 1 1")
    return rearrange(rearrange(x, "b c h w -> b h w c")[images, rows, columns], "b g v c -> b c g v")


def agreement(answers: Int[Tensor, "view batch"]) -> Consistency:
    """The share of pairs of views that agree, of every image, and over them."""
    count, rows = answers.shape
    same = rearrange(answers, "a b -> a 1 b") == rearrange(answers, "c b -> 1 c b")
    by_row = (same.double().sum((0, 1)) - count) / (count * (count - 1))
    error = float(by_row.std(unbiased=True)) / rows**0.5 if rows > 1 else float("nan")
    return Consistency(float(by_row.mean()), error, rows)
