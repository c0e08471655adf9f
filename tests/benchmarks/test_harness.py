import os
import subprocess
import sys
import time

import pytest
import torch

from benchmarks.harness import (
    Contest,
    Rival,
    Row,
    Timing,
    hold,
    machine,
    processor_seconds,
    ratio_lines,
    rows_of,
    seconds,
    table,
)


def turns(*walls: float) -> tuple[Timing, ...]:
    return tuple(Timing(wall, 2 * wall) for wall in walls)


def logged(log: list[str], name: str):
    return lambda: log.append(f"{name}{torch.get_num_threads()}")


def test_everybody_warms_up_once_and_the_first_turn_moves_on_each_round():
    log = []
    contest = Contest(logged(log, "ours"), {"a": Rival(logged(log, "a"), threads=2), "b": Rival(logged(log, "b"))})
    rows = rows_of(contest, rounds=2)
    assert log == ["ours1", "a2", "b1", "ours1", "a2", "b1", "a2", "b1", "ours1"]
    assert [row.name for row in rows] == ["a", "b"]
    assert [len(row.ours) for row in rows] == [len(row.theirs) for row in rows] == [2, 2]
    assert rows[0].ours == rows[1].ours  # one turn of ours a round serves all rivals


def test_without_a_warm_up_only_the_rounds_run():
    log = []
    rows_of(Contest(logged(log, "ours"), {"a": Rival(logged(log, "a"))}, warm_up=False), rounds=1)
    assert log == ["ours1", "a1"]


def test_threads_are_put_back_even_after_a_failure():
    before = torch.get_num_threads()

    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        rows_of(Contest(fail, {"a": Rival(fail)}, threads=before + 1), rounds=1)
    assert torch.get_num_threads() == before


def test_a_rival_that_is_not_installed_gets_a_row_that_says_so_and_no_ratio():
    log = []
    absent = Rival(logged(log, "absent"), needs=("os", "no_such_module"))
    rows = list(hold([Contest(logged(log, "ours"), {"absent": absent})], rounds=3))
    assert log == []  # nor do we run for nothing
    assert rows[0].missing == ("no_such_module",)
    assert ratio_lines("some", rows) == []
    assert "not installed: no_such_module" in table(rows)


def test_a_ratio_is_the_median_of_the_rounds_own_ratios():
    row = Row("a", ours=turns(1, 10, 3), theirs=turns(2, 10, 2))
    assert row.ratios == [0.5, 1.0, 1.5]
    assert row.ratio == row.cpu_ratio == 1.0
    assert ratio_lines("some", [row]) == ["ratio some/a 1.0000"]


def test_the_table_has_medians_and_the_spread():
    row = Row("a", ours=turns(1, 10, 3), theirs=turns(2, 10, 2), what="a loop")
    assert table([row]).splitlines()[-1] == "| a | 3 | 2 | 1.000 | 0.50 to 1.50 | 1.00 | a loop |"


@pytest.mark.parametrize("value, text", [(0.012345, "0.0123"), (99.94, "99.9"), (123.4, "123")])
def test_seconds_have_three_digits(value, text):
    assert seconds(value) == text


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="without /proc, children count when they have ended")
def test_processor_time_counts_a_child_that_is_alive():
    busy = "import time\nwhile time.process_time() < 0.3: pass\nprint('done', flush=True)\ninput()"
    before = processor_seconds()
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"done\n"
        alive = processor_seconds()
        child.communicate(b"\n")
    assert alive - before > 0.25
    assert processor_seconds() >= alive


def test_a_turn_that_sleeps_takes_time_by_the_clock_alone():
    row = rows_of(Contest(lambda: time.sleep(0.2), {"a": Rival(lambda: None)}, warm_up=False), rounds=1)[0]
    assert row.ours[0].wall >= 0.2
    assert row.ours[0].cpu < 0.15


def test_a_rival_that_does_a_share_of_the_work_has_its_seconds_scaled():
    contest = Contest(lambda: time.sleep(0.1), {"a": Rival(lambda: time.sleep(0.05), share=0.1)}, warm_up=False)
    row = rows_of(contest, rounds=1)[0]
    assert row.theirs[0].wall >= 0.5
    assert row.ratio < 0.9


def test_the_machine_is_told_in_words():
    assert f"{os.cpu_count()} cores" in machine()
    assert f"torch {torch.__version__}" in machine()
