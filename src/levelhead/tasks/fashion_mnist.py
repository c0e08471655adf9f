"""Fashion-MNIST: 70,000 grey pictures of clothes, 28 x 28, ten classes (Xiao et al., arXiv 1708.07747; MIT licence)."""

from pathlib import Path

from levelhead.likelihood import Categorical
from levelhead.tasks.augment import Augment
from levelhead.tasks.carve import carve
from levelhead.tasks.digits import digits_like
from levelhead.tasks.files import download, find
from levelhead.tasks.idx import read_idx
from levelhead.tasks.mnist import mnist_sets
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task

CLASSES = (
    *("T-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # apt install dataset-fashion-mnist
URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
PACKED = {  # of the files behind URL; Debian packs the same content anew
    "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
}
UNPACKED = {  # SHA-256 of the content
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def fashion_mnist(
    *,
    val: int = 5000,
    calibration: int = 2500,
    augment: Augment | None = None,
    seed: int = 0,
    data_dir: str | Path | None = None,
) -> Task:
    """52,500 training, 5,000 validation, 2,500 calibration and the official 10,000 test images.

    Validation and calibration are drawn from the official training file, class by class, with `seed`. The files come
    from data_dir/fashion-mnist (or data_dir), else Debian's folder, else a download (about 30 MB, once, checked).
    Out of distribution: digits, and mnist where data_dir has it.
    """
    folder = find("fashion-mnist", list(PACKED), data_dir=data_dir, system=[DEBIAN])
    pool, test = read_files(folder or download("fashion-mnist", URL, PACKED))
    splits = carve(pool, {"val": val, "calibration": calibration}, seed=seed, apart_from=[test])
    return Task(
        name="fashion-mnist",
        train=splits["train"],
        val=splits["val"],
        calibration=splits["calibration"],
        test=test,
        ood={"digits": digits_like(28), **mnist_sets(data_dir)},
        likelihood=Categorical(len(CLASSES)),
        augment=augment,
        classes=CLASSES,
        args={"val": val, "calibration": calibration, "seed": seed},
    )


def read_files(folder: Path) -> tuple[Split, Split]:
    """The official training and test images, checked against the published content."""
    train_x, train_y, test_x, test_y = (read_idx(folder / file, sha256=sha256) for file, sha256 in UNPACKED.items())
    return Split("train", train_x.unsqueeze(1), train_y.long()), Split("test", test_x.unsqueeze(1), test_y.long())
