"""Whether an analysis can say something about a predictor on a task; if not, why."""

from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.analyses.blocks import blocks
from levelhead.likelihood import Categorical
from levelhead.predictor import Predictor
from levelhead.tasks.split import Split
from levelhead.tasks.stored import StoredSplit
from levelhead.tasks.task import Task
from levelhead.types import CannotCompose


def images(predictor: Predictor, split: Split | StoredSplit) -> Float[Tensor, "batch channel h w"]:
    """All images of a split, where the predictor is and as precise as it is."""
    like = next((t for t in chain(predictor.parameters(), predictor.buffers()) if t.is_floating_point()), None)
    batch = next(split.ordered(len(split)))
    return batch.x if like is None else batch.to(like.device, like.dtype).x


def no_images(task: Task) -> str | None:
    """Why a task has no images, where it has none."""
    if task.test.x.ndim == 4:
        return None
    return f"the inputs of {task.name} have shape {task.test.input_shape}; this reads images (channel, height, width)"


def no_answers(task: Task) -> str | None:
    """Why the answers to a task cannot be right or wrong, image by image, where they cannot."""
    if not isinstance(task.likelihood, Categorical):
        return f"the targets of {task.name} are no classes, so that no answer is simply right"
    if task.test.y.ndim > (2 if task.test.y.is_floating_point() else 1):
        return f"{task.name} has a label for every pixel; this wants one for every image"
    return None


def no_blocks(predictor: Predictor, task: Task) -> str | None:
    """Why a predictor has no maps to read, where it has none."""
    missing = no_images(task)
    if missing is not None:
        return missing
    try:
        blocks(predictor, images(predictor, task.test.take(torch.arange(min(2, len(task.test))))))
    except CannotCompose as error:
        return str(error)
    return None
