"""How much of what a downsampled map holds is aliased: its spectrum beside the low frequencies of the map before."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from levelhead.analyses.running import roots
from levelhead.network import Network
from levelhead.probe import Call, Trace, evaluating, trace

ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")  # of torch.conv2d


class Aliasing(NamedTuple):
    """The aliasing of one layer that steps over pixels.

    absolute  the measure itself, in the map's own units: it grows with the map.
    relative  divided by the same norm of the low frequencies that should be there: 0 is none, comparable over layers.
    rows      maps behind the two.
    """

    absolute: float
    relative: float
    rows: int


def aliasing_measure(
    z: Float[Tensor, "batch channel h w"],
    downsample: Callable[[Tensor], Tensor],
    *,
    p: int = 1,
    on: str = "magnitude",
    nyquist: bool = False,
    relative: bool = False,
) -> Float[Tensor, ""]:
    """AM = mean over rows and channels of (mean over bins of |S(d(z)) - S(crop of z)|^p)^(1/p).

    S is the spectrum over height and width, divided by the number of pixels; the crop holds the frequencies of z that a
    map of d(z)'s size can represent: what a downsampling without aliasing would leave. Differentiable in z.

    downsample  any map to (batch, channel, smaller h, smaller w): a pooling layer, or `lambda z: z[..., ::2, ::2]`.
    p           1 or 2.
    on          what is compared: "magnitude" |F|, "power" |F|^2, "complex" F itself (which also sees shifts).
    nyquist     whether the highest frequency of an even size counts. It has no partner of the other sign in the small
                map, so that even an ideal low-pass differs there.
    relative    divide by the same norm of the crop, averaged likewise.

    0 for frequency low-cut pooling, and for plain striding of a map without high frequencies. It is linear in the size
    of z (quadratic for "power"). Grabinski et al. (arXiv 2204.00491) do not state the norm; ours is a mean over bins.
    """
    if p not in (1, 2):
        raise ValueError(f"aliasing_measure: p must be 1 or 2, got {p}")
    difference, wanted = _compared(z, downsample(z), p=p, on=on, nyquist=nyquist)
    return difference.mean() / wanted.mean() if relative else difference.mean()


def aliasing_by_layer(
    module: nn.Module,
    x: Float[Tensor, "batch channel h w"],
    *,
    p: int = 1,
    on: str = "magnitude",
    nyquist: bool = False,
    batch_size: int = 100,
) -> dict[str, Aliasing]:
    """The aliasing of every layer that steps over pixels, by name, in the order of execution.

    Of a network, of all networks of a predictor together, or of any module.
    A layer with a kernel (a strided convolution) filters first and steps then: its map is what it returns at stride 1.
    Of pools and low-pass layers the map is what comes in. A global pooling is no step. Steps that are no module
    (`F.max_pool2d`, slices) are not seen. The module is run in evaluation mode and left as it was.
    """
    measuring = Strided(module, x[:2], p=p, on=on, nyquist=nyquist)
    with torch.no_grad(), evaluating(module), measuring.watching():
        for some in x.split(batch_size):
            module(some)
    return measuring.found()


class Strided:
    """Watches the layers of a network that step over pixels, for as many passes as one likes."""

    def __init__(
        self, module: nn.Module, example: Float[Tensor, "two channel h w"], *, p: int, on: str, nyquist: bool
    ) -> None:
        self.convolutions = _Convolutions()
        self.layers: list[tuple[str, nn.Module]] = []
        for root in roots(module):
            seen = root.trace() if isinstance(root, Network) else trace(root, example)
            self.layers += [(call.name.removeprefix("features."), call.module) for call in strided(seen)]
        self.how: dict[str, Any] = {"p": p, "on": on, "nyquist": nyquist}
        self.sums: dict[str, tuple[float, float, int]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While this is open, every pass counts."""
        handles = [layer.register_forward_pre_hook(self._forget) for _, layer in self.layers]
        handles += [layer.register_forward_hook(self._see(name)) for name, layer in self.layers]
        try:
            with self.convolutions:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def found(self) -> dict[str, Aliasing]:
        """Means over everything that was seen."""
        return {
            name: Aliasing(difference / rows, difference / wanted if wanted else 0.0, rows)
            for name, (difference, wanted, rows) in self.sums.items()
        }

    def _forget(self, layer: nn.Module, args: tuple[Any, ...]) -> None:
        self.convolutions.seen.clear()

    def _see(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(layer: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
            z, small = self.convolutions.before_and_after(args[0], out)
            if z.shape[:2] != small.shape[:2]:
                return
            new = [float(size.mean()) * len(out) for size in _compared(z, small, **self.how)]
            old = self.sums.get(name, (0.0, 0.0, 0))
            self.sums[name] = (old[0] + new[0], old[1] + new[1], old[2] + len(out))

        return hook


class _Convolutions(TorchFunctionMode):
    """The strided convolutions that a layer calls, whatever it makes its weights of: what they read, and what with."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[dict[str, Any], tuple[int, int], torch.Size]] = []

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") == "conv2d":
            given = {**dict(zip(ARGUMENTS, args, strict=False)), **(kwargs or {})}
            stride = given.pop("stride", 1)
            steps = (stride,) * 2 if isinstance(stride, int) else (stride[0], stride[-1])
            if max(steps) > 1:
                self.seen.append((given, steps, out.shape))
        return out

    def before_and_after(self, x: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """The map in front of a layer's step over pixels, and behind it: of a convolution, its own at stride 1."""
        for given, steps, shape in reversed(self.seen):
            if shape[-2:] == out.shape[-2:]:  # rows and channels may be folded into one another
                z = torch.conv2d(**given)
                return z, z[..., :: steps[0], :: steps[1]]
        return x, out


def strided(found: Trace) -> tuple[Call, ...]:
    """The innermost calls of a trace that step over pixels, each layer once."""
    around = found.around()
    stepping = [i for i, call in enumerate(found.calls) if call.subsamples and not call.collapses]
    outer = {place for i in stepping for place in around[i]}
    inner = {found.calls[i].name: found.calls[i] for i in stepping if i not in outer}
    return tuple(inner.values())


def _compared(
    z: Float[Tensor, "batch channel h w"],
    small: Float[Tensor, "batch channel g v"],
    *,
    p: int,
    on: str,
    nyquist: bool,
) -> tuple[Float[Tensor, "batch channel"], Float[Tensor, "batch channel"]]:
    """Of each row and channel the norm of what differs, and of what is wanted."""
    height, width = small.shape[-2:]
    if height > z.shape[-2] or width > z.shape[-1]:
        raise ValueError(f"aliasing_measure: downsample made {tuple(small.shape[-2:])} of {tuple(z.shape[-2:])} pixels")
    whole, got = (torch.fft.fft2(t.double(), norm="forward") for t in (z, small))
    wanted = whole[..., _low(z.shape[-2], height), :][..., _low(z.shape[-1], width)]
    if not nyquist:
        down, across = (_paired(size).to(z.device) for size in (height, width))
        wanted, got = (t[..., down, :][..., across] for t in (wanted, got))
    wanted, got = (_spectrum(t, on) for t in (wanted, got))
    return _norm(wanted - got, p), _norm(wanted, p)


def _low(size: int, kept: int) -> Tensor:
    """Where `torch.fft` keeps the frequencies -floor(kept / 2), ..., ceil(kept / 2) - 1 of `size` points."""
    return torch.fft.fftfreq(kept, 1 / kept).round().long() % size


def _paired(size: int) -> Tensor:
    """The places whose frequency has a partner of the other sign: all but the highest of an even size."""
    frequency = torch.fft.fftfreq(size)
    return torch.nonzero(frequency != -0.5).flatten()


def _spectrum(t: Tensor, on: str) -> Tensor:
    if on == "complex":
        return t
    if on not in ("magnitude", "power"):
        raise ValueError(f'aliasing_measure: on must be "magnitude", "power" or "complex", got {on!r}')
    return t.abs() if on == "magnitude" else t.abs().square()


def _norm(t: Tensor, p: int) -> Float[Tensor, "batch channel"]:
    size = t.abs()
    return size.mean((-2, -1)) if p == 1 else size.square().mean((-2, -1)).sqrt()
