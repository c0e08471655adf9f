"""Independent jobs in processes of one thread each: two beside a busy one run ten times slower."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

import torch

T = TypeVar("T")


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
    """Make this process a worker: one thread, and it ends when its parent does."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """Leave when the parent is gone: a killed run must not leave trainers behind."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
