"""One line of text is a recipe, and a recipe is one line of text."""

import pytest

from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.objectives.adversarial_training import AdversarialTraining
from levelhead.objectives.vat import VAT
from levelhead.recipe import DeepEnsemble, Recipe
from levelhead.samplers.adamw import AdamW
from levelhead.samplers.ema import EMA
from levelhead.samplers.sgd import SGD
from levelhead.shifts.frequency_noise import FrequencyNoise
from levelhead.shifts.gaussian_noise import GaussianNoise
from levelhead.shifts.rotation import Rotation
from levelhead.text import BadRecipe, parse, parse_part, part_text, to_text

BACKBONE = MLP()

LINES = {
    "plain": Recipe(backbone=BACKBONE),
    "vat(eps=2.0)": Recipe(backbone=BACKBONE, regularisers=(VAT(eps=2.0),)),
    "vat(2)": Recipe(backbone=BACKBONE, regularisers=(VAT(eps=2.0),)),
    "vat + adversarial_training + adamw(epochs=3)": Recipe(
        backbone=BACKBONE, regularisers=(VAT(), AdversarialTraining()), sampler=AdamW(epochs=3)
    ),
    "mlp(hidden=(8, 4)) + vat": Recipe(backbone=MLP(hidden=(8, 4)), regularisers=(VAT(),)),
    "resnet20": Recipe(backbone=ResNet(depth=20)),
    "sgd(lr=0.5) + ema": Recipe(backbone=BACKBONE, sampler=EMA(inner=SGD(lr=0.5))),
    "ema(inner=sgd(lr=0.5), decay=0.9)": Recipe(backbone=BACKBONE, sampler=EMA(inner=SGD(lr=0.5), decay=0.9)),
    "vat + deep_ensemble(size=4)": DeepEnsemble(member=Recipe(backbone=BACKBONE, regularisers=(VAT(),)), size=4),
    "deep_ensemble(size=2) + deep_ensemble(size=3)": DeepEnsemble(
        member=DeepEnsemble(member=Recipe(backbone=BACKBONE), size=2), size=3
    ),
}


@pytest.mark.parametrize("line", LINES)
def test_lines_mean_values(line: str) -> None:
    assert parse(line, backbone=BACKBONE) == LINES[line]


@pytest.mark.parametrize("line", LINES)
def test_values_have_lines(line: str) -> None:
    assert parse(to_text(LINES[line])) == LINES[line]


def test_text_leaves_defaults_out() -> None:
    assert to_text(LINES["vat + deep_ensemble(size=4)"], with_backbone=False) == "vat + deep_ensemble(size=4)"
    assert to_text(LINES["plain"], with_backbone=False) == "plain"


@pytest.mark.parametrize(
    "line, says",
    [
        ("vatt", "did you mean vat"),
        ("vat(epss=2.0)", "did you mean eps"),
        ("vat(eps='big')", r"VAT.eps wants float, got 'big'"),
        ("vat(power='jvp')", "VAT.power wants"),
        ("vat(eps=-1.0)", "eps >= 0"),
        ("vat +", "is no recipe"),
        ("vat - adamw", "is no part"),
        ("deep_ensemble(size=2) + vat", "put it to the left"),
        ("deep_ensemble(sice=2)", "did you mean size"),
        ("vat + deep_ensembles", "must stand first"),
    ],
)
def test_mistakes_are_explained(line: str, says: str) -> None:
    with pytest.raises(BadRecipe, match=says):
        parse(line, backbone=BACKBONE)


def test_a_line_without_a_backbone_asks_for_one() -> None:
    with pytest.raises(BadRecipe, match=r"names no backbone.*mlp"):
        parse("vat")


def test_named_recipes_stand_first_and_go_on() -> None:
    made = parse("deep_ensembles(size=2, epochs=1)", backbone=BACKBONE)
    assert isinstance(made, DeepEnsemble)
    assert made.size == 2
    assert made.member.regularisers == (AdversarialTraining(),)


def test_single_parts() -> None:
    assert parse_part("resnet20", ("backbones",)) == ResNet(depth=20)
    assert parse_part("vat(eps=3.0)") == VAT(eps=3.0)


@pytest.mark.parametrize(
    "line, shifts",
    [
        ("shift(shifts=extra)", "extra"),
        ("shift(shifts=all, limit=5)", "all"),
        ("shift(shifts=(gaussian_noise, rotation))", (GaussianNoise(), Rotation())),
        ("shift(shifts=rotation)", (Rotation(),)),
        ("shift((noise, frequency_noise(frequency=0.1)))", ("noise", FrequencyNoise(frequency=0.1))),
        ("shift(shifts='colour')", "colour"),
    ],
)
def test_a_suite_takes_shifts_and_the_names_of_groups(line: str, shifts: object) -> None:
    suite = parse_part(line, ("evaluations",))
    assert suite.shifts == shifts
    assert parse_part(part_text(suite), ("evaluations",)) == suite


def test_words_are_plain_only_where_a_part_says_so() -> None:
    for line in ("shift(shifts=noises)", "attack(attacks=noise)", "mc_dropout(p=noise)"):
        with pytest.raises(BadRecipe, match="noise"):
            parse_part(line, ("evaluations", "surgeries"))
