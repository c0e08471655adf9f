"""The command `levelhead`: this file must import without any extra, and says what is missing."""

import os
import sys
from collections.abc import Sequence

from levelhead.types import LevelheadError, require

USAGE = 2  # exit code of everything that the user can mend in the command; 1: some cells failed


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; ends in SystemExit with 0, 1 (some cells failed) or 2 (usage)."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)  # my_project.recipes:tuned is found from where the user stands, in workers too
    try:
        for module in ("typer", "rich"):
            require(module, extra="study")
        from levelhead.cli.app import app

        app(args=words, prog_name="levelhead")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: `levelhead list | head`
        sys.exit(0)
    except (LevelheadError, ValueError, OSError) as error:
        if debug:
            raise
        hint = "" if isinstance(error, LevelheadError) else "\n(--debug shows where this came from)"
        print(f"levelhead: {error}{hint}", file=sys.stderr)
        sys.exit(USAGE)


if __name__ == "__main__":
    main()
