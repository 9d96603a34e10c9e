"""``libcriu-py setup``: set up a machine for the capability mode."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from libcriu_py.cli._arguments import add_json, build, print_json
from libcriu_py.errors import CriuError

if TYPE_CHECKING:
    import argparse

HELP = "install a criu with file capabilities for one group, or remove it"

EPILOG = """\
The rootless mode does not need this. The capability mode is for machines on which ordinary users may not create
namespaces.

Anyone who may execute a criu with file capabilities can give these capabilities to any process, because a restored
process has those of its image. So setup makes a copy of criu that only one group may execute. It shows its plan before
it acts. If /dev/shm is not a tmpfs, setup mounts one there, because criu caches what it finds out about
the kernel only on a tmpfs.

examples:
  sudo libcriu-py setup --user alice   alice may use the capability mode after her next login
  sudo libcriu-py setup --group dev    all members of an existing group may
  libcriu-py setup --json              print what it would do, and do nothing
  sudo libcriu-py setup --undo         remove the copy, and the group if setup made it

exit status:
  0  done
  1  not done; stderr says why
  2  wrong command line
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this subcommand."""
    from libcriu_py.diagnosis.setup import GROUP
    from libcriu_py.privilege.decision import CAPABLE_CRIU

    parser = build(
        "setup",
        usage="[--group GROUP] [--user USER ...] [--path FILE] [--yes | --json] | --undo",
        description="Install a copy of criu with file capabilities that only the members of a group may execute.",
        epilog=EPILOG,
    )
    parser.add_argument("--group", default=GROUP, help="who may execute it; created if missing (default: %(default)s)")
    parser.add_argument("--user", action="append", default=[], help="make this account a member; repeatable")
    parser.add_argument(
        "--path", default=CAPABLE_CRIU, metavar="FILE", help="where to put the copy (default: %(default)s)"
    )
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    add_json(parser)
    parser.add_argument("--undo", action="store_true", help="remove what setup made")
    return parser


def execute(options: argparse.Namespace) -> int:
    """Install or remove the capable criu."""
    return _undo(options) if options.undo else _install(options)


def _install(options: argparse.Namespace) -> int:
    """Print the plan, ask, and carry it out."""
    from libcriu_py.cli.doctor import confirm
    from libcriu_py.diagnosis import setup as capable
    from libcriu_py.linux.capabilities import names

    plan = capable.plan(target=options.path, group=options.group, users=options.user)
    if options.json:
        print_json({**plan._asdict(), "mask": names(plan.mask).split(","), "steps": plan.steps()})
        return 0
    print("This will:")
    for step in plan.steps():
        print(f"  {step}")
    print(f"Members of {plan.group} can then give these capabilities to any of their processes.", flush=True)
    if os.geteuid() != 0:
        raise CriuError("only root can do this; run it with sudo")
    if not options.yes and not confirm("Continue?"):
        sys.stderr.write("nothing was done\n")
        return 1
    capable.install(plan)
    print("Done. Undo it with: libcriu-py setup --undo")
    if plan.users:
        print(f"{', '.join(plan.users)} must log in again to become a member of {plan.group}.")
    return 0


def _undo(options: argparse.Namespace) -> int:
    """Ask, and undo what was done."""
    from libcriu_py.cli.doctor import confirm
    from libcriu_py.diagnosis import setup as capable

    if not options.yes and not confirm(f"Remove {options.path} and what setup made with it?"):
        sys.stderr.write("nothing was done\n")
        return 1
    done = capable.undo(options.path)
    for step in done or ["nothing to undo"]:
        print(step)
    return 0
