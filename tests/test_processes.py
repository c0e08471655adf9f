import multiprocessing
import os
import resource
import sys

import pytest
import torch

from levelhead.processes import each, environment, pool

STEPS = 20
MEGABYTES = 8


def half(number: int) -> float:
    if number == 3:
        raise ValueError("three")
    return number / 2


def threads_and_parent() -> tuple[int, int | None]:
    parent = multiprocessing.parent_process()
    return torch.get_num_threads(), None if parent is None else parent.pid


def page_faults_of_steps() -> float:
    """Page faults a step that allocates and frees the same megabytes, after the first few steps."""
    for _ in range(STEPS):
        torch.ones(MEGABYTES << 18)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(STEPS):
        torch.ones(MEGABYTES << 18)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / STEPS


def place_of(tensor: torch.Tensor) -> tuple[bool, float]:
    return tensor.is_shared(), float(tensor.sum())


@pytest.mark.parametrize("workers", [1, 2])
def test_each_gives_the_results_in_order(workers):
    assert list(each(half, [(2,), (1,), (4,)], workers=workers)) == [1.0, 0.5, 2.0]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_failure_is_raised(workers):
    with pytest.raises(ValueError, match="three"):
        list(each(half, [(2,), (3,), (4,)], workers=workers))


def test_a_worker_has_one_thread_and_keeps_its_memory():
    with pool(1) as executor:
        assert executor.submit(threads_and_parent).result() == (1, os.getpid())
        faults = executor.submit(page_faults_of_steps).result()
    if sys.platform == "linux" and hasattr(os, "confstr") and "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or ""):
        assert faults < 10, f"{faults} page faults for {MEGABYTES} MiB that the heap should have kept"


def test_jobs_share_the_memory_of_their_tensors():
    data = torch.ones(3, 1000)
    assert list(each(place_of, [(data,), (data,)], workers=2)) == [(True, 3000.0)] * 2


def many_tensors(number: int) -> list[torch.Tensor]:
    return [torch.full((2,), float(number + place)) for place in range(50)]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are counted through /proc")
def test_results_keep_no_file_open():
    next(each(half, [(1,), (2,)], workers=2))  # what starts once opens some
    before = len(os.listdir("/proc/self/fd"))
    results = list(each(many_tensors, [(0,), (1,)], workers=2))
    assert len(os.listdir("/proc/self/fd")) - before < 20
    assert torch.equal(results[1][3], torch.full((2,), 4.0))
    assert not results[0][0].is_shared()


def test_variables_are_lent_and_what_the_user_set_is_kept(monkeypatch):
    monkeypatch.setenv("LEVELHEAD_SET", "by the user")
    with environment(LEVELHEAD_SET="by us", LEVELHEAD_LENT="1"):
        assert (os.environ["LEVELHEAD_SET"], os.environ["LEVELHEAD_LENT"]) == ("by the user", "1")
    assert os.environ["LEVELHEAD_SET"] == "by the user"
    assert "LEVELHEAD_LENT" not in os.environ
