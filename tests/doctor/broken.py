"""Networks that are broken on purpose, each in one way, and the module function that makes a sound one."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Sound(nn.Module):
    """What the others break."""

    def __init__(self, num_classes: int = 3, **_: object) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, num_classes)

    def trunk(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.trunk(x))


def sound(num_classes: int) -> nn.Module:
    return Sound(num_classes)


class DrawsInEval(Sound):
    def trunk(self, x: Tensor) -> Tensor:
        return F.dropout(super().trunk(x), 0.5)


class DeafToEval(Sound):
    def train(self, mode: bool = True) -> "DeafToEval":
        super().train(mode)
        self.norm.training = True
        return self


class Untracked(Sound):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.norm = nn.BatchNorm2d(4, track_running_stats=False)


class WritesToItsInput(Sound):
    def trunk(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x -= 0.5
        return super().trunk(x)


class CutsTheGraph(Sound):
    def trunk(self, x: Tensor) -> Tensor:
        return super().trunk(x.detach())


class HoldsUnused(Sound):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.spare = nn.Linear(2, 2)


class StartsAtZero(Sound):
    """Sound: residual branches are often started at zero, and only their last scale gets a first gradient."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        nn.init.zeros_(self.norm.weight)
        nn.init.ones_(self.norm.bias)


class HidesATensor(Sound):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.scale = torch.rand(4)

    def trunk(self, x: Tensor) -> Tensor:
        return super().trunk(x) * self.scale


class ReturnsProbabilities(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(-1)


class Overflows(Sound):
    def trunk(self, x: Tensor) -> Tensor:
        return super().trunk(x) / 0


class WantsOtherInputs(Sound):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.conv = nn.Conv2d(3, 4, 3)
