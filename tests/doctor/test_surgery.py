"""The doctor after a surgery: green on ours; and every check is seen to fail on a surgery with that one fault."""

from typing import Any

import pytest
import torch
from contracts.styles import STYLES, TASK, applicable, attempt, made, name, specs
from networks import Noisy, Scaled
from torch import Tensor, nn

from levelhead.declared import Stochastic
from levelhead.doctor import Diagnosis, examine
from levelhead.network import Network

NETWORK = STYLES["mlp-norm"]


@pytest.mark.parametrize("surgery", specs("surgeries"), ids=name)
def test_our_surgeries_leave_healthy_networks(surgery):
    for style in {"resnet", "foreign", "tokens"} & set(applicable(surgery)):
        diagnosis = examine(STYLES[style], [surgery], TASK)
        assert diagnosis.healthy, f"{style}: {diagnosis}"


def test_surgeries_are_examined_one_on_top_of_the_other():
    surgeries, network = [], made("lenet")
    for surgery in specs("surgeries"):
        after, _ = attempt(lambda surgery=surgery, on=network: surgery(on))
        if after is not None:
            surgeries, network = [*surgeries, surgery], after
    assert len(surgeries) > 5
    diagnosis = examine(STYLES["lenet"], surgeries, TASK)
    assert diagnosis.healthy, str(diagnosis)
    assert len({finding.subject for finding in diagnosis.findings}) == len(surgeries) + 2


def inserting(layer: Any, *, declare: dict[str, int] | None = None, **promises: Any) -> Any:
    """A surgery that puts a layer behind every activation."""

    def surgery(network: Network) -> Network:
        new = network.replace(
            lambda name, module: isinstance(module, nn.Tanh),
            lambda module: nn.Sequential(module, layer()),
            author="test",
        )
        return new.declare(**(declare or {}))

    for key, value in promises.items():
        setattr(surgery, key, value)
    return surgery


class Layer(nn.Module):
    """Does nothing, yet."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Halves(Layer):
    def forward(self, x: Tensor) -> Tensor:
        return x / 2


class DrawsInEval(Layer):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class Idle(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.ones(3))


class CountsCalls(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        return x


class CountsTraining(CountsCalls):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.training else x


class Hidden(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.rand(8)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Company(Layer):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class Silent(Stochastic):
    """Says that it draws, and does not."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Spoils(Layer):
    def forward(self, x: Tensor) -> Tensor:
        return x / 0


class Detaches(Layer):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


class Raises(Layer):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            raise RuntimeError("no training here")
        return x


class Alike(Scaled):
    """Members that start as copies."""

    def __init__(self) -> None:
        super().__init__(2, 8)
        nn.init.ones_(self.scale)


def in_place(network: Network) -> Network:
    network.head = nn.Linear(network.width, network.num_outputs)
    return network


def unnoted(network: Network) -> Network:
    return network.copy()


def idle(network: Network) -> Network:
    return network.replace(lambda name, module: False, lambda module: module, author="idle")


FAULTS: dict[str, tuple[Any, set[str]]] = {
    "promises and moves": (inserting(Halves, exact_at_rest=True), {"at rest"}),
    "draws in eval": (inserting(DrawsInEval), {"eval repeats", "rows apart", "state dict"}),
    "idle parameter": (inserting(Idle), {"gradients"}),
    "cut graph": (inserting(Detaches), {"gradients"}),
    "statistics at prediction": (inserting(CountsCalls), {"statistics rest"}),
    "statistics in side passes": (inserting(CountsTraining), {"statistics rest"}),
    "hidden tensor": (inserting(Hidden), {"state dict"}),
    "looks at the batch": (inserting(Company), {"rows apart", "outputs"}),
    "draws that are none": (inserting(Silent, declare={"num_samples": 3}), {"draws differ"}),
    "not finite": (
        inserting(Spoils),
        {"outputs", "at rest", "rows apart", "state dict", "eval repeats", "members differ"},
    ),
    "members alike": (inserting(Alike, declare={"num_members": 2}), {"members differ"}),
    "raises in training": (inserting(Raises), {"shapes", "gradients", "statistics"}),
    "changes its argument": (in_place, {"original kept", "converted", "at rest", "state dict"}),
    "changes nothing": (unnoted, {"converted"}),
    "finds nothing": (idle, {"applies"}),
}


def problems(diagnosis: Diagnosis) -> set[str]:
    return {finding.check for finding in diagnosis.problems}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_surgery_fails_the_check_of_its_fault(fault):
    surgery, expected = FAULTS[fault]
    diagnosis = examine(NETWORK, [surgery], TASK)
    assert problems(diagnosis), str(diagnosis)
    assert problems(diagnosis) <= expected, str(diagnosis)
    assert all(finding.next_step for finding in diagnosis.problems)


@pytest.mark.parametrize(
    "surgery",
    [
        inserting(Layer, exact_at_rest=True),
        inserting(Halves),
        inserting(Noisy, declare={"num_samples": 2}, exact_at_rest=True),
        inserting(lambda: Scaled(2, 8), declare={"num_members": 2}),
    ],
    ids=["nothing", "halves", "noise", "members"],
)
def test_a_right_surgery_is_healthy(surgery):
    diagnosis = examine(NETWORK, [surgery], TASK)
    assert diagnosis.healthy, str(diagnosis)


def test_a_refusal_ends_what_follows():
    diagnosis = examine(NETWORK, [idle, inserting(Layer)], TASK)
    assert {finding.subject for finding in diagnosis.findings} == {"network", "idle", "data"}
    assert "found nothing to change" in str(diagnosis)


def test_costs_are_factors_of_the_network_before():
    diagnosis = examine(NETWORK, [inserting(lambda: nn.Linear(8, 8))], TASK)
    (cost,) = [f.text for f in diagnosis.findings if f.check == "cost" and f.subject != "network"]
    before = 144 * 8 + 8 + 16 + 8 * 8 + 8 + 16 + 8 * 3 + 3
    assert cost.startswith(f"{(before + 2 * 72) / before:.2f} times the parameters")
    arithmetic = 144 * 8 + 8 * 8 + 8 * 3
    assert f"{(arithmetic + 2 * 64) / arithmetic:.2f} times the multiply-adds" in cost


def test_what_was_skipped_is_a_warning():
    def surgery(network: Network) -> Network:
        return network.replace(
            lambda name, module: isinstance(module, nn.Tanh),
            lambda module: module,
            author="test",
            skipped=(("features.flatten", "it has no weights"),),
        )

    diagnosis = examine(NETWORK, [surgery], TASK)
    assert "features.flatten: it has no weights" in {finding.text for finding in diagnosis.warnings}
