"""A tenth of Fashion-MNIST, inside the package: real images that need no download and train in minutes."""

from pathlib import Path

from levelhead.likelihood import Categorical
from levelhead.tasks.augment import Augment
from levelhead.tasks.digits import digits_like
from levelhead.tasks.embedded import embedded
from levelhead.tasks.fashion_mnist import CLASSES
from levelhead.tasks.mnist import mnist_sets
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task


def fashion_mini(*, augment: Augment | None = None, data_dir: str | Path | None = None) -> Task:
    """6,000 training, 500 validation, 500 calibration and 2,000 test images of clothes, as many of every class.

    Training, validation and calibration images are from the official training file, test images from the official
    test file; tools/make_fashion_mini.py draws them. Out of distribution: digits, and mnist where data_dir has it.
    """

    def read(name: str) -> Split:
        x, y = embedded("fashion_mini.npz", f"{name}_x", f"{name}_y")
        return Split(name, x, y.long())

    return Task(
        name="fashion-mini",
        train=read("train"),
        val=read("val"),
        calibration=read("calibration"),
        test=read("test"),
        ood={"digits": digits_like(28), **mnist_sets(data_dir)},
        likelihood=Categorical(len(CLASSES)),
        augment=augment,
        classes=CLASSES,
    )
