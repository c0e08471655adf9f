"""Self-tuning networks beside BatchEnsemble and hyper-batch ensembles, on LeNet."""

from reproductions.harness import Options, Section
from reproductions.hyper_batch_ensembles import RECIPES, sections


def run(options: Options) -> list[Section]:
    """The comparison with hyper-batch ensembles, on convolutions."""
    return sections(options, "lenet", 15, RECIPES, {})
