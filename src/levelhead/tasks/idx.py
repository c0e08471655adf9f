"""The IDX format of the MNIST family: a big-endian header (type, sizes), then the numbers; usually gzipped."""

import gzip
import hashlib
import math
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

UNSIGNED_BYTE = 0x08


def read_idx(path: Path, *, sha256: str | None = None) -> UInt8[Tensor, "..."]:
    """The array in an IDX file of unsigned bytes, gzipped or not.

    `sha256` is of the unpacked content, because the same content is packed differently by different publishers.
    Raises ValueError for anything else, a length that does not fit the header, or another checksum.
    """
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    return parse_idx(content, where=str(path), sha256=sha256)


def parse_idx(content: bytes, *, where: str = "IDX data", sha256: str | None = None) -> UInt8[Tensor, "..."]:
    """The array in the bytes of an unpacked IDX file; see `read_idx`."""
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != UNSIGNED_BYTE:
        raise ValueError(
            f"{where}: not an IDX file of unsigned bytes (it starts with {content[:4].hex() or 'nothing'})"
        )
    axes = content[3]
    start = 4 + 4 * axes
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    if len(content) != start + math.prod(shape):
        raise ValueError(
            f"{where}: the header announces {shape}, {math.prod(shape)} bytes, but {len(content) - start} follow"
        )
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{where}: the content is not the published one (wrong checksum); fetch the file again")
    return torch.frombuffer(bytearray(content[start:]), dtype=torch.uint8).reshape(shape)
