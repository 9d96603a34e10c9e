"""
The launcher's formats are those of the Python side: requests, manifests, launch scripts.

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
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import pytest

from libcriu_py.copies import launcher as native_launcher
from libcriu_py.copies.launch_script import SCRIPT_FORMAT, write_launch_script
from libcriu_py.copies.restore import make_request
from libcriu_py.errors import CriuError, SnapshotError
from libcriu_py.snapshot import identity, manifest as snapshot, request
from libcriu_py.snapshot.manifest import SLOTS, Snapshot

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "libcriu_py" / "csrc"
SANITIZERS = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
TIMEOUT = 100


def compile_program(name: str, directory: Path) -> Path:
    """Compile a test program of the formats."""
    program = directory / name
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    units = [str(CSRC / f"{name}.c") for name in ("files", "json", "problem", "request", "compatibility")]
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


def manifest_of_here(**changes: Any) -> dict[str, Any]:
    """Make a manifest with all that is needed, of this machine."""
    return {
        "format": snapshot.FORMAT,
        "machine": identity.machine_identity(),
        "python": {},
        "command": ["/bin/echo", "conventionally"],
        "pids": [4_000_000],
        "uid": os.geteuid(),
        "slots": {name: f"nowhere/{name}" for name in SLOTS},
        "images_key": "nowhere/images",
        "files": {},
        "mapped": [],
        "criu_version": "4.2",
        **changes,
    }


def write_snapshot(directory: Path, text: str | bytes) -> Path:
    """Make a snapshot directory that has a manifest only."""
    directory.mkdir(mode=0o700)
    manifest = directory / snapshot.MANIFEST
    manifest.touch(mode=0o600)
    manifest.write_bytes(text.encode() if isinstance(text, str) else text)
    return directory


@pytest.fixture(name="snap")
def snap_fixture(tmp_path: Path) -> Path:
    """Return such a snapshot, with a name that is not ASCII and not UTF-8."""
    return write_snapshot(tmp_path / os.fsdecode(b"sn\xc3\xa4p-\xff"), json.dumps(manifest_of_here()))


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


# ---- JSON ------------------------------------------------------------------


def canonical(value: Any) -> str:
    """Print a value as the test program does."""
    if isinstance(value, dict):
        return "{" + ",".join(f'"{os.fsencode(name).hex()}":{canonical(item)}' for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, str):
        return f'"{os.fsencode(value).hex()}"'
    if isinstance(value, float) or (type(value) is int and not -(2**63) <= value < 2**63):
        return "real"
    return json.dumps(value)


def read(formats: Path, texts: list[bytes]) -> list[str]:
    """Let the launcher's reader read texts."""
    done = start(formats, "read", input=b"\0".join(texts) + b"\0", check=True, text=False)
    return list(done.stdout.decode().splitlines())


GOOD = [
    "null",
    " [ ] ",
    "{}",
    '{"a": {"b": [1, -2, 0, true, false, null, "x"]}}',
    "[9223372036854775807, -9223372036854775808, 9223372036854775808, -9223372036854775809, 1e5, 1.5E-3, -0.0]",
    r'["\"\\\/\b\f\n\r\t\u00e9\u20ac\ud83d\ude00\udc80\udcff", "é€😀"]',
    "[" * 31 + "]" * 31,
]


def test_good_texts_are_read(formats: Path) -> None:
    """What Python reads from a text the launcher reads too."""
    assert read(formats, [text.encode() for text in GOOD]) == [canonical(json.loads(text)) for text in GOOD]


BAD = [
    b"",
    b"nul",
    b"NaN",
    b"Infinity",
    b"01",
    b"+1",
    b".5",
    b"1.",
    b"1e",
    b"--1",
    b"[1,]",
    b"[1 2]",
    b"[1",
    b"{1: 2}",
    b'{"a" 1}',
    b'{"a": 1,}',
    b'{"a": 1, "a": 2}',
    b'"a',
    b'"\x01"',
    b'"\\x41"',
    b'"\\u12"',
    b'"\\u0000"',
    b'"\\ud800"',
    b'"\\ud800\\u0041"',
    b'"\\udc00"',
    b'"\xff"',
    b'"\xc0\x80"',
    b'"\xed\xa0\x80"',
    b'"\xf4\x90\x80\x80"',
    b'"\xe2\x82"',
    b"null null",
    b"[" * 40 + b"]" * 40,
]


def test_bad_texts_are_refused(formats: Path) -> None:
    """No extension of JSON, no string that is not UTF-8 or holds a NUL, no name twice."""
    assert [line[:4] for line in read(formats, BAD)] == ["no: "] * len(BAD)


def random_value(source: random.Random, depth: int) -> Any:
    """Make some value that Python could have written."""
    kind = source.randrange(7 if depth else 5)
    if kind == 5:
        return [random_value(source, depth - 1) for _ in range(source.randrange(5))]
    if kind == 6:
        return {f"{n}{random_text(source)}": random_value(source, depth - 1) for n in range(source.randrange(5))}
    number = source.randrange(-(2**63), 2**63) >> source.randrange(64)
    values: tuple[Any, ...] = (None, source.random() < 0.5, number, source.random(), random_text(source))
    return values[kind]


def random_text(source: random.Random) -> str:
    """Make a text of code points from everywhere, and of bytes that are no UTF-8."""
    size = source.randrange(8)
    points = (source.choice((0x7F, 0x7FF, 0xD7FF, 0x10FFFF)) for _ in range(size))
    text = "".join(chr(source.randint(1, limit)) for limit in points)
    return "".join("?" if "\ud800" <= letter <= "\udfff" else letter for letter in text) + source.choice(("", "\udcff"))


@pytest.mark.parametrize("ascii_only", [True, False])
def test_random_values_are_read(formats: Path, *, ascii_only: bool) -> None:
    """What Python's json writes is read as it was, in both of its forms."""
    source = random.Random(20)  # the same ones in each run
    values = [random_value(source, 5) for _ in range(500)]
    texts = [json.dumps(value, ensure_ascii=ascii_only, indent=source.choice((None, 1))) for value in values]
    if not ascii_only:
        texts = [text.replace("\udcff", "\\udcff") for text in texts]
    assert read(formats, [text.encode() for text in texts]) == list(map(canonical, values))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_damaged_manifests_do_no_harm(formats: Path, seed: int) -> None:
    """The sanitizers find nothing wrong with how damaged manifests are read and used."""
    shared = [{"key": name, "file": f"memory/{name}", "size": 1} for name in "yz"]
    memory = {"kind": "map", "key": "x", "file": "memory.img", "size": 1, "shared": shared}
    sources = [{"path": "/nowhere/x.py", "size": 1, "mtime_ns": 1}]
    text = json.dumps(manifest_of_here(memory=memory, sources=sources), indent=1)
    argv = [str(formats), "mutate", str(seed), "4000"]
    done = start(*argv, input=text)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout.split()[0]) > 100


def test_target_of_the_fuzzer_does_no_harm(tmp_path: Path) -> None:
    """The inputs that it starts from are sound, and some thousands that chance makes of them are refused."""
    target = compile_program("fuzz", tmp_path)
    seeds = sorted((ROOT / "tests" / "native" / "seeds").iterdir())
    assert {seed.read_bytes()[:1] for seed in seeds} == {b"m", b"s", b"l", b"r"}
    for seed in seeds:
        done = start(target, seed)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = start(target, "1", tmp_path / "last", *seeds)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout.split()[0]) > 1000
    assert not (tmp_path / "last").exists()


# ---- manifests -------------------------------------------------------------


def refusals(launcher: str, snap: Path) -> tuple[str, str]:
    """Return in whose words Python and the launcher refuse a snapshot."""
    with pytest.raises(SnapshotError) as refused:
        identity.refuse_mismatches(Snapshot.open(snap))
    argv = [launcher, "--no-fallback", str(snap)]
    done = start(*argv, text=False)
    assert (done.returncode, done.stdout) == (126, b"")
    return str(refused.value), os.fsdecode(done.stderr).removeprefix("libcriu-py: ").removesuffix("\n")


MISMATCHES: dict[str, dict[str, Any]] = {
    "format": {"format": 99},
    "architecture": {"machine": {**identity.machine_identity(), "arch": "vax"}},
    "processor": {"machine": {**identity.machine_identity(), "cpu_flags": ["amx_future", *identity.cpu_flags(), "zz"]}},
    "missing file": {"files": {"images/core-1.img": {"size": 1, "sha256": ""}}},
    "changed size": {"files": {snapshot.MANIFEST: {"size": 1, "sha256": ""}}},
    "mapped file missing": {"mapped": [{"path": "/nowhere/libx.so", "size": 1, "mtime_ns": 1}]},
    "mapped file changed": {"mapped": [{"path": "/etc/passwd", "size": 1, "mtime_ns": 1}]},
    "mapped file's mode": {
        "mapped": [
            {
                "path": "/etc/passwd",
                "size": Path("/etc/passwd").stat().st_size,
                "mtime_ns": Path("/etc/passwd").stat().st_mtime_ns,
                "mode": 0o100600,
            }
        ]
    },
    "source missing": {"sources": [{"path": os.fsdecode(b"/nowhere/\xff.py"), "size": 1, "mtime_ns": 1}]},
    "source changed": {"sources": [{"path": "/etc/passwd", "size": 1, "mtime_ns": 1}]},
    "many": {"mapped": [{"path": f"/nowhere/{number}", "size": 1, "mtime_ns": 1} for number in range(9)]},
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_mismatch_is_refused_in_the_same_words(launcher: str, tmp_path: Path, name: str) -> None:
    """The launcher compares what Python compares, and says the same of it."""
    snap = write_snapshot(tmp_path / "snap", json.dumps(manifest_of_here(**MISMATCHES[name])))
    ours, native = refusals(launcher, snap)
    assert native == ours


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
    entry = {"path": str(file), "size": 0, "mtime_ns": then}
    # Something else does not fit, such that nothing is restored.
    manifest = manifest_of_here(**{**MISMATCHES["missing file"], kind: [entry]})
    ours, native = refusals(launcher, write_snapshot(tmp_path / "snap", json.dumps(manifest)))
    assert native == ours
    assert ("was changed after the dump" in ours) is not same


@pytest.mark.parametrize("name", ["command", "pids", "files", "slots", "images_key", "machine", "mapped", "uid"])
def test_manifest_that_lacks_something(launcher: str, tmp_path: Path, name: str) -> None:
    """What a restore needs is asked for before anything is done."""
    manifest = manifest_of_here()
    del manifest[name]
    ours, native = refusals(launcher, write_snapshot(tmp_path / "snap", json.dumps(manifest)))
    assert native == ours


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b'{"format": 1}'])
def test_manifest_that_is_none(launcher: str, tmp_path: Path, text: bytes) -> None:
    """Both refuse it, though not in the same words where it is damaged."""
    ours, native = refusals(launcher, write_snapshot(tmp_path / "snap", text))
    assert ours.split(" ")[0] == native.split(" ")[0]
    assert "make the snapshot anew" in native


@pytest.mark.parametrize("who", ["directory", snapshot.MANIFEST])
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
    snap = write_snapshot(tmp_path / "snap", json.dumps(manifest_of_here(**MISMATCHES["architecture"])))
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
    snap = write_snapshot(tmp_path / "snap", json.dumps(manifest_of_here(**MISMATCHES["architecture"])))
    script = tmp_path / "mytool"
    write_launch_script(script, snap, mode="root", fallback=["/bin/echo", "mine", "ä\udcff"])
    assert stat.S_IMODE(script.stat().st_mode) & 0o100
    done = start(script, "--quiet", "--", "b c", text=False)
    assert (done.returncode, done.stdout) == (0, b"mine \xc3\xa4\xff --quiet -- b c\n")
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
    write_snapshot(tmp_path / "one" / "snap", json.dumps(manifest_of_here(**MISMATCHES["architecture"])))
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
    snap = write_snapshot(tmp_path / "snap", json.dumps(manifest_of_here(**MISMATCHES["architecture"])))
    write_launch_script(tmp_path / "mytool", snap)
    done = start(tmp_path / "mytool", "a b")
    assert (done.returncode, done.stdout) == (0, "conventionally a b\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"script": 2, "snapshot": "x"}',
        '{"script": 1}',
        '{"script": 1, "snapshot": "x", "mode": "none"}',
        '{"script": 1, "snapshot": "x", "fallback": []}',
        '{"script": 1, "snapshot": "x", "fallback": [1]}',
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
    assert f"#define REQUEST_PROTOCOL {request.PROTOCOL}\n" in (CSRC / "request.h").read_text()
    assert f"#define MANIFEST_FORMAT {snapshot.FORMAT}\n" in (CSRC / "manifest.h").read_text()
    assert f'"script"), -1) != {SCRIPT_FORMAT})' in (CSRC / "script.c").read_text()
