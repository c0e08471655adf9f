"""The IDX parser against files written by hand."""

import gzip
import hashlib
import struct

import pytest
import torch

from levelhead.tasks.idx import parse_idx, read_idx

SHAPE = (2, 3, 4)
CONTENT = b"\0\0\x08\x03" + struct.pack(">III", *SHAPE) + bytes(range(24))


@pytest.mark.parametrize("packed", [False, True])
def test_reads_what_was_written(tmp_path, packed):
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(CONTENT) if packed else CONTENT)
    read = read_idx(path, sha256=hashlib.sha256(CONTENT).hexdigest())
    assert read.dtype == torch.uint8
    assert torch.equal(read, torch.arange(24, dtype=torch.uint8).reshape(SHAPE))


def test_sizes_are_big_endian():
    content = b"\0\0\x08\x01" + struct.pack(">I", 300) + bytes(300)
    assert parse_idx(content).shape == (300,)


@pytest.mark.parametrize(
    "content, says",
    [
        (b"", "not an IDX file"),
        (b"PK\x03\x04 and more", "not an IDX file"),
        (b"\0\0\x0d\x01" + struct.pack(">I", 1) + bytes(4), "unsigned bytes"),
        (CONTENT[:-1], "23 follow"),
        (CONTENT + b"\0", "25 follow"),
    ],
)
def test_refuses_other_content(content, says):
    with pytest.raises(ValueError, match=says):
        parse_idx(content)


def test_refuses_another_checksum():
    with pytest.raises(ValueError, match="wrong checksum"):
        parse_idx(CONTENT, sha256="0" * 64)
