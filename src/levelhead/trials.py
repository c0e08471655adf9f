"""One training of a search: what it is, where it is kept, and what it says about the validation rows."""

import json
import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.predictive import CategoricalMixture
from levelhead.predictor import Predictor, predict
from levelhead.processes import held
from levelhead.recipe import Fit
from levelhead.storage import save
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task
from levelhead.training import Runtime
from levelhead.types import CannotCompose, NonFiniteLoss
from levelhead.values import get_path, set_path, to_json

EPOCHS = "sampler.epochs"
BUSY = "busy"  # another process works on a trial


class Trial(NamedTuple):
    """One training: the number of its setting (0 is the member as it is), its number among that setting's seeds."""

    setting: int
    column: int


class Done(NamedTuple):
    """What a training left: its predictor (None where it lies in the folder) and log p(y) on the validation rows.

    beliefs  (row, class) log probabilities for classes, (row,) log densities of the targets else.
    """

    predictor: Predictor | None
    folder: Path | None
    beliefs: Float[Tensor, "row *class"]


def shortened_to(fit: Fit, share: float) -> Fit:
    """The recipe at a share of its epochs, one at least."""
    return set_path(fit, EPOCHS, max(1, round(share * get_path(fit, EPOCHS))))


def joined(task: Task) -> Task:
    """The task with its validation rows among the training rows. Its `val` is then its calibration: no row is in two
    splits of one use, and no test row has moved."""
    train = Split("train", torch.cat([task.train.x, task.val.x]), torch.cat([task.train.y, task.val.y]))
    clone = task._with_splits(lambda split: split)
    vars(clone).update(train=train, val=task.calibration, signature=task.signature, known_overlaps=True)
    for known in ("_receipt", "overlaps"):
        vars(clone).pop(known, None)
    return clone


def attempt(
    fit: Fit, task: Task, seed: int, runtime: Runtime, kept: Path | None, setting: Mapping[str, Any]
) -> Done | str | None:
    """A trial, fitted now or by an earlier run. None: its loss was no number, which must not end a search. BUSY: some
    other process is at it."""
    with nullcontext(True) if kept is None else held(kept) as mine:
        if not mine:
            return BUSY
        try:
            return fit_trial(fit, task, seed, runtime, kept, setting)
        except NonFiniteLoss:
            return None


def fit_trial(fit: Fit, task: Task, seed: int, runtime: Runtime, kept: Path | None, setting: Mapping[str, Any]) -> Done:
    """Fit one trial, or load what an earlier run left of it."""
    stored = None if kept is None else kept / "val.pt"
    if kept is not None and stored is not None and stored.exists() and (kept / "predictor").exists():
        return Done(None, kept, torch.load(stored, weights_only=True))
    predictor = fit.fit(task, seed, runtime, rehearsed=True)
    beliefs = believed(predictor, task, runtime.device)
    if kept is None or stored is None:
        return Done(predictor, None, beliefs)
    if not (kept / "predictor").exists():  # a kill may have come between it and what it says
        save(predictor, kept / "predictor")
    known = {"json": to_json(fit), "task": task.name, "content": task.digest, "seed": seed}
    told = json.dumps({**known, "setting": to_json(dict(setting))}, indent=1)
    (kept / "recipe.json").write_text(told, encoding="utf-8")
    scratch = stored.with_suffix(f".{os.getpid()}.tmp")
    torch.save(beliefs, scratch)
    os.replace(scratch, stored)
    return Done(None, kept, beliefs)


def believed(predictor: Predictor, task: Task, device: str) -> Float[Tensor, "row *class"]:
    """What a predictor says about the validation rows: log probabilities of classes, log densities of targets."""
    val = task.val.to(device)
    belief = predict(predictor, val)
    if isinstance(belief, CategoricalMixture):
        if belief.log_probs.ndim != 2 or val.y.is_floating_point():
            raise CannotCompose(
                "HyperDeepEnsemble selects by one label a row; use a task with integer labels, one for each example"
            )
        return belief.log_probs.detach().cpu()
    return belief.log_prob(val.y).detach().cpu()
