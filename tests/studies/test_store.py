import os
import signal
import subprocess
import sys

import pytest

from levelhead.studies import store
from levelhead.studies.store import Status


def row(metric, value, **others):
    what = {"evaluation": "clean", "data": "test", "severity": None, "metric": metric, "num_examples": 3}
    whose = {"task": "t", "recipe": "r", "backbone": "b", "digest": "d", "seed": 0}
    return {**whose, **what, "value": value, **others}


def half_written(path):
    with store.replacing(path) as scratch:
        scratch.write_text("half of")
        raise OSError("disk full")


def test_a_status_comes_back(tmp_path):
    status = Status("failed", 1.5, "E: no", "Traceback ...", ("clean",))
    store.write_status(tmp_path, status)
    assert store.read_status(tmp_path) == status
    assert store.read_status(tmp_path / "elsewhere") is None


def test_a_failed_write_leaves_the_old_file_and_no_scraps(tmp_path):
    path = tmp_path / "a.json"
    store.write_json(path, [1])
    with pytest.raises(TypeError):
        store.write_json(path, object())
    assert store.read_json(path) == [1]
    with pytest.raises(OSError, match="full"):
        half_written(path)
    assert store.read_json(path) == [1]
    assert list(tmp_path.iterdir()) == [path]


def test_a_suite_measured_again_replaces_what_it_said_but_not_what_training_told(tmp_path):
    shift = {"evaluation": "shift", "data": "fog"}
    cost = {"evaluation": "cost"}
    told = row("train_seconds", 9.0, evaluation="cost", data="train")
    first = [row("nll", 1.0), row("nll", 2.0, **shift, severity=1), row("nll", 3.0, **shift, severity=2), told]
    store.write_records(tmp_path, first)
    store.write_records(tmp_path, [row("nll", 5.0, **shift, severity=1), row("latency", 6.0, **cost)])
    found = {(r["evaluation"], r["metric"], r["severity"]): r["value"] for r in store.read_records(tmp_path)}
    assert found == {
        ("clean", "nll", None): 1.0,
        ("shift", "nll", 1): 5.0,
        ("cost", "latency", None): 6.0,
        ("cost", "train_seconds", None): 9.0,
    }
    assert set(store.read_records(tmp_path)[0]) == set(store.COLUMNS)


def test_cells_are_found_at_any_depth_in_order(tmp_path):
    for name in ("t/a-1/10", "t/a-1/2", "t/b-1/0"):
        store.write_status(tmp_path / name, Status())
    (tmp_path / "t/a-1/2/member-0").mkdir()
    assert [str(p.relative_to(tmp_path)) for p in store.find_cells(tmp_path)] == ["t/a-1/2", "t/a-1/10", "t/b-1/0"]
    assert store.find_cells(tmp_path / "t/b-1/0") == [tmp_path / "t/b-1/0"]


def test_a_lock_excludes_others_and_ends_with_its_process(tmp_path):
    program = (
        "import sys, time, pathlib; from levelhead.studies.store import held\n"
        "with held(pathlib.Path(sys.argv[1])) as mine: print(mine, flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert store.is_held(tmp_path)
        with store.held(tmp_path) as mine:
            assert not mine
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.communicate()
    with store.held(tmp_path) as mine:
        assert mine


def test_progress_counts_whole_lines_of_all_members(tmp_path):
    (tmp_path / "member-0").mkdir()
    (tmp_path / "member-1").mkdir()
    (tmp_path / "member-0" / "train.jsonl").write_text('{"epoch": 1, "seconds": 2}\n{"epoch": 4, "seconds": 3}\n')
    (tmp_path / "member-1" / "train.jsonl").write_text('{"epoch": 2, "seconds": 1}\n{"epo')
    assert store.progress(tmp_path) == 6


def test_clearing_keeps_the_lock(tmp_path):
    with store.held(tmp_path):
        (tmp_path / "predictor").mkdir()
        store.write_status(tmp_path, Status())
        store.clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
