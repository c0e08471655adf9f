"""Saving and loading predictors: JSON for the tree, safetensors for the numbers; loading runs no foreign code.

A predictor keeps its constructor's arguments under their names, so one function writes any tree and one reads it.
"""

import inspect
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from levelhead.network import Network, build
from levelhead.passes import seeded
from levelhead.predictor import Predictor
from levelhead.values import Json, from_json, import_path, resolve, to_json

FORMAT = 1


def save(predictor: Predictor, path: str | Path) -> Path:
    """Write a predictor to the folder `path`, in one move.

    Raises ValueError for networks without an origin: wrap foreign modules with the `Factory` backbone to save them.
    """
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    tree = _describe(predictor, "predictor", tensors)
    stored, aliases = _untied(tensors)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    save_file(stored, scratch / "tensors.safetensors")
    (scratch / "predictor.json").write_text(json.dumps({"format": FORMAT, "tree": tree, "aliases": aliases}, indent=1))
    if path.exists():
        shutil.rmtree(path)
    os.replace(scratch, path)
    return path


def load(path: str | Path, *, trust: tuple[str, ...] = ()) -> Predictor:
    """Read a predictor back, to the bit. Code outside `levelhead` is imported only from the modules in `trust`."""
    path = Path(path)
    if not (path / "predictor.json").exists():
        raise FileNotFoundError(f"{path} holds no saved predictor (no predictor.json); `levelhead fit` writes one")
    saved = json.loads((path / "predictor.json").read_text())
    if saved["format"] != FORMAT:
        raise ValueError(f"{path}: written in format {saved['format']}, this version reads format {FORMAT}")
    tensors = load_file(path / "tensors.safetensors")
    tensors |= {name: tensors[target] for name, target in saved["aliases"].items()}
    predictor = _rebuild(saved["tree"], tensors, trust)
    assert isinstance(predictor, Predictor)
    return predictor.eval()


def _describe(value: Any, key: str, tensors: dict[str, Tensor]) -> Json:
    if isinstance(value, Network):
        if value.origin is None:
            raise ValueError(
                "This predictor holds a network made by hand (no origin), so its structure cannot be written down. "
                "Build it from a recipe; a module of your own goes through the Factory backbone (module:function)"
            )
        tensors.update({f"{key}/{name}": tensor for name, tensor in value.state_dict().items()})
        backbone, surgery, signature = value.origin
        dtype = str(next(value.parameters()).dtype).removeprefix("torch.")
        origin = {"backbone": to_json(backbone), "surgery": to_json(surgery), "signature": to_json(signature)}
        return {"network": origin, "key": key, "dtype": dtype, "frozen": sorted(value.frozen)}
    if isinstance(value, Predictor):
        names = list(inspect.signature(type(value)).parameters)
        args = {name: _describe(getattr(value, name), f"{key}.{name}", tensors) for name in names}
        return {"predictor": import_path(type(value)), "args": args}
    if isinstance(value, Tensor):
        tensors[key] = value.detach()
        return {"tensor": key}
    if isinstance(value, Mapping):
        return {"mapping": {name: _describe(item, f"{key}.{name}", tensors) for name, item in value.items()}}
    if isinstance(value, nn.ModuleList) or (isinstance(value, list | tuple) and not _is_named_tuple(value)):
        return [_describe(item, f"{key}.{place}", tensors) for place, item in enumerate(_items(value))]
    if is_dataclass(value):
        return {"value": to_json(value)}
    return to_json(value)


def _rebuild(data: Json, tensors: dict[str, Tensor], trust: tuple[str, ...]) -> Any:
    if isinstance(data, list):
        return [_rebuild(item, tensors, trust) for item in data]
    if not isinstance(data, dict):
        return data
    if "network" in data:
        return _rebuild_network(data, tensors, trust)
    if "predictor" in data:
        args = {name: _rebuild(item, tensors, trust) for name, item in data["args"].items()}
        return resolve(data["predictor"], trust=trust)(**args)
    if "tensor" in data:
        return tensors[data["tensor"]]
    if "mapping" in data:
        return {name: _rebuild(item, tensors, trust) for name, item in data["mapping"].items()}
    return from_json(data["value"], trust=trust)


def _rebuild_network(data: Json, tensors: dict[str, Tensor], trust: tuple[str, ...]) -> Network:
    origin = {name: from_json(item, trust=trust) for name, item in data["network"].items()}
    with seeded(0):  # the initial weights are overwritten; the caller's random stream is left alone
        network = build(origin["backbone"], origin["surgery"], origin["signature"]).to(getattr(torch, data["dtype"]))
    prefix = f"{data['key']}/"
    network.load_state_dict({name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)})
    for name in data["frozen"]:
        network.freeze(network.get_submodule(name))
    return network


def _untied(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors that share memory, stored once; the others' names point to them."""
    first: dict[tuple[Any, ...], str] = {}
    stored: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for name, tensor in tensors.items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype) if tensor.numel() else (name,)
        if place in first:
            aliases[name] = first[place]
        else:
            first[place] = name
            stored[name] = tensor.cpu().contiguous().clone()
    return stored, aliases


def _items(value: Iterable[Any]) -> list[Any]:
    return list(value)


def _is_named_tuple(value: Any) -> bool:
    return isinstance(value, tuple) and type(value) is not tuple
