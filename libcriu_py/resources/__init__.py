"""
Built-in resources: what the package prepares for a dump and adapts in each copy by itself, one module each.

They run next to the dump, after all before-hooks of the program and before all its after-hooks: a hook already finds
new random numbers, reopened log files and the new environment. Switch one off with
`checkpoint(dir, resources={"random": False})`, or from outside with ``LIBCRIU_PY_RESOURCES=-random,-logging``.

They touch only libraries that are loaded, and import what they need before the dump: a copy imports nothing.
"""

from __future__ import annotations

import inspect
import sys
import time
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from libcriu_py.errors import HookError
from libcriu_py.program.fork_callbacks import known
from libcriu_py.program.objects import search
from libcriu_py.resources.base import Arrival, BuiltIn
from libcriu_py.settings import words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    Settings = Mapping[str, bool | Mapping[str, Any]]


class Kind(NamedTuple):
    """Where a built-in resource is implemented, and the libraries of which one must be loaded for it to matter."""

    module: str
    class_name: str
    libraries: tuple[str, ...] = ()


KINDS: dict[str, Kind] = {
    # In the order in which they run after the dump; before it they run in reverse.
    "ids": Kind("native_ids", "NativeIds"),
    "fds": Kind("descriptors", "Descriptors"),
    "secrets": Kind("secrets", "Secrets"),
    "clock": Kind("clocks", "Clock"),
    "environment": Kind("environment", "Environment"),
    "locale": Kind("locales", "Locale"),
    "names": Kind("name_services", "NameServices"),
    "imports": Kind("imports", "Imports"),
    "random": Kind("randomness", "Random", ("random",)),
    "numpy": Kind("numpy_random", "NumpyRandom", ("numpy.random",)),
    "numba": Kind("numba_random", "NumbaRandom", ("numba",)),
    "torch": Kind("torch_random", "TorchRandom", ("torch",)),
    "tensorflow": Kind("tensorflow_random", "TensorflowRandom", ("tensorflow",)),
    "keras": Kind("keras_random", "KerasRandom", ("keras",)),
    "polars": Kind("polars_random", "PolarsRandom", ("polars",)),
    "sqlite": Kind("sqlite_random", "SqliteRandom", ("_sqlite3", "apsw", "pysqlite3", "sqlcipher3")),
    "ssl": Kind("openssl", "OpenSsl"),
    "gnutls": Kind("gnutls", "GnuTls"),
    "uuid": Kind("uuids", "Uuid", ("uuid",)),
    "uuid_utils": Kind("identifiers", "UuidUtils", ("uuid_utils",)),
    "bson": Kind("identifiers", "ObjectIds", ("bson.objectid",)),
    "kombu": Kind("identifiers", "KombuIds", ("kombu.common",)),
    "ddtrace": Kind("identifiers", "DatadogIds", ("ddtrace",)),
    "tempfile": Kind("temporary_names", "TemporaryNames", ("tempfile",)),
    "multiprocessing": Kind("processes", "Multiprocessing", ("multiprocessing.process",)),
    "psutil": Kind("process_times", "PsutilProcesses", ("psutil",)),
    "prometheus": Kind("process_times", "PrometheusCollectors", ("prometheus_client",)),
    "logging": Kind("log_files", "LogFiles", ("logging",)),
    "asyncio": Kind("event_loops", "EventLoops", ("asyncio.base_events",)),
    "terminal": Kind("terminals", "Terminals", ("rich.console", "readline")),
    "threads": Kind("thread_counts", "ThreadCounts", ("numpy", "torch")),
    "urllib3": Kind("connections", "Urllib3Pools", ("urllib3.connectionpool",)),
    "httpx": Kind("connections", "HttpcorePools", ("httpcore",)),
    "aiohttp": Kind("connections", "AiohttpConnectors", ("aiohttp.connector",)),
    "sqlalchemy": Kind("databases", "SqlalchemyPools", ("sqlalchemy.pool",)),
    "psycopg": Kind("postgres", "PsycopgPools", ("psycopg_pool",)),
    "asyncpg": Kind("postgres", "AsyncpgPools", ("asyncpg.pool",)),
    "redis": Kind("databases", "RedisPools", ("redis.connection",)),
    "snapstart": Kind("snapstart", "SnapStart", ("snapshot_restore_py",)),
}


class BuiltIns:
    """
    The built-in resources of one checkpoint.

    Thread safety: none; it is used by the thread that takes the checkpoint.
    """

    def __init__(
        self, settings: Settings | None = None, *, fork_callbacks: str = "known", native: bool = False
    ) -> None:
        """
        Check the settings; those of LIBCRIU_PY_RESOURCES go before these.

        Args:
            settings: By name in `KINDS`: True, False to switch off, or options; see docs/resources.md.
            fork_callbacks: "known" to have copies call those known to renew random state or ids, or "none".
            native: Whether copies may have other ids than the dumped process.

        Raises:
            ValueError: A name is unknown.
        """
        self._settings: dict[str, bool | Mapping[str, Any]] = {**(settings or {}), **_from_environment()}
        unknown = sorted(set(self._settings) - set(KINDS))
        if unknown:
            message = f"unknown resources: {', '.join(unknown)}; there are: {', '.join(KINDS)}"
            raise ValueError(message)
        self._active: list[tuple[str, BuiltIn]] = []
        self._calls_known = fork_callbacks == "known"
        self._left_out = () if native else ("ids",)
        self.fork_callbacks: list[tuple[str, Callable[[], object]]] = []
        """By name, callbacks of `os.register_at_fork` to call in a copy while other threads are stopped."""
        self.begun: list[tuple[str, Callable[[], object]]] = []
        """The calls that undo what has run before the dump. Kept in copies: freeing it would dirty shared pages."""
        self._left: tuple[float, float] = (0.0, 0.0)
        self._left_to_do: list[tuple[str, BuiltIn]] = []
        self._always: list[tuple[str, BuiltIn]] = []

    def note_variables(self) -> None:
        """Record the environment that the process was started with, while it can still be read."""
        from libcriu_py.program import environment as own_variables

        options = self._wanted("secrets")
        if options is False:
            own_variables.record_start(lambda *_: False)
            return
        from libcriu_py.resources.secrets import Secrets

        secrets = Secrets(**({} if options is True else options))
        own_variables.record_start(secrets.covers_of_start, secrets.covers)

    def watch(self) -> None:
        """Start to record which random generators the program seeds, and import now what any dump needs."""
        for name, kind in KINDS.items():
            if not kind.libraries and name not in self._left_out and self._wanted(name) is not False:
                import_module(f"libcriu_py.resources.{kind.module}")
        if self._wanted("random") is not False:
            from libcriu_py.program import seeding

            seeding.watch()

    def find(self) -> None:
        """Make the resources that matter for what is loaded now."""
        self._active, self.begun = [], []
        search.begin()
        self.fork_callbacks = known() if self._calls_known else []
        for name, kind in KINDS.items():
            options = name not in self._left_out and self._wanted(name)
            if options is False or (kind.libraries and not any(library in sys.modules for library in kind.libraries)):
                continue
            make: Callable[..., BuiltIn] = getattr(
                import_module(f"libcriu_py.resources.{kind.module}"), kind.class_name
            )
            self._active.append((name, make(**({} if options is True else options))))

    def before_dump(self) -> Iterable[tuple[str, Callable[[], object], Callable[[], object]]]:
        """Return the calls to make before the dump, in order, each with the call that undoes it."""
        return [(name, item.before_dump, item.in_original) for name, item in reversed(self._active)]

    def leave(self) -> None:
        """Read the clocks; the last step before the dump."""
        search.end()
        self._left = (time.time(), time.monotonic())

    def in_copy(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """Yield the calls to make in a restored copy, in order."""
        wall, monotonic = self._left
        arrival = Arrival(max(0.0, time.time() - wall), time.monotonic() - monotonic)
        for name, item in self._active:
            yield name, partial(item.in_copy, arrival)

    def are_plain(self) -> bool:
        """Return whether copies need no more than a call of each: no callbacks, and nothing to await."""
        methods = (method for _, item in self._active for method in (item.in_copy, item.in_original))
        return not self.fork_callbacks and not any(map(inspect.iscoroutinefunction, methods))

    def before_dump_last(self) -> None:
        """Do in advance what copies need not do, as the last step before the dump."""
        self._left_to_do = [(name, item) for name, item in self._active if item.before_dump_last()]
        self._always = [(name, item) for name, item in self._left_to_do if not item.variables]

    def calls_in_copy(
        self, raise_all: Callable[[list[BaseException], str], None]
    ) -> tuple[tuple[Callable[[], object], ...], tuple[Callable[[], object], ...]]:
        """
        Return what a copy calls in any case, and what where one of the watched variables has changed.

        Args:
            raise_all: Raises failures together.
        """
        self._raise_all = raise_all
        self.before_dump_last()
        return ((self._do_always,) if self._always else ()), ((self._do_all,) if self._left_to_do else ())

    def only_id(self) -> tuple[object, int]:
        """Return the thread whose id alone a copy has to renew, and where that is; None and 0 if there is more."""
        found = (item.only_id() for _, item in self._active)
        return next((one for one in found if one is not None), (None, 0))

    def watched(self) -> tuple[bytes, ...]:
        """Return the variables that decide whether there is something to do."""
        return tuple(name for _, item in self._active for name in item.variables)

    def _do_always(self) -> None:
        self._do(self._always)

    def _do_all(self) -> None:
        self._do(self._left_to_do)

    def _do(self, items: Iterable[tuple[str, BuiltIn]]) -> None:
        wall, monotonic = self._left
        arrival = Arrival(max(0.0, time.time() - wall), time.monotonic() - monotonic)
        errors: list[BaseException] = []
        for name, item in items:
            try:
                item.in_copy(arrival)
            except Exception as error:  # noqa: BLE001 - raised once all have run
                errors.append(failed(name, "after it", error))
            except BaseException as error:  # noqa: BLE001 - an interruption too
                errors.append(error)
        if errors:
            self._raise_all(errors, "after-restore hooks failed")

    def in_original(self) -> Iterable[tuple[str, Callable[[], object]]]:
        """Return the calls to make in the original, in order."""
        search.end()
        return [(name, item.in_original) for name, item in self._active]

    def _wanted(self, name: str) -> bool | Mapping[str, Any]:
        return self._settings.get(name, True)


def failed(name: str, what: str, error: Exception) -> HookError:
    """Return the exception for a built-in resource that failed, with how to switch it off."""
    message = (
        f"the built-in resource {name} failed {what}: {type(error).__name__}: {error}; "
        f"switch it off with LIBCRIU_PY_RESOURCES=-{name}"
    )
    made = HookError(message)
    made.__cause__ = error
    return made


def _from_environment() -> dict[str, bool]:
    return {name.lstrip("-+"): not name.startswith("-") for name in words("LIBCRIU_PY_RESOURCES")}
