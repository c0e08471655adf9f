"""Whole studies: results, failures, workers, and kills."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from studies.killed import LINES, killed_study
from studies.tiny import SMALL, SUITES, TIMED, Dies, FailsOnAllRows, finished, tiny

from levelhead.recipe import Recipe
from levelhead.samplers.sgd import SGD
from levelhead.studies import store
from levelhead.studies.compare import compare, run_study
from levelhead.studies.local import WorkersDoNotStart
from levelhead.studies.study import BadStudy, Study

QUICK = Recipe(backbone=SMALL, sampler=SGD(epochs=2))
PROGRAM = Path(__file__).with_name("killed.py")


def run(root, recipes=(QUICK,), **settings):
    return compare(tiny(), recipes, root=root, **{"seeds": 2, "suites": SUITES, "workers": 1, **settings})


def values(root):
    """What was measured, but for what was timed."""
    rows = [row for cell in store.find_cells(root) for row in store.read_records(cell)]
    return {tuple(row[key] for key in store.COLUMNS) for row in rows if row["metric"] not in TIMED}


def test_a_study_gives_a_table_and_is_not_repeated(tmp_path):
    told = []
    first = run(tmp_path, ("plain", "vat"), backbones="mlp(hidden=(8,))", changes={"sampler.epochs": 2})
    assert list(first.table()["recipe"]) == ["plain", "vat"]
    assert set(first.table()["seeds"]) == {2}
    assert not first.failures
    assert "plain" in str(first)
    before = finished(tmp_path)
    assert len(before) == 4
    study = Study(tiny(), ("plain", "vat"), ("mlp(hidden=(8,))",), (0, 1), SUITES, changes=(("sampler.epochs", 2),))
    again = run_study(study, root=tmp_path, workers=1, watch=lambda cell, state: told.append(state))
    assert told == []
    assert finished(tmp_path) == before
    assert again.table().equals(first.table())


def test_a_failing_cell_is_kept_while_the_others_finish(tmp_path):
    done = run(tmp_path, (FailsOnAllRows(seeds=(1,)), QUICK))
    assert list(done.failures.values()) == ["RuntimeError: cannot fit 48 rows"]
    (failed,) = done.failures
    assert failed.name == "1"
    assert "cannot fit 48 rows" in store.read_status(failed).traceback
    assert "failed" in str(done)
    assert list(done.table()["seeds"]) == [1, 2]
    assert len(finished(tmp_path)) == 3


def test_workers_give_the_same_numbers_and_a_dead_one_fails_its_cell_alone(tmp_path):
    here = run(tmp_path / "here")
    assert not here.failures
    there = run(tmp_path / "there", (Dies(), QUICK), workers=2)
    assert list(there.failures.values()) == [
        "The worker process ended by signal SIGKILL; memory may have run out: try fewer workers"
    ]
    assert len(finished(tmp_path / "there")) == 3
    ours = {row for row in values(tmp_path / "there") if row[1] == "sgd(epochs=2)"}
    assert ours == values(tmp_path / "here")


def test_nothing_is_written_for_a_study_that_cannot_run(tmp_path):
    with pytest.raises(BadStudy, match="did you mean vat"):
        run(tmp_path / "runs", ("plain", "vaat"), backbones="mlp")
    assert not (tmp_path / "runs").exists()


def test_a_script_without_a_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from studies.tiny import tiny\nfrom levelhead.studies.compare import compare\n"
        "compare(tiny(), ['plain'], backbones='mlp', seeds=2, root='runs', workers=2)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert WorkersDoNotStart.__name__ in done.stderr
    assert "if __name__ == '__main__'" in done.stderr


def test_killed_at_random_it_finishes_without_repeating_a_finished_cell(tmp_path):
    """SIGKILL to the study and nobody else: its workers must see to their own end."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    draw = random.Random(0)
    kept: dict[Path, tuple[int, bytes]] = {}
    for workers in (2, 1):
        command = [sys.executable, str(PROGRAM), str(tmp_path / "killed"), str(workers)]
        study = subprocess.Popen(command, env=environment)
        try:
            _wait_for(lambda study=study: _running(tmp_path / "killed") or study.poll() is not None)
            time.sleep(draw.uniform(0.0, 0.8))
            assert study.poll() is None, "it finished before it could be killed"
        finally:
            study.kill()
            study.wait()
        _wait_for(lambda: not _running(tmp_path / "killed"))
        now = finished(tmp_path / "killed")
        assert {cell: now[cell] for cell in kept} == kept
        kept = now
    assert len(kept) < 2 * len(LINES)
    killed_study(tmp_path / "killed", workers=1)
    now = finished(tmp_path / "killed")
    assert {cell: now[cell] for cell in kept} == kept
    assert len(now) == 2 * len(LINES)
    killed_study(tmp_path / "whole", workers=1)
    assert values(tmp_path / "killed") == values(tmp_path / "whole")


def _running(root):
    return any(store.is_held(cell) for cell in store.find_cells(root))


def _wait_for(condition, timeout=60.0):
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)
