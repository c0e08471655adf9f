"""The images inside the package: a class-balanced part of Fashion-MNIST and scikit-learn's handwritten digits."""

from importlib.resources import files

import numpy as np
import torch
from torch import Tensor


def embedded(file: str, *names: str) -> tuple[Tensor, ...]:
    """The named arrays of a compressed file beside this one, as uint8 tensors; only these are unpacked."""
    with files("levelhead.tasks").joinpath(file).open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return tuple(torch.from_numpy(arrays[name]) for name in names)
