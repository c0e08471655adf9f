"""The 19 corruptions at 5 severities, 10,000 CIFAR-10 images, beside corrupt-tta's per-image route; two processes each.

Both sides get the same two worker processes of one thread each, and half of the images each worker. Ours takes all
10,000 images in blocks of 250, as evaluation does; the rival takes every tenth image, in its slowest types and for the
whole set every hundredth, and its time counts tenfold or a hundredfold. A row is a type at all five severities; `all`
is the whole set, and `all_but_frost` the set without the type in which the rival reads its texture from a file for
every image. The rival corrupts 32 x 32 images with the constants of 224 x 224 ones, and draws a motion blur, a fog and
a spatter of its own: its work is like ours, not equal.
Without `../shared/data/cifar10/test.parquet` the images are random blobs.
"""

import atexit
import functools
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness import Contest, Rival
from levelhead.catalogue import name_of, parts
from levelhead.shifts._base import SEVERITIES, Corruption
from levelhead.tasks.cifar10 import read_parquet

CIFAR = Path("../shared/data/cifar10/test.parquet")
IMAGES, QUICK_IMAGES = 10_000, 1000
OFTEN, SELDOM = 10, 100  # the rival takes one image of so many
SLOW = ("elastic_transform", "frost", "glass_blur", "zoom_blur")
BLOCK = 250
WORKERS = 2
ALL, BUT_FROST = "all", "all_but_frost"

_pixels: NDArray[np.uint8]  # of a worker: its half of the images, (image, 3, height, width)


def contests(*, quick: bool) -> Iterator[Contest]:
    """A contest a corruption, then the whole set."""
    pixels = images(QUICK_IMAGES if quick else IMAGES)
    names = [name_of(spec) for spec in parts("shifts") if issubclass(spec, Corruption)]
    pool = workers(pixels)
    rows = {name: [name] for name in names}
    rows |= {ALL: names, BUT_FROST: [name for name in names if name != "frost"]}
    for row, wanted in rows.items():
        every = SELDOM if len(wanted) > 1 or row in SLOW else OFTEN
        yield Contest(
            functools.partial(everywhere, pool, batched, wanted),
            {
                row: Rival(
                    functools.partial(everywhere, pool, functools.partial(one_by_one, every), wanted),
                    needs=("corrupt_tta",),
                    what=f"corrupt-tta, every {every}th image, time x {every}",
                    share=1 / every,
                )
            },
            warm_up=row not in (ALL, BUT_FROST),
        )


def images(count: int) -> NDArray[np.uint8]:
    """CIFAR-10's test images in order, or soft random ones; (image, 3, 32, 32)."""
    if CIFAR.is_file():
        x, _ = read_parquet(CIFAR)
        return x[:count].numpy()
    blobs = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    soft = torch.nn.functional.interpolate(blobs, size=(32, 32), mode="bilinear")
    return soft.mul(255).to(torch.uint8).numpy()


def workers(pixels: NDArray[np.uint8]) -> list[ProcessPoolExecutor]:
    """A pool of one process for each half of the images, so that each half stays where it is."""
    context = multiprocessing.get_context("spawn")
    pools = [
        ProcessPoolExecutor(1, mp_context=context, initializer=settle, initargs=(half,))
        for half in np.array_split(pixels, WORKERS)
    ]
    for pool in pools:
        atexit.register(pool.shutdown)
    return pools


def settle(pixels: NDArray[np.uint8]) -> None:
    """What a worker keeps: its images, and one thread for everything that could take more."""
    global _pixels
    _pixels = pixels
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def everywhere(pools: list[ProcessPoolExecutor], work: Callable[[list[str]], None], names: list[str]) -> None:
    """The work in both workers at once."""
    for done in [pool.submit(work, names) for pool in pools]:
        done.result()


def batched(names: list[str]) -> None:
    """Ours: blocks of images, from and to floats in [0, 1] as tasks hold them."""
    shifts = {name_of(spec): spec() for spec in parts("shifts")}
    x = torch.from_numpy(_pixels).float() / 255
    for name in names:
        for severity in SEVERITIES:
            for number, block in enumerate(x.split(BLOCK)):
                shifts[name](block, severity, torch.Generator().manual_seed(number))


def one_by_one(every: int, names: list[str]) -> None:
    """The rival: an array a time, from and to levels of 0 to 255."""
    import corrupt_tta
    import cv2

    cv2.setNumThreads(1)
    pictures = np.ascontiguousarray(_pixels[::every].transpose(0, 2, 3, 1))
    for name in names:
        for severity in SEVERITIES:
            for picture in pictures:
                corrupt_tta.corrupt(picture, severity, name)
