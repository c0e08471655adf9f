"""Where the files of a data set are: in a folder of the user's, in one of the system's, or in the download cache."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from levelhead.types import require

CACHE = Path("~/.cache/levelhead")  # downloads, and images once decoded; safe to delete


def find(
    folder: str,
    files: Sequence[str],
    *,
    data_dir: str | Path | None,
    itself: bool = True,
    system: Sequence[Path] = (),
) -> Path | None:
    """The first place that has all the files, or None.

    Places: data_dir/folder, data_dir `itself` (the user pointed at the files), then folders of the system.
    """
    places = list(system)
    if data_dir is not None:
        root = Path(data_dir).expanduser()
        places = [root / folder, *([root] if itself else []), *places]
    return next((place for place in places if all((place / file).is_file() for file in files)), None)


def locate(
    folder: str,
    files: Sequence[str],
    *,
    data_dir: str | Path | None,
    how: str,
    system: Sequence[Path] = (),
) -> Path:
    """As `find`, but raises FileNotFoundError that says what was wanted, and `how` to get it."""
    found = find(folder, files, data_dir=data_dir, system=system)
    if found is None:
        where = "no data_dir was given" if data_dir is None else f"neither {Path(data_dir) / folder} nor {data_dir} has"
        raise FileNotFoundError(f"{where}: wants {', '.join(files)} in a folder {folder}/ under data_dir. {how}")
    return found


def download(folder: str, url: str, hashes: Mapping[str, str]) -> Path:
    """Fetch `url`/file for each file into the cache, unless they are there, and check their hashes ("md5:...").

    Raises MissingExtra without pooch, and pooch's ValueError when a file is not the published one.
    """
    pooch = require("pooch", extra="study")
    target = CACHE.expanduser() / folder
    for file, known in hashes.items():
        pooch.retrieve(url + file, known_hash=known, fname=file, path=target)
    return target
