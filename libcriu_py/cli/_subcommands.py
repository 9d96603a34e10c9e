"""The names of the subcommands, in the order of the help; a name is that of its module."""

SUBCOMMANDS = (
    *("snapshot", "run", "auto", "shim", "kernel", "pool", "inspect", "verify", "optimize", "store"),
    *("check", "preflight", "trigger", "doctor", "setup", "completion", "help"),
)
