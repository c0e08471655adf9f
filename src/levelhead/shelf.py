"""Beliefs about many sets, put away portion by portion: a kill loses one portion, and memory holds no more than one."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from levelhead.beliefs import Beliefs, from_named, join

FOLDER = ".measuring"
ABOUT = "about.json"
SUFFIX = ".safetensors"
TOLERANCE = 1e-4  # between the same forward pass on other numbers of threads


class Shelf:
    """Numbered portions of one suite in `folder`/.measuring/`suite`, or in a temporary folder that `clear` deletes.

    about  what the portions are of, as JSON: portions of something else are thrown away.
    count  how many there will be.
    """

    def __init__(self, folder: Path | None, suite: str, about: Any, count: int) -> None:
        self.count = count
        self._open: dict[int, tuple[Any, dict[str, list[str]]]] = {}
        self.temporary = folder is None
        self.place = Path(tempfile.mkdtemp(prefix="levelhead-")) if folder is None else folder / FOLDER / suite
        self._about = json.loads(json.dumps({"about": about, "portions": count}))
        if self._known() != self._about:
            self.empty()

    def empty(self) -> None:
        """Throw away what is there."""
        self._open.clear()
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(parents=True)
        self._replace(self.place / ABOUT, json.dumps(self._about).encode())

    def clear(self) -> None:
        """Leave nothing behind."""
        self._open.clear()
        shutil.rmtree(self.place, ignore_errors=True)
        if not self.temporary and self.place.parent.is_dir() and not any(self.place.parent.iterdir()):
            self.place.parent.rmdir()

    def __contains__(self, number: int) -> bool:
        return self._path(number).exists()

    @property
    def done(self) -> int:
        """How many portions are there."""
        return sum(number in self for number in range(self.count))

    def put(self, number: int, beliefs: Mapping[str, Beliefs]) -> None:
        """Put a portion away, in one move."""
        # clones: weights of members may be one tensor in all sets, which the file format refuses
        named = {
            f"{key}\n{name}": tensor.clone(memory_format=torch.contiguous_format)
            for key, about in beliefs.items()
            for name, tensor in about.tensors().items()
        }
        scratch = self._path(number).with_suffix(f".{os.getpid()}.tmp")
        save_file(named, scratch)
        os.replace(scratch, self._path(number))

    def get(self, number: int, key: str) -> Beliefs:
        """What a portion says about one set; nothing else of it is read."""
        file, names = self._opened(number)
        return from_named({name.partition("\n")[2]: file.get_tensor(name) for name in names[key]})

    def joined(self, key: str, numbers: list[int]) -> Beliefs:
        """All rows of one set, from the portions that hold some."""
        return join([self.get(number, key) for number in numbers])

    def _opened(self, number: int) -> tuple[Any, dict[str, list[str]]]:
        """A portion's file, which stays open, and the names of its tensors by set."""
        if number not in self._open:
            file = safe_open(self._path(number), framework="pt")
            names: dict[str, list[str]] = {}
            for name in file.keys():  # noqa: SIM118  no mapping
                names.setdefault(name.partition("\n")[0], []).append(name)
            self._open[number] = file, names
        return self._open[number]

    def _path(self, number: int) -> Path:
        return self.place / f"{number:06}{SUFFIX}"

    def _known(self) -> Any:
        try:
            return json.loads((self.place / ABOUT).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    @staticmethod
    def _replace(path: Path, content: bytes) -> None:
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        scratch.write_bytes(content)
        os.replace(scratch, path)


def alike(first: Beliefs, second: Beliefs) -> bool:
    """Whether two beliefs are the same but for rounding."""
    a, b = first.tensors(), second.tensors()
    return a.keys() == b.keys() and all(_close(a[name], b[name]) for name in a)


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    return torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)


def progress(folder: Path) -> tuple[str, int, int] | None:
    """The suite that is being measured into a folder, its portions done and all of them; None where none is."""
    for about in sorted((folder / FOLDER).glob(f"*/{ABOUT}")):
        try:
            count = int(json.loads(about.read_text(encoding="utf-8"))["portions"])
        except (FileNotFoundError, ValueError):  # gone since, or being made
            continue
        return about.parent.name, sum(1 for _ in about.parent.glob(f"*{SUFFIX}")), count
    return None
