"""Where these priors are compared."""

from levelhead.types import Reference

PAPER = Reference(
    "Izmailov, Nicholson, Lotfi and Wilson",
    2021,
    arxiv="2106.11905",
    title="Dangers of Bayesian Model Averaging under Covariate Shift",
)
