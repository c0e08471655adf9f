"""Curvature over whole networks: the sums against plain differentiation, the values against matrices written out."""

import pytest
import torch
from curvature.cases import CASES, F64, Case
from torch import Tensor

from levelhead.curvature.capture import passing
from levelhead.curvature.fit_network import Streamed, streamed
from levelhead.curvature.joint import Joint
from levelhead.curvature.selection import Selection
from levelhead.likelihood import Categorical, Gaussian
from levelhead.tasks.split import Split
from levelhead.types import CannotCompose

STRUCTURES = ["kronecker", "diagonal", "full", "low_rank"]


def split_of(case: Case, *, repeats: int = 1) -> Split:
    x = case.x.float().repeat(repeats, *(1,) * (case.x.ndim - 1)).sigmoid()
    likelihood = case.network.likelihood
    y = torch.randn(5, 1) if isinstance(likelihood, Gaussian) else torch.arange(5) % 3
    return Split("train", x, y.repeat(repeats, *(1,) * (y.ndim - 1)))


def chosen(case: Case, indices: Tensor | None = None) -> Selection:
    if indices is not None:
        return Selection.of_indices(case.network, indices)
    return Selection.of_names(case.network, [name for name, _ in case.network.named_parameters()])


def fit(case: Case, structure: str, indices: Tensor | None = None, **options) -> Streamed:
    split = options.pop("split", None) or split_of(case)
    return streamed(case.network, chosen(case, indices), split, structure=structure, **{"rank": 4, "rows": 2} | options)


def on_split(case: Case) -> tuple[Case, Tensor, Tensor]:
    """The case on its split's rows; outputs; Lambda by automatic differentiation of the divergence."""
    case = Case(case.network, split_of(case).x.double())
    case.network.eval()
    outputs = case.network(case.x)[0].detach()
    likelihood = case.network.likelihood
    curves = torch.stack(
        [
            torch.autograd.functional.hessian(
                lambda q, n=n: likelihood.example_divergence(outputs[None, n : n + 1], q[None, None]).sum(), outputs[n]
            )
            for n in range(len(outputs))
        ]
    )
    return case, outputs, curves


def ggn(case: Case) -> Tensor:
    case, _, curves = on_split(case)
    j = case.jacobian()
    return torch.einsum("n c p, n c d, n d q -> p q", j, curves, j)


def dense(value: Joint) -> Tensor:
    return value @ torch.eye(value.selection.size, dtype=F64)


@pytest.mark.parametrize("case", ["gaussian", "conv", "batch norm", "layer norm", "padded embedding", "twice", "tied"])
def test_full_is_the_generalised_gauss_newton_matrix(case):
    expected = ggn(CASES[case]())
    torch.testing.assert_close(dense(fit(CASES[case](), "full").curvature), expected, rtol=1e-6, atol=1e-9)
    diagonal = dense(fit(CASES[case](), "diagonal").curvature).diagonal()
    torch.testing.assert_close(diagonal, expected.diagonal(), rtol=1e-6, atol=1e-9)


def test_chosen_weights_have_their_share_of_the_matrix():
    case = CASES["batch norm"]()
    indices = torch.randperm(case.jacobian().shape[-1])[:30].sort().values
    expected = ggn(case)[indices][:, indices]
    torch.testing.assert_close(dense(fit(case, "full", indices).curvature), expected, rtol=1e-6, atol=1e-9)
    diagonal = dense(fit(case, "diagonal", indices).curvature)
    torch.testing.assert_close(diagonal, expected.diagonal().diag(), rtol=1e-6, atol=1e-9)
    with pytest.raises(CannotCompose, match="full"):
        fit(case, "kronecker", indices)


def test_low_rank_keeps_the_largest_eigenpairs():
    case = CASES["linear"]()
    value = fit(case, "low_rank", rank=3).curvature
    values, vectors = torch.linalg.eigh(ggn(case))
    expected = vectors[:, -3:] @ values[-3:].diag() @ vectors[:, -3:].T
    torch.testing.assert_close(dense(value), expected, rtol=1e-6, atol=1e-8)


def test_the_kronecker_factors_are_those_of_the_definition():
    """A = 1 / (N R) sum a a', B = sum b b', of a convolution written out pixel by pixel; the bias has B."""
    case = CASES["conv"]()
    value = fit(case, "kronecker").curvature
    case, _, curves = on_split(case)
    x, kernel = case.x, case.network.features[0]
    padded = torch.nn.functional.unfold(x, 3, padding=1, stride=2)  # (n, channel height width, r)
    a = torch.einsum("n i r, n j r -> i j", padded, padded) / (padded.shape[0] * padded.shape[2])
    roots = torch.linalg.cholesky(curves + 1e-14 * torch.eye(3, dtype=F64))
    z = kernel(x).detach().requires_grad_()
    outputs = case.network.head(case.network.features[1:](z.clone()))
    b = torch.zeros(4, 4, dtype=F64)
    for k in range(3):
        (back,) = torch.autograd.grad(outputs, z, roots[:, :, k], retain_graph=True)
        b += torch.einsum("n o h w, n p h w -> o p", back, back)
    size = kernel.weight.numel()
    torch.testing.assert_close(dense(value)[:size, :size], torch.kron(b, a), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(dense(value)[size : size + 4, size : size + 4], b, rtol=1e-5, atol=1e-8)


def test_kronecker_is_exact_for_one_linear_layer_and_one_row():
    case = CASES["linear"]()
    one = Split("train", split_of(case).x[:1], split_of(case).y[:1])
    kronecker = dense(fit(case, "kronecker", split=one).curvature)
    full = dense(fit(case, "full", split=one).curvature)
    start = 0
    for tensor in case.network.parameters():
        part = slice(start, start + tensor.numel())
        if tensor.ndim == 1:
            torch.testing.assert_close(kronecker[part, part], full[part, part])  # biases exactly, for any rows
        torch.testing.assert_close(kronecker[part, part].trace(), full[part, part].trace())
        start += tensor.numel()


def test_the_blocks_of_norms_are_exact():
    case = CASES["batch norm"]()
    found, expected = dense(fit(case, "kronecker").curvature), ggn(case)
    start = 0
    for name, tensor in case.network.named_parameters():
        part = slice(start, start + tensor.numel())
        if name.startswith("features.1."):
            torch.testing.assert_close(found[part, part], expected[part, part], rtol=1e-6, atol=1e-9)
        start += tensor.numel()


@pytest.mark.parametrize("structure", STRUCTURES)
def test_batches_do_not_matter_and_doubled_rows_double_it(structure):
    case = CASES["batch norm"]()
    one = dense(fit(case, structure, rows=5, rank=60).curvature)
    torch.testing.assert_close(dense(fit(case, structure, rows=2, rank=60).curvature), one, rtol=1e-6, atol=1e-9)
    doubled = dense(fit(case, structure, rows=3, rank=60, split=split_of(case, repeats=2)).curvature)
    torch.testing.assert_close(doubled, 2 * one, rtol=1e-6, atol=1e-9)
    cooled = dense(fit(case, structure, temperature=0.5, rank=60).curvature)
    torch.testing.assert_close(cooled, 2 * one, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("case", ["linear", "gaussian"])
def test_the_empirical_fisher_is_of_gradients_at_the_targets(case):
    case = CASES[case]()
    split = split_of(case)
    found = dense(fit(case, "full", kind="empirical", split=split).curvature)
    expected = torch.zeros_like(found)
    y = split.y.double() if split.y.is_floating_point() else split.y
    for n in range(5):
        loss = case.network.likelihood.member_loss(case.network(split.x[n : n + 1].double()), y[n : n + 1]).sum()
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(case.network.parameters()))])
        expected += torch.outer(gradient, gradient)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("case", ["linear", "gaussian"])
def test_labels_drawn_give_the_same_in_expectation(case):
    case = CASES[case]()
    found = dense(fit(case, "full", kind="mc", num_draws=400, rows=5).curvature)
    expected = ggn(case)
    assert (found - expected).norm() < 0.2 * expected.norm()


def test_few_rows_and_many_give_one_full_matrix():
    case = CASES["batch norm"]()
    few = fit(case, "full", split=split_of(case)).curvature
    many = fit(case, "full", split=split_of(case, repeats=20)).curvature
    assert few.value.vectors.shape[1] < few.value.vectors.shape[0] == many.value.vectors.shape[1]
    torch.testing.assert_close(20 * dense(few), dense(many), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("subset", [None, 20], ids=["all", "chosen"])
def test_values_are_the_matrices_that_they_stand_for(structure, subset):
    """@, solve, logdet, draws and the coordinates of predictions, under precisions of each tensor."""
    case = CASES["batch norm"]()
    indices = None if subset is None else torch.randperm(case.jacobian().shape[-1])[:subset].sort().values
    if structure == "kronecker" and subset:
        structure = "diagonal"
    value = fit(case, structure, indices).curvature
    selection = value.selection
    tensors = len(selection.watches)
    for prior in (torch.full((tensors,), 0.7, dtype=F64), torch.linspace(0.3, 5, tensors, dtype=F64)):
        precision = dense(value) + selection.each(prior).diag()
        covariance = torch.linalg.inv(precision)
        theta = torch.randn(3, selection.size, dtype=F64)
        torch.testing.assert_close(value.solve(theta, prior=prior), theta @ covariance, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(value.logdet(prior=prior), torch.logdet(precision))
        root = value.sample(torch.eye(selection.size, dtype=F64), prior=prior)
        torch.testing.assert_close(root.T @ root, covariance, rtol=1e-7, atol=1e-9)
        j = case.jacobian() if indices is None else case.jacobian()[..., indices]
        with passing(case.network, selection.watches, differentiable=False) as run:
            gone = run(case.x)
            columns = torch.eye(3, dtype=F64)[:, None].expand(-1, 5, -1)
            parts = [part.root(prior) for part in value.parts(gone.back(columns), prior=prior)]
        found = sum(torch.einsum("k n w, l n w -> n k l", part, part) for part in parts)
        torch.testing.assert_close(found, j @ covariance @ j.mT, rtol=1e-7, atol=1e-9)


def test_draws_have_the_covariance():
    case = CASES["linear"]()
    value = fit(case, "kronecker").curvature
    prior = torch.linspace(0.5, 3, len(value.selection.watches), dtype=F64)
    draws = value.sample(torch.randn(50_000, value.selection.size, dtype=F64), prior=prior)
    expected = torch.linalg.inv(dense(value) + value.selection.each(prior).diag())
    torch.testing.assert_close(draws.T @ draws / len(draws), expected, atol=0.03, rtol=0.03)


def test_a_shift_of_all_logits_does_not_curve():
    case = CASES["linear"]()
    assert isinstance(case.network.likelihood, Categorical)
    value = fit(case, "full").curvature
    shift = torch.zeros(value.selection.size, dtype=F64)
    shift[-3:] = 1  # the head's bias
    assert (value @ shift).abs().max() < 1e-9
    assert torch.linalg.eigvalsh(dense(value)).min() > -1e-9
