"""The 1,797 handwritten digits of scikit-learn, 8 x 8, embedded: a small task, and a set foreign to other tasks."""

from levelhead.likelihood import Categorical
from levelhead.tasks.carve import carve
from levelhead.tasks.embedded import embedded
from levelhead.tasks.images import resized
from levelhead.tasks.split import Split, unlabelled
from levelhead.tasks.task import Task

NUM_OOD = 1000


def digits(*, test: int = 400, val: int = 150, calibration: int = 150, seed: int = 0) -> Task:
    """1,097 training, 150 validation, 150 calibration and 400 test digits, drawn class by class with `seed`.

    Out of distribution: clothes, shrunk to 8 x 8. The digits are the test part of Alpaydin and Kaynak's (UCI,
    doi 10.24432/C50P49, CC BY 4.0).
    """
    x, y = embedded("digits.npz", "x", "y")
    sizes = {"val": val, "calibration": calibration, "test": test}
    splits = carve(Split("all", x, y.long()), sizes, seed=seed)
    return Task(
        name="digits",
        train=splits["train"],
        val=splits["val"],
        calibration=splits["calibration"],
        test=splits["test"],
        ood={"clothes": clothes_like(8)},
        likelihood=Categorical(10),
        classes=tuple("0123456789"),
        args={**sizes, "seed": seed},
    )


def digits_like(size: int) -> Split:
    """The first 1,000 digits at `size` x `size`, as an out-of-distribution set."""
    (x,) = embedded("digits.npz", "x")
    return unlabelled("digits", resized(x[:NUM_OOD], size))


def clothes_like(size: int) -> Split:
    """The first 1,000 clothes of fashion-mini's test split at `size` x `size`, as an out-of-distribution set."""
    (x,) = embedded("fashion_mini.npz", "test_x")
    return unlabelled("clothes", resized(x[:NUM_OOD], size))
