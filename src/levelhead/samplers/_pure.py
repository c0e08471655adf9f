"""Whether a network is a function of its weights and one row: what Hamiltonian dynamics needs it to be."""

import torch
from torch import Tensor

from levelhead.network import Network
from levelhead.passes import seeded
from levelhead.tasks.task import Task
from levelhead.types import CannotCompose

NORMALISES = (
    "{asker} samples a posterior over weights, and in training this network's outputs depend on the other rows of the "
    "batch (BatchNorm does that), so it would deploy another network than it samples. Use normalisation of single rows "
    "(resnet(norm='group'), mlp(batch_norm=false)), or freeze the layers with their statistics (network.freeze)"
)
DRAWS = (
    "{asker} needs the energy of weights, and this network draws (dropout, drawn weights): leave such layers out; the "
    "draws of the weights take their place"
)
MOVES = (
    "{asker} needs the energy of weights, and in training a pass of this network changes {names}: leave out what keeps "
    "such statistics, or freeze it (network.freeze)"
)
AUGMENTED = (
    "{asker} takes the whole training split as it is at each step, and this task augments: random rows have no "
    "posterior. Load it with augment=None (load_task(name, augment=None))"
)
NOTHING = "{asker}: no parameter of this network requires grad, so there is nothing to sample; leave some unfrozen"


@torch.no_grad()
def insist_on_a_function(network: Network, task: Task, asker: str) -> None:
    """Raise CannotCompose, with what to write instead, where the energy of weights is not defined or nothing moves."""
    if task.augment is not None:
        raise CannotCompose(AUGMENTED.format(asker=asker))
    if not any(p.requires_grad for p in network.parameters()):
        raise CannotCompose(NOTHING.format(asker=asker))
    probe = network.copy().train()
    x = network.signature.example(4).to(next(network.parameters()))
    before = {name: b.clone() for name, b in probe.named_buffers()}
    with seeded(0, network.device):
        whole, again, part = probe(x), probe(x), probe(x[:3])
    moved = [name for name, b in probe.named_buffers() if not torch.equal(b, before[name])]
    if differs(part, whole[:, :3]) and not differs(again, whole):
        raise CannotCompose(NORMALISES.format(asker=asker))
    if moved:
        raise CannotCompose(MOVES.format(asker=asker, names=", ".join(moved[:3])))
    if differs(again, whole):
        raise CannotCompose(DRAWS.format(asker=asker))


def differs(one: Tensor, other: Tensor) -> bool:
    """Beyond rounding."""
    return not torch.allclose(one, other, rtol=1e-3, atol=1e-4)
