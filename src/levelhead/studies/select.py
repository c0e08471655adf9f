"""An ensemble from runs that are there already: a finished search or comparison becomes one for free."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from levelhead.beliefs import Beliefs, ClassBeliefs, Stored
from levelhead.evaluation import Passes
from levelhead.predictor import Ensemble
from levelhead.probe import evaluating
from levelhead.selection import Selection, greedy_select, greedy_select_densities
from levelhead.storage import load
from levelhead.studies.store import DONE, find_cells, read_json, read_status
from levelhead.tasks.task import Task

KEY, PLACE = "val", "selection"  # what selects, in a folder of its own: no suite is to score it


@dataclass(frozen=True)
class Selected:
    """An ensemble of runs.

    predictor  the picked predictors, weighted by how often they were picked.
    folders    their run folders, in the order of `selection.members`.
    selection  what was picked, with weights and the score after each pick.
    considered run folders that were looked at, in the order of `selection.indices`.
    """

    predictor: Ensemble
    folders: tuple[Path, ...]
    selection: Selection
    considered: tuple[Path, ...]


def select(
    *roots: str | Path,
    task: Task,
    k: int = 4,
    objective: str = "nll",
    max_picks: int | None = None,
    device: str = "cpu",
    trust: Sequence[str] = (),
) -> Selected:
    """Greedy selection among the finished runs in some folders, by their predictions of `task.val`.

    Predictions of the validation rows are made once and kept in the run folders. Test rows have no say.
    See `greedy_select` for objective and max_picks; real targets know "nll" alone.

    Raises FileNotFoundError where no run is finished, ValueError where a run was fitted on other data.
    """
    folders = finished_runs(*roots)
    for folder in folders:
        known = read_json(folder / "recipe.json")
        if known["content"] != task.digest:
            raise ValueError(
                f"{folder} was fitted on other data ({known['task']!r}) than the task {task.name!r}; select among runs "
                "on one task, and one split of it"
            )
    held = [validated(folder, task, device=device, trust=tuple(trust)) for folder in folders]
    first = held[0]
    if isinstance(first, ClassBeliefs):
        log_probs = torch.stack([beliefs.log_probs for beliefs in held if isinstance(beliefs, ClassBeliefs)])
        found = greedy_select(log_probs, first.y, k, objective=objective, max_picks=max_picks)
    elif objective != "nll":
        raise ValueError(f"select: objective={objective!r} needs classes; real targets are selected by 'nll'")
    else:
        densities = torch.stack(
            [beliefs.mixture.log_prob(beliefs.y) for beliefs in held if not isinstance(beliefs, ClassBeliefs)]
        )
        found = greedy_select_densities(densities, k, max_picks=max_picks)
    picked = tuple(folders[j] for j in found.members)
    members = [load(folder / "predictor", trust=tuple(trust)).to(device) for folder in picked]
    return Selected(Ensemble(members, found.log_weights.to(device)), picked, found, tuple(folders))


def finished_runs(*roots: str | Path) -> list[Path]:
    """The run folders with a finished predictor; where a root is a search's folder `trials`, its trials.

    Raises FileNotFoundError where there is none.
    """
    folders = [place.parent for root in roots for place in sorted(Path(root).glob("trial-*/recipe.json"))]
    for folder in find_cells(*roots):
        status = read_status(folder)
        if status is not None and status.state == DONE and (folder / "predictor").exists():
            folders.append(folder)
    if not folders:
        raise FileNotFoundError(
            f"{', '.join(map(str, roots))}: there are no finished runs here; `levelhead compare` makes some"
        )
    return folders


def validated(folder: Path, task: Task, *, device: str, trust: tuple[str, ...]) -> Beliefs:
    """What a run's predictor says about the validation rows, from its folder where that is stored."""
    place = folder / PLACE
    if place.exists():
        return Stored(place)[KEY]
    predictor = load(folder / "predictor", trust=trust).to(device)
    with evaluating(predictor):
        return Passes(predictor, task, keep=place)(KEY, task.val)
