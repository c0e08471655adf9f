"""UCI regression with gap splits: the middle third of one feature is test (Foong et al., arXiv 1906.11537)."""

from dataclasses import replace
from pathlib import Path

from levelhead.tasks import uci
from levelhead.tasks.task import Task

NAMES = uci.NAMES
NUM_SPLITS = uci.NUM_FEATURES  # one a feature


def uci_gap(name: str, *, split: int = 0, data_dir: str | Path | None = None) -> Task:
    """`uci(name, split="gap-<split>")`; in a study, seed k stands for the gap in feature k.

    Raises ValueError for an unknown name or split, and FileNotFoundError where the files are not.
    """
    task = uci.uci(name, split=f"gap-{split}", data_dir=data_dir)
    return replace(task, name=f"uci-gap/{name}", args={"split": split})
