"""Where all of this comes from."""

from levelhead.types import Reference

PAPER = Reference(
    "Heiss, Weissteiner, Wutte, Seuken and Teichmann",
    2022,
    arxiv="2102.13640",
    title="NOMU: Neural Optimization-based Model Uncertainty",
)
