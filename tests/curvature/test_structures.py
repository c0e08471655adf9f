"""Each structure as a value, against the same matrix written out; the sums against the rows' Jacobians."""

import pytest
import torch
from einops import rearrange
from torch import Tensor

from levelhead.curvature.diagonal import DiagonalSum
from levelhead.curvature.full import FullSum
from levelhead.curvature.kronecker import KroneckerSum
from levelhead.curvature.outputs import Independent, Softmax, output_curvature
from levelhead.likelihood import Categorical, Gaussian
from levelhead.types import CannotCompose

OUT, IN, ROWS = 3, 4, 40
SUMS = [FullSum, KroneckerSum, DiagonalSum]


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def rows() -> tuple[Softmax, Tensor]:
    z = torch.randn(ROWS, IN)
    z[:, -1] = 1  # a bias
    return Softmax(torch.randn(ROWS, OUT).softmax(-1)), z


def summed(kind, outputs, z, *, bias: bool = True):
    total = kind(OUT, IN, bias=bias, like=z)
    for start in range(0, ROWS, 7):
        part = slice(start, start + 7)
        rest = Softmax(outputs.probs[part]) if isinstance(outputs, Softmax) else Independent(outputs.weights[part])
        total.add(rest, z[part])
    return total.value()


def dense(value) -> Tensor:
    """The matrix that `value` is, by its products with unit vectors."""
    units = torch.eye(OUT * IN).reshape(-1, OUT, IN)
    return rearrange(value @ units, "k c i -> (c i) k")


def jacobians(z: Tensor) -> Tensor:
    """d(theta z_n) / d theta: (row, out, parameter)."""
    return torch.stack([torch.kron(torch.eye(OUT), row[None]) for row in z])


def exact(outputs, z: Tensor) -> Tensor:
    j = jacobians(z)
    return torch.einsum("n c p, n c d, n d q -> p q", j, outputs.dense(), j)


def test_full_is_the_sum_of_the_rows():
    outputs, z = rows()
    torch.testing.assert_close(dense(summed(FullSum, outputs, z)), exact(outputs, z))


def test_diagonal_is_the_diagonal_of_the_sum():
    outputs, z = rows()
    torch.testing.assert_close(dense(summed(DiagonalSum, outputs, z)), exact(outputs, z).diagonal().diag())


def test_kronecker_is_the_product_of_the_factors_with_a_block_for_the_bias():
    outputs, z = rows()
    a = z.T @ z / ROWS
    a[-1, :-1] = a[:-1, -1] = 0
    torch.testing.assert_close(dense(summed(KroneckerSum, outputs, z)), torch.kron(outputs.dense().sum(0), a))


def test_kronecker_is_exact_where_the_outputs_curve_alike():
    _, z = rows()
    outputs = Independent(torch.rand(1, OUT).expand(ROWS, OUT))
    torch.testing.assert_close(dense(summed(KroneckerSum, outputs, z, bias=False)), exact(outputs, z))


def test_kroneckers_bias_block_is_exact():
    outputs, z = rows()
    block = rearrange(dense(summed(KroneckerSum, outputs, z)), "(c i) (d j) -> c i d j", c=OUT, d=OUT)[:, -1, :, -1]
    true = rearrange(exact(outputs, z), "(c i) (d j) -> c i d j", c=OUT, d=OUT)[:, -1, :, -1]
    torch.testing.assert_close(block, true)


@pytest.mark.parametrize("kind", SUMS)
@pytest.mark.parametrize("prior", [0.3, 5.0])
def test_solve_logdet_variance_and_covariance(kind, prior):
    outputs, z = rows()
    value = summed(kind, outputs, z)
    precision = dense(value) + prior * torch.eye(OUT * IN)
    theta = torch.randn(6, OUT, IN)
    solved = torch.linalg.solve(precision, theta.flatten(1).T).T.reshape(6, OUT, IN)
    torch.testing.assert_close(value.solve(theta, prior=prior), solved)
    torch.testing.assert_close(value.logdet(prior=prior), torch.logdet(precision))
    j = jacobians(z)
    covariance = j @ torch.linalg.inv(precision) @ j.mT
    torch.testing.assert_close(value.covariance(z, prior=prior), covariance)
    torch.testing.assert_close(value.variance(z, prior=prior), covariance.diagonal(dim1=-2, dim2=-1))


@pytest.mark.parametrize("kind", SUMS)
def test_draws_have_the_covariance(kind):
    outputs, z = rows()
    value = summed(kind, outputs, z)
    covariance = torch.linalg.inv(dense(value) + 0.5 * torch.eye(OUT * IN))
    root = value.sample(torch.eye(OUT * IN).reshape(-1, OUT, IN), prior=0.5).flatten(1)
    torch.testing.assert_close(root.T @ root, covariance)  # noise of covariance I comes out with this one


@pytest.mark.parametrize("kind", SUMS)
def test_order_and_batches_do_not_matter(kind):
    outputs, z = rows()
    order = torch.randperm(ROWS)
    torch.testing.assert_close(
        dense(summed(kind, outputs, z)), dense(summed(kind, Softmax(outputs.probs[order]), z[order]))
    )


@pytest.mark.parametrize("kind", SUMS)
def test_a_value_is_made_of_its_tensors(kind):
    value = summed(kind, *rows())
    again = type(value)(**value.tensors())
    assert torch.equal(dense(again), dense(value))


def test_a_matrix_that_does_not_fit_is_refused_with_its_size():
    with pytest.raises(CannotCompose, match="kronecker"):
        FullSum(1000, 2048, bias=True, like=torch.zeros(1))


def test_a_thousand_classes_want_no_matrix_a_row():
    z = torch.randn(2000, 32)  # covariances would be 16 GB
    outputs = Softmax(torch.randn(2000, 1000).softmax(-1))
    total = KroneckerSum(1000, 32, bias=False, like=z)
    total.add(outputs, z)
    value = total.value()
    variance = value.variance(z, prior=1.0)
    torch.testing.assert_close(variance[:2], value.covariance(z[:2], prior=1.0).diagonal(dim1=-2, dim2=-1))


@pytest.mark.parametrize("likelihood", [Categorical(4), Gaussian(2, (1.0, 2.0), (3.0, 0.5))])
def test_output_curvature_is_the_second_derivative_of_the_divergence(likelihood):
    outputs = torch.randn(5, 4)
    found = output_curvature(likelihood, outputs)
    for n in range(5):
        hessian = torch.autograd.functional.hessian(
            lambda q, n=n: likelihood.example_divergence(outputs[None, n : n + 1], q[None, None]).sum(), outputs[n]
        )
        torch.testing.assert_close(found.dense()[n], hessian)
    torch.testing.assert_close(found.diagonal(), found.dense().diagonal(dim1=-2, dim2=-1))
    torch.testing.assert_close(found.total(), found.dense().sum(0))


def test_a_shift_of_all_logits_does_not_curve():
    curvature = Softmax(torch.randn(5, 4).softmax(-1)).dense()
    assert curvature.sum(-1).abs().max() < 1e-12
    assert torch.linalg.eigvalsh(curvature).min() > -1e-12


def test_other_likelihoods_are_refused():
    class Poisson:
        pass

    with pytest.raises(CannotCompose, match="Poisson"):
        output_curvature(Poisson(), torch.zeros(1, 2))
