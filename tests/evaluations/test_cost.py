import pytest
import torch
from echo import Echo, logits_task
from torch import nn

from levelhead.evaluation import records
from levelhead.evaluations.cost import Cost, multiply_adds, num_parameters, num_stored_values, peak_memory
from levelhead.likelihood import Categorical, Signature
from levelhead.network import Network
from levelhead.predictor import Ensemble, Point, WeightSamples

IMAGE = Signature((2, 8, 8), 3, Categorical(3), (0.0, 0.0), (1.0, 1.0))


def convolutional() -> Network:
    features = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
        nn.ConvTranspose2d(6, 2, 2, stride=2),
        nn.Flatten(),
    )
    return Network(features, nn.Linear(128, 3), IMAGE)


CONVOLUTIONS = 64 * 4 * 2 * 9 + 16 * 6 * 2 * 9 + 16 * 6 * 2 * 4  # places x outputs x inputs of the group x kernel
HEAD = 128 * 3
WEIGHTS = (4 * 2 * 9) + (4 + 4) + (6 * 2 * 9 + 6) + (6 * 2 * 4 + 2) + (128 * 3 + 3)


def test_a_network_costs_its_layers():
    predictor = Point(convolutional())
    assert multiply_adds(predictor, IMAGE.example(5)) == CONVOLUTIONS + HEAD
    assert num_parameters(predictor) == WEIGHTS
    assert num_stored_values(predictor) == WEIGHTS + 4 + 4 + 1  # mean, variance and count of the norm


def test_an_ensemble_costs_its_members():
    predictor = Ensemble([Point(convolutional()) for _ in range(3)])
    assert multiply_adds(predictor, IMAGE.example(5)) == 3 * (CONVOLUTIONS + HEAD)
    assert num_parameters(predictor) == 3 * WEIGHTS


def test_shared_members_are_kept_once_and_computed_each_time():
    member = Point(convolutional())
    predictor = Ensemble([member, member])
    assert num_parameters(predictor) == WEIGHTS
    assert num_stored_values(predictor) == WEIGHTS + 9
    assert multiply_adds(predictor, IMAGE.example(5)) == 2 * (CONVOLUTIONS + HEAD)


def test_draws_of_weights_are_kept_and_computed_each():
    network = convolutional()
    draws = {name: torch.stack([p.detach()] * 4) for name, p in network.named_parameters() if name.startswith("head")}
    predictor = WeightSamples(network, draws)
    assert num_parameters(predictor) == WEIGHTS + 3 * (128 * 3 + 3)  # four heads instead of one
    assert multiply_adds(predictor, IMAGE.example(5)) == 4 * (CONVOLUTIONS + HEAD)


def test_rows_of_a_membered_network_are_counted():
    class Twice(nn.Module):
        def forward(self, x):
            return torch.cat([x, x]).mm(torch.ones(128, 5))

    class Doubling(Point):
        def forward(self, x):
            Twice()(x.flatten(1))
            return super().forward(x)

    assert multiply_adds(Doubling(convolutional()), IMAGE.example(5)) == CONVOLUTIONS + HEAD + 2 * 128 * 5


@pytest.mark.parametrize(
    "compute, expected",
    [
        (lambda x: torch.einsum("bi,ij->bj", x, torch.ones(6, 7)), 6 * 7),
        (lambda x: x @ torch.ones(6), 6),
        (lambda x: torch.baddbmm(torch.zeros(1), x[:, None], torch.ones(1, 6, 7).expand(len(x), -1, -1)), 6 * 7),
        (lambda x: nn.functional.scaled_dot_product_attention(*[x.reshape(-1, 1, 3, 2)] * 3), 2 * 3 * 3 * 2),
        (lambda x: torch.vmap(lambda row: torch.ones(4, 6) @ row)(x), 4 * 6),
        (lambda x: nn.functional.conv1d(x[:, None], torch.ones(2, 1, 3), dilation=2), 2 * 2 * 3),
        (lambda x: x * x + x.sum(), 0),
    ],
    ids=["einsum", "vector", "baddbmm", "attention", "vmap", "dilated", "elementwise"],
)
def test_products_are_counted_however_they_are_written(compute, expected):
    class Computing(Echo):
        def forward(self, x):
            compute(x)
            return super().forward(x)

    assert multiply_adds(Computing(members=2), torch.randn(5, 6)) == expected


def test_peak_memory_is_what_lives_at_once():
    class Growing(Echo):
        def forward(self, x):
            x.t()  # a view of what was there before
            kept = x.repeat(1, 10)  # 10 x
            kept = kept + 1  # 20 x at the peak, then 10 x
            view = kept[:, :1].expand(-1, 1000)  # a view makes nothing
            kept.add_(view[:, :1])
            return super().forward(kept[:, : x.shape[1]])

    x = torch.randn(64, 30)
    # the belief then makes a few tensors of the size of x, and these never reach the peak
    assert peak_memory(Growing(), x) == 20 * x.nbytes


def test_timings_are_positive_and_scale_with_work():
    slow, fast = (
        {record.metric: record.value for record in records(predictor, logits_task(), (Cost(repeats=3),))}
        for predictor in (Ensemble([Echo() for _ in range(40)]), Echo())
    )
    for metric in ("seconds_per_example", "latency"):
        assert slow[metric] > 3 * fast[metric] > 0, metric
    assert slow["parameters"] == 40 * fast["parameters"] == 40


@pytest.mark.parametrize("field", ["batch_size", "repeats"])
def test_settings_that_mean_nothing_are_errors(field):
    with pytest.raises(ValueError, match=field):
        Cost(**{field: 0})
