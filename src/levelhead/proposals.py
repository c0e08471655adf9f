"""Where the settings of a search come from: drawn one by one, or proposed by Optuna from what earlier ones came to.

A search asks for settings, may tell how a shortened training of one did and hear whether it is worth going on, and
tells the score in the end. Nothing is stored: asked the same questions and told the same scores, a seed proposes the
same, so that a search that finds its finished trainings on disk goes on where it stood.
"""

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, Protocol

import torch

from levelhead.spaces.log_uniform import LogUniform
from levelhead.spaces.one_of import OneOf
from levelhead.spaces.uniform import Uniform
from levelhead.types import CannotCompose, require

RANDOM = "random"
SAMPLERS: Mapping[str, str] = {"tpe": "TPESampler", "gp": "GPSampler", "cmaes": "CmaEsSampler", "qmc": "QMCSampler"}
PRUNERS: Mapping[str, str] = {"median": "MedianPruner", "halving": "SuccessiveHalvingPruner"}


class Space(Protocol):
    """Values for a path into a recipe; the specs are in `levelhead.spaces`."""

    @property
    def path(self) -> str:
        """Where they are written; several paths, with commas between, get the same value."""

    def draw(self, generator: torch.Generator) -> Any:
        """One value."""


class Proposals(Protocol):
    """A search's source of settings; candidates have numbers, and scores are the lower the better."""

    def ask(self, number: int) -> dict[str, Any]:
        """The setting of a candidate, by path."""

    def goes_on(self, number: int, look: int, score: float) -> bool:
        """Whether a candidate is worth more after its look-th (from 1) shortened training came to this score."""

    def tell(self, number: int, score: float | None) -> None:
        """What a candidate came to in the end; None where it was given up."""


class Drawn:
    """Independent draws: number n is the same whatever else is asked."""

    def __init__(self, space: Sequence[Space], generator: Callable[[int, int], torch.Generator]) -> None:
        self.space, self.generator = space, generator

    def ask(self, number: int) -> dict[str, Any]:
        """See `Proposals`."""
        drawn = [space.draw(self.generator(number, place)) for place, space in enumerate(self.space)]
        return written(self.space, drawn)

    def goes_on(self, number: int, look: int, score: float) -> bool:
        """Always."""
        return True

    def tell(self, number: int, score: float | None) -> None:
        """Nothing is learnt."""


class OptunaProposals:
    """Optuna's samplers and pruners behind ask and tell (Akiba et al., arXiv 1907.10902).

    sampler  of `SAMPLERS`; pruner of `PRUNERS`, or None; several: whether candidates are asked for before those in
    front of them have been told of.

    Raises MissingExtra without Optuna, CannotCompose for spaces that are none of `levelhead.spaces`.
    """

    def __init__(
        self, space: Sequence[Space], *, sampler: str, pruner: str | None, seed: int, several: bool = False
    ) -> None:
        optuna = require("optuna", extra="search")
        more = {"constant_liar": True} if several and sampler == "tpe" else {}
        chosen = getattr(optuna.samplers, SAMPLERS[sampler])(seed=seed % 2**32, **more)
        pruning = optuna.pruners.NopPruner() if pruner is None else getattr(optuna.pruners, PRUNERS[pruner])()
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would announce every study
        self.study = optuna.create_study(sampler=chosen, pruner=pruning)
        optuna.logging.set_verbosity(before)
        self.pruned = optuna.trial.TrialState.PRUNED
        self.space = space
        self.distributions = {f"{place}: {one.path}": distribution(optuna, one) for place, one in enumerate(space)}
        self.trials: dict[int, Any] = {}

    def ask(self, number: int) -> dict[str, Any]:
        """See `Proposals`."""
        trial = self.trials[number] = self.study.ask(self.distributions)
        proposed = [trial.params[name] for name in self.distributions]
        chosen = [
            one.options[value] if isinstance(one, OneOf) else value
            for one, value in zip(self.space, proposed, strict=True)
        ]
        return written(self.space, chosen)

    def goes_on(self, number: int, look: int, score: float) -> bool:
        """See `Proposals`."""
        self.trials[number].report(score, look)
        return not self.trials[number].should_prune()

    def tell(self, number: int, score: float | None) -> None:
        """See `Proposals`."""
        if score is None:
            self.study.tell(self.trials[number], state=self.pruned)
        else:
            self.study.tell(self.trials[number], score)


def distribution(optuna: ModuleType, space: Space) -> Any:
    """A space as Optuna has it; one of several options by its place among them, since options may be parts."""
    kinds = optuna.distributions
    if isinstance(space, OneOf):
        return kinds.CategoricalDistribution(range(len(space.options)))
    if isinstance(space, LogUniform | Uniform):
        return kinds.FloatDistribution(space.low, space.high, log=isinstance(space, LogUniform))
    raise CannotCompose(
        f"Optuna does not know {type(space).__name__}: it takes log_uniform, uniform and one_of. Use one of them, or "
        f"proposals={RANDOM!r}"
    )


def paths(space: Space) -> list[str]:
    """The paths that a space writes to."""
    return [path.strip() for path in space.path.split(",")]


def written(space: Sequence[Space], values: Sequence[Any]) -> dict[str, Any]:
    """Values of the spaces, by path."""
    return {path: value for one, value in zip(space, values, strict=True) for path in paths(one)}
