import pytest
from backbones.count import num_parameters

from levelhead.backbones.wide_resnet import WideResNet
from levelhead.likelihood import Signature


@pytest.mark.parametrize(
    "spec, num_classes, published",
    [
        (WideResNet(), 10, 36_479_194),  # 36.5 M in the paper
        (WideResNet(), 100, 36_536_884),
        (WideResNet(depth=16, width=4), 10, 2_748_890),  # 2.7 M
        (WideResNet(depth=40, width=1), 10, 563_930),  # 0.6 M
        (WideResNet(depth=40, width=2), 10, 2_243_546),  # 2.2 M
    ],
    ids=str,
)
def test_parameters(spec, num_classes, published):
    assert num_parameters(spec, (3, 32, 32), num_classes) == published


def test_stages():
    stages = [name for name, _ in WideResNet(depth=10, width=1)(Signature((3, 32, 32))).features.named_children()]
    assert stages == ["normalise", "stem", "stage1", "stage2", "stage3", "final", "pool", "flatten"]


@pytest.mark.parametrize(
    "text, spec",
    [
        ("wrn28_10", WideResNet(28, 10)),
        ("wrn-16-4", WideResNet(16, 4)),
        ("wide_resnet28_10", WideResNet(28, 10)),
        ("wideresnet40_2", WideResNet(40, 2)),
        ("wrn28", None),
        ("resnet20", None),
    ],
)
def test_shorthand(text, spec):
    assert WideResNet.shorthand(text) == spec


@pytest.mark.parametrize(
    "fields, says",
    [
        ({"depth": 20}, "depth must be 6n \\+ 4"),
        ({"depth": 4}, "depth"),
        ({"width": 0}, "width"),
        ({"norm": "x"}, "norm"),
    ],
)
def test_mistakes(fields, says):
    with pytest.raises(ValueError, match=f"WideResNet: {says}"):
        WideResNet(**fields)
