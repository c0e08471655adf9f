"""What samplers of weights say of their own draws, as records beside the scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from levelhead.beliefs import Beliefs
from levelhead.measuring import Predict, Record
from levelhead.predictor import Predictor, WeightSamples
from levelhead.scores import as_records
from levelhead.tasks.task import Task

WORST = {"rhat": max, "rhat_energy": max, "ess": min, "ess_energy": min}


@dataclass(frozen=True)
class MCMC:
    """Chains and draws of a predictor, and the diagnostics of its sampler: acceptance, divergences, R-hat, ...

    Of several samplers (an ensemble of them) the worst R-hat and effective sample size, and means of the rest. A
    predictor without draws has 0 chains and 0 draws. Nothing is predicted, and nothing depends on the test rows.
    """

    def __call__(self, predictor: Predictor, task: Task, predict: Predict) -> list[Record]:
        """See `Evaluation`."""
        drawn = [part for part in predictor.modules() if isinstance(part, WeightSamples)]
        found = {
            "chains": float(sum(part.num_chains for part in drawn)),
            "draws": float(sum(part.num_draws for part in drawn)),
        }
        for name in sorted({name for part in drawn for name in part.diagnostics}):
            values = [part.diagnostics[name] for part in drawn if name in part.diagnostics]
            found[name] = WORST.get(name, fmean)(values)
        return as_records("mcmc", "fit", None, found, len(task.train))

    def score(self, stored: Mapping[str, Beliefs]) -> list[Record]:
        """See `Evaluation`: of stored beliefs there is nothing to say."""
        return []
