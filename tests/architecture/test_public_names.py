"""The public surface: what `import levelhead` offers and what it must not cost."""

import subprocess
import sys
from types import ModuleType

import levelhead

# What extras bring, or takes long to import: each is imported where it is used.
HEAVY = {
    "datasets",
    "duckdb",
    "lightning_fabric",
    "pandas",
    "PIL",
    "plotly",
    "pooch",
    "pyarrow",
    "rich",
    "scipy",
    "sklearn",
    "timm",
    "torchvision",
    "typer",
}


def test_the_list_of_names_is_sorted():
    assert list(levelhead.__all__) == sorted(levelhead.__all__)


def test_the_namespace_holds_the_listed_names_and_no_others():
    offered = {name: getattr(levelhead, name) for name in {*dir(levelhead), *levelhead.__all__}}
    public = {n for n, value in offered.items() if not n.startswith("_") and not isinstance(value, ModuleType)}
    assert public == {name for name in levelhead.__all__ if not name.startswith("_")}


def test_importing_the_package_imports_nothing_heavy():
    program = "import sys, levelhead; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    # torch itself may bring some of them along where they are installed.
    bare = program.replace(", levelhead", ", torch, numpy, einops, jaxtyping, safetensors.torch")
    unavoidable = subprocess.run(
        [sys.executable, "-c", bare], capture_output=True, text=True, check=True
    ).stdout.split()
    assert set(loaded) & HEAVY <= set(unavoidable)
