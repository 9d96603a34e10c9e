"""Write plans for the loader by hand, with a process that has no libc (tests/native/resumed.c)."""

from __future__ import annotations

import functools
import os
import shlex
import struct
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.native import plan as format_of_plan
from libcriu_py.native.plan import PAGE, Area, AreaFlag, Descriptor, File, Kind, Lock, Read, Watch
from tests.snapshots import launch_of_here, write_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Start = Callable[..., subprocess.CompletedProcess[bytes]]

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "libcriu_py" / "csrc"
CODE, COMMANDS, STACK, FS = 0x20000000, 0x21000000, 0x30000000, 0x40000000
WHY_OFFSET, RANGE_OFFSET = 0x800, 0xC00
SHARED, GROWS_DOWN, NO_RESERVE = AreaFlag.SHARED, AreaFlag.GROWS_DOWN, AreaFlag.NO_RESERVE
LOCKED, PROTECT, GUARD = AreaFlag.LOCKED, AreaFlag.PROTECT, AreaFlag.GUARD
REQUEST, OPEN, DUPLICATE, SOCKET_PAIR = Kind.REQUEST, Kind.OPEN, Kind.DUPLICATE, Kind.SOCKET_PAIR
PIPE, PIPE_END, EPOLL, EVENTFD = Kind.PIPE, Kind.PIPE_END, Kind.EPOLL, Kind.EVENTFD
TIMERFD, SIGNALFD, MEMFD, LISTENER, OTHER_END = (
    *(Kind.TIMERFD, Kind.SIGNALFD, Kind.MEMFD),
    *(Kind.LISTENER, Kind.OTHER_END),
)
DONE = 7
"""The status with which the process ends that has done what it was told."""
_FORMAT_AT = 8
"""Offset of the format in a plan."""


class Plan(NamedTuple):
    """All that a plan has."""

    areas: Sequence[Area] = ()
    reads: Sequence[tuple[int, int, int]] = ()
    files: Sequence[File] = ()
    descriptors: Sequence[Descriptor] = ()
    watches: Sequence[tuple[int, int, int, int]] = ()
    special: tuple[int, int, int, int] = (0, 0, 0, 0)
    vdso: bytes = b""
    threads: int = 1
    xcr0: int = 0
    components: Sequence[int] = (0,) * 64
    in_vdso: int = 0
    resume: int = 0
    stack: int = 0
    fs: int = 0
    clocks: tuple[int, int] = (0, 0)
    locks: Sequence[Lock] = ()
    format: int = format_of_plan.FORMAT

    def encode(self) -> bytes:
        """Write it, whatever is in it."""
        plan = format_of_plan.Plan(
            xcr0=self.xcr0,
            components=tuple(zip(self.components[::2], self.components[1::2], strict=True)),
            special=self.special[:2],
            vdso=self.special[2:],
            vdso_content=self.vdso,
            threads=self.threads,
            in_vdso=bool(self.in_vdso),
            monotonic=self.clocks[0],
            boottime=self.clocks[1],
            resume=self.resume,
            stack=self.stack,
            fs=self.fs,
            areas=tuple(self.areas),
            reads=tuple(map(Read._make, self.reads)),
            files=tuple(self.files),
            descriptors=tuple(self.descriptors),
            watches=tuple(map(Watch._make, self.watches)),
            locks=tuple(self.locks),
        )
        data = bytearray(format_of_plan.encode(plan))
        struct.pack_into("<I", data, _FORMAT_AT, self.format)
        return bytes(data)


class Image(NamedTuple):
    """A program without libc, as memory from CODE on: its code, whole pages, and its variables."""

    code: bytes
    data: bytes
    entry: int


@functools.cache
def resumed() -> Image:
    """Return the process that tests resume."""
    with tempfile.TemporaryDirectory() as directory:
        program, script = Path(directory, "resumed"), Path(directory, "script")
        compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
        flags = ["-O1", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-pie", "-no-pie"]
        flags += ["-mgeneral-regs-only", "-Wall", "-Wextra", "-Werror", f"-I{CSRC}", "-Wl,--build-id=none"]
        script.write_text(
            f"ENTRY(resume) SECTIONS {{ . = {CODE:#x}; .text : {{ *(.text*) *(.rodata*) . = ALIGN({PAGE}); }}"
            f" .data : {{ *(.data*) *(.bss*) BYTE(0) . = ALIGN({PAGE}); }}"
            " /DISCARD/ : { *(.eh_frame*) *(.note*) *(.comment*) } }"
        )
        source = str(ROOT / "tests" / "native" / "resumed.c")
        subprocess.run([*compiler, *flags, "-o", program, "-T", script, source], check=True)
        for section in ("text", "data"):
            image = Path(directory, section)
            subprocess.run(["objcopy", "-O", "binary", "-j", f".{section}", program, image], check=True)
        names = subprocess.run(["nm", program], check=True, capture_output=True, text=True).stdout
        entry = next(int(line.split()[0], 16) for line in names.splitlines() if line.endswith(" resume"))
        return Image(Path(directory, "text").read_bytes(), Path(directory, "data").read_bytes(), entry)


def vdso_of_here() -> tuple[tuple[int, int, int, int], bytes]:
    """Return where the kernel's pages are in a plan, with what this kernel's vdso has in it."""
    ranges = []
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        if line.endswith(("[vvar]", "[vvar_vclock]", "[vdso]")):
            start, end = (int(number, 16) for number in line.split()[0].split("-"))
            ranges.append((start, end))
    first, (start, end) = ranges[0][0], ranges[-1]
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        memory.seek(start)
        content = memory.read(end - start)
    base = 0x7FFF00000000
    return (base, base + end - first, base + start - first, base + end - first), content


def plan_of(commands: str = "o", why: str = "test", shown: tuple[int, int] = (0, 0)) -> tuple[Plan, bytes]:
    """Return the plan of a process that does what the commands say, and its memory.img."""
    code, data, entry = resumed()
    words = bytearray(PAGE)
    words[: len(commands) + 1] = commands.encode() + b"\0"
    words[WHY_OFFSET : WHY_OFFSET + len(why) + 1] = why.encode() + b"\0"
    struct.pack_into("<QQ", words, RANGE_OFFSET, *shown)
    thread = bytearray(PAGE)
    thread[40:48] = struct.pack("<Q", 0x1234)
    memory = code + data + bytes(words) + bytes(thread)
    border, end = CODE + len(code), CODE + len(code) + len(data)
    at = end - CODE
    special, vdso = vdso_of_here()
    plan = Plan(
        areas=(
            Area(CODE, border, 5, file=0),
            Area(border, end, 3, offset=len(code), file=0),
            Area(COMMANDS, COMMANDS + PAGE, 1, offset=at, file=0),
            Area(STACK, STACK + 16 * PAGE, 3, flags=GROWS_DOWN),
            Area(FS, FS + PAGE, 3),
        ),
        reads=((FS, FS + PAGE, at + PAGE),),
        files=(File(b"memory.img", len(memory), 0, 1),),
        special=special,
        vdso=vdso,
        resume=entry,
        stack=STACK + 16 * PAGE - 64,
        fs=FS,
    )
    return plan, memory


def write_native(directory: Path, plan: Plan | bytes, memory: bytes, **changes: object) -> Path:
    """Make a native snapshot, without a sum of its files."""
    write_snapshot(directory, launch_of_here(engine="native", **changes))
    for name, content in (("plan", plan if isinstance(plan, bytes) else plan.encode()), ("memory.img", memory)):
        (directory / name).touch(mode=0o600)
        (directory / name).write_bytes(content)
    return directory
