"""NOMU: a network that says in one pass how little it knows, for scarce data with hardly any noise."""

from typing import Any

from levelhead.artificial.training_box import TrainingBox
from levelhead.network import Backbone
from levelhead.objectives.layer_l2 import LayerL2
from levelhead.objectives.nomu_loss import NomuLoss
from levelhead.posthoc.attach_nomu import AttachNomu
from levelhead.recipe import Recipe
from levelhead.samplers.adamw import AdamW
from levelhead.surgeries.side_network import SideNetwork

SIDE = ("*.side.*", "head.raw.*")  # the parameters of the side network, by name


def nomu(
    backbone: Backbone,
    *,
    side: tuple[int, ...] = (1024, 1024, 1024),
    disjoint: bool = False,
    epochs: int = 1024,
    lr: float = 1e-3,
    batch_size: int = 1000,
    pi_sqr: float = 0.1,
    pi_exp: float = 0.01,
    c_exp: float = 30.0,
    num_points: int = 128,
    points: Any = TrainingBox(),
    l2: float = 1e-8,
    l2_side: float = 1e-8,
    l_min: float = 1e-3,
    l_max: float = 2.0,
) -> Recipe:
    """Heiss et al. (arXiv 2102.13640): the 1-D experiments' numbers; `backbone` should be MLP((1024, 1024, 1024)).

    disjoint=True is NOMU-DJ: the network alone first, then the side network on features that stay. The paper means
    targets without noise (a task with the likelihood `Noiseless`); with a Gaussian likelihood the network learns the
    noise of the data as well, and its uncertainty is what comes on top.
    """
    sampler = AdamW(epochs=epochs, batch_size=batch_size, lr=lr, weight_decay=0.0, schedule="constant")
    terms = {"pi_sqr": pi_sqr, "pi_exp": pi_exp, "c_exp": c_exp, "num_points": num_points, "points": points}
    if disjoint:
        step = AttachNomu(
            hidden=side, steps=epochs, batch_size=batch_size, lr=lr, l2=l2_side, l_min=l_min, l_max=l_max, **terms
        )
        return Recipe(backbone=backbone, regularisers=(LayerL2(coefficients=(l2,)),), sampler=sampler, posthoc=(step,))
    penalty = LayerL2(groups=(*SIDE, "*"), coefficients=(l2_side, l2_side, l2))
    return Recipe(
        backbone=backbone,
        surgery=(SideNetwork(hidden=side, l_min=l_min, l_max=l_max),),
        regularisers=(NomuLoss(**terms), penalty),
        sampler=sampler,
    )
