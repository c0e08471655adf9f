"""Self-tuning networks beside BatchEnsemble and hyper-batch ensembles, on LeNet."""

from reproductions.harness import Options, Section
from reproductions.hyper_batch_ensembles import DRAWS, FIXED, RECIPES, sections


def run(options: Options) -> list[Section]:
    """What matters of the comparison with hyper-batch ensembles, on convolutions."""
    names = ("one network", "BatchEnsemble of 3", FIXED, "self-tuning network, log-uniform", DRAWS)
    return sections(options, "lenet", 15, {name: RECIPES[name] for name in names}, {})
