"""The request for one operation: directories, native options, log."""

from __future__ import annotations

import contextlib
import os

from libcriu_py.criu import native as _native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from libcriu_py._libcriu import CData
    from libcriu_py.criu.options import Options


_DEFAULT_LOG = "criu.log"  # DEFAULT_LOG_FILENAME, criu/include/log.h


_kept: list[object] = []


class Request:
    """
    One operation's options, with directories opened and values translated.

    A context manager that yields the `criu_opts *` for libcriu.

    Args:
        options: The options.
        binary: The criu program; None for a service.
        env: Variables to set (None: remove) in the environment of criu.
        capture: Whether to capture what criu prints, for `output`, unless an option asks criu to print.

    Attributes:
        native: The native options; `native.child` describes the criu process.
        values: The options that are set, by name.
        log_path: The path of criu's log; None without a directory for it.
    """

    def __init__(
        self,
        options: Options | Mapping[str, object] | None,
        binary: str | None,
        env: Mapping[str, str | None] | None = None,
        *,
        capture: bool = False,
    ) -> None:
        self.values = _values(options)
        self._output = -1
        self.log_path: str | None = None
        self._fds: list[int] = []
        self._stamp: tuple[int, int, int] | None = None
        try:
            if capture and not self._prints():
                self._output = os.memfd_create("criu.output", os.MFD_CLOEXEC)
                self._fds.append(self._output)
            passed = self._with_directories()
            passed["config"] = render_config(passed.get("config"), passed.pop("timeout", None))
            self.native = _native.NativeOptions(passed, binary, env, self._output)
        except BaseException:
            self._close_fds()
            raise

    def __enter__(self) -> CData:
        return self.native.opts

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the options and close the directories.  A second call does nothing."""
        if self not in _kept:
            self.native.close()
        self._close_fds()

    def keep(self) -> None:
        """Never free the options: in a restored copy that would dirty shared pages."""
        _kept.append(self)

    def open_directory(self, directory: object) -> int:
        """
        Return a descriptor of a directory, open until the request is closed.

        Args:
            directory: A path; or a descriptor, which is returned and not closed.
        """
        if isinstance(directory, int):
            return directory
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # type: ignore[arg-type]
        self._fds.append(fd)
        return fd

    def output(self) -> str:
        """Return what criu has printed; empty if that was not captured."""
        if self._output < 0:
            return ""
        return os.pread(self._output, os.fstat(self._output).st_size, 0).decode("utf-8", "replace")

    def written_log(self) -> str | None:
        """Return the path of the log; None if this operation has not written it."""
        if self.log_path is None or _stamp(self.log_path) == self._stamp:
            return None
        return self.log_path

    def watch_log(self, directory: int) -> None:
        """Expect criu's log in this directory."""
        try:
            where = os.readlink(f"/proc/self/fd/{directory}")
        except OSError:
            self.log_path = None
            return
        self.log_path = os.path.join(where, str(self.values.get("log_file") or _DEFAULT_LOG))
        self._stamp = _stamp(self.log_path)

    def _prints(self) -> bool:
        # Scripts and commands print to criu's standard error, where the caller expects their output.
        config = self.values.get("config") or {}
        return bool(
            self.values.get("log_to_stderr")
            or self.values.get("exec_cmd")
            or self.values.get("config_file")
            or {"action-script", "action_script", "log-to-stderr", "log_to_stderr"} & set(config)  # type: ignore[call-overload]
        )

    def _with_directories(self) -> dict[str, object]:
        passed = dict(self.values)
        for name in ("images_dir", "work_dir"):
            directory = passed.pop(name, None)
            if directory is not None:
                fd = passed[f"{name}_fd"] = self.open_directory(directory)
                self.watch_log(fd)
        return passed

    def _close_fds(self) -> None:
        while self._fds:
            os.close(self._fds.pop())


@contextlib.contextmanager
def written_config(path: str, options: dict[str, object]) -> Iterator[None]:
    """
    Write a configuration file for criu, and remove it after the block.

    Args:
        path: The path of the file.
        options: The options; `config_file` replaces `config` and `timeout` in them.
    """
    text = render_config(options.pop("config", None), options.pop("timeout", None))
    if text is None:
        yield
        return
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    options["config_file"] = path
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):  # this is a restored copy
            os.unlink(path)


def render_config(config: object, timeout: object) -> str | None:
    """
    Return the text of a configuration file for criu; None if it would be empty.

    Args:
        config: A mapping of long options of criu(8), without dashes; underscores stand for dashes. True sets an option
            without a value, None and False leave it out, a sequence repeats it.
        timeout: The value of the option `timeout`; None for none.

    Raises:
        ValueError: A name or value cannot be written in such a file.
    """
    entries = dict(config) if config else {}  # type: ignore[call-overload]
    if timeout is not None:
        entries["timeout"] = timeout
    lines = []
    for name, value in entries.items():
        values = value if isinstance(value, (list, tuple)) else (value,)
        lines += [
            _config_line(name.replace("_", "-"), item) for item in values if item is not None and item is not False
        ]
    return "".join(lines) or None


def _config_line(name: str, value: object) -> str:
    if value is True:
        text = name
    else:
        quoted = str(value).replace('"', '\\"')
        text = f'{name} "{quoted}"' if " " in quoted or not quoted else f"{name} {quoted}"
    # criu cuts a line at '#' even inside quotes (criu/config.c, parse_statement).
    if any(character in text for character in "\n#\0"):
        message = f"the option {name!r} cannot be written in a configuration file of criu: {value!r}"
        raise ValueError(message)
    return text + "\n"


def _values(options: Options | Mapping[str, object] | None) -> dict[str, object]:
    if options is None:
        return {}
    translate = getattr(options, "to_native", None)
    if translate is not None:
        values: dict[str, object] = translate()
        return values
    return {name: value for name, value in options.items() if value is not None}  # type: ignore[union-attr]


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
