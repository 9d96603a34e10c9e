"""
All settings of the package: arguments of `checkpoint` and `restore`, options of the command, and variables.

`TABLE` is the source of overrides by variables, of the command's help, and of docs/settings.md; `variable` reads every
variable. A copy's start imports this module, so it imports nothing else.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO, Any, Literal, TypedDict

    from libcriu_py.privilege.mode import Privilege
    from libcriu_py.program.main import Program

    Argument = str | bytes | os.PathLike[str]
    Stream = int | IO[Any] | None
    Then = Literal["exit", "continue"]
    EngineName = Literal["auto", "native", "criu", "simulate"]
    RestoreEngine = Literal["auto", "native", "criu"]
    MemoryKind = Literal["auto", "map", "copy"]
    Exit = Literal["normal", "fast"]
    ForkCallbacks = Literal["known", "none"]
    EnvCheck = Literal["error", "warn", "off"]
    IfExists = Literal["error", "replace", "continue"]
    IfImpossible = Literal["raise", "continue"]
    Verify = Literal["arrival", "once", "always"]

    class CheckpointSettings(TypedDict, total=False):
        """What `checkpoint` takes beside the directory."""

        then: Then
        engine: EngineName
        replace: bool
        if_exists: IfExists
        if_impossible: IfImpossible
        options: Mapping[str, object] | None
        memory: MemoryKind
        exit: Exit
        resources: Mapping[str, bool | Mapping[str, Any]] | None
        fork_callbacks: ForkCallbacks
        env_check: EnvCheck
        hook_limit: float | None

    class HereSettings(CheckpointSettings, total=False):
        """What `checkpoint_here` takes beside the directory."""

        program: Program | None
        details: Mapping[str, object] | None

    class RestoreSettings(TypedDict, total=False):
        """What `restore` takes beside the snapshot, its arguments and `n`."""

        env: Mapping[str, str] | Mapping[bytes, bytes] | None
        cwd: str | os.PathLike[str] | None
        stdin: Stream
        stdout: Stream
        stderr: Stream
        pass_fds: Sequence[int]
        wait_ready: bool
        main: Program | None
        engine: RestoreEngine
        mode: Privilege | str | None
        isolate: bool
        verify: Verify | None
        die_with_caller: bool
        standby: bool
        encoding: str | None
        errors: str | None


class Setting:
    """
    One setting: an argument, an option, a variable, or several of them.

    Attributes:
        name: The name of the argument, and the option's destination; for documentation only if it is just a variable.
        kind: Its type in words. "flag" and "list" set how the option is parsed, "directory" and "file" its completion.
        default: The default value.
        uses: Where it is an argument or option: "checkpoint", "here" (checkpoint_here only), "restore", "snapshot".
        text: What it does; a phrase without a full stop.
        variable: The environment variable that overrides it.
        options: Its names on a command line.
        metavar: The name of the option's value in the help.
        choices: The allowed values.
        launcher: Whether the launcher, in C, reads or sets the variable too.
    """

    def __init__(  # noqa: PLR0913 - a row of the table
        self,
        name: str,
        kind: str,
        default: object,
        uses: str,
        text: str,
        variable: str = "",
        *,
        option: str = "",
        choices: tuple[str, ...] = (),
        launcher: bool = False,
    ) -> None:
        self.name, self.kind, self.default, self.uses = name, kind, default, uses.split()
        self.text, self.variable, self.choices, self.launcher = text, variable, choices, launcher
        self.options = [word for word in option.split() if word.startswith("-")]
        self.metavar = " ".join(option.split()[len(self.options) :]) or None

    def overridden(self, value: Any) -> Any:
        """
        Return the value of a checkpoint's setting: its variable's if set, else the argument's.

        Args:
            value: The argument; None means the default.

        Raises:
            ValueError: The value is not one of the choices, or the variable cannot be parsed.
        """
        value = self.default if value is None else value
        text = variable(self.variable) if self.variable else None
        if text is not None and not self._is_rehearsal(value):
            value = self._parsed(text, value)
        if self.choices and value not in self.choices:
            allowed = '", "'.join(self.choices[:-1])
            source = self.name if text is None else self.variable
            message = f'{source} must be "{allowed}" or "{self.choices[-1]}", not {value!r}'
            raise ValueError(message)
        return value

    def _is_rehearsal(self, value: Any) -> bool:
        """Return whether the program itself asks for no dump, which no variable changes but that of a report."""
        return self.name == "engine" and value == "simulate" and not variable("LIBCRIU_PY_PREFLIGHT")

    def _parsed(self, text: str, value: Any) -> Any:
        if self.name == "resources":  # BuiltIns merges them
            return value
        if self.name == "hook_limit":
            return _seconds(self.variable, text)
        if self.name == "options":
            return {**(value or {}), **_object(self.variable, text)}
        return True if self.kind == "flag" else text


DEFAULT_ENGINE = "auto"

# fmt: off
_ROWS = (
    Setting("dir", "directory", None, "checkpoint snapshot",
            "the snapshot to make; the directory must not exist or be empty; the command's default: NAME.snap",
            "LIBCRIU_PY_SNAPSHOT", option="-o --output DIR"),
    Setting("then", "text", "exit", "checkpoint",
            "what the original does after the dump: end with status 0, without its atexit and finally code, or go on",
            "LIBCRIU_PY_THEN", choices=("exit", "continue")),
    Setting("engine", "text", DEFAULT_ENGINE, "checkpoint snapshot",
            "what dumps the process and restores it (docs/engines.md): native, without CRIU, rights or namespaces; "
            "criu; auto: native where the process is eligible and no option of criu is given, else criu; simulate runs "
            "the same lifecycle, hooks included, without a dump",
            "LIBCRIU_PY_ENGINE", option="--engine", choices=("auto", "native", "criu", "simulate"), launcher=True),
    Setting("engine", "text", "auto", "restore",
            "the engine that the snapshot must be of; auto takes either; the variable decides where that is left out",
            "LIBCRIU_PY_ENGINE", option="--engine", choices=("auto", "native", "criu"), launcher=True),
    Setting("options", "mapping", None, "checkpoint",
            "options of criu's dump, by the names of DumpOptions, of which the native engine has none; the variable is "
            'a JSON object such as {"tcp_close": true}, and overrides only the options that it names',
            "LIBCRIU_PY_OPTIONS"),
    Setting("resources", "mapping", None, "checkpoint",
            "built-in resources to switch off or to set (docs/resources.md); the variable lists names, separated by "
            "commas, with a minus before those to switch off",
            "LIBCRIU_PY_RESOURCES"),
    Setting("fork_callbacks", "text", "known", "checkpoint snapshot",
            "which callbacks of os.register_at_fork copies call: those known to renew random state or ids, or none",
            "LIBCRIU_PY_FORK_CALLBACKS", option="--fork-callbacks", choices=("known", "none")),
    Setting("hook_limit", "seconds", None, "checkpoint", "how long each hook may take; default: no limit",
            "LIBCRIU_PY_HOOK_LIMIT"),
    Setting("program", "Program", None, "here", "the main program of the copies, where it is not that of this process"),
    Setting("details", "mapping", None, "here", "what the manifest is to record beside the rest"),
    Setting("preload", "list", (), "snapshot", "modules to import; repeatable", option="--preload A,B"),
    Setting("learn", "list", (), "snapshot",
            "run the program with these arguments first, and import what it imported; repeatable",
            option='--learn "ARGS"'),
    Setting("learn_until", "text", None, "snapshot",
            "do a trial run, with --learn's arguments or the program's, and end it when it listens on a port (8000), "
            "when seconds have passed (5s), or when a path exists, for programs that never end",
            option="--learn-until PORT|SECONDS|PATH"),
    Setting("warm_up", "list", (), "snapshot",
            "run the program with these arguments, twice, in the process that is saved, so that copies start warm; "
            "repeatable",
            option='--warm-up "ARGS"'),
    Setting("own", "flag", False, "snapshot", "the program checkpoints itself, even if its source does not show it",
            option="--self"),
    Setting("scrub", "list", (), "snapshot",
            "remove environment variables with matching names from the snapshot too, for example '*_PIN', or all; "
            "repeatable; the variable separates patterns by commas",
            "LIBCRIU_PY_SCRUB", option="--scrub PATTERN"),
    Setting("keep_env", "list", (), "snapshot",
            "leave environment variables with this name, or matching this pattern, in the snapshot; repeatable",
            "LIBCRIU_PY_KEEP_ENV", option="--keep-env NAME"),
    Setting("replace", "flag", False, "checkpoint snapshot",
            "replace an existing snapshot, in one step, when the new one is complete",
            "LIBCRIU_PY_REPLACE", option="--replace"),
    Setting("if_exists", "text", "error", "checkpoint",
            "what becomes of the checkpoint where a snapshot is there already: an error; a new one in its place, for "
            "which replace is short; or none, and the program goes on",
            "LIBCRIU_PY_IF_EXISTS", choices=("error", "replace", "continue")),
    Setting("if_impossible", "text", "raise", "checkpoint",
            "what becomes of a program that cannot be dumped here: an exception, or it goes on without a snapshot",
            "LIBCRIU_PY_IF_IMPOSSIBLE", choices=("raise", "continue")),
    Setting("memory", "text", "auto", "checkpoint snapshot",
            "how copies get their memory: copy reads it all at the start; map maps it from a file, and reads pages as "
            "they are used, wherever that is safe; auto maps it where that is worth it",
            "LIBCRIU_PY_MEMORY", option="--memory", choices=("auto", "map", "copy")),
    Setting("store", "directory", None, "snapshot",
            "share large blocks of mapped memory with other snapshots of this directory; default: $LIBCRIU_PY_STORE",
            "LIBCRIU_PY_STORE", option="--store STORE"),
    Setting("exit", "text", "normal", "checkpoint snapshot",
            "how copies end; fast skips interpreter teardown (docs/exit.md)",
            "LIBCRIU_PY_EXIT", option="--exit", choices=("normal", "fast")),
    Setting("script", "file", None, "snapshot", "write an executable file that starts the program",
            option="--script FILE"),
    Setting("n", "int", None, "restore", "how many copies to restore at once, as a list; default: one, by itself"),
    Setting("env", "mapping", None, "restore", "the environment; default: the caller's"),
    Setting("cwd", "directory", None, "restore", "the working directory; default: the caller's"),
    Setting("stdin", "stream", None, "restore",
            "as for subprocess.Popen: None (the caller's), PIPE, DEVNULL, a descriptor or a file"),
    Setting("stdout", "stream", None, "restore", "the same"),
    Setting("stderr", "stream", None, "restore", "the same, or STDOUT"),
    Setting("pass_fds", "list", (), "restore", "descriptors that the copy gets under the same numbers"),
    Setting("wait_ready", "flag", False, "restore", "return only when the after-hooks of the copy have run"),
    Setting("main", "Program", None, "restore", "what the copy runs instead of its own main program"),
    Setting("mode", "text", None, "restore snapshot",
            "privilege mode of criu (the native engine has none); default: $LIBCRIU_PY_MODE, else the first that "
            "works",
            "LIBCRIU_PY_MODE", option="--mode", choices=("auto", "root", "capability", "rootless"), launcher=True),
    Setting("isolate", "flag", False, "restore",
            "use a pid namespace even where the pids of the image look free; native copies have pids of their own"),
    Setting("verify", "text", None, "restore",
            "when the large files of a snapshot are read and compared with their sums (small ones are at each start): "
            "arrival: by what brought them, and where they were touched on this boot; once: on each machine and boot; "
            "always; default: $LIBCRIU_PY_VERIFY, else arrival",
            "LIBCRIU_PY_VERIFY", choices=("arrival", "once", "always"), launcher=True),
    Setting("die_with_caller", "flag", False, "restore", "kill the copy when this process ends"),
    Setting("standby", "flag", False, "restore",
            "take a copy from a standby pool of the snapshot, if there is one; needs die_with_caller"),
    Setting("encoding", "text", None, "restore", "encoding of the pipes; default: they are binary"),
    Setting("errors", "text", None, "restore", "how encoding errors of the pipes are handled"),
    Setting("python", "file", None, "snapshot",
            "the interpreter; default: the one that runs this command. Without PATH, it is itself what is saved, and "
            "copies take its command line (docs/warm-python.md); options of it follow --", option="--python PATH"),
    Setting("module", "text", None, "snapshot", "run a module, as python -m does", option="-m MODULE"),
    Setting("config", "file", None, "", "TOML, with rules for descriptors (docs/resources.md)", "LIBCRIU_PY_CONFIG"),
    Setting("criu", "file", None, "", "the criu program", "LIBCRIU_PY_CRIU", launcher=True),
    Setting("criu_limit", "seconds", 30.0, "",
            "seconds that criu, or what publishes a native dump, may take for each GB of memory that is begun; then it "
            "is ended, and a program that was to be dumped goes on as it was",
            "LIBCRIU_PY_CRIU_LIMIT", launcher=True),
    Setting("auto", "text", None, "", "0: auto and shims start no copies", "LIBCRIU_PY_AUTO", launcher=True),
    Setting("prefix", "directory", None, "", "where CRIU is, for scripts/install-criu, the build and run time",
            "LIBCRIU_PY_PREFIX", launcher=True),
    Setting("preflight", "text", None, "",
            "report: a checkpoint prints what it would have to save, and ends; a path: it writes that there, as JSON; "
            "off: only criu itself refuses",
            "LIBCRIU_PY_PREFLIGHT"),
    Setting("trace_fds", "flag", False, "", "record where each descriptor is opened, for the reports of the preflight",
            "LIBCRIU_PY_TRACE_FDS"),
    Setting("service", "text", None, "",
            "internal, set for a program in a namespace: the socket on which it is served a criu",
            "LIBCRIU_PY_SERVICE", launcher=True),
    Setting("maker", "text", None, "",
            "internal, set for a program in a namespace: the command that makes the snapshot, which outlives it",
            "LIBCRIU_PY_MAKER"),
    Setting("preload_path", "text", None, "", "internal: where an interpreter that is saved finds more modules",
            "LIBCRIU_PY_PRELOAD_PATH"),
    Setting("env_check", "text", "error", "checkpoint snapshot",
            "what a start does where a variable is not as the program read it before the dump: error starts it "
            "conventionally (restore() raises), warn says so on stderr, off records none; the variable decides at the "
            "dump and at each start",
            "LIBCRIU_PY_ENV_CHECK", option="--env-check", choices=("error", "warn", "off"), launcher=True),
    Setting("command", "flag", False, "", "internal: the command says itself what was taken", "LIBCRIU_PY_COMMAND"),
    Setting("cache", "directory", None, "", "the cache of automatic snapshots; default: ~/.cache/libcriu_py",
            "LIBCRIU_PY_CACHE", launcher=True),
    Setting("auto_learn", "path", None, "", "internal: where a program notes what it imports",
            "LIBCRIU_PY_AUTO_LEARN", launcher=True),
    Setting("conventional", "int", None, "",
            "internal: the pid of a program that is started in place of a copy, whose checkpoint is a simulated one",
            "LIBCRIU_PY_CONVENTIONAL", launcher=True),
)
# fmt: on

TABLE: dict[str, Setting] = {}
"""All settings, by name; of two, the first."""
for _setting in _ROWS:
    TABLE.setdefault(_setting.name, _setting)

_VARIABLES = {setting.variable for setting in _ROWS if setting.variable}


def used_by(*uses: str) -> list[Setting]:
    """Return the settings with one of these uses."""
    return [setting for setting in _ROWS if any(use in setting.uses for use in uses)]


def of_use(name: str, use: str) -> Setting:
    """Return a setting, as it is for one of its uses."""
    return next(setting for setting in used_by(use) if setting.name == name)


def variable(name: str, env: Mapping[str, str] = os.environ) -> str | None:
    """
    Return the value of a variable of the table, by its full name; None if it is not set or empty.

    Args:
        name: Its name.
        env: The environment, if not that of this process.

    Raises:
        KeyError: The table has no such variable.
    """
    if name not in _VARIABLES:
        raise KeyError(name)
    return env.get(name) or None


def words(name: str) -> list[str]:
    """Return the parts of a variable between commas."""
    return [word.strip() for word in (variable(name) or "").split(",") if word.strip()]


def overridden(given: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return all settings of a checkpoint: arguments, defaults, and the environment's overrides.

    Args:
        given: The arguments.

    Raises:
        TypeError: There is no such setting.
        ValueError: The value of a setting is invalid.
    """
    settings = {setting.name: setting for setting in used_by("checkpoint", "here")}
    unknown = ", ".join(sorted(given.keys() - settings))
    if unknown:
        message = f"a checkpoint has no setting {unknown}; there are: {', '.join(settings)}"
        raise TypeError(message)
    found = {name: setting.overridden(given.get(name)) for name, setting in settings.items()}
    found["if_exists"] = _if_exists(found)
    if variable("LIBCRIU_PY_CONVENTIONAL") == str(os.getpid()):
        found["engine"] = "simulate"
    return found


def check_variables() -> None:
    """
    Check the variables that are set, before anything begins.

    Raises:
        ValueError: The value of one is invalid.
    """
    for setting in TABLE.values():
        text = variable(setting.variable) if setting.variable else None
        if text is not None and setting.kind == "seconds":
            _seconds(setting.variable, text)
        elif text is not None:
            setting.overridden(None)


def _if_exists(found: Mapping[str, Any]) -> str:
    """Combine `if_exists` with its short form."""
    chosen: str = found["if_exists"]
    if not found["replace"] or variable("LIBCRIU_PY_IF_EXISTS"):
        return chosen
    if chosen == "continue" and not variable("LIBCRIU_PY_REPLACE"):
        message = 'replace=True is short for if_exists="replace"; leave out one of replace and if_exists="continue"'
        raise ValueError(message)
    return "replace"


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds > 0:
        message = f"{name} must be a number of seconds above 0, not {text!r}"
        raise ValueError(message)
    return seconds


def _object(name: str, text: str) -> dict[str, Any]:
    import json

    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    message = f"{name} must be a JSON object with options of DumpOptions, not {text!r}"
    raise ValueError(message)
