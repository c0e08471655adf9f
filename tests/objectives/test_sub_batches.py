"""Sub-batches against members that are trained on their own rows."""

import pytest
import torch
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.forward import Forward, extend, network_loss
from levelhead.likelihood import Categorical, Gaussian, Signature
from levelhead.network import Network
from levelhead.objectives.sub_batches import SubBatches
from levelhead.objectives.vat import VAT
from levelhead.recipe import Recipe
from levelhead.surgeries.batch_ensemble import BatchEnsemble
from levelhead.surgeries.masksembles import Masksembles
from levelhead.tasks.stripes import stripes
from levelhead.training import Run
from levelhead.types import Batch, CannotCompose

TABLE = Signature(input_shape=(6,), num_outputs=3, likelihood=Categorical(3))
IMAGES = Signature(input_shape=(3, 12, 12), num_outputs=3, likelihood=Categorical(3))


def batch(signature: Signature, size: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(3, (size,), generator=generator)
    return Batch(signature.example(size), y, torch.arange(size))


def loss(network: Network, given: Batch, *inside) -> torch.Tensor:
    return extend(network_loss, [SubBatches(), *inside])(Forward(network, given))


@pytest.mark.parametrize("backbone, signature", [(MLP(), TABLE), (ResNet(depth=8), IMAGES)], ids=repr)
def test_member_k_learns_from_block_k_alone(backbone, signature: Signature) -> None:
    network = BatchEnsemble(num_members=3)(backbone(signature)).eval()
    given = batch(signature, 6)
    expected = [
        network.likelihood.loss(network(given.x[2 * k : 2 * k + 2])[k], given.y[2 * k : 2 * k + 2]) for k in (0, 1, 2)
    ]
    assert_close(loss(network, given), torch.stack(expected).mean())


def test_a_batch_that_members_do_not_divide_is_filled_up() -> None:
    network = Masksembles(num_members=3)(MLP()(TABLE))
    rows = []
    network.head.register_forward_hook(lambda module, args, output: rows.append(len(output)))
    given = batch(TABLE, 4)
    found = loss(network, given)
    assert rows == [6]
    filled = [torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([0, 1])]
    parts = [network.likelihood.loss(network(given.x[rows])[k], given.y[rows]) for k, rows in enumerate(filled)]
    assert_close(found, torch.stack(parts).mean())


def test_terms_behind_it_see_the_rows_as_they_are_shared_out() -> None:
    network = BatchEnsemble(num_members=2)(MLP()(TABLE))
    given = batch(TABLE, 8)
    alone, both = loss(network, given), loss(network, given, VAT())
    assert both > alone


def test_targets_and_soft_labels_are_shared_out_too() -> None:
    network = BatchEnsemble(num_members=2)(MLP()(TABLE)).eval()
    given = batch(TABLE, 8)
    soft = torch.nn.functional.one_hot(given.y, 3).float()
    assert_close(loss(network, given._replace(y=soft)), loss(network, given))
    signature = Signature(input_shape=(6,), num_outputs=2, likelihood=Gaussian())
    targets = given._replace(y=torch.randn(8, 1))
    regressor = BatchEnsemble(num_members=2)(MLP()(signature)).eval()
    expected = [
        regressor.likelihood.loss(regressor(given.x[4 * k : 4 * k + 4])[k], targets.y[4 * k : 4 * k + 4])
        for k in (0, 1)
    ]
    assert_close(loss(regressor, targets), torch.stack(expected).mean())


def test_a_network_of_one_member_is_refused() -> None:
    with pytest.raises(CannotCompose, match="has a single member"):
        SubBatches().start(MLP()(stripes().signature), stripes(), Run(0))
    Recipe(backbone=MLP(), surgery=(BatchEnsemble(),), regularisers=(SubBatches(),)).shortened().fit(stripes(), 0)
