"""Named arrays in files of any origin: safetensors, NumPy's .npz, and .csv with numbered columns."""

import csv
import re
from pathlib import Path

import numpy
import torch
from einops import rearrange
from safetensors.torch import load_file
from torch import Tensor

SUFFIXES = (".safetensors", ".npz", ".csv")
MEMBER = "member"  # the column that says which member of an ensemble a line is from
NUMBERED = re.compile(r"(.+?)_(\d+)")
PLURAL = {  # a column's name, and the array that its columns make
    "p": "probs",
    "prob": "probs",
    "log_p": "log_probs",
    "log_prob": "log_probs",
    "logit": "logits",
    "sample": "samples",
    "set": "sets",
}


def read_arrays(path: Path) -> dict[str, Tensor]:
    """The arrays of a file by name.

    .csv  one line a row; columns `name` are arrays (row,), columns `name_0`, `name_1`, ... one array (row, column), as
          p_0, p_1, ... the array probs. With a column `member`, lines of the same member are its rows, in the order in
          which they stand, and every array but y gets a leading member axis. sample_0, ... are (sample, row).

    Raises ValueError for other suffixes, what is no numbers, and .csv files whose lines do not fit together.
    """
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix == ".npz":
        with numpy.load(path, allow_pickle=False) as file:
            return {name: _tensor(path, name, file) for name in file.files}
    if path.suffix == ".csv":
        return _from_columns(path, _columns(path))
    raise ValueError(f"{path}: wants a file that ends in {', '.join(SUFFIXES)}")


def _tensor(path: Path, name: str, file: "numpy.lib.npyio.NpzFile") -> Tensor:
    try:
        return torch.from_numpy(file[name])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {name} is no array of numbers ({error})") from None


def _columns(path: Path) -> dict[str, Tensor]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file)
        head = [name.strip() for name in next(lines, [])]
        body = [line for line in lines if line]
    if not head or not body or len(set(head)) < len(head):
        raise ValueError(f"{path}: wants a first line of different names, and a line of numbers a row")
    for number, line in enumerate(body, start=2):
        if len(line) != len(head):
            raise ValueError(f"{path}: line {number} has {len(line)} values, the first line has {len(head)} names")
    try:
        table = numpy.array([[float(cell) for cell in line] for line in body])
    except ValueError as error:
        raise ValueError(f"{path}: {error}; every cell must be a number") from None
    return {name: torch.from_numpy(table[:, place].copy()) for place, name in enumerate(head)}


def _from_columns(path: Path, columns: dict[str, Tensor]) -> dict[str, Tensor]:
    numbered: dict[str, dict[int, Tensor]] = {}
    arrays: dict[str, Tensor] = {}
    for name, column in columns.items():
        found = NUMBERED.fullmatch(name)
        if found:
            key = PLURAL.get(found[1], found[1])
            numbered.setdefault(key, {})[int(found[2])] = column
        else:
            arrays[name] = column
    for key, parts in numbered.items():
        if sorted(parts) != list(range(len(parts))):
            raise ValueError(f"{path}: columns {key} are numbered {sorted(parts)}; they want 0, 1, 2, ...")
        if key in arrays:
            raise ValueError(f"{path}: {key} is there both with numbers and without")
        arrays[key] = torch.stack([parts[place] for place in range(len(parts))], dim=-1)
    member = arrays.pop(MEMBER, None)
    if member is not None:
        arrays = _by_member(path, arrays, member)
    if "samples" in arrays:
        if member is not None:
            raise ValueError(f"{path}: samples have no members; number all of them sample_0, sample_1, ...")
        arrays["samples"] = rearrange(arrays["samples"], "row sample -> sample row")
    return arrays


def _by_member(path: Path, arrays: dict[str, Tensor], member: Tensor) -> dict[str, Tensor]:
    names, counts = member.unique(return_counts=True)
    if len(counts.unique()) > 1:
        raise ValueError(f"{path}: members have {counts.tolist()} rows; each wants all rows, in the same order")
    order = torch.argsort(member, stable=True)
    split = {
        name: rearrange(column[order], "(member row) ... -> member row ...", member=len(names))
        for name, column in arrays.items()
    }
    for name in ("y", "labels", "targets"):
        if name in split:
            if not bool((split[name] == split[name][:1]).all()):
                raise ValueError(f"{path}: {name} differs between members; each wants the same rows in the same order")
            split[name] = split[name][0]
    return split
