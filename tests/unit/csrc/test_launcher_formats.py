"""
The launcher's formats are those of the Python side: requests, launch records, launch scripts.

Its readers and writers are compiled with the sanitizers (tests/native/formats.c); requests come from the
launcher itself.
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import stat
import struct
import subprocess
import sys
import sysconfig
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import libcriu_py
from libcriu_py.copies.launch_script import TITLE, write_launch_script
from libcriu_py.copies.restore import make_request
from libcriu_py.errors import CriuError, SnapshotError
from libcriu_py.program.main import Program
from libcriu_py.program.reads import Read
from libcriu_py.snapshot import (
    identity,
    launcher as native_launcher,
    record as launch_record,
    request,
)
from libcriu_py.snapshot.manifest import SLOTS, Snapshot
from libcriu_py.snapshot.record import ComparedFile, FileEntry, Launch, Listener, MemoryFile, RecordError
from tests.snapshots import MANIFEST_OF_HERE, launch_of_here, write_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from libcriu_py.program.main import Kind

ROOT = Path(__file__).resolve().parents[3]
CSRC = ROOT / "libcriu_py" / "csrc"
SANITIZERS = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
TIMEOUT = 100


def compile_program(name: str, directory: Path) -> Path:
    """Compile a test program of the formats."""
    program = directory / name
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    units = [
        str(CSRC / f"{name}.c")
        for name in (
            *("common/files", "common/sum", "restore/problem", "restore/request", "restore/compatibility"),
            *(
                "restore/installed",
                "restore/reads",
                "restore/tree",
                "restore/sums",
                "restore/scratch",
                "restore/interpreter",
            ),
            *("become/reader", "become/kinds", "become/vdso", "become/why"),
        )
    ]
    source = str(ROOT / "tests" / "native" / f"{name}.c")
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", *SANITIZERS, f"-I{CSRC}"]
    subprocess.run([*compiler, *flags, "-o", str(program), source, *units], check=True, timeout=TIMEOUT)
    return program


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the one that reads, damages and writes."""
    return compile_program("formats", tmp_path_factory.mktemp("formats"))


@pytest.fixture(scope="module")
def launcher() -> str:
    """Return the launcher that was built with the package."""
    path = native_launcher.find()
    assert path is not None, "libcriu-py-run was not built"
    return path


def start(*argv: str | bytes | Path, check: bool = False, **settings: Any) -> subprocess.CompletedProcess[Any]:
    """Run a program to its end, its output captured, as text unless told otherwise."""
    return subprocess.run(argv, check=check, **{"capture_output": True, "text": True, "timeout": TIMEOUT, **settings})


@pytest.fixture(name="snap")
def snap_fixture(tmp_path: Path) -> Path:
    """Return such a snapshot, with a name that is not ASCII and not UTF-8."""
    return write_snapshot(tmp_path / os.fsdecode(b"sn\xc3\xa4p-\xff"), launch_of_here())


# ---- requests --------------------------------------------------------------


def native_request(launcher: str, snap: Path, arguments: list[bytes], **settings: Any) -> bytes:
    """Return the request that the launcher would hand over."""
    # Libraries such as readline set variables in the C environment that os.environ does not know.
    settings.setdefault("env", dict(os.environb))
    done = start(launcher, "--print-request", os.fsencode(snap), b"--", *arguments, check=True, text=False, **settings)
    request: bytes = done.stdout
    return request


def python_request(snap: Path, arguments: list[bytes]) -> bytes:
    """Return the one that the Python side would hand over."""
    return make_request(str(snap), arguments, env=None, cwd=None, main=None).encode()


def without_time(request: bytes) -> tuple[list[bytes], float]:
    """Return the fields of a request but the time, and the time."""
    fields = request.split(b"\0")
    return [*fields[:2], *fields[3:]], float(fields[2])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [b""],
        [b"a", b"--", b"-x", b'a b\n\t"\\\x7f\x01', "ä€😀".encode(), b"\xff\xfe\xed\xa0\x80"],
        [bytes([byte]) for byte in range(1, 256)],
        [b"argument-%d" % number for number in range(10_000)],
    ],
    ids=["none", "empty", "odd", "every byte", "many"],
)
def test_request_is_the_same(launcher: str, snap: Path, arguments: list[bytes]) -> None:
    """Launcher and Python describe the same arguments and surroundings by the same request."""
    before = time.time()
    native, native_time = without_time(native_request(launcher, snap, arguments))
    ours, our_time = without_time(python_request(snap, arguments))
    assert before <= native_time <= our_time
    assert native == ours


def test_request_with_a_large_environment(launcher: str, snap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte of variables, some of them not UTF-8, arrives; all of it can be decoded again."""
    for number in range(1000):
        monkeypatch.setenv(f"LCP_{number}", os.fsdecode(b"\xff\xc3\xa4" + b"x" * 1000 + b'"\\='))
    native = native_request(launcher, snap, [])
    assert without_time(native)[0] == without_time(python_request(snap, []))[0]
    handed = request.Request.decode(native)
    assert handed.env == dict(os.environb)
    assert handed.snapshot == os.path.realpath(snap)


def test_request_of_other_surroundings(launcher: str, snap: Path, tmp_path: Path) -> None:
    """Directory, umask, closed streams, descriptors, signals, process group and scheduling are the launcher's."""
    script = 'trap "" HUP USR1 PIPE; umask 027; exec nice -n 3 chrt -b 0 "$@" <&- 7</'
    argv = ["/bin/sh", "-c", script, "sh", launcher, "--print-request", str(snap)]
    process = subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, start_new_session=True)
    out, _ = process.communicate(timeout=TIMEOUT)
    handed = request.Request.decode(out)
    assert handed.cwd == os.fsencode(tmp_path)
    assert (handed.umask, handed.closed, handed.ignored) == (0o027, [0], [1, 10])
    assert handed.pgid == process.pid
    assert handed.inherited == [7]
    assert handed.schedule == (os.nice(0) + 3, os.SCHED_BATCH, 0)


def test_first_of_two_variables_counts(launcher: str, snap: Path) -> None:
    """Of two variables of one name Python sees the first, and so does a restored program."""
    program = """if True:
        import ctypes, os, sys
        def strings(*words):
            return (ctypes.c_char_p * (len(words) + 1))(*words, None)
        words = list(map(os.fsencode, sys.argv[1:]))
        ctypes.CDLL(None).execve(words[0], strings(*words), strings(b"A=1", b"A=2", b"nothing", b"B="))
    """
    argv = [sys.executable, "-c", program, launcher, "--print-request", str(snap)]
    out = subprocess.run(argv, check=True, stdout=subprocess.PIPE, timeout=TIMEOUT).stdout
    assert request.Request.decode(out).env == {b"A": b"1", b"B": b""}


def test_random_requests_are_read_as_written(formats: Path) -> None:
    """Any bytes in arguments, environment, working directory and path come back."""
    done = start(formats, "requests", "1", "5000")
    assert (done.returncode, done.stdout, done.stderr) == (0, "5000 requests\n", "")


# ---- records ---------------------------------------------------------------


def canonical(launch: Launch) -> list[str]:
    """Print a record as the test program does."""

    def text(name: str, value: str) -> str:
        return f" {name}={os.fsencode(value).hex()}"

    def compared(name: str, files: Iterable[ComparedFile]) -> list[str]:
        return [f"{name} {file.size} {file.mtime_ns} {file.mode}{text('path', file.path)}" for file in files]

    program = launch.program or Program("script", "")
    kind = 0 if launch.program is None else ("script", "module", "command").index(program.kind) + 1
    flags = launch.reduced_bounding + 2 * launch.session_leader + 4 * launch.maps_code + 8 * launch.warns
    flags += 16 * launch.one_at_a_time
    mode = (None, "root", "capability", "rootless").index(launch.mode)
    engine = ("criu", "native").index(launch.engine)
    numbers = (kind, launch.capabilities, *launch.clocks, launch.uid, launch.gid, mode, flags, engine)
    texts = {
        "version": launch.package_version,
        "arch": launch.arch,
        "cpu_flags": " ".join(launch.cpu_flags),
        "program": program.value,
        "images_key": launch.images_key,
        "names": "".join(f"/{name}" for name in launch.names) + "/",
    }
    options = launch.restore_options.items()
    return [
        *(f"word {os.fsencode(word).hex()}" for word in launch.command),
        "facts " + " ".join(map(str, numbers)) + "".join(map(text, texts, texts.values()))
        + "".join(text("slot", slot) for slot in launch.slots),
        *(f"pid {pid}" for pid in launch.pids),
        *(f"group {group}" for group in launch.groups),
        *(f"variable{text('name', name)}{text('value', value)}" for name, value in launch.variables.items()),
        *(f"option {int(value)} {int(type(value) is not bool)}{text('name', name)}" for name, value in options),
        *(f"memory {part.size}{text('file', part.file)}{text('key', part.key)}" for part in launch.memory_files),
        *(
            f"file {file.size} {file.sum} {int(file.is_large)}{text('name', name)}"
            for name, file in launch.files.items()
        ),
        *compared("mapped", launch.mapped),
        *compared("source", launch.sources),
        *compared("directory", launch.directories),
        *compared("package", launch.packages),
        *(f"read {read.state}{text('name', read.name)}{text('value', read.value)}" for read in launch.reads),
        *(f"listener {' '.join(map(str, row[1:]))}{text('address', row.address)}" for row in launch.listeners),
    ]  # fmt: skip


def random_text(source: random.Random) -> str:
    """Return a text of code points from everywhere, and of bytes that are no UTF-8."""
    points = (source.choice((0x7F, 0x7FF, 0xD7FF, 0x10FFFF)) for _ in range(source.randrange(8)))
    text = "".join(chr(source.randint(1, limit)) for limit in points)
    return "".join("?" if "\ud800" <= letter <= "\udfff" else letter for letter in text) + source.choice(("", "\udcff"))


def random_launch(source: random.Random) -> Launch:
    """Return what no dump has recorded."""

    def text() -> str:
        return random_text(source)

    def texts() -> list[str]:
        return [text() for _ in range(source.randrange(5))]

    def number(bits: int) -> int:
        return source.randrange(1 << bits) >> source.randrange(bits)

    def compared() -> tuple[ComparedFile, ...]:
        return tuple(ComparedFile(path, number(64), number(64) - 2**63, number(32)) for path in texts())

    kinds: tuple[Kind, ...] = ("script", "module", "command")
    return Launch(
        command=(text(), *texts()),
        program=source.choice((None, Program(source.choice(kinds), text()))),
        arch=text(),
        cpu_flags=tuple(f"flag{number(8)}" for _ in texts()),
        variables={name: text() for name in texts()},
        uid=number(32),
        gid=number(32),
        groups=tuple(number(32) for _ in texts()),
        capabilities=number(64),
        reduced_bounding=source.random() < 0.5,
        mode=source.choice(launch_record.MODES),
        session_leader=source.random() < 0.5,
        slots=tuple(text() for _ in SLOTS),
        images_key=text(),
        restore_options={name: source.choice((True, False, number(32))) for name in texts()},
        clocks=(number(63), -number(63)),
        pids=tuple(number(31) for _ in texts()),
        memory_files=tuple(MemoryFile(text(), text(), number(64)) for _ in texts()),
        maps_code=source.random() < 0.5,
        files={name: FileEntry(number(64), number(32)) for name in texts()},
        mapped=compared(),
        sources=compared(),
        names=tuple(name for name in (text().replace("/", "") for _ in range(9)) if name),
        directories=compared(),
        packages=compared(),
        reads=tuple(Read(text(), text(), number(2)) for _ in texts()),
        warns=source.random() < 0.5,
        engine=source.choice(launch_record.ENGINES),
        listeners=tuple(Listener(text(), number(8), number(8), number(16), number(4)) for _ in texts()),
        one_at_a_time=source.random() < 0.5,
        package_version=text(),
    )


def test_records_are_read_as_written(formats: Path) -> None:
    """Whatever a record says, Python and the launcher read the same from it."""
    source = random.Random(20)  # the same ones in each run
    for _ in range(100):
        launch = random_launch(source)
        data = launch_record.encode(launch)
        assert launch_record.decode(data) == launch
        done = start(formats, "read", input=data, text=False)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.decode("ascii").splitlines() == canonical(launch)


def test_what_fits_into_no_record() -> None:
    """It is refused when it is to be written."""
    wrong = ({"images_key": "a\0b"}, {"uid": -1}, {"pids": (1 << 32,)}, {"command": ("\0",)})
    for changes in (*wrong, {"mode": "other"}, {"engine": "other"}):
        with pytest.raises(ValueError, match=r"NUL|does not fit|not in tuple"):
            launch_record.encode(launch_of_here(**changes))


def test_any_damage_is_found(formats: Path) -> None:
    """A flipped bit, or a byte less or more, is seen by both, wherever it is."""
    data = launch_record.encode(launch_of_here(mapped=(ComparedFile("/lib/x.so", 1, 2, 3),)))
    done = start(formats, "spoil", input=data, text=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"0 of %d were accepted\n" % (9 * len(data))
    spoilt = [data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :] for at in range(len(data))]
    for wrong in (*spoilt, *(data[:size] for size in range(len(data))), data + b"\0"):
        with pytest.raises(RecordError):
            launch_record.decode(wrong)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_damaged_records_do_no_harm(formats: Path, seed: int) -> None:
    """The sanitizers find nothing wrong with how damaged records are read and used."""
    parts = tuple(MemoryFile(f"memory/{name}", name, 1) for name in "xyz")
    sources = (ComparedFile("/nowhere/x.py", 1, 1),)
    launch = launch_of_here(
        memory_files=parts, sources=sources, variables={"A": "B"}, groups=(1, 2), files={"x": FileEntry(1)}
    )
    launch = launch._replace(
        names=("a", "b"),
        directories=(ComparedFile("/etc", 1, 1),),
        packages=sources,
        reads=(Read("A", "B", 1), Read("C", "0" * 16, 2)),
    )
    done = start(formats, "mutate", str(seed), "4000", input=launch_record.encode(launch), text=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert int(done.stdout.split()[0]) > 100


def test_target_of_the_fuzzer_does_no_harm(tmp_path: Path) -> None:
    """The inputs that it starts from are sound, and some thousands that chance makes of them are refused."""
    target = compile_program("fuzz", tmp_path)
    seeds = sorted((ROOT / "tests" / "native" / "seeds").iterdir())
    assert {seed.read_bytes()[:1] for seed in seeds} == {b"b", b"c", b"s", b"l", b"r", b"p", b"v"}
    assert all(launch_record.decode(seed.read_bytes()[1:]).sources for seed in seeds if seed.name.startswith("record"))
    for seed in seeds:
        done = start(target, seed)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = start(target, "1", tmp_path / "last", *seeds)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout.split()[0]) > 1000
    assert not (tmp_path / "last").exists()


# ---- refusals --------------------------------------------------------------


def refusals(launcher: str, snap: Path) -> tuple[str, str]:
    """Return in whose words Python and the launcher refuse a snapshot."""
    with pytest.raises(SnapshotError) as refused:
        identity.refuse_mismatches(Snapshot.open(snap))
    argv = [launcher, "--no-fallback", str(snap)]
    done = start(*argv, text=False)
    assert (done.returncode, done.stdout) == (126, b"")
    return str(refused.value), os.fsdecode(done.stderr).removeprefix("libcriu-py: ").removesuffix("\n")


PASSWD = Path("/etc/passwd").stat()
MISMATCHES: dict[str, dict[str, Any]] = {
    "protocol": {"protocol": 99, "package_version": "9.9"},
    "architecture": {"arch": "vax"},
    "processor": {"cpu_flags": ("amx_future", *identity.cpu_flags(), "zz")},
    "missing file": {"files": {"images/core-1.img": FileEntry(1)}},
    "changed size": {"files": {launch_record.MANIFEST: FileEntry(1)}},
    "changed content": {"files": {launch_record.MANIFEST: FileEntry(len(json.dumps(MANIFEST_OF_HERE)), 1)}},
    "mapped file missing": {"mapped": (ComparedFile("/nowhere/libx.so", 1, 1),)},
    "mapped file changed": {"mapped": (ComparedFile("/etc/passwd", 1, 1),)},
    "mapped file's mode": {"mapped": (ComparedFile("/etc/passwd", PASSWD.st_size, PASSWD.st_mtime_ns, 0o100600),)},
    "source missing": {"sources": (ComparedFile(os.fsdecode(b"/nowhere/\xff.py"), 1, 1),)},
    "source changed": {"sources": (ComparedFile("/etc/passwd", 1, 1),)},
    "package gone": {"packages": (ComparedFile("/nowhere/x.dist-info/METADATA", 1, 1),)},
    "package changed": {"packages": (ComparedFile("/etc/passwd", 1, 1),)},
    "package changed in a directory": {
        "directories": (ComparedFile("/etc", 1, 1),),
        "packages": (ComparedFile("/nowhere/x.dist-info/RECORD", 1, 1),),
    },
    "directory gone": {"directories": (ComparedFile("/nowhere", 1, 1),)},
    "directory changed": {"directories": (ComparedFile("/etc", 1, 1),), "names": ("a", "passwd", "z")},
    "many": {"mapped": tuple(ComparedFile(f"/nowhere/{number}", 1, 1) for number in range(9))},
}


REASONS = {
    "protocol": "is of libcriu_py 9.9, whose copies speak protocol 99, and this version speaks protocol",
    "architecture": "the snapshot is for vax processors, this is a ",
    "processor": "this processor lacks amx_future zz, which the program may have chosen to use",
    "missing file": "/images/core-1.img cannot be read (No such file or directory); make the snapshot anew",
    "changed size": " bytes instead of 1; make the snapshot anew",
    "changed content": " is damaged: its checksum differs; make the snapshot anew",
    "mapped file missing": "/nowhere/libx.so, which the program has mapped, is not there (No such file or directory)",
    "mapped file changed": "/etc/passwd, which the program has mapped, was changed after the dump",
    "mapped file's mode": "/etc/passwd, which the program has mapped, has mode 0644, and at the dump 0600; chmod",
    "source missing": os.fsdecode(b"/nowhere/\xff.py, whose code the snapshot holds, is not there (No such file"),
    "source changed": "/etc/passwd, whose code the snapshot holds, was changed after the dump; make",
    "package gone": "/nowhere/x.dist-info/METADATA, of a package whose code the snapshot holds, is not there (No such",
    "package changed": "/etc/passwd, of a package whose code the snapshot holds, was changed after the dump; make",
    "package changed in a directory": "/nowhere/x.dist-info/RECORD, of a package whose code the snapshot holds, is not",
    "directory gone": "/nowhere, of the program's sys.path, cannot be read (No such file or directory); make",
    "directory changed": "/etc, of the program's sys.path, has other packages than at the dump; make the",
    "many": "put it back, or make the snapshot anew (--replace) (and 6 more)",
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_mismatch_is_refused_in_the_same_words(launcher: str, tmp_path: Path, name: str) -> None:
    """Python and the launcher say the same of it, and nothing else is wrong."""
    snap = write_snapshot(tmp_path / "snap", launch_of_here(**MISMATCHES[name]))
    ours, native = refusals(launcher, snap)
    assert native == ours
    assert REASONS[name] in native
    assert native.count("; make the snapshot anew") <= 1


@pytest.mark.parametrize(
    ("then", "now", "same"),
    [
        (1_500_000_000_123_456_789, 1_500_000_000_000_000_000, True),
        (1_500_000_000_123_456_789, 1_500_000_000_123_456_000, False),
        (1_500_000_000_123_456_789, 1_500_000_001_000_000_000, False),
        (1_500_000_000_000_000_000, 1_500_000_000_123_456_789, False),
        (-1_234_567_891, -2_000_000_000, True),
        (-1_234_567_891, -1_000_000_000, False),
    ],
)
@pytest.mark.parametrize("kind", ["mapped", "sources"])
def test_times_of_files_in_layers_of_an_image(
    launcher: str, tmp_path: Path, kind: str, then: int, now: int, *, same: bool
) -> None:
    """A file's time may have lost what is less than a second, which engines cut off, and nothing else."""
    file = tmp_path / "file"
    file.touch()
    os.utime(file, ns=(now, now))
    # Something else does not fit, such that nothing is restored.
    launch = launch_of_here(**{**MISMATCHES["missing file"], kind: (ComparedFile(str(file), 0, then),)})
    ours, native = refusals(launcher, write_snapshot(tmp_path / "snap", launch))
    assert native == ours
    assert ("was changed after the dump" in ours) is not same


RECORD = launch_record.encode(launch_of_here())
COMMAND_END = 48 + len("/bin/echo conventionally ")
DAMAGED = {
    "empty": b"",
    "another file": b"{}" * 100,
    "a few bytes": RECORD[:40],
    "cut in the command": RECORD[: COMMAND_END - 1],
    "flipped in the command": RECORD[:50] + b"\x7f" + RECORD[51:],
    "cut behind the command": RECORD[:COMMAND_END],
    "cut": RECORD[:-1],
    "extended": RECORD + b"x",
    "flipped": RECORD[:-9] + bytes([RECORD[-9] ^ 4]) + RECORD[-8:],
    "format": RECORD[:8] + struct.pack("<II", zlib.crc32(b"\x63\0\0\0" + RECORD[16:]), 99) + RECORD[16:],
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_record_is_refused_in_the_same_words(launcher: str, tmp_path: Path, name: str) -> None:
    """One sentence says what to do; the program starts conventionally where the command is there as it was written."""
    snap = write_snapshot(tmp_path / "snap", DAMAGED[name])
    ours, native = refusals(launcher, snap)
    assert native == ours
    assert native.startswith(f"{snap}/{launch_record.LAUNCH} ")
    assert native.endswith("; make the snapshot anew")
    done = start(launcher, str(snap), "x")
    if name in {"cut behind the command", "cut", "extended", "flipped", "format"}:
        assert (done.returncode, done.stdout) == (0, "conventionally x\n")
        assert done.stderr == f"libcriu-py: starting conventionally: {native}\n"
    else:
        assert (done.returncode, done.stdout, done.stderr) == (126, "", f"libcriu-py: {native}\n")
    assert (launch_record.command_of_damaged((snap / launch_record.LAUNCH).read_bytes()) is not None) == (
        done.returncode == 0
    )


def test_snapshot_of_an_older_format(launcher: str, snap: Path) -> None:
    """Both refuse in the same words what has a manifest only."""
    (snap / launch_record.LAUNCH).unlink()
    ours, native = refusals(launcher, snap)
    assert native == ours
    assert native.endswith("older versions of libcriu_py had; make the snapshot anew")


@pytest.mark.parametrize("version", ["0.0.1", "99"])
def test_snapshot_of_another_version_with_the_same_protocol(launcher: str, tmp_path: Path, version: str) -> None:
    """It is not refused for its version."""
    snap = write_snapshot(tmp_path / "snap", launch_of_here(package_version=version))
    assert Snapshot.open(snap).launch.package_version == version
    assert start(launcher, "--print-request", str(snap), text=False).returncode == 0


@pytest.mark.parametrize("who", ["directory", launch_record.LAUNCH])
def test_snapshot_that_others_can_write(launcher: str, snap: Path, who: str) -> None:
    """It is refused, and its recorded command is not started either."""
    path = snap if who == "directory" else snap / who
    path.chmod(path.stat().st_mode | 0o020)
    ours, native = refusals(launcher, snap)
    assert native == ours
    done = start(launcher, str(snap), text=False)
    assert (done.returncode, done.stdout) == (126, b"")


def test_no_snapshot(launcher: str, tmp_path: Path) -> None:
    """It says how to make one."""
    ours, native = refusals(launcher, tmp_path / "none")
    assert native == ours


def test_conventional_start_of_a_snapshot_that_does_not_fit(launcher: str, tmp_path: Path) -> None:
    """The recorded command is started with the arguments, after one line that --quiet drops."""
    snap = write_snapshot(tmp_path / "snap", launch_of_here(arch="vax"))
    argv = [launcher, str(snap), "a b", "--", "-x"]
    done = start(*argv)
    assert (done.returncode, done.stdout) == (0, "conventionally a b -- -x\n")
    assert done.stderr.startswith(f"libcriu-py: starting conventionally: {snap} cannot be restored here: ")
    assert done.stderr.count("\n") == 1
    argv.insert(1, "--quiet")
    done = start(*argv)
    assert (done.returncode, done.stdout, done.stderr) == (0, "conventionally a b -- -x\n", "")


@pytest.mark.parametrize(
    "arguments", [[], ["--mode"], ["--mode", "none", "x"], ["--nothing", "x"], ["--script"]], ids=" ".join
)
def test_wrong_command_line(launcher: str, arguments: list[str]) -> None:
    """The status is 2, and the usage is shown."""
    done = start(launcher, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: libcriu-py-run" in done.stderr


# ---- launch scripts --------------------------------------------------------


def test_launch_script_starts_the_program(tmp_path: Path) -> None:
    """It is executable text; where the snapshot does not fit, its own command is started with all arguments."""
    snap = write_snapshot(tmp_path / "snap", launch_of_here(arch="vax"))
    script = tmp_path / "mytool"
    write_launch_script(script, snap, mode="root", fallback=["/bin/echo", "mine", "ä\udcff", "\\n\n\\"])
    assert stat.S_IMODE(script.stat().st_mode) & 0o100
    done = start(script, "--quiet", "--", "b c", text=False)
    assert (done.returncode, done.stdout) == (0, b"mine \xc3\xa4\xff \\n\n\\ --quiet -- b c\n")
    assert b"starting conventionally" in done.stderr


def test_launch_script_that_cannot_be_written(tmp_path: Path) -> None:
    """What is in the way is told with the path that was asked for, and nothing is left beside it."""
    snap, taken = tmp_path / "snap", tmp_path / "taken"
    for directory in (snap, taken):
        directory.mkdir()
    problems = {
        snap: "would be in the snapshot",
        snap / "tool": "would be in the snapshot",
        taken: "is a directory",
        tmp_path / "none" / "tool": f"there is no directory {tmp_path}/none; make it: mkdir -p",
    }
    for path, problem in problems.items():
        with pytest.raises(CriuError, match=re.escape(f"the launch script {path} ") + ".*" + re.escape(problem)):
            write_launch_script(path, snap)
    problem = r"the launch script /proc/tool cannot be written(:| \()"  # by permission, or for root by trying
    with pytest.raises((CriuError, OSError), match=problem):
        write_launch_script("/proc/tool", snap)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["snap", "taken"]


def test_launch_script_moves_with_its_snapshot(tmp_path: Path) -> None:
    """A snapshot beside the script is found after both were moved, from wherever the script is started."""
    (tmp_path / "one").mkdir()
    write_snapshot(tmp_path / "one" / "snap", launch_of_here(arch="vax"))
    write_launch_script(tmp_path / "one" / "mytool", tmp_path / "one" / "snap")
    (tmp_path / "one").rename(tmp_path / "two")
    done = start("two/mytool", "x", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "conventionally x\n")


def test_launch_script_through_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: str) -> None:
    """Where the path of the launcher fits in no interpreter line a shell starts it."""
    place = tmp_path / "a place with spaces"
    place.mkdir()
    (place / "libcriu-py-run").symlink_to(launcher)
    monkeypatch.setattr(native_launcher, "find", lambda: str(place / "libcriu-py-run"))
    snap = write_snapshot(tmp_path / "snap", launch_of_here(arch="vax"))
    write_launch_script(tmp_path / "mytool", snap)
    done = start(tmp_path / "mytool", "a b")
    assert (done.returncode, done.stdout) == (0, "conventionally a b\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"script": 1, "snapshot": "x"}\n',
        TITLE,
        f"{TITLE}\n",
        f"{TITLE}9\nsnapshot: x\n",
        f"{TITLE}\nsnapshot: \n",
        f"{TITLE}\nsnapshot: x",
        f"{TITLE}\nsnapshot: x\nsnapshot: x\n",
        f"{TITLE}\nmode: root\nsnapshot: x\n",
        f"{TITLE}\nsnapshot: x\nmode: none\n",
        f"{TITLE}\nsnapshot: x\nfallback: a\nmode: root\n",
        f"{TITLE}\nsnapshot: x\nfallback:a\n",
        f"{TITLE}\nsnapshot: x\\y\n",
        f"{TITLE}\nsnapshot: x\\\n",
        f"{TITLE}\nsnapshot: x\n\n",
        f"{TITLE}\nsnapshot: x\0\n",
    ],
)
def test_file_that_is_no_launch_script(launcher: str, tmp_path: Path, text: str) -> None:
    """It is refused in one line."""
    script = tmp_path / "mytool"
    script.write_text(f"#!{launcher} --script\n{text}")
    done = start(launcher, "--script", script)
    assert (done.returncode, done.stdout) == (126, "")
    assert f"{script} is not a launch script" in done.stderr


def test_versions_are_the_same() -> None:
    """The numbers in the sources are those of the Python side."""
    assert f"#define REQUEST_PROTOCOL {launch_record.PROTOCOL}\n" in (CSRC / "restore" / "request.h").read_text()
    assert f"#define RECORD_FORMAT {launch_record.FORMAT}\n" in (CSRC / "restore" / "record.h").read_text()
    assert f'#define TITLE "{TITLE}"\n' in (CSRC / "launcher" / "script.c").read_text()
    assert f'version = "{launch_record.VERSION}"\n' in (ROOT / "pyproject.toml").read_text()
    assert libcriu_py.__version__ == launch_record.VERSION
