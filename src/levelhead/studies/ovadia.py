"""The protocol of "Can You Trust Your Model's Uncertainty?" (Ovadia et al., arXiv 1906.02530) at a laptop's scale.

Seven methods, trained alike on one network and measured on clean, shifted and foreign rows: grey images turned and
moved, colour images under the corruptions of CIFAR-10-C. What differs from the paper is in `SCALES`, one line a task.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from levelhead.samplers.adamw import AdamW
from levelhead.studies.study import BadStudy, RecipeLike, Study
from levelhead.tasks.load import load_task

BASELINE = "plain"
# A cold posterior: at temperature 1 LeNet on 20,000 images of Fashion-MNIST is right on 73 % of the validation images
# after ten epochs, at 0.1 on 87 %, without a posterior on 89 %. The last layer alone needs no such help.
SVI = "mean_field + elbo(temperature=0.1)"
RECIPES = (
    BASELINE,
    "temperature",
    "mc_dropout",
    "deep_ensemble(size=4)",
    SVI,
    "mc_dropout(where='head')",
    "mean_field(within='head') + elbo",
)
"""In the paper's words: vanilla, temperature scaling, dropout, ensembles, SVI, LL-dropout and LL-SVI."""

GEOMETRIC = "shift(shifts=(rotation, translation), severities=None, limit=500)"
CORRUPTED = "shift(limit=500)"


@dataclass(frozen=True)
class Scale:
    """How the protocol runs on one task.

    backbone  the network of all methods.
    sampler   Adam, as in the paper; one setting for all methods, where the paper tuned each.
    shift     the suite that shifts the test rows.
    options   of `load_task`: what is left to train on, and whether it is augmented.
    """

    backbone: str
    sampler: AdamW
    shift: str
    options: tuple[tuple[str, Any], ...] = ()


def _adam(epochs: int, batch_size: int) -> AdamW:
    return AdamW(epochs=epochs, batch_size=batch_size, lr=2e-3, weight_decay=0.0)


TEN_THOUSAND = (("val", 47_500), ("calibration", 2_500))  # of Fashion-MNIST's 60,000 training images, to train on
SCALES = {
    # 6,000 images that are inside the package: minutes
    "fashion-mini": Scale("lenet", _adam(20, 64), GEOMETRIC),
    # 10,000 training images, 10 epochs (the paper's MNIST: 50,000 and 20)
    "fashion-mnist": Scale("lenet", _adam(10, 64), GEOMETRIC, TEN_THOUSAND),
    # 10,000 training images, 6 epochs of a ResNet of 8 layers and 8 filters (the paper: 40,000, and 200 of ResNet-20).
    # Small batches, as the paper has them, and no augmentation: so few steps do not fit the images otherwise.
    "cifar10": Scale(
        "resnet(depth=8, width=8)",
        _adam(6, 32),
        CORRUPTED,
        (("val", 37_500), ("calibration", 2_500), ("augment", None), ("ood", True)),
    ),
}
DEFAULT_TASKS = ("fashion-mnist", "cifar10")


@dataclass(frozen=True)
class Plan:
    """The studies to run, and the tasks that were left out, with the reason."""

    studies: tuple[Study, ...]
    left_out: dict[str, str] = field(default_factory=dict)


def ovadia_study(task: str, *, recipes: tuple[RecipeLike, ...] = (), **replacements: Any) -> Study:
    """The protocol on one task, over 3 seeds unless told otherwise.

    recipes       to measure beside the paper's methods.
    replacements  other fields of the study; options and changes add to the protocol's own.

    Raises BadStudy for a task that the protocol has no scale for.
    """
    if task not in SCALES:
        raise BadStudy(
            f"the suite 'ovadia' runs on {', '.join(SCALES)}, got {task!r}. For other tasks name suites and recipes: "
            "levelhead compare TASK --suite clean,shift,ood plain mc_dropout ..."
        )
    scale = SCALES[task]
    study = Study(
        task=task,
        recipes=tuple(dict.fromkeys((*RECIPES, *recipes))),
        backbones=(scale.backbone,),
        seeds=(0, 1, 2),
        suites=("clean", scale.shift, "ood", "cost"),
        options=scale.options,
        changes=(("sampler", scale.sampler),),
    )
    for name in ("options", "changes"):
        if name in replacements:
            replacements[name] = tuple({**dict(getattr(study, name)), **dict(replacements[name])}.items())
    return replace(study, **replacements)


def ovadia_plan(task: str | None, *, recipes: tuple[RecipeLike, ...] = (), **replacements: Any) -> Plan:
    """The protocol on `task`, or on every one of its tasks whose data are there.

    Raises BadStudy where there are data for none.
    """
    if task is not None:
        return Plan((ovadia_study(task, recipes=recipes, **replacements),))
    studies, left_out = [], {}
    for name in DEFAULT_TASKS:
        study = ovadia_study(name, recipes=recipes, **replacements)
        try:
            load_task(name, **dict(study.options))
        except OSError as error:
            left_out[name] = str(error)
        else:
            studies.append(study)
    if not studies:
        reasons = "".join(f"\n  {name}: {reason}" for name, reason in left_out.items())
        raise BadStudy(
            "the suite 'ovadia' found the data of no task; name their folder with --data-dir, or run it on images "
            f"inside the package: levelhead compare --suite ovadia fashion-mini{reasons}"
        )
    return Plan(tuple(studies), left_out)
