import pytest
import torch
from torch.testing import assert_close

from levelhead.metrics.kernel_calibration import kernel_ece, kernel_error


def pairs(n=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    confidence = torch.rand(n, generator=generator, dtype=torch.float64)
    confidence[:5] = 0.5  # ties
    return confidence, torch.rand(n, generator=generator, dtype=torch.float64) < confidence


@pytest.mark.parametrize("width", [0.01, 0.1, 0.4, 3.0])
@pytest.mark.parametrize("unbiased", [False, True])
def test_the_sorted_sum_is_the_double_sum(width, unbiased):
    confidence, outcome = pairs()
    residual = confidence - outcome.double()
    kernel = torch.exp(-(confidence[:, None] - confidence).abs() / width)
    products = residual[:, None] * residual * kernel
    if unbiased:
        expected = (products.sum() - products.diagonal().sum()) / (60 * 59)
    else:
        expected = products.mean()
    assert_close(kernel_error(confidence, outcome, width=width, unbiased=unbiased), expected)


def test_unbiased_error_is_centred_on_calibrated_data():
    values = torch.stack([kernel_error(*pairs(200, seed), unbiased=True) for seed in range(200)])
    assert abs(float(values.mean())) < 3 * float(values.std()) / 200**0.5
    assert float(values.min()) < 0


def test_the_root_of_the_top_label():
    p = torch.tensor([[0.8, 0.2], [0.6, 0.4]]).double()
    y = torch.tensor([0, 1])
    residual = torch.tensor([-0.2, 0.6]).double()
    square = (residual.square().sum() + 2 * residual.prod() * torch.tensor(-0.5).double().exp()) / 4
    assert_close(kernel_ece(p.log(), y), square.sqrt())
    one_hot = torch.eye(3).log()
    assert float(kernel_ece(one_hot, torch.arange(3))) == 0
    assert float(kernel_ece(one_hot, torch.arange(3).roll(1))) == pytest.approx(1)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="width"):
        kernel_error(*pairs(), width=0.001)
    with pytest.raises(ValueError, match="confidence"):
        kernel_error(torch.rand(1), torch.ones(1).bool(), unbiased=True)
