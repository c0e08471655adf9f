"""The study that test_compare.py kills."""

import sys
from pathlib import Path

from studies.tiny import SUITES, tiny

from levelhead.studies.compare import Comparison, compare

LINES = ("plain", "vat", "swag", "deep_ensemble(size=2)")


def killed_study(root: Path, *, workers: int) -> Comparison:
    """Eight cells of a good part of a second each."""
    return compare(
        tiny(),
        LINES,
        backbones="mlp(hidden=(8,))",
        changes={"sampler.epochs": 150},
        seeds=2,
        suites=SUITES,
        root=root,
        workers=workers,
    )


if __name__ == "__main__":
    killed_study(Path(sys.argv[1]), workers=int(sys.argv[2]))
