"""What a prediction costs: numbers to keep, arithmetic, time and memory, of the whole predictor, members and all."""

import statistics
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from itertools import chain
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from levelhead.beliefs import Beliefs
from levelhead.measuring import Predict, Record
from levelhead.predictor import Predictor, WeightSamples
from levelhead.scores import as_records
from levelhead.tasks.task import Task


@dataclass(frozen=True)
class Cost:
    """Costs of predicting test rows on the predictor's own device.

    parameters           learned weights, shared ones once; of `WeightSamples` every draw.
    stored_values        numbers that a saved predictor holds: parameters, statistics, draws, covariances.
    multiply_adds        of matrix products and convolutions for one more row of a batch, over all members, samples and
                         draws. Elementwise work, pooling, Fourier transforms and quantised kernels are not counted.
    seconds_per_example  median over `repeats` passes of a batch of `batch_size` rows, divided by them.
    latency              median seconds for a single row.
    peak_memory          bytes that predicting that batch needs beyond predictor and batch. CUDA: the allocator's peak.
                         CPU: the peak of tensors alive between operations; work space inside an operation is not seen.
    Training time is known to who trained: a study reads it from its log.
    """

    batch_size: int = 100
    repeats: int = 5

    def __post_init__(self) -> None:
        for name in ("batch_size", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"Cost: {name} must be at least 1, got {getattr(self, name)}")

    def __call__(self, predictor: Predictor, task: Task, predict: Predict) -> list[Record]:
        """See `Evaluation`."""
        batch = next(iter(task.test.ordered(self.batch_size)))
        like = next((t for t in chain(predictor.parameters(), predictor.buffers()) if t.is_floating_point()), batch.x)
        x = batch.x.to(like.device, like.dtype)
        found = {
            "parameters": float(num_parameters(predictor)),
            "stored_values": float(num_stored_values(predictor)),
            "multiply_adds": multiply_adds(predictor, x),
            "seconds_per_example": self._seconds(predictor, x) / len(x),
            "latency": self._seconds(predictor, x[:1]),
            "peak_memory": float(peak_memory(predictor, x)),
        }
        return as_records("cost", "test", None, found, len(x))

    def score(self, stored: Mapping[str, Beliefs]) -> list[Record]:
        """Nothing: costs are measured."""
        return []

    def _seconds(self, predictor: Predictor, x: Tensor) -> float:
        with torch.no_grad():
            predictor(x)  # the first pass also chooses kernels
            times = []
            for _ in range(self.repeats):
                wait(x.device)
                start = time.perf_counter()
                predictor(x)
                wait(x.device)
                times.append(time.perf_counter() - start)
        return statistics.median(times)


def num_parameters(predictor: Predictor) -> int:
    """Learned weights, shared ones once; where a predictor holds several draws of a weight, those instead of it."""
    drawn = [part for part in predictor.modules() if isinstance(part, WeightSamples)]
    replaced = {id(p) for part in drawn for name, p in part.network.named_parameters() if name in part.draws}
    named = {name for part in drawn for name, _ in part.network.named_parameters()}
    draws = {id(t): t.numel() for part in drawn for name, t in part.draws.items() if name in named}
    return sum(p.numel() for p in predictor.parameters() if id(p) not in replaced) + sum(draws.values())


def num_stored_values(predictor: Predictor) -> int:
    """Elements of all tensors that saving the predictor writes, those that share memory once."""
    found: dict[tuple[int, int], int] = {}

    def add(value: Any) -> None:
        if isinstance(value, Tensor):
            found[value.data_ptr(), value.numel()] = value.numel()
        elif isinstance(value, Mapping):
            for item in value.values():
                add(item)

    add(predictor.state_dict())
    for part in predictor.modules():
        if isinstance(part, Predictor):  # a predictor keeps its constructor's arguments under their names
            for name in signature(type(part)).parameters:
                add(getattr(part, name))
    return sum(found.values())


def multiply_adds(predictor: Predictor, x: Float[Tensor, "batch *input"]) -> float:
    """Multiply-adds of matrix products and convolutions that one more row costs: (cost of 4 rows - cost of 2) / 2."""
    counts = []
    for rows in (2, 4):
        with torch.no_grad(), torch.compiler.set_stance("force_eager"), _Count() as count:
            predictor(x[:1].expand(rows, *x.shape[1:]).contiguous())
        counts.append(count.multiply_adds)
    return (counts[1] - counts[0]) / 2


def peak_memory(predictor: Predictor, x: Float[Tensor, "batch *input"]) -> int:
    """Bytes that predicting `x` needs beyond predictor and x; see `Cost` for what is seen where."""
    with torch.no_grad():
        if x.device.type == "cuda":
            wait(x.device)
            before = torch.cuda.memory_allocated(x.device)
            torch.cuda.reset_peak_memory_stats(x.device)
            predictor(x)
            wait(x.device)
            return torch.cuda.max_memory_allocated(x.device) - before
        with torch.compiler.set_stance("force_eager"), _Count() as count:
            predictor(x)
    return count.peak


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _Count(TorchDispatchMode):
    """Counts the arithmetic of the operations below it, and the bytes of the tensors that they make and that live."""

    def __init__(self) -> None:
        super().__init__()
        self.multiply_adds = 0
        self.alive = self.peak = 0
        self._storages: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = FORMULAS.get(func.overloadpacket.__name__)
        if formula is not None:
            self.multiply_adds += formula(*args)
        elif func.overloadpacket.__name__.startswith("_scaled_dot_product"):
            self.multiply_adds += _attention(*args)
        given = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for made in tree_leaves(out):
            if (
                isinstance(made, Tensor) and id(made.untyped_storage()) not in given
            ):  # views and in-place work make nothing
                self._remember(made.untyped_storage())
        return out

    def _remember(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key not in self._storages:
            self.alive += size
            self.peak = max(self.peak, self.alive)
            self._storages[key] = weakref.ref(storage, lambda _: self._forget(key, size))

    def _forget(self, key: int, size: int) -> None:
        self._storages.pop(key, None)
        self.alive -= size


def _matrix(a: Tensor, b: Tensor, *_: Any) -> int:
    """(..., n, k) @ (..., k, m), or (..., k) @ (k,)."""
    return a.numel() * (b.shape[-1] if b.ndim > 1 else 1)


def _linear(x: Tensor, weight: Tensor, *_: Any) -> int:
    return x.numel() * weight.shape[0]


def _convolution(x: Tensor, weight: Tensor, bias: Any, *geometry: Any) -> int:
    stride, padding, dilation, transposed = geometry[:4]
    kernel = prod(weight.shape[2:])
    if transposed:  # every input value meets a kernel for every output channel of its group
        return x.numel() * weight.shape[1] * kernel
    places = [
        (size + 2 * pad - reach * (width - 1) - 1) // step + 1
        for size, pad, reach, width, step in zip(x.shape[2:], padding, dilation, weight.shape[2:], stride, strict=True)
    ]
    return x.shape[0] * prod(places) * weight.numel()


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> int:
    """Scores and their product with the values: (..., n, e) with (..., m, e) and (..., m, v)."""
    return prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


FORMULAS: Mapping[str, Callable[..., int]] = {
    "mm": _matrix,
    "bmm": _matrix,
    "mv": _matrix,
    "dot": _matrix,
    "addmm": lambda bias, a, b, *_: _matrix(a, b),
    "baddbmm": lambda bias, a, b, *_: _matrix(a, b),
    "addmv": lambda bias, a, b, *_: _matrix(a, b),
    "linear": _linear,
    "convolution": _convolution,
    "_convolution": _convolution,
}
