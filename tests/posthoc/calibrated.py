"""What the tests of calibration maps share: a table of over-confident logits, and both orders of pooling."""

import torch
import torch.nn.functional as F
from posthoc.small import Table, tabled
from torch import Tensor

from levelhead.predictive import CategoricalMixture
from levelhead.predictor import Ensemble, Predictor, predict
from levelhead.tasks.task import Task

ROWS = 400, 200


def logits_and_labels(k: int = 4, *, members: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Members that share a signal, are over-confident, and favour the last class; labels from a milder truth."""
    generator = torch.Generator().manual_seed(seed)
    n = sum(ROWS)
    signal = torch.randn(n, k, dtype=torch.float64, generator=generator)
    y = torch.multinomial((1.5 * signal).softmax(-1), 1, generator=generator)[:, 0]
    noise = torch.randn(members, n, k, dtype=torch.float64, generator=generator)
    return 4 * signal + noise + torch.linspace(0, 1, k).double(), y


def members_and_task(k: int = 4) -> tuple[list[Table], Task]:
    """One predictor a member, and the task whose calibration rows are the table's first."""
    logits, y = logits_and_labels(k)
    return [Table(member[None]) for member in logits], tabled(y, ROWS, num_classes=k)


def nll(predictor: Predictor, task: Task, split: str = "calibration") -> float:
    """Mean negative log likelihood on a split, nats."""
    rows = getattr(task, split)
    belief = predict(predictor, rows)
    assert isinstance(belief, CategoricalMixture)
    return float(F.nll_loss(belief.log_probs, rows.y))


def check_both_orders(step) -> None:
    """Pool, then calibrate: the step's map of the mixture. Calibrate, then pool: the mean of the members' maps."""
    members, task = members_and_task()
    pooled = Ensemble(members)
    outside = step(pooled, task)
    inside = Ensemble([step(member, task) for member in members])
    belief = predict(pooled, task.test)
    said = predict(outside, task.test)
    torch.testing.assert_close(said.log_probs, outside.mapped(belief.log_probs), rtol=1e-9, atol=1e-9)
    each = torch.stack([predict(step(member, task), task.test).probs for member in members])
    torch.testing.assert_close(predict(inside, task.test).probs, each.mean(0), rtol=1e-9, atol=1e-12)
    assert (said.probs - predict(inside, task.test).probs).abs().max() > 0.01
    torch.testing.assert_close(said.total() - said.aleatoric(), said.epistemic(), rtol=0, atol=1e-9)


def check_it_helps(step, k: int = 4) -> None:
    """Lower loss on the rows it was fitted on, and on others."""
    members, task = members_and_task(k)
    fitted = step(members[0], task.sealed())
    for split in ("calibration", "test"):
        assert nll(fitted, task, split) < nll(members[0], task, split)


def gradient_reaches(step) -> float:
    """The largest gradient of a fitted map's probabilities in the logits that it maps."""
    members, task = members_and_task()
    fitted = step(members[0], task)
    log_probs = members[0].logits[0, :50].log_softmax(-1).requires_grad_()
    (gradient,) = torch.autograd.grad(fitted.mapped(log_probs)[:, 0].exp().sum(), log_probs)
    assert gradient.isfinite().all()
    return float(gradient.abs().max())
