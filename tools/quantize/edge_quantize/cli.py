"""`edge-quantize`: one subcommand a module of `commands/`."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Final

from edge.errors import EdgeError, SourceError, install

INSTALL: Final = f"edge-quantize needs TensorFlow and more: {install('host')}"
COMMANDS: Final = (
    *("masks", "scenes", "leak_test", "train", "evaluate", "crop", "convert", "bundle", "sign", "gpu_pack"),
    *("check", "compile", "inspect"),
)


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code. An error at the user is one line on stderr."""
    if any(find_spec(name) is None for name in ("tensorflow", "cv2", "numpy")):
        print(INSTALL, file=sys.stderr)
        return 2
    from edge.process.shown import shown

    parser = argparse.ArgumentParser(prog="edge-quantize", description="Make the models the appliance runs.")
    subparsers = parser.add_subparsers(required=True, metavar="command")
    for name in COMMANDS:
        import_module(f"edge_quantize.commands.{name}").add_parser(subparsers)
    args = parser.parse_args(argv)
    try:
        return int(args.func(args) or 0)
    except EdgeError as error:
        print(f"edge-quantize: {shown(error)}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has gone, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # of the many files that are read and written: a full disk, a folder nobody may enter
        if error.filename is None and error.errno is None:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        text = f"{where}{error.strerror}: mend the path, its rights or the disk"
        print(f"edge-quantize: {shown(text)}", file=sys.stderr)
        return SourceError.exit_code


if __name__ == "__main__":
    sys.exit(main())
