"""Distillation of an ensemble into one network that keeps what its members say apart."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from levelhead.forward import Forward, Objective, Stateless
from levelhead.passes import seeded
from levelhead.predictive import CategoricalMixture, GaussianMixture, Predictive
from levelhead.predictor import Predictor, predict
from levelhead.recipe import Fit, PostHoc, Recipe, finished, fit_part, rehearse, shared_out
from levelhead.surgeries.multi_head import MultiHead
from levelhead.tasks.task import Task
from levelhead.training import Run, Runtime, train
from levelhead.types import CannotCompose, Scalar, Targets

ONE_MEMBER = (
    "Distilled: the teacher is a single member, so there is nothing to keep apart. Put a combinator or a surgery with "
    "members before it: 'deep_ensemble(size=4) + distilled'"
)
UNEQUAL = "Distilled: the teacher's members have unequal weights; use one that weighs them alike, such as deep_ensemble"


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """mean_k KL(teacher's member k || head k): one trunk, one head for each member of the teacher.

    One network's cost at prediction, and the mixture of the heads keeps the split of uncertainty: where the members
    agree the heads do, and their disagreement stays epistemic. For real targets, head k learns draws from member k's
    Gaussian, whose mean loss is that divergence up to a constant.

    member   the teacher: any recipe whose predictor is an equal mixture of several members.
    student  the recipe of the trunk; None is the teacher's innermost recipe without its regularisers and steps.
    posthoc  steps on the student.

    The student learns on `task.train` alone, from the teacher's beliefs about the rows as they are augmented. The
    teacher is kept in runtime.folder, and found again there. Raises CannotCompose for teachers of one member or of
    unequal weights, and for students whose surgeries declare members of their own.

    Tran et al., arXiv 2001.04694 (Hydra); Malinin, Mlodozeniec & Gales, arXiv 1905.00076, for what is to be kept.
    """

    member: Fit
    student: Recipe | None = None
    posthoc: tuple[PostHoc, ...] = ()

    def fit(self, task: Task, seed: int = 0, runtime: Runtime = Runtime(), *, rehearsed: bool = False) -> Predictor:
        """Fit the teacher, then the student on its beliefs; then the post-hoc steps."""
        if not rehearsed:
            rehearse(self, task)
        run = Run(seed, runtime)
        shares = shared_out(self, task)
        fitting = shares.fitting.to(run.device).sealed()
        teacher = fit_part(self.member, shares.fitting, run.seed_for("teacher"), runtime.inside("teacher"))
        num_members = members_of(teacher, fitting)
        student = self.trunk()
        recipe = dataclasses.replace(student, surgery=(*student.surgery, MultiHead(num_members=num_members)))
        network = recipe.build(task, seed).to(run.device, runtime.dtype)
        with seeded(run.seed_for("noise"), run.device):
            lesson = Lesson(teacher, None if task.augment is not None else fitting)
            predictor = train(network, fitting, (*recipe.regularisers, lesson), recipe.sampler, run)
        return finished(predictor, (*recipe.posthoc, *self.posthoc), shares.to(run.device), run)

    def trunk(self) -> Recipe:
        """The student's recipe, heads apart."""
        if self.student is not None:
            return self.student
        inner: Any = self.member
        while not isinstance(inner, Recipe):
            inner = inner.member
        return dataclasses.replace(inner, regularisers=(), posthoc=())

    def shortened(self) -> Self:
        """A short teacher, and a student of one epoch."""
        student = None if self.student is None else self.student.shortened()
        return dataclasses.replace(self, member=self.member.shortened(), student=student)


class Lesson(Stateless):
    """The innermost objective on what the teacher's members believe, instead of on the labels.

    task  where its training rows come unaugmented: the teacher's beliefs about them are computed once.
    """

    def __init__(self, teacher: Predictor, task: Task | None) -> None:
        self.teacher = teacher
        self.known = None if task is None else predict(teacher, task.train)

    def __call__(self, inner: Objective, forward: Forward) -> Scalar:
        """The objective with the members' beliefs as targets."""
        batch = forward.batch
        with torch.no_grad():
            belief = self.teacher(batch.x) if self.known is None else self.known[batch.index]
        y = targets(belief)
        if batch.per_member:  # each head has rows of its own
            y = torch.stack([own.chunk(len(y))[k] for k, own in enumerate(y)])
        return inner(forward.on(y=y))


def targets(belief: Predictive) -> Targets:
    """(member, batch, class) probabilities of the members, or draws (member, batch, target) from their Gaussians."""
    if isinstance(belief, CategoricalMixture):
        return belief.logits.exp()
    assert isinstance(belief, GaussianMixture), "predictives are one or the other"
    return belief.means + belief.variances.sqrt() * torch.randn_like(belief.means)


def members_of(teacher: Predictor, task: Task) -> int:
    """How many members the teacher's beliefs have. Raises CannotCompose for one, or for unequal weights."""
    with torch.no_grad():
        weights: Tensor = teacher(next(task.train.ordered(2)).x).log_weights
    if len(weights) < 2:
        raise CannotCompose(ONE_MEMBER)
    if not torch.allclose(weights, weights[:1].expand_as(weights), atol=1e-4):
        raise CannotCompose(UNEQUAL)
    return len(weights)
