"""MNIST's 10,000 test digits: an out-of-distribution set for grey images of 28 x 28 (LeCun et al., 1998)."""

from pathlib import Path

from levelhead.tasks.files import find
from levelhead.tasks.idx import read_idx
from levelhead.tasks.split import Split

FILES = {  # with the checksums of their unpacked content
    "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def mnist_sets(data_dir: str | Path | None) -> dict[str, Split]:
    """{"mnist": the digits} where data_dir/mnist has the two gzipped IDX files, {} where it does not.

    The labels are the digits' own. Only a folder of this name is looked at: Fashion-MNIST's files are called the same.
    """
    folder = None if data_dir is None else find("mnist", list(FILES), data_dir=data_dir, itself=False)
    if folder is None:
        return {}
    x, y = (read_idx(folder / file, sha256=sha256) for file, sha256 in FILES.items())
    return {"mnist": Split("mnist", x.unsqueeze(1), y.long())}
