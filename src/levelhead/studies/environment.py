"""What a cell ran in: versions, commit, machine, and the receipt of its task."""

import platform
import subprocess
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import levelhead
from levelhead.tasks.task import Task

PACKAGES = ("torch", "numpy", "safetensors", "einops", "jaxtyping", "pandas", "pyarrow", "duckdb", "scikit-learn")


def environment(task: Task, device: str) -> dict[str, Any]:
    """Plain JSON of versions, commit, device and the task's receipt."""
    return {**software(), "device": _device(device), "task": task.receipt()}


def software() -> dict[str, Any]:
    """Plain JSON of versions, commit, system and date."""
    return {
        "levelhead": levelhead.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


@cache
def commit() -> str | None:
    """The commit of a checkout of levelhead, with "+changes" where files differ from it; None for an installed one."""
    package = Path(levelhead.__file__).parent
    root = package.parent.parent
    if not ((root / ".git").exists() and (root / "pyproject.toml").exists() and package.parent.name == "src"):
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no", "--", "src") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device(name: str) -> str:
    if name.startswith("cuda"):
        return f"{name} ({torch.cuda.get_device_name(torch.device(name))})"
    return f"{name} ({platform.processor() or platform.machine()})"
