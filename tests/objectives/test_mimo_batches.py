"""The orders of MIMO's slots, and the objective on them."""

import pytest
import torch
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.forward import Forward, extend, network_loss
from levelhead.likelihood import Categorical, Signature
from levelhead.objectives.mimo_batches import MIMOBatches
from levelhead.surgeries.mimo import MIMO
from levelhead.tasks.stripes import stripes
from levelhead.training import Run
from levelhead.types import Batch, CannotCompose

TABLE = Signature(input_shape=(6,), num_outputs=3, likelihood=Categorical(3))


def test_slots_hold_the_same_rows_in_orders_of_their_own() -> None:
    torch.manual_seed(0)
    slots = MIMOBatches(repetitions=3).orders(10, 4)
    expected = torch.arange(10).repeat_interleave(3)
    assert all(torch.equal(slot.sort().values, expected) for slot in slots)
    assert not torch.equal(slots[0], slots[1])


@pytest.mark.parametrize("common", [0.6, 1.0])
def test_common_rows_stand_in_all_slots(common: float) -> None:
    torch.manual_seed(0)
    first, second = MIMOBatches(repetitions=2, common=common).orders(50, 2)
    same = (first == second).double().mean()
    assert same >= common
    assert same == 1.0 if common == 1.0 else same < 0.75
    own = round((1 - common) * 100)
    assert torch.equal(first[own:], second[own:])
    assert torch.equal(first[:own].sort().values, second[:own].sort().values)


def test_labels_follow_their_rows_and_losses_of_the_heads_are_added() -> None:
    network = MIMO(num_members=2)(MLP()(TABLE)).eval()
    generator = torch.Generator().manual_seed(0)
    batch = Batch(TABLE.example(6), torch.randint(3, (6,), generator=generator), torch.arange(6))
    seen: list[Forward] = []

    def watch(forward: Forward) -> torch.Tensor:
        seen.append(forward)
        return network_loss(forward)

    found = extend(watch, [MIMOBatches(repetitions=2)])(Forward(network, batch))
    rows = seen[0].batch
    assert rows.per_member
    assert rows.y.shape == (2, 12)
    places = rows.index.reshape(2, 12)
    assert torch.equal(rows.y, batch.y[places])
    assert torch.equal(rows.x.reshape(2, 12, 6), batch.x[places])
    outputs = network(rows.x, per_member=True)
    assert_close(found, sum(network.likelihood.loss(outputs[k], rows.y[k]) for k in range(2)))


def test_a_network_without_slots_is_refused() -> None:
    with pytest.raises(CannotCompose, match="has no slots"):
        MIMOBatches().start(MLP()(TABLE), stripes(), Run(0))


def test_validation() -> None:
    with pytest.raises(ValueError, match="repetitions must"):
        MIMOBatches(repetitions=0)
    with pytest.raises(ValueError, match="common must"):
        MIMOBatches(common=1.5)
