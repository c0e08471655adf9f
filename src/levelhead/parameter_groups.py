"""Parameter groups for gradient samplers: what the layers of a network ask of an optimiser."""

from typing import Any

from torch import nn

from levelhead.declared import Declared, Hint


def groups(network: nn.Module, *, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for a gradient sampler: what requires grad, with the layers' own hints applied."""
    hints: dict[nn.Parameter, Hint] = {}
    for module in network.modules():
        if isinstance(module, Declared):
            wanted = module.hints
            for name, parameter in module.named_parameters() if wanted else ():
                if name in wanted:
                    hints[parameter] = wanted[name]
    grouped: dict[Hint, list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            grouped.setdefault(hints.get(parameter, Hint()), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": lr * hint.lr,
            "weight_decay": weight_decay if hint.decay else 0.0,
            "scale": hint.lr,
        }
        for hint, parameters in grouped.items()
    ]
