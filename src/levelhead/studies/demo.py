"""The demonstration: ten and more methods on real images that are inside the package, in minutes on two cores."""

from dataclasses import replace
from typing import Any

from levelhead.studies.study import Study

# The last three are compositions of three parts: any line of text is a recipe.
RECIPES = (
    "plain",
    "temperature",
    "mc_dropout",
    "spatial_smoothing",
    "adversarial_training",
    "vat",
    "swag",
    "laplace",
    "batch_ensemble",
    "sngp",
    "deep_ensemble(size=4)",
    "spatial_smoothing + mc_dropout + temperature",
    "vat + laplace + deep_ensemble(size=3)",
    "spatial_smoothing + swag + temperature",
)
# Six of the corruptions, and rotation: all of them would take as long as the training.
SHIFTS = "gaussian_noise, shot_noise, defocus_blur, brightness, contrast, pixelate, rotation"
DEMO = Study(
    task="fashion-mini",
    recipes=RECIPES,
    backbones=("lenet",),
    seeds=(0,),
    suites=("clean", f"shift(shifts=({SHIFTS}), severities=(1, 3, 5), limit=500)", "ood", "cost"),
    changes=(("sampler.epochs", 10), ("sampler.lr", 0.05)),
)


def demo_study(**replacements: Any) -> Study:
    """The demonstration, with other seeds, backbones or suites where asked."""
    if "changes" in replacements:
        replacements["changes"] = tuple({**dict(DEMO.changes), **dict(replacements["changes"])}.items())
    return replace(DEMO, **replacements)
