"""Independent jobs in processes of one thread each: two beside a busy one run ten times slower.

On Linux workers are forked from one process that has imported torch and done nothing else: they start in milliseconds,
where a fresh process imports for seconds. Elsewhere forking is not safe, and each worker starts afresh.
"""

import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import forkserver, get_context, parent_process
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import IO, Any, TypeVar

import torch

T = TypeVar("T")

# A step of training frees and allocates the same megabytes again and again. By default glibc gives them back to the
# system, which hands them out anew page by page: 2,600 page faults a step of LeNet at batch 128, a quarter of its time.
# A worker keeps what it freed, in huge pages. Other C libraries, and versions before 2.35, pass over what they do not
# know. The pieces that may lie on the heap are as large as glibc allows.
TUNABLES = "glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=2147483647:glibc.malloc.mmap_threshold=33554432"


def pool(workers: int) -> ProcessPoolExecutor:
    """A pool of one-thread processes that end with their parent, however it ends."""
    return ProcessPoolExecutor(workers, mp_context=context(), initializer=become_worker)


def context() -> BaseContext:
    """How workers start here."""
    if sys.platform != "linux":
        return get_context("spawn")
    chosen = get_context("forkserver")
    chosen.set_forkserver_preload(["levelhead", "torch._dynamo"])  # torch imports the second for any optimiser
    with environment(GLIBC_TUNABLES=TUNABLES):
        forkserver.ensure_running()
    return chosen


def each(function: Callable[..., T], jobs: Sequence[tuple[Any, ...]], *, workers: int = 1) -> Iterator[T]:
    """function(*job) for every job, in order; side by side where workers > 1. The first failure is raised."""
    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            yield function(*job)
        return
    with pool(min(workers, len(jobs))) as executor:
        futures = [executor.submit(_packed, function, job) for job in jobs]
        try:
            for future in futures:
                yield pickle.loads(future.result())
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def _packed(function: Callable[..., Any], job: tuple[Any, ...]) -> bytes:
    """The result as bytes: torch would share each of its tensors, and each would keep a file open in the parent."""
    return pickle.dumps(function(*job), protocol=pickle.HIGHEST_PROTOCOL)


def become_worker() -> None:
    """Make this process a worker: one thread, and it ends when its parent does."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Leave when the parent is gone: a killed run must not leave trainers behind."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Variables for the processes that start meanwhile, unless the user has set them; this process reads none."""
    missing = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


@contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Hold a folder's lock for a while; False where another process holds it. The lock ends with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+b") as file:
        if not _lock(file):
            yield False
            return
        try:
            yield True
        finally:
            _unlock(file)


if sys.platform == "win32":  # pragma: no cover

    def _lock(file: IO[bytes]) -> bool:
        import msvcrt

        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(file: IO[bytes]) -> None:
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:

    def _lock(file: IO[bytes]) -> bool:
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _unlock(file: IO[bytes]) -> None:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_UN)
