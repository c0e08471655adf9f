"""Which module's own code runs, and the residual sums that it computes: seen, or changed, while a network predicts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from levelhead.network import Network
from levelhead.predictor import Predictor

ADDITIONS = frozenset({"add", "add_", "__add__", "__radd__", "__iadd__"})
CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})
ATTENTION, CONVOLUTION, MLP, POINTWISE = "attention", "convolution", "mlp", "pointwise"
ATTENTIONS = frozenset({"scaled_dot_product_attention", "multi_head_attention_forward"})


class Sum(NamedTuple):
    """One sum of two tensors of one shape, that a module's own code computed.

    place   which sum of this call of the module, from 0.
    kept    the summand that is what the module was given, or the sum before: the identity shortcut. None without.
    seen    what ran since the sum before: modules, and "attention", "convolution", "pointwise" (a convolution of
            one pixel) and "mlp" (a linear layer) for what was done, in modules or not.
    """

    name: str
    module: nn.Module
    place: int
    value: Tensor
    kept: Tensor | None
    seen: tuple[str | nn.Module, ...]


@dataclass(eq=False)
class _Call:
    """A call of a module that has not ended."""

    module: nn.Module
    given: list[Tensor]
    sums: int = 0
    seen: list[str | nn.Module] = field(default_factory=list)


OnSum = Callable[[Sum], Tensor | None]


class Running(TorchFunctionMode):
    """While open, follows the calls of modules; `on_sum` sees every sum, and what it returns takes the sum's place.

    Sequences run no code of their own, and are left unhooked: a network takes some of them apart.
    """

    def __init__(self, names: Mapping[nn.Module, str], on_sum: OnSum) -> None:
        super().__init__()
        self.names = {child: name for child, name in names.items() if type(child) is not nn.Sequential}
        self.on_sum = on_sum
        self.calls: list[_Call] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Follow what runs inside the block."""
        handles = []
        for child in self.names:
            handles.append(child.register_forward_pre_hook(self._before))
            handles.append(child.register_forward_hook(self._after, always_call=True))
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if not self.calls:
            return out
        call = self.calls[-1]
        if name in ADDITIONS and _alike(args) and not (kwargs or {}).get("alpha"):
            return self._summed(call, args, out, in_place=name == "add_")
        ran = _what(name, args, kwargs or {})
        if ran is not None:
            for around in self.calls:
                around.seen.append(ran)
        return out

    def _summed(self, call: _Call, args: Sequence[Any], out: Tensor, *, in_place: bool) -> Tensor:
        kept = next((summand for summand in args[:2] if any(_same(summand, known) for known in call.given)), None)
        found = Sum(self.names[call.module], call.module, call.sums, out, kept, tuple(call.seen))
        call.sums += 1
        call.seen.clear()
        other = self.on_sum(found)
        result = out if other is None else out.copy_(other) if in_place else other
        call.given.append(result)
        return result

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        for around in self.calls:
            around.seen.append(module)
        self.calls.append(_Call(module, [value for value in args if isinstance(value, Tensor)]))

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.calls.pop()


def roots(module: nn.Module) -> list[nn.Module]:
    """The networks of a predictor, each once; of any other module itself."""
    if isinstance(module, Predictor):
        return list(dict.fromkeys(module.networks()))
    return [module]


def names_of(module: nn.Module) -> dict[nn.Module, str]:
    """Every module inside with its name within its network: those at one place of several networks share it."""
    found: dict[nn.Module, str] = {}
    for root in roots(module):
        for name, child in root.named_modules():
            found.setdefault(child, name.removeprefix("features.") if isinstance(root, Network) else name)
    return found


def _what(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """What a function of torch does that tells kinds of blocks apart."""
    if name in ATTENTIONS or (name == "softmax" and _over_last(args, kwargs)):
        return ATTENTION
    if name in CONVOLUTIONS:
        return CONVOLUTION if len(args) > 1 and prod(args[1].shape[2:]) > 1 else POINTWISE
    return MLP if name == "linear" else None


def _alike(args: Sequence[Any]) -> bool:
    """Whether two tensors of one shape, that have channels, are added."""
    if len(args) < 2 or not all(isinstance(value, Tensor) for value in args[:2]):
        return False
    return bool(args[0].shape == args[1].shape) and args[0].ndim >= 3


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether they are one tensor, or views of all of it."""
    return a is b or (a.numel() == b.numel() and a.data_ptr() == b.data_ptr())


def _over_last(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a softmax of scores between places: over the last of three axes or more."""
    axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
    return axis is not None and args[0].ndim >= 3 and axis in (-1, args[0].ndim - 1)
