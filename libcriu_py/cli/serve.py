"""``libcriu-py serve``: a server whose workers are copies."""

from __future__ import annotations

import argparse

from libcriu_py.cli._arguments import build

HELP = "start uvicorn and its workers warm"

EPILOG = """\
It is uvicorn itself, with its options. Its process and its workers are copies of an interpreter that has imported it
and the application. The snapshot is in the user's cache; the first start makes it, and the first one after an edit.
docs/integrations/servers.md has the rest.

examples:
  libcriu-py serve app:app --workers 4 --port 8000

exit status:
  that of uvicorn; 1 if the application cannot be imported
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this subcommand."""
    parser = build(
        "serve",
        usage="APP [OPTIONS of uvicorn]",
        description="Start uvicorn with workers that are copies.",
        epilog=EPILOG,
    )
    parser.add_argument("app", metavar="APP", help="the application, such as app:app")
    parser.add_argument("options", nargs=argparse.REMAINDER, metavar="OPTIONS", help="of uvicorn")
    return parser


def execute(options: argparse.Namespace) -> int:
    """Become the server."""
    from libcriu_py.integrations.serve import serve

    serve(options.app, options.options)
