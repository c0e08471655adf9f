"""Make src/levelhead/tasks/fashion_mini.npz out of the full Fashion-MNIST.

    python tools/make_fashion_mini.py [--source /usr/share/datasets/fashion-mnist]

The source is the folder of Debian's package dataset-fashion-mnist (or the four files as published). 600 training, 50
validation and 50 calibration images of every class come from the official training file, 200 test images of every
class from the official test file; the seed is fixed and no image comes twice. Fashion-MNIST is Copyright (c) 2017
Zalando SE under the MIT licence, whose notice stands in NOTICE.
"""

import argparse
from pathlib import Path

import numpy as np

from levelhead.tasks.carve import carve
from levelhead.tasks.fashion_mnist import read_files

TARGET = Path(__file__).parent.parent / "src/levelhead/tasks/fashion_mini.npz"
SEED = 1708


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--target", type=Path, default=TARGET)
    arguments = parser.parse_args()

    pool, official_test = read_files(arguments.source)
    sizes = {"train": 6000, "val": 500, "calibration": 500}
    splits = carve(pool, sizes, seed=SEED, rest="unused", apart_from=[official_test])
    splits |= carve(official_test, {"test": 2000}, seed=SEED, rest="unused test", apart_from=[pool])

    arrays = {}
    for name in (*sizes, "test"):
        arrays[f"{name}_x"] = splits[name].x.numpy()
        arrays[f"{name}_y"] = splits[name].y.numpy().astype(np.uint8)
        print(f"{name:12} {len(splits[name])} images, a class {np.bincount(arrays[f'{name}_y']).tolist()}")
    np.savez_compressed(arguments.target, **arrays)
    print(f"{arguments.target}: {arguments.target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
