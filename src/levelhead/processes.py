"""Independent jobs in processes of one thread each: two beside a busy one run ten times slower."""

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

import torch

T = TypeVar("T")

# From malloc.h: mallopt's names for what glibc gives back to the system, and for what it never takes from the heap.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
HEAP_PIECES = 32 << 20  # bytes; glibc allows no larger piece on the heap


def pool(workers: int) -> ProcessPoolExecutor:
    """A pool of fresh one-thread processes that end with their parent, however it ends."""
    return ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=become_worker, initargs=(os.getpid(),)
    )


def each(function: Callable[..., T], jobs: Sequence[tuple[Any, ...]], *, workers: int = 1) -> Iterator[T]:
    """function(*job) for every job, in order; side by side where workers > 1. The first failure is raised."""
    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            yield function(*job)
        return
    with pool(min(workers, len(jobs))) as executor:
        futures = [executor.submit(function, *job) for job in jobs]
        try:
            for future in futures:
                yield future.result()
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def become_worker(parent: int) -> None:
    """Make this process a worker: one thread, memory kept for the next step, and it ends when its parent does."""
    torch.set_num_threads(1)
    keep_memory()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def keep_memory() -> None:
    """Let glibc keep what tensors free, for the process's whole life; other C libraries are left as they are.

    A training step frees and allocates the same megabytes again and again. By default they go back to the system, which
    hands them out anew page by page: 2,600 page faults a step of LeNet at batch 128, a quarter of its time.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, HEAP_PIECES)
            mallopt(M_TRIM_THRESHOLD, sys.maxsize >> 32)


def _end_with(parent: int) -> None:
    """Leave when the parent is gone: a killed run must not leave trainers behind."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
