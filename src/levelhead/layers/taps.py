"""The taps of a filter as a tensor."""

import torch
from jaxtyping import Float
from torch import Tensor


def line(taps: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Float[Tensor, " tap"]:
    """The taps as a tensor, made once: a device would wait for every copy. Compiled code has them inside."""
    if torch.compiler.is_compiling():
        return torch.tensor(taps, dtype=dtype, device=device)
    key = (taps, dtype, device)
    if key not in _LINES:
        with torch.inference_mode(False):
            made = torch.tensor(taps, dtype=dtype, device=device)
        if type(made) is not Tensor:  # an export's stand-in must not outlive it
            return made
        _LINES[key] = made
    return _LINES[key]


_LINES: dict[tuple[tuple[float, ...], torch.dtype, torch.device], Tensor] = {}
