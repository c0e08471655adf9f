"""The doctor: what to know about a network, about what surgeries did to it, and about data, before anything trains."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from levelhead.backbones.factory import Factory
from levelhead.doctor._data import examine_data
from levelhead.doctor._diagnosis import Diagnosis, Finding, Findings
from levelhead.doctor._network import DRAWS, NOT_IN_PLACE, WRITES, Example, examine_network
from levelhead.doctor._surgery import operate
from levelhead.likelihood import Categorical, Signature
from levelhead.network import Backbone, Network, Surgery
from levelhead.passes import seeded
from levelhead.probe import evaluating
from levelhead.recipe import DeepEnsemble, Fit, Recipe, rehearse
from levelhead.tasks.task import Task
from levelhead.text import parse
from levelhead.types import CannotCompose, NoLayerReplaced

__all__ = ["Diagnosis", "Finding", "examine"]

ROWS = 8
IMAGES = Signature((3, 32, 32), 10, Categorical(10), (0.5,) * 3, (0.25,) * 3)  # where no task says otherwise
FIRST_HEADS = 6  # linear layers, from the last, that are tried as head


def examine(
    target: str | Network | nn.Module | Backbone | Fit,
    surgery: Sequence[Surgery] = (),
    task: Task | None = None,
    *,
    head: str | None = None,
    rows: int = ROWS,
) -> Diagnosis:
    """Look at a network, at what each surgery does to it, and at a task's data. Trains nothing; takes seconds.

    target   a Network, a module, a backbone, a recipe, "module:function", or a line of text ("resnet20 + mc_dropout").
             A recipe's own surgeries come before `surgery`, and the recipe is run dry on the task.
    surgery  applied in order, each to what the one before returned.
    task     gives the inputs' shape and rows; without it, random colour images of 32 x 32 and ten classes. Its data
             are examined too.
    head     dotted name of a foreign module's last linear layer; None: found by running an example.

    Never raises for what it finds: that is in the diagnosis. Raises ValueError for text that names nothing.
    """
    signature = IMAGES if task is None else task.signature
    found: list[Finding] = []
    label = target if isinstance(target, str) else type(target).__name__
    if isinstance(target, str):
        target = read(target)
    recipe = target if isinstance(target, Recipe | DeepEnsemble) else None
    while isinstance(target, DeepEnsemble):
        target = target.member
    held = False
    if isinstance(target, Recipe):
        held = any(getattr(regulariser, "holds_still_inputs", False) for regulariser in target.regularisers)
        surgery = (*target.surgery, *surgery)
        target = target.backbone
    network, made = network_of(target, signature, head)
    found += made
    layers: tuple[str, ...] = ()
    if network is not None:
        example = example_of(network, task, rows)
        with seeded(0):
            examined = examine_network(network, example)
            found += examined
            if not any(finding.check == "runs" and finding.level == "problem" for finding in examined):
                layers = calls(network)
                found += operations(network, surgery, example.x)
    if task is not None:
        found += examine_data(task, held=held)
    if recipe is not None and task is not None:
        found += dry_run(recipe, task)
    return Diagnosis(label, tuple(found), layers)


def read(text: str) -> Any:
    """What a line of text names: `module:function`, a backbone, or a whole recipe."""
    if ":" in text and "(" not in text and " " not in text:
        return Factory(text)
    fit = parse(text)
    plain = isinstance(fit, Recipe) and fit == Recipe(backbone=fit.backbone)
    return fit.backbone if plain else fit  # type: ignore[attr-defined]


def network_of(target: Any, signature: Signature, head: str | None) -> tuple[Network | None, Findings]:
    """The network to examine; None, and why, where there is none."""
    found = Findings("network")
    made: list[Network | None] = []

    def build() -> None:
        with seeded(0):
            if isinstance(target, Network):
                made.append(target.copy())
            elif isinstance(target, Factory):
                made.append(foreign(target.module(signature), signature, head, found, target))
            elif isinstance(target, nn.Module):
                made.append(foreign(copy.deepcopy(target), signature, head, found))
            else:
                made.append(target(signature))

    shapes = f"inputs {signature.input_shape}, {signature.num_outputs} outputs"
    found.attempt("builds", build, f"It was asked for {shapes}; give a task (--task) with what it expects")
    return (made[0] if made else None), found


def foreign(
    module: nn.Module, signature: Signature, head: str | None, found: Findings, factory: Factory | None = None
) -> Network | None:
    """A module of somebody's as a network, its head found where nobody names it; None where it does not hold still."""
    if isinstance(module, Network):
        return module
    x = signature.example(2).to(next(module.parameters()))
    given = x.clone()
    with evaluating(module), torch.no_grad():
        first, second = module(x), module(given.clone())
    if not torch.equal(x, given):
        found.fail("input kept", WRITES, NOT_IN_PLACE)
        return None
    if isinstance(first, Tensor) and not bool(first.isfinite().all()):
        found.fail(
            "runs", "outputs are not finite for inputs in [0, 1]", "Look for a division, a log or a root in forward"
        )
        return None
    if isinstance(first, Tensor) and not torch.equal(first, second):
        found.fail("eval repeats", "two predictions of the same rows differ: something draws in eval()", DRAWS)
        return None
    if head is None:
        head = found_head(module, signature)
        written = "" if factory is None else f'; write Factory("{factory.target}", head="{head}")'
        found.note("head found", f"{head!r} by running an example{written}")
    if factory is not None:
        return factory.network(module, head, signature)
    return Network.wrap(module, head=head, signature=signature)


def found_head(module: nn.Module, signature: Signature) -> str:
    """Dotted name of the linear layer whose output is the module's. Raises ValueError where there is none."""
    outputs: dict[str, Tensor] = {}
    hooks = []
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear):
            hooks.append(child.register_forward_hook(lambda m, a, out, name=name: outputs.__setitem__(name, out)))
    try:
        with evaluating(module), torch.no_grad():
            last = module(signature.example(2).to(next(module.parameters())))
    finally:
        for hook in hooks:
            hook.remove()
    for name in list(outputs)[: -FIRST_HEADS - 1 : -1]:
        if isinstance(last, Tensor) and outputs[name].shape == last.shape and torch.equal(outputs[name], last):
            return name
    kind = f"a tensor of shape {tuple(last.shape)}" if isinstance(last, Tensor) else type(last).__name__
    raise ValueError(
        f"the module returns {kind}, the output of none of its linear layers {list(outputs)[-FIRST_HEADS:]}; "
        "return logits of a last nn.Linear"
    )


def example_of(network: Network, task: Task | None, rows: int) -> Example:
    """Rows to examine with: the task's first training rows, or random ones."""
    like = next(network.parameters())
    if task is not None:
        batch = next(task.train.ordered(rows)).to(like.device, like.dtype)
        return Example(batch.x, f"{len(batch.x)} rows of {task.name}")
    return Example(network.signature.example(rows).to(like), f"{rows} random rows")


def operations(network: Network, surgery: Sequence[Surgery], x: Tensor) -> list[Finding]:
    """The findings after each surgery, one on top of the other; the first that refuses ends them."""
    found: list[Finding] = []
    for operation in surgery:
        after, made = operate(network, operation, x)
        found += made
        if after is None:
            break
        network = after
    return found


def dry_run(recipe: Fit, task: Task) -> Findings:
    """What `fit` does before it trains: the whole recipe on eight rows."""
    found = Findings("recipe")
    try:
        rehearse(recipe, task)
    except (CannotCompose, NoLayerReplaced) as refusal:
        found.fail("dry run", " ".join(str(refusal).split()), "Change the recipe as the text says")
    else:
        found.note("dry run", "one step, every post-hoc step and a finite prediction on eight rows")
    return found


def calls(network: Network) -> tuple[str, ...]:
    """A line for every call of a layer: what surgeries see."""
    return tuple(
        f"{call.name}: {type(call.module).__name__} {call.input_shape} -> {call.output_shape}"
        for call in network.trace().calls
        if call.is_leaf
    )
