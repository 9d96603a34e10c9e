"""``libcriu-py lambda-bootstrap``: be a function of AWS Lambda, from a snapshot that is made with the image."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from libcriu_py.cli._arguments import PROG, USAGE, build

if TYPE_CHECKING:
    import argparse

HELP = "start functions of AWS Lambda warm: the entry point of an image"

EPILOG = """\
It is `python -m awslambdaric HANDLER`, the runtime interface client, as a copy of the snapshot lambda.snap in the
working directory; without that, and where it is stale, conventionally. `--build` makes the snapshot, with the modules
of the handlers imported. docs/integrations/functions.md has the rest.

examples:
  # in a Dockerfile
  RUN pip install 'libcriu-py[lambda]' && libcriu-py lambda-bootstrap --build app.handler
  ENTRYPOINT ["libcriu-py", "lambda-bootstrap"]
  CMD ["app.handler"]

exit status:
  that of the function's process; with --build, that of `libcriu-py snapshot`
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this subcommand."""
    parser = build(
        "lambda-bootstrap",
        usage="HANDLER | --build [--replace] HANDLER ...",
        description="Start a function of AWS Lambda from the snapshot of its image, or make that.",
        epilog=EPILOG,
    )
    parser.add_argument("handlers", metavar="HANDLER", nargs="+", help="MODULE.FUNCTION")
    parser.add_argument("--build", action="store_true", help="make the snapshot lambda.snap, with these functions")
    parser.add_argument("--replace", action="store_true", help="with --build: instead of one that is there")
    return parser


def execute(options: argparse.Namespace) -> int:
    """Make the snapshot; or, for the launcher has found none, start the function conventionally."""
    from libcriu_py.integrations import functions

    if not options.build:
        sys.stderr.write(f"{PROG}: starting conventionally: no {functions.SNAPSHOT} in the working directory\n")
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, "-m", functions.__name__, *options.handlers])
    try:
        return functions.build(options.handlers, replace=options.replace)
    except ValueError as error:
        sys.stderr.write(f"{PROG} lambda-bootstrap: {error}\n")
        return USAGE
