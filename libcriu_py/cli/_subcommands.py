"""The names of the subcommands, in the order of the help; a name is that of its module, with hyphens."""

SUBCOMMANDS = (
    *("snapshot", "run", "auto", "shim", "kernel", "pool", "inspect", "verify", "optimize", "store"),
    *("serve", "lambda-bootstrap"),
    *("check", "preflight", "trigger", "doctor", "setup", "completion", "help"),
)


def module_of(name: str) -> str:
    """Return the module of a subcommand."""
    return f"libcriu_py.cli.{name.replace('-', '_')}"
