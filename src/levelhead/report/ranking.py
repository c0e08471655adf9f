"""Who is best by a metric, and who cannot be told from the best."""

from collections.abc import Iterable
from dataclasses import dataclass

from levelhead.report.evidence import Contender, Estimate, Evidence
from levelhead.scores import better

UNRANKED = ("coverage95", "ece_floor")  # neither more nor less is better


@dataclass(frozen=True, eq=False)
class Ranking:
    """Recipes by a metric, best first."""

    metric: str
    order: tuple[tuple[Contender, Estimate], ...]

    @classmethod
    def of(cls, metric: str, found: Iterable[tuple[Contender, Estimate | None]]) -> "Ranking":
        """Sorted as `scores.better` says."""
        sign = -1 if better(metric) == "higher" else 1
        known = sorted(((c, e) for c, e in found if e is not None), key=lambda entry: sign * entry[1].mean)
        return cls(metric, tuple(known))

    @property
    def best(self) -> tuple[Contender, Estimate] | None:
        """The best one, where there is any."""
        return self.order[0] if self.order else None

    def marks(self) -> dict[str, str]:
        """By digest: "best", or "tied" within one standard error of it."""
        if not self.order:
            return {}
        first, best = self.order[0]
        tied = {c.digest: "tied" for c, e in self.order if e.near(best)}
        return tied | {first.digest: "best"}


def ranked(evidence: Evidence, evaluation: str, name: str) -> Ranking:
    """The recipes by a metric; empty where nothing is better or worse, and for a single recipe."""
    found = [(contender, contender.estimate(name, evaluation)) for contender in evidence.done]
    ranking = Ranking.of(name, found)
    if name in UNRANKED or len(ranking.order) < 2:
        return Ranking(name, ())
    return ranking
