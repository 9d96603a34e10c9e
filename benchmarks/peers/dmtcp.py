"""Start copies by DMTCP, which checkpoints programs without help of the kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.measure import RunError, Unavailable, measure
from benchmarks.scenarios import Scenario
from benchmarks.snapshots import environment
from benchmarks.ways import Start

PROGRAM = Path(__file__).resolve().with_name("dmtcp_program.py")
COMMANDS = ("dmtcp_launch", "dmtcp_command", "dmtcp_restart")
TIMEOUT = 120.0  # seconds for the imports, and for the checkpoint
PAUSE = 0.05  # seconds between looks


def dmtcp(scenario: Scenario, directory: Path) -> Start:
    """Return what restarts a program from a checkpoint, in a new directory, taken when its imports were done."""
    if not all(map(shutil.which, COMMANDS)):
        message = "DMTCP is not installed (its commands are looked for on PATH; Debian has no package of it since 12)"
        raise Unavailable(message)
    directory.mkdir()
    try:
        image = checkpoint(scenario, directory)
    except (RunError, subprocess.SubprocessError) as error:
        raise Unavailable(f"DMTCP of {scenario.name}: {error}") from error
    argv = [str(shutil.which("dmtcp_restart")), "--new-coordinator", "--coord-port", "0", "-q", "-q"]
    argv += ["--ckptdir", str(directory), str(image)]
    return lambda: measure(argv, env=environment(), expect=scenario.expect)


def checkpoint(scenario: Scenario, directory: Path) -> Path:
    """Start the program, wait for its imports, checkpoint it, end it, and return the image."""
    ready, go, port, log = (directory / name for name in ("ready", "go", "port", "log"))
    argv = ["dmtcp_launch", "--new-coordinator", "--coord-port", "0", "--port-file", str(port), "--ckptdir"]
    argv += [str(directory), "--no-gzip", "-q", "-q", sys.executable, str(PROGRAM), str(scenario.program)]
    env = {**environment(), **scenario.env}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*argv, str(ready), str(go)], env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        wait_for(ready, process, log)
        command = ["dmtcp_command", "--coord-port", port.read_text(encoding="ascii").strip()]
        for word in ("--bcheckpoint", "--quit"):
            subprocess.run([*command, word], check=True, capture_output=True, timeout=TIMEOUT, env=env)
        process.wait(TIMEOUT)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    go.touch()  # a restarted copy sees it at once, and goes on
    images = sorted(directory.glob("ckpt_*.dmtcp"))
    if len(images) != 1:
        raise RunError(f"{len(images)} images instead of one: {tail(log)}")
    return images[0]


def wait_for(path: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a process has made a file, for as long as it runs, but no longer than TIMEOUT."""
    end = time.monotonic() + TIMEOUT
    while not os.path.lexists(path):
        if process.poll() is not None or time.monotonic() > end:
            raise RunError(f"no {path.name}: {tail(log)}")
        time.sleep(PAUSE)


def tail(log: Path) -> str:
    """Return the end of what a process has said."""
    return log.read_text(encoding="utf-8", errors="replace")[-200:]
