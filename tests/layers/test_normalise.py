import pytest
import torch

from levelhead.layers.normalise import Normalise


@pytest.mark.parametrize("sites", [(), (5,), (5, 4), (5, 4, 3)])
def test_by_hand_for_each_channel(sites):
    mean, std = (0.5, -1.0), (2.0, 0.25)
    x = torch.randn(3, 2, *sites)
    z = Normalise(mean, std)(x)
    for channel in range(2):
        torch.testing.assert_close(z[:, channel], (x[:, channel] - mean[channel]) / std[channel])


def test_one_number_serves_every_channel():
    x = torch.randn(3, 4, 5, 5)
    torch.testing.assert_close(Normalise((1.0,), (2.0,))(x), (x - 1) / 2)


def test_the_numbers_are_buffers():
    layer = Normalise((0.5, 0.5), (1.0, 2.0))
    assert set(layer.state_dict()) == {"mean", "std"}
    assert not list(layer.parameters())
    assert layer.to(torch.float64)(torch.zeros(1, 2, dtype=torch.float64)).dtype == torch.float64


def test_channels_last_stays():
    x = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    z = Normalise((0.5,) * 3, (1.0,) * 3)(x)
    assert z.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("mean, std", [((0.0,), (1.0, 1.0)), ((0.0,), (0.0,)), ((), ())])
def test_mistakes(mean, std):
    with pytest.raises(ValueError, match="Normalise: "):
        Normalise(mean, std)


def test_another_number_of_channels():
    with pytest.raises(ValueError, match="3 channels, mean and std have 2"):
        Normalise((0.0, 0.0), (1.0, 1.0))(torch.zeros(1, 3, 4, 4))
