"""
Note what a program imports, for its snapshot.

The launcher, which has the text of this file, puts it, as ``sitecustomize``, on the path of a conventional start. It
leaves no trace that the program could see, and lets a sitecustomize of the interpreter's own come next.
"""

import sys


def _begin() -> None:
    import os

    directory = os.path.dirname(__file__)
    entry = os.environ.pop("LIBCRIU_PY_AUTO_LEARN", None)
    rest = os.environ.get("PYTHONPATH", "")[len(directory) + 1 :]
    if rest:
        os.environ["PYTHONPATH"] = rest
    else:
        os.environ.pop("PYTHONPATH", None)
    if directory in sys.path:
        sys.path.remove(directory)
    sys.path_importer_cache.pop(directory, None)
    if entry is None:
        return
    import atexit

    program = os.getpid()
    modules = sys.modules
    variables = os.environ.copy()

    def note() -> None:
        if os.getpid() != program:
            return
        now = os.environ.copy()
        changed = [name for name in {**variables, **now} if variables.get(name) != now.get(name)]
        lines = [f"={name}\n" for name in changed if "\n" not in name]
        for name, module in list(modules.items()):
            try:
                known = object.__getattribute__(module, "__dict__")  # lazy modules would load
                if known["__spec__"].name == name:
                    lines.append(f"{name}\t{known.get('__file__') or ''}\n")
            except (AttributeError, KeyError):
                continue
        try:
            file = os.open(f"{entry}/runs", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.write(file, os.fsencode("".join(lines)))
            os.close(file)
        except OSError:
            return

    atexit.register(note)


_begin()
del sys.modules["sitecustomize"]
import sitecustomize  # type: ignore[import-not-found]  # noqa: E402,F401 - site ignores that there is none
