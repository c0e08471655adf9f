"""Who reads what: the maps that flow through a network between its modules, functions called in its code included.

A trace (`probe`) says which modules were called, one after the other; it does not see that a functional ReLU stands
between two of them, or that a sum reads a map too. Here every torch function is written down with the values that it
reads and makes.
"""

from collections import Counter
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from levelhead.layers.places import CONVOLUTIONS
from levelhead.network import Network

POINTWISE = (
    "relu relu6 hardtanh leaky_relu elu selu celu gelu silu mish softplus softsign hardswish hardsigmoid sigmoid tanh "
    "prelu rrelu clamp clamp_min threshold logsigmoid tanhshrink softshrink hardshrink"
)
ACTIVATIONS = frozenset(name + ending for name in POINTWISE.split() for ending in ("", "_"))
NORMS = frozenset(("batch_norm", "group_norm", "instance_norm", "layer_norm"))


class Use(NamedTuple):
    """One call of a torch function: its name, what it read and made, and the module calls around it."""

    function: str
    reads: tuple[int, ...]
    makes: int
    inside: tuple[int, ...]


class Passed(NamedTuple):
    """One call of a module: the values that it got first and returned, and the calls around it."""

    name: str
    module: nn.Module
    reads: int
    makes: int
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    inside: tuple[int, ...]


class Spot(NamedTuple):
    """In front of a module or behind it."""

    name: str
    behind: bool


class Flow:
    """Values are numbers: a tensor that a function changes in place is another value afterwards."""

    def __init__(self, uses: list[Use], passed: dict[int, Passed]) -> None:
        self.uses = uses
        self.passed = passed
        self.times = Counter(call.name for call in passed.values())

    def readers(self, value: int) -> list[Use]:
        """The functions that read a value."""
        return [use for use in self.uses if value in use.reads]

    def call_of(self, name: str) -> int:
        """The first call of a module. Raises KeyError where there is none."""
        return next(i for i, call in sorted(self.passed.items()) if call.name == name)

    def after_activation(self, name: str) -> tuple[int, bool]:
        """What a module's output has become behind the norm and the activation that follow it, and whether there is an
        activation.

        Followed through modules that keep the shape and hold neither convolution, linear layer nor pool, and through
        functions; as far as one reader alone uses the map.
        """
        start = self.call_of(name)
        value = self.passed[start].makes
        while True:
            readers = self.readers(value)
            gate = self._passive_reader(value, readers, start)
            if gate is not None:
                value = self.passed[gate].makes
                if self._activates(gate):
                    return value, True
            elif len(readers) == 1 and readers[0].function in ACTIVATIONS | NORMS:
                value = readers[0].makes
                if readers[0].function in ACTIVATIONS:
                    return value, True
            else:
                return value, False

    def seen_by(self, value: int, start: int) -> tuple[Spot, ...]:
        """Where a filter must stand to change a value for all who read it: behind the module that makes it, or in front
        of the modules that read it; () where neither will do."""
        for i in sorted(self.passed, reverse=True):
            call = self.passed[i]
            if call.makes == value and call.reads != value and self.times[call.name] == 1:
                return (Spot(call.name, behind=True),)
        fronts = [self._front(value, use, start) for use in self.readers(value)]
        if not fronts or None in fronts:
            return ()
        return tuple(dict.fromkeys(Spot(front, behind=False) for front in fronts if front is not None))

    def one_spot(self, value: int, names: set[str]) -> Spot | None:
        """Where one filter changes a value for some modules, if nothing else reads it: in front of the smallest module
        that holds them all and got the value, or behind the one that makes it."""
        calls = [i for i, call in self.passed.items() if call.name in names and call.reads == value]
        readers = self.readers(value)
        if not readers or not all(any(i in calls for i in use.inside) for use in readers):
            return None
        for i in sorted(set.intersection(*({*self.passed[i].inside} for i in calls)), reverse=True):
            if self.passed[i].reads == value and self.times[self.passed[i].name] == 1:
                return Spot(self.passed[i].name, behind=False)
        behind = self.seen_by(value, calls[0])
        return behind[0] if len(behind) == 1 and behind[0].behind else None

    def _front(self, value: int, use: Use, start: int) -> str | None:
        """The outermost module around a function that got the value, if it is called once and does not hold `start`."""
        holders = self.passed[start].inside
        for i in use.inside:
            call = self.passed[i]
            if call.reads == value and i not in holders and i != start:
                return call.name if self.times[call.name] == 1 else None
        return None

    def _passive_reader(self, value: int, readers: list[Use], start: int) -> int | None:
        """The innermost module call that alone reads the value, keeps its shape and does nothing to its places."""
        if not readers:
            return None
        holders = self.passed[start].inside
        around = [set(use.inside) for use in readers]
        for i in sorted(set.intersection(*around), reverse=True):
            call = self.passed[i]
            kept = call.shapes[0] == call.shapes[1] and call.makes != value
            if call.reads == value and kept and i not in holders and i != start and _is_passive(call.module):
                return i
        return None

    def _activates(self, i: int) -> bool:
        return any(i in use.inside and use.function in ACTIVATIONS for use in self.uses)


def _is_passive(module: nn.Module) -> bool:
    """Whether a module treats every place alike, by what it holds."""
    acting = (*CONVOLUTIONS, nn.Linear, nn.MultiheadAttention)
    return not any(
        isinstance(m, acting) or hasattr(m, "stride") or "Pool" in type(m).__name__ for m in module.modules()
    )


class _Recorder(TorchFunctionMode):
    """Numbers the values and writes down who reads and makes them."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []  # alive, so that no two tensors share an identity
        self.values: dict[int, int] = {}
        self.next_value = 1
        self.uses: list[Use] = []
        self.running: list[tuple[int, int, tuple[int, ...]]] = []
        self.passed: dict[int, Passed] = {}
        self.names: dict[nn.Module, str] = {}
        self.count = 0

    def value(self, tensor: Tensor) -> int:
        if id(tensor) not in self.values:
            self.new_value(tensor)
        return self.values[id(tensor)]

    def new_value(self, tensor: Tensor) -> int:
        self.kept.append(tensor)
        self.values[id(tensor)] = self.next_value
        self.next_value += 1
        return self.next_value - 1

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        reads = tuple(
            self.value(tensor) for tensor in _tensors((args, kwargs or {})) if not isinstance(tensor, nn.Parameter)
        )
        sources = {id(tensor) for tensor in _tensors((args, kwargs or {}))}
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        made = [tensor for tensor in _tensors(out) if id(tensor) not in sources or name in ACTIVATIONS | NORMS]
        inside = tuple(place for place, _, _ in self.running)
        self.uses += [Use(name, reads, self.new_value(tensor), inside) for tensor in made]
        return out

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        first = next(iter(_tensors(args)), None)
        got, shape = (0, ()) if first is None else (self.value(first), tuple(first.shape))
        self.running.append((self.count, got, shape))
        self.count += 1

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        place, got, shape = self.running.pop()
        made, shape_out = (self.value(output), tuple(output.shape)) if isinstance(output, Tensor) else (0, ())
        inside = tuple(i for i, _, _ in self.running)
        self.passed[place] = Passed(self.names[module], module, got, made, (shape, shape_out), inside)


def data_flow(network: Network) -> Flow:
    """What one example does in the network's features, in evaluation mode, without gradient."""
    recorder = _Recorder()
    hooks: list[RemovableHandle] = []
    for name, module in network.features.named_modules(prefix="features"):
        recorder.names.setdefault(module, name)
    for module in recorder.names:
        hooks += [module.register_forward_pre_hook(recorder.before), module.register_forward_hook(recorder.after)]
    try:
        with recorder:
            network.trace()
    finally:
        for hook in hooks:
            hook.remove()
    return Flow(recorder.uses, recorder.passed)


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    return [tensor for part in tree for tensor in _tensors(part)] if isinstance(tree, list | tuple) else []
