"""Every check of a network is seen to fail on a network that is broken in that one way, and on no other."""

import doctor.broken as broken
import pytest
import torch
from doctor.broken import Sound

from levelhead.backbones.lenet import LeNet
from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.doctor import examine
from levelhead.recipe import DeepEnsemble, Recipe
from levelhead.tasks.stripes import stripes
from levelhead.types import LevelheadError

TASK = stripes(n=24, size=12)
SILENT = {"raw inputs"}  # a bare module normalises by itself, or not at all: a warning


def levels(diagnosis, level: str, subject: str = "network") -> set[str]:
    return {finding.check for finding in diagnosis.findings if (finding.level, finding.subject) == (level, subject)}


@pytest.mark.parametrize(
    "backbone",
    [MLP(hidden=(8,)), LeNet(), ResNet(depth=8, width=4), ResNet(depth=8, width=4, norm="group")],
    ids=repr,
)
def test_our_backbones_are_healthy(backbone):
    diagnosis = examine(backbone, task=TASK)
    assert levels(diagnosis, "problem") == levels(diagnosis, "warning") == set(), str(diagnosis)
    assert diagnosis.healthy
    assert any("Linear" in line for line in diagnosis.layers) or "head" in levels(diagnosis, "ok")


@pytest.mark.parametrize("module", [Sound, broken.StartsAtZero])
def test_a_sound_module_is_healthy(module):
    diagnosis = examine(module(), task=TASK)
    assert levels(diagnosis, "problem") == set(), str(diagnosis)
    assert levels(diagnosis, "warning") == SILENT
    assert "'fc' by running an example" in str(diagnosis)


BREAKS = {
    "DrawsInEval": {"eval repeats", "rows apart", "state dict"},
    "DeafToEval": {"rows apart", "statistics rest", "eval is heard", "eval repeats"},
    "Untracked": {"rows apart"},
    "WritesToItsInput": {"input kept"},
    "CutsTheGraph": {"input gradient"},
    "HidesATensor": {"state dict"},
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_module_fails_the_check_of_its_fault(name):
    torch.manual_seed(0)
    diagnosis = examine(getattr(broken, name)(), task=TASK)
    found = levels(diagnosis, "problem")
    assert found, str(diagnosis)
    assert found <= BREAKS[name], str(diagnosis)
    assert not diagnosis.healthy
    assert all(finding.next_step for finding in diagnosis.problems)


def test_each_fault_is_named():
    def text(name: str) -> str:
        return str(examine(getattr(broken, name)(), task=TASK))

    assert "self.training" in text("DrawsInEval")
    assert "features.norm" in text("DeafToEval")
    assert "features.norm" in text("Untracked")
    assert "features..scale" in text("HidesATensor") or "features.scale" in text("HidesATensor")
    assert "features.spare.weight" in text("HoldsUnused")


def test_unused_parameters_are_a_warning():
    diagnosis = examine(broken.HoldsUnused(), task=TASK)
    assert levels(diagnosis, "warning") == {"gradients", *SILENT}
    assert diagnosis.healthy


def test_what_cannot_run_ends_the_examination():
    diagnosis = examine(broken.WantsOtherInputs(), [ResNet], task=TASK)
    assert levels(diagnosis, "problem") == {"builds"}
    assert "(1, 12, 12)" in str(diagnosis)
    assert levels(examine(broken.Overflows(), task=TASK), "problem") == {"runs"}


def test_what_is_no_logit_is_refused():
    diagnosis = examine(broken.ReturnsProbabilities(), task=TASK)
    assert levels(diagnosis, "problem") == {"builds"}
    assert "return logits of a last nn.Linear" in str(diagnosis)


def test_module_and_function_by_name():
    diagnosis = examine("doctor.broken:sound", task=TASK)
    assert diagnosis.healthy, str(diagnosis)
    assert 'Factory("doctor.broken:sound", head="fc")' in str(diagnosis)
    assert levels(diagnosis, "warning") == set()  # the Factory puts a normalising layer in front
    assert diagnosis.target == "doctor.broken:sound"


def test_text_and_recipes_are_examined_with_their_surgeries():
    diagnosis = examine("resnet8 + spectral_norm", task=TASK)
    assert diagnosis.healthy, str(diagnosis)
    assert {finding.subject for finding in diagnosis.findings} == {"network", "spectral_norm", "data", "recipe"}
    ensemble = DeepEnsemble(member=Recipe(backbone=MLP(hidden=(4,))), size=2)
    assert "dry run" in levels(examine(ensemble, task=TASK), "ok", "recipe")
    with pytest.raises((ValueError, LevelheadError), match="resnet"):
        examine("resnett20")


def test_without_a_task_images_are_random():
    diagnosis = examine(ResNet(depth=8, width=4))
    assert diagnosis.healthy
    assert "random rows of (3, 32, 32)" in str(diagnosis)


def test_the_target_is_left_alone():
    module = Sound().train()
    held = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    stream = torch.get_rng_state()
    examine(module, task=TASK)
    assert module.training
    assert all(torch.equal(tensor, held[name]) for name, tensor in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())
    assert torch.equal(torch.get_rng_state(), stream)


def test_a_diagnosis_reads_well():
    text = str(examine(broken.DeafToEval(), task=TASK))
    first, *rest = text.splitlines()
    assert first.startswith("DeafToEval: ")
    assert "problem" in first
    assert "network" in rest
    assert any(line.strip().startswith("->") for line in rest)
