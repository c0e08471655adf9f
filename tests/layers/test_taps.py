"""Taps as tensors: made once a kind, right in dtype, and not kept from a compiler's trace."""

import torch

from levelhead.layers.taps import line


def test_equal_taps_are_one_tensor_of_the_dtype_wanted() -> None:
    cpu = torch.device("cpu")
    first = line((0.25, 0.5, 0.25), torch.float64, cpu)
    assert first.tolist() == [0.25, 0.5, 0.25]
    assert first.dtype == torch.float64
    assert line((0.25, 0.5, 0.25), torch.float64, cpu) is first
    assert line((0.25, 0.5, 0.25), torch.float32, cpu).dtype == torch.float32


def test_taps_first_wanted_in_inference_mode_serve_training_too() -> None:
    with torch.inference_mode():
        taps = line((0.125, 0.75, 0.125), torch.float32, torch.device("cpu"))
    x = torch.ones(3, requires_grad=True)
    (x * taps).sum().backward()
    assert torch.equal(x.grad, taps)
