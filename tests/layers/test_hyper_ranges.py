"""Distributions over hyper-parameters against Monte Carlo and closed forms."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from levelhead.layers.hyper_ranges import GaussianHyper, HyperRange, LogUniformHyper

RANGES = (HyperRange("l2", 0.1, 100.0), HyperRange("dropout", 0.001, 0.9))


def log_uniform(alpha: float = 0.3, beta: float = 40.0, **options: str) -> LogUniformHyper:
    """One member, one hyper-parameter, on [alpha, beta], in double precision."""
    made = LogUniformHyper((HyperRange("l2", 0.1, 100.0),), 1, **options).double()
    with torch.no_grad():
        made.log_alpha.fill_(math.log(alpha))
        made.log_beta.fill_(math.log(beta))
    return made


def gaussian(**options) -> GaussianHyper:
    return GaussianHyper(RANGES, 2, start=(1.0, 0.05), **options).double()


def test_draws_stay_inside_and_their_logarithms_are_uniform():
    made = log_uniform()
    torch.manual_seed(0)
    values = made.values(made.sample(20_000))[0, :, 0]
    assert values.min() >= 0.3 * (1 - 1e-9)
    assert values.max() <= 40 * (1 + 1e-9)
    u = ((values / 0.3).log() / math.log(40 / 0.3)).sort().values
    assert (u - (torch.arange(20_000) + 0.5) / 20_000).abs().max() < 2.2 / math.sqrt(20_000)  # Kolmogorov's distance


def test_mean_median_and_entropy_are_those_of_draws():
    torch.manual_seed(0)
    made = log_uniform()
    values = made.values(made.sample(2_000_000)).flatten()
    mean = made.values(made.mean())
    assert_close(mean.item(), 39.7 / math.log(40 / 0.3))
    assert_close(mean.item(), values.mean().item(), rtol=2e-3, atol=0)
    median = log_uniform(point="median")
    assert_close(median.values(median.mean()).item(), math.sqrt(12.0))
    surprise = (values * math.log(40 / 0.3)).log().mean()  # -log density is log(lambda * width)
    assert_close(made.entropy().item(), surprise.item(), rtol=2e-3, atol=0)
    assert_close(made.entropy(space="log").item(), math.log(math.log(40 / 0.3)))


def test_a_draws_gradient_is_one_minus_u_and_u_times_it():
    made = log_uniform()
    made.requires_grad_(True)
    torch.manual_seed(3)
    values = made.values(made.sample(1))
    u = ((values / 0.3).log() / math.log(40 / 0.3)).item()
    low, high = torch.autograd.grad(values.sum(), [made.log_alpha, made.log_beta])
    assert_close(low.item(), (1 - u) * values.item())
    assert_close(high.item(), u * values.item())


def test_the_entropys_gradient_pulls_both_ends_up_and_apart():
    made = log_uniform()
    made.requires_grad_(True)
    width = math.log(40 / 0.3)
    low, high = torch.autograd.grad(made.entropy(), [made.log_alpha, made.log_beta])
    assert_close([low.item(), high.item()], [0.5 - 1 / width, 0.5 + 1 / width])
    low, high = torch.autograd.grad(made.entropy(space="log"), [made.log_alpha, made.log_beta])
    assert_close([low.item(), high.item()], [-1 / width, 1 / width])


def test_sum_and_mean_differ_by_members_times_hyper_parameters():
    made = LogUniformHyper(RANGES, 3)
    assert_close(made.entropy("sum"), 6 * made.entropy("mean"))
    made = gaussian()
    assert_close(made.entropy("sum"), 4 * made.entropy("mean"))


@pytest.mark.parametrize("moved", [(-9.0, 9.0), (3.0, -3.0), (9.0, 9.0), (-9.0, -9.0), (0.0, 0.0), (0.5, 2.0)])
def test_projection_keeps_order_range_and_a_width_and_is_idempotent(moved):
    made = LogUniformHyper(RANGES, 2)
    with torch.no_grad():
        made.log_alpha.fill_(moved[0])
        made.log_beta.fill_(moved[1])
    made.project()
    once = (made.log_alpha.clone(), made.log_beta.clone())
    least = 0.5e-6 * (made.log_high - made.log_low)
    assert bool((once[0] >= made.log_low).all())
    assert bool((once[1] <= made.log_high).all())
    assert bool((once[1] - once[0] > 0.5 * least).all())  # up to float32's rounding
    made.project()
    assert torch.equal(made.log_alpha, once[0])
    assert torch.equal(made.log_beta, once[1])
    assert made.mean().isfinite().all()
    assert made.entropy().isfinite()


def test_the_first_intervals_are_a_share_of_the_range_around_its_middle():
    made = LogUniformHyper(RANGES, 2, share=0.5)
    assert_close(made.log_alpha + made.log_beta, (made.log_low + made.log_high).expand(2, -1))
    assert_close(made.log_beta - made.log_alpha, 0.5 * (made.log_high - made.log_low).expand(2, -1))
    whole = LogUniformHyper(RANGES, 2)
    assert_close(whole.log_alpha, whole.log_low.expand(2, -1))


def test_an_interval_of_no_width_is_a_point():
    made = log_uniform(2.0, 2.0)
    assert_close(made.values(made.mean()).item(), 2.0)


def test_the_published_mean_of_the_full_range():
    made = LogUniformHyper((HyperRange("l2", 0.1, 100.0),), 1)
    assert_close(made.values(made.mean()).item(), 14.46, rtol=1e-3, atol=0)


def test_gaussian_settings_start_where_they_are_told_and_stay_in_range():
    made = gaussian()
    assert_close(made.values(made.mean()), torch.tensor([[1.0, 0.05]] * 2, dtype=torch.float64))
    ends = made.values(torch.tensor([[-14.0, -14.0], [14.0, 14.0]], dtype=torch.float64))
    assert bool((ends[0] > torch.tensor([0.1, 0.001])).all())
    assert bool((ends[1] < torch.tensor([100.0, 0.9])).all())


def test_gaussian_draws_have_their_moments_and_entropy_its_closed_form():
    made = gaussian(sigma=0.7)
    torch.manual_seed(0)
    drawn = made.sample(40_000)
    assert_close(drawn.mean(1), made.h.data, rtol=0, atol=4 * 0.7 / 200)
    assert_close(drawn.std(1), torch.full((2, 2), 0.7, dtype=torch.float64), rtol=0.02, atol=0)
    assert_close(made.entropy().item(), math.log(0.7 * math.sqrt(2 * math.pi * math.e)))
    made.requires_grad_(True)
    slope = torch.autograd.grad(made.entropy("sum"), made.rho)[0]
    assert_close(slope, made.rho.sigmoid() / F.softplus(made.rho))


def test_centred_coordinates_are_distances_and_settings_are_the_same():
    plain, centred = gaussian(), gaussian(centred=True)
    torch.manual_seed(0)
    one = plain.sample(5)
    torch.manual_seed(0)
    other = centred.sample(5)
    assert_close(one - plain.h[:, None], other)
    assert_close(plain.values(one), centred.values(other))
    assert not centred.mean().any()
    centred.requires_grad_(True)
    assert_close(torch.autograd.grad(centred.mean().sum(), centred.h)[0], torch.ones(2, 2, dtype=torch.float64))
    with torch.no_grad():  # moving h moves the settings, and leaves the coordinates
        centred.h.add_(0.3)
    torch.manual_seed(0)
    assert_close(centred.sample(5), other)
    assert not torch.allclose(centred.values(other), plain.values(one))


def test_a_sigma_never_vanishes():
    made = gaussian()
    with torch.no_grad():
        made.rho.fill_(-50.0)
    made.project()
    assert_close(made.sigma, torch.full((2, 2), 1e-4, dtype=torch.float64))


def test_tables_tell_settings():
    rows = log_uniform().table()
    assert rows[0]["hyper"] == "l2"
    assert_close([rows[0]["low"], rows[0]["high"]], [0.3, 40.0])
    told = gaussian().table()
    assert len(told) == 4
    assert all(row["low"] < row["point"] < row["high"] for row in told)


@pytest.mark.parametrize(
    "ranges", [(), (HyperRange("a", 0.0, 1.0),), (HyperRange("a", 2.0, 1.0),), (HyperRange("a", 1.0, 2.0),) * 2]
)
def test_wrong_ranges_are_refused(ranges):
    with pytest.raises(ValueError, match="ranges: "):
        LogUniformHyper(ranges, 1)


def test_wrong_words_and_starts_are_refused():
    with pytest.raises(ValueError, match="'mean', 'median'"):
        LogUniformHyper(RANGES, 1, point="mode")
    with pytest.raises(ValueError, match="'lambda', 'log'"):
        log_uniform().entropy(space="linear")
    with pytest.raises(ValueError, match="start wants a setting inside"):
        GaussianHyper(RANGES, 1, start=(1.0, 0.95))
