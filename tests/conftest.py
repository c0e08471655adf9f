"""One thread, checked shapes, and the data and programs that some tests need."""

import os
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from hypothesis import settings
from partners import left_out
from typechecker import install

# Before anything imports levelhead: from here on every annotated shape of the library is checked in every call.
install("levelhead")

torch.set_num_threads(1)

# Examples are the same in every run, and slow machines are no failures.
settings.register_profile("levelhead", deadline=None, derandomize=True, database=None, max_examples=30)
settings.load_profile("levelhead")

ROOT = Path(__file__).parent.parent
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
CHROMIUM = Path("/usr/bin/chromium")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--data-dir", type=Path, default=ROOT.parent / "shared" / "data", help="folder with cifar10/, mnist/ and uci/"
    )
    parser.addoption("--all-pairs", action="store_true", help="every two parts together, not a choice of them")


@pytest.hookimpl(tryfirst=True)  # before -k: who asks for some tests gets the same cases of them
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if " at 0x" in item.nodeid:  # workers would not agree on what there is to run
            raise pytest.UsageError(f"{item.nodeid}: an id with an address is another one in every process; name it")
    if not config.getoption("--all-pairs"):
        gone = set(left_out(items))
        items[:] = [item for item in items if item not in gone]


def missing(what: str) -> NoReturn:
    """Skip with the reason; on CI, where everything is there, fail instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same torch seed, alone or in company."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_dir(request: pytest.FixtureRequest) -> Path:
    """The folder with CIFAR-10, MNIST test digits and the UCI regression sets."""
    folder: Path = request.config.getoption("--data-dir")
    if not folder.is_dir():
        missing(f"no data at {folder}: pass --data-dir FOLDER with cifar10/, mnist/ and uci/")
    return folder.resolve()


@pytest.fixture(scope="session")
def fashion_mnist_dir() -> Path:
    """Full Fashion-MNIST, as Debian's package lays it out."""
    if not FASHION_MNIST.is_dir():
        missing(f"no {FASHION_MNIST}: apt-get install dataset-fashion-mnist")
    return FASHION_MNIST


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The browser that Playwright drives (executable_path)."""
    if not CHROMIUM.is_file():
        missing(f"no {CHROMIUM}: apt-get install chromium")
    return CHROMIUM
