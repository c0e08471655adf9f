"""The study that test_compare.py kills."""

import sys

from studies.test_compare import LINES
from studies.tiny import SUITES, tiny

from levelhead.studies.compare import compare

if __name__ == "__main__":
    compare(
        tiny(),
        LINES,
        backbones="mlp(hidden=(8,))",
        changes={"sampler.epochs": 150},
        seeds=2,
        suites=SUITES,
        root=sys.argv[1],
        workers=int(sys.argv[2]),
    )
