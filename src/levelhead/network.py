"""Network: the one owner of the member axis. Surgery changes its parts and never subclasses it.

Rows are (member sample batch), member-major. Members and samples enter late: `features` may be a Sequential of stages,
and the batch is repeated only before the first stage that holds a layer to which rows differ.

Several samples go through the stages behind that place in pieces of whole samples, all members of one piece at a time:
see `stages`. Training passes are never taken apart.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple, Self

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.declared import Conditional, Hyper, Stochastic
from levelhead.layout import channels_last, like
from levelhead.likelihood import Likelihood, Signature
from levelhead.probe import Trace, evaluating, trace
from levelhead.stages import Stage, plan, samples_at_once, tiled
from levelhead.types import CannotCompose, NoLayerReplaced

Backbone = Callable[[Signature], "Network"]
Surgery = Callable[["Network"], "Network"]


class Origin(NamedTuple):
    """How a network was made: enough to rebuild its structure."""

    backbone: Backbone
    surgery: tuple[Surgery, ...]
    signature: Signature


class Note(NamedTuple):
    """What one replacement did: the places it converted, and those it left with the reason."""

    author: str
    converted: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...] = ()


class Network(nn.Module):
    """x -> outputs with an explicit row axis. Final.

    features     x to features; a Sequential of stages lets the rows enter late.
    head         features to outputs; acts on the last axis only.
    signature    what it was made for: input shape, outputs, likelihood, input statistics.
    channel      the axis of the features' channel in what `features` returns: -1, or 1 for pixel maps.
    num_members  distinct members that share weights, in training and prediction (BatchEnsemble, FiLM).
    num_samples  stochastic passes that a predictor draws (MC dropout); eval() itself never draws.
    """

    def __init__(
        self,
        features: nn.Module,
        head: nn.Module,
        signature: Signature,
        *,
        width: int | None = None,
        channel: int = -1,
        origin: Origin | None = None,
    ) -> None:
        super().__init__()
        self.features = features
        self.head = head
        self.signature = signature
        self.channel = channel
        self.origin = origin
        self.num_members = 1
        self.num_samples = 1
        self.hyper: Hyper | None = None
        self.notes: tuple[Note, ...] = ()
        self.frozen: frozenset[str] = frozenset()
        self._stages: tuple[Stage, ...] | None = None
        channels_last(self)
        self.width = self._measured_width() if width is None else width

    # -- what it is ------------------------------------------------------------------------------------------

    @property
    def likelihood(self) -> Likelihood:
        """What the outputs mean."""
        return self.signature.likelihood

    @property
    def num_outputs(self) -> int:
        """Size of the last axis of the outputs."""
        return self.signature.num_outputs

    @property
    def stochastic(self) -> bool:
        """Whether some layer draws when asked for samples."""
        return any(isinstance(module, Stochastic) for module in self.modules())

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(iter(self.parameters())).device

    def layers(self, *types: type[nn.Module]) -> list[nn.Module]:
        """The modules of some types, in order."""
        return [module for module in self.modules() if isinstance(module, types)]

    # -- passes ----------------------------------------------------------------------------------------------

    def forward(
        self,
        x: Float[Tensor, "batch *input"],
        *,
        hyper: Float[Tensor, "member draw hyper"] | None = None,
        num_samples: int | None = None,
        per_member: bool = False,
    ) -> Float[Tensor, "row *batch output"]:
        """Outputs of every row; `read(embed(x))`. *batch is (batch,), or (batch, height, width) for pixel maps."""
        features = self.embed(x, hyper=hyper, num_samples=num_samples, per_member=per_member)
        return self.read(features, hyper=hyper, num_samples=num_samples)

    def embed(
        self,
        x: Float[Tensor, "batch *input"],
        *,
        hyper: Float[Tensor, "member draw hyper"] | None = None,
        num_samples: int | None = None,
        per_member: bool = False,
    ) -> Float[Tensor, "row *batch feature"]:
        """Features of every row, channels last.

        num_samples  None: layers that draw follow the mode (training draws once, eval does not).
                     n: draw n times for each member, in any mode.
        per_member   x already holds (member sample batch) rows of their own.
        """
        members, samples = self.num_members, num_samples or 1
        if per_member and x.shape[0] % (members * samples):
            raise ValueError(f"x: {x.shape[0]} rows are no multiple of {members} members x {samples} samples")
        drawing = self.training or num_samples is not None
        tiled_members, tiled_samples = per_member or members == 1, per_member or samples == 1
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        z = x
        batch = x.shape[0] // (members * samples if per_member else 1)
        with self._prepared(hyper, batch, num_samples):
            stages = self._plan()
            for place, stage in enumerate(stages):
                if not tiled_members and (stage.membered or (stage.stochastic and drawing)):
                    z = tiled(z, 1, members)
                    tiled_members = True
                if not tiled_samples and stage.stochastic:  # more than one sample: it draws, so members are in
                    z = self._sampled(stages[place:], z, samples, batch)  # to the end
                    tiled_samples = True
                    break
                stage.expect((members if tiled_members else 1) * (samples if tiled_samples else 1), batch)
                z = stage.module(z)
        if self.channel != -1:
            z = z.movedim(self.channel, -1)
        if tiled_members and tiled_samples:
            return rearrange(z, "(row b) ... -> row b ...", row=members * samples)
        if tiled_members:
            z = rearrange(z, "(member b) ... -> member 1 b ...", member=members)
        elif tiled_samples:
            z = rearrange(z, "(sample b) ... -> 1 sample b ...", sample=samples)
        else:
            z = rearrange(z, "b ... -> 1 1 b ...")
        return z.expand(members, samples, *z.shape[2:]).flatten(0, 1)

    def read(
        self,
        z: Float[Tensor, "row *batch feature"],
        *,
        hyper: Float[Tensor, "member draw hyper"] | None = None,
        num_samples: int | None = None,
    ) -> Float[Tensor, "row *batch output"]:
        """Outputs of the head for features of every row."""
        with self._prepared(hyper, z.shape[1], num_samples):
            for layer in self.head.modules():
                if isinstance(layer, Stochastic):
                    layer.expect(z.shape[0], z.shape[1])
            outputs = self.head(z.flatten(0, 1))
        return rearrange(outputs, "(row b) ... -> row b ...", row=z.shape[0])

    def _sampled(
        self, stages: tuple[Stage, ...], z: Float[Tensor, "rows ..."], samples: int, batch: int
    ) -> Float[Tensor, "tiled ..."]:
        """What the stages from the first that draws make of (member batch) rows: (member sample batch) rows."""
        members = self.num_members
        at_once = samples if self.training else samples_at_once(stages, z)
        pieces = []
        for first in range(0, samples, at_once):
            size = min(at_once, samples - first)
            rows = tiled(z, members, size)
            for stage in stages:
                stage.expect(members * size, batch)
                rows = stage.module(rows)
            pieces.append(rows)
        if len(pieces) == 1:
            return pieces[0]
        by_member = [rows.unflatten(0, (members, -1)) for rows in pieces]
        return torch.cat([rows[k] for k in range(members) for rows in by_member])

    @contextmanager
    def _prepared(self, hyper: Tensor | None, batch: int, num_samples: int | None) -> Iterator[None]:
        """Hand hyper-parameters to the layers that wait for them, and let layers draw, for one pass."""
        with ExitStack() as stack:
            if self.hyper is not None:
                if hyper is None:
                    hyper = repeat(self.hyper.mean(), "member h -> member batch h", batch=batch)
                settings = self.hyper.values(hyper.detach())
                for layer in self.layers(Conditional):
                    stack.callback(setattr, layer, "condition", None)
                    stack.callback(setattr, layer, "settings", None)
                    layer.condition, layer.settings = hyper, settings
            elif hyper is not None:
                raise ValueError(
                    "hyper: this network has no hyper-parameters; a surgery with conditional layers adds them"
                )
            if num_samples is not None and not self.training:
                for layer in self.layers(Stochastic):
                    stack.callback(setattr, layer, "sampling", False)
                    layer.sampling = True  # type: ignore[assignment]
            yield

    def _plan(self) -> tuple[Stage, ...]:
        if self._stages is None:
            self._stages = plan(self.features)
        return self._stages

    def _measured_width(self) -> int:
        with evaluating(self.features), torch.no_grad():
            z = self.features(self.signature.example(2))
        return int(z.shape[self.channel])

    # -- surgery ---------------------------------------------------------------------------------------------

    def replace(
        self,
        match: Callable[[str, nn.Module], bool],
        make: Callable[[nn.Module], nn.Module],
        *,
        within: str = "features",
        inside: bool = False,
        author: str = "replace",
        skipped: tuple[tuple[str, str], ...] = (),
    ) -> Self:
        """A new network in which every module that matches is exchanged: the only walker of modules.

        match   (dotted name from the network, module) -> bool; asked from the outside in.
        make    module -> its replacement, which may hold the module itself. Called once for a shared module. Device,
                dtype and mode are carried over.
        within  "features", "head" or "all".
        inside  ask on among the children of a matched module that its replacement kept, under the names they had.

        Raises NoLayerReplaced when nothing matched; the argument is untouched.
        """
        if within not in ("features", "head", "all"):
            raise ValueError(f"replace: within must be 'features', 'head' or 'all', got {within!r}")
        new = self.copy()
        somewhere = next(new.parameters(), torch.empty(0))
        made: dict[nn.Module, nn.Module] = {}
        converted: list[str] = []

        def visit(parent: nn.Module, attribute: str, name: str) -> None:
            child = parent._modules[attribute]
            if child is None:
                return
            if child in made:
                parent._modules[attribute] = made[child]
                converted.append(name)
            elif match(name, child):
                made[child] = like(child, make(child), somewhere)
                parent._modules[attribute] = made[child]
                converted.append(name)
                if inside and child in set(made[child].modules()):
                    enter(child, name)
            else:
                enter(child, name)

        def enter(child: nn.Module, name: str) -> None:
            if child not in visited:
                visited.add(child)
                for grandchild in list(child._modules):
                    visit(child, grandchild, f"{name}.{grandchild}")

        visited: set[nn.Module] = set()
        for part in ("features", "head") if within == "all" else (within,):
            visit(new, part, part)
        if not converted:
            count = sum(1 for _ in self.modules()) - 1
            reasons = "".join(f"\n  {name}: {reason}" for name, reason in skipped)
            raise NoLayerReplaced(
                f"{author} found nothing to change among the {count} modules of the network ({within}). "
                f"`levelhead doctor` lists its layers.{reasons}"
            )
        new.notes = (*self.notes, Note(author, tuple(converted), skipped))
        new.width = self.width if within == "head" else new._measured_width_now()
        return new

    def appended(self, stage: nn.Module, *, name: str, author: str) -> Self:
        """A new network with one more stage behind the features, for what acts on features of any head.

        The head stays what it is. The argument is untouched; the stage is taken over with device, dtype and mode.
        """
        new = self.copy()
        stages = new.features._modules.items() if type(new.features) is nn.Sequential else [("trunk", new.features)]
        stage = like(new.features, stage, next(new.parameters(), torch.empty(0)))
        new.features = nn.Sequential(OrderedDict([*stages, (name, stage)])).train(new.features.training)
        new.notes = (*self.notes, Note(author, (f"features.{name}",)))
        new.width = new._measured_width_now()
        return new

    def copy(self) -> Self:
        """A deep copy that shares nothing with this network."""
        new = copy.deepcopy(self)
        new._stages = None
        return new

    def declare(self, *, num_members: int | None = None, num_samples: int | None = None) -> Self:
        """Set the number of members or samples on this (new) network; those who declare members must agree."""
        if num_members is not None:
            if self.num_members not in (1, num_members):
                raise CannotCompose(
                    f"num_members: one surgery declared {self.num_members}, another {num_members}. Surgeries that "
                    "declare members share one axis: give them the same number"
                )
            self.num_members = num_members
        if num_samples is not None:
            self.num_samples = max(self.num_samples, num_samples)
        return self

    def trace(self) -> Trace:
        """The calls that one example makes in `features` (names from the network), for finding layers by use."""
        with self._prepared(None, 2, None):
            found = trace(self.features, self._rows_for_trace())

        def named(name: str) -> str:
            return f"features.{name}" if name else "features"

        return found._replace(
            calls=tuple(call._replace(name=named(call.name)) for call in found.calls),
            droppers=tuple(map(named, found.droppers)),
        )

    def _rows_for_trace(self) -> Tensor:
        parameter = next(self.parameters())
        example = self.signature.example(2).to(parameter)
        return repeat(example, "b ... -> (member b) ...", member=self.num_members)

    def _measured_width_now(self) -> int:
        with evaluating(self), torch.no_grad():
            parameter = next(self.parameters())
            return int(self.embed(self.signature.example(2).to(parameter)).shape[-1])

    # -- freezing --------------------------------------------------------------------------------------------

    def freeze(self, module: nn.Module) -> None:
        """No gradient for `module`, and it stays in eval when a sampler calls train()."""
        names = [name for name, child in self.named_modules() if child is module]
        if not names:
            raise ValueError("freeze: the module is not part of this network")
        module.requires_grad_(False)
        module.eval()
        self.frozen |= frozenset(names)

    def train(self, mode: bool = True) -> Self:
        """Training mode, frozen modules excepted."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self

    # -- foreign modules -------------------------------------------------------------------------------------

    @classmethod
    def wrap(cls, module: nn.Module, *, head: str, signature: Signature, origin: Origin | None = None) -> "Network":
        """Anybody's module as a network; `head` names its last layer, a Linear (dotted name, as in named_modules).

        The module is copied. Raises ValueError where `head` names no Linear, and CannotCompose where something comes
        after it (the wrapped network would not compute what the module computes).
        """
        known = dict(module.named_modules())
        last = known.get(head)
        if not isinstance(last, nn.Linear):
            linear = [name for name, child in known.items() if isinstance(child, nn.Linear)]
            raise ValueError(
                f"Network.wrap: head={head!r} must name the last nn.Linear, got {type(last).__name__}; "
                f"the linear layers are {linear[-5:]}"
            )
        features = copy.deepcopy(module)
        final = features.get_submodule(head)
        parent, _, attribute = head.rpartition(".")
        setattr(features.get_submodule(parent), attribute, nn.Identity())
        network = cls(features, final, signature, width=last.in_features, origin=origin)
        example = signature.example(2).to(last.weight)
        with evaluating(module), evaluating(network), torch.no_grad():
            expected, got = module(example), network(example)[0]
        if expected.shape != got.shape or not torch.allclose(expected, got, rtol=1e-4, atol=1e-5):
            raise CannotCompose(
                f"Network.wrap: the module computes something after {head!r}, so it is no head. Wrap a module that "
                "returns the outputs of its last Linear (logits, not probabilities)"
            )
        return network


def build(backbone: Backbone, surgery: tuple[Surgery, ...], signature: Signature) -> Network:
    """The backbone after its surgeries, in order, with its origin written down. Draws from torch's global stream."""
    network = backbone(signature)
    for operate in surgery:
        network = operate(network)
    network.origin = Origin(backbone, surgery, signature)
    return network
