"""The published recipe: one member, dropout from 0.05, tuning after a warm-up."""

import pytest

from levelhead.backbones.mlp import MLP
from levelhead.recipes.self_tuning_networks import self_tuning_networks
from levelhead.tasks.stripes import stripes


@pytest.mark.parametrize("delta", [False, True])
def test_dropout_starts_low_and_is_tuned_after_the_warm_up(delta):
    recipe = self_tuning_networks(MLP(hidden=(8,)), epochs=6, delta=delta)
    task = stripes(n=96, size=12)
    network = recipe.build(task)
    assert network.num_members == 1
    start = {row["hyper"]: row["point"] for row in network.hyper.table()}
    assert start["dropout"] == pytest.approx(0.05, rel=1e-3)
    end = {row["hyper"]: row["point"] for row in recipe.fit(task, 0).network.hyper.table()}
    assert end != start
