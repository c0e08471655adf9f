"""The published grid: every cell is run, refusals are numbered once, and what cannot be a recipe is no cell."""

import importlib.util
from pathlib import Path

from products.pairs import BASE, STYLES

from levelhead.posthoc.temperature import Temperature
from levelhead.samplers.ema import EMA
from levelhead.samplers.sgd import SGD

PROGRAM = Path(__file__).parents[2] / "tools" / "pairs_grid.py"


def program():
    spec = importlib.util.spec_from_file_location("pairs_grid", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_cells_are_ticks_or_numbered_advice():
    grid = program().Grid(run=lambda choices: "write\n  sgd()" if choices.sampler == EMA() else "")
    assert grid.cell(BASE) == "✓"
    ema = program().alone("samplers", EMA())
    assert grid.cell(ema) == grid.cell(ema) == "[1](#advice)"
    assert grid.cell(None) == "·"
    assert grid.notes() == "1. write sgd()"
    assert grid.counts == {"works": 1, "refused": 2}


def test_samplers_meet_by_wrapping():
    together = program().together
    assert together(("samplers", SGD()), ("samplers", EMA())).sampler == EMA(inner=SGD())
    assert together(("samplers", EMA()), ("samplers", SGD())) is None
    assert together(("samplers", EMA()), ("posthoc", Temperature())).posthoc == Temperature()


def test_both_tables_have_a_line_for_every_part():
    grid = program().Grid(run=lambda choices: "")
    text = program().generated([("samplers", SGD()), ("posthoc", Temperature())], grid)
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    assert [line.split("|")[1].strip() for line in lines] == ["`sgd`", "`temperature`"] * 2
    assert [line.count("✓") for line in lines] == [len(STYLES) + 1, len(STYLES) + 2, 1, 2]
