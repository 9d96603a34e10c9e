"""Start copies by DMTCP, which checkpoints programs without help of the kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common import RunError, measure
from benchmarks.snapshots import Unavailable, environment
from benchmarks.variants import DMTCP, Variant

if TYPE_CHECKING:
    from benchmarks.scenarios import Scenario

PROGRAM = Path(__file__).resolve().parent / "peers" / "dmtcp_program.py"
COMMANDS = ("dmtcp_launch", "dmtcp_command", "dmtcp_restart")
TIMEOUT = 120.0  # seconds for the imports, and for the checkpoint
PAUSE = 0.05  # seconds between looks


def dmtcp(scenario: Scenario, directory: Path) -> Variant:
    """
    Restart a program from a checkpoint that was taken when its imports were done.

    Args:
        scenario: The program.
        directory: For the checkpoint; it is made.

    Raises:
        Unavailable: DMTCP is not installed, or does not checkpoint this program.
    """
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing:
        message = "DMTCP is not installed (its commands are looked for on PATH; Debian has no package of it since 12)"
        raise Unavailable(message)
    directory.mkdir()
    try:
        image = checkpoint(scenario, directory)
    except (RunError, subprocess.SubprocessError) as error:
        message = f"DMTCP of {scenario.name}: {error}"
        raise Unavailable(message) from error
    argv = [str(shutil.which("dmtcp_restart")), "--new-coordinator", "--coord-port", "0", "-q", "-q"]
    argv += ["--ckptdir", str(directory), str(image)]
    return Variant(DMTCP, lambda: measure(argv, env=environment(), expect=scenario.expect))


def checkpoint(scenario: Scenario, directory: Path) -> Path:
    """
    Start the program, wait for its imports, checkpoint it, and end it.

    Args:
        scenario: The program.
        directory: For the image.

    Returns:
        The image.

    Raises:
        RunError: It did not work within TIMEOUT.
    """
    ready, go, port = directory / "ready", directory / "go", directory / "port"
    argv = ["dmtcp_launch", "--new-coordinator", "--coord-port", "0", "--port-file", str(port), "--ckptdir"]
    argv += [str(directory), "--no-gzip", "-q", "-q", sys.executable, str(PROGRAM), scenario.program.stem]
    env = {**environment(), **scenario.env}
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*argv, str(ready), str(go)], env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        wait_for(ready, process, log)
        command = ["dmtcp_command", "--coord-port", port.read_text(encoding="ascii").strip()]
        subprocess.run([*command, "--bcheckpoint"], check=True, capture_output=True, timeout=TIMEOUT, env=env)
        subprocess.run([*command, "--quit"], check=True, capture_output=True, timeout=TIMEOUT, env=env)
        process.wait(TIMEOUT)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    go.touch()  # a restarted copy sees it at once, and goes on
    images = sorted(directory.glob("ckpt_*.dmtcp"))
    if len(images) != 1:
        message = f"{len(images)} images instead of one: {log.read_text(encoding='utf-8', errors='replace')[-200:]}"
        raise RunError(message)
    return images[0]


def wait_for(path: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    """
    Wait until a file is there.

    Args:
        path: The file.
        process: What makes it.
        log: What that has said.

    Raises:
        RunError: It has ended, or takes too long.
    """
    end = time.monotonic() + TIMEOUT
    while not os.path.lexists(path):
        if process.poll() is not None or time.monotonic() > end:
            message = f"no {path.name}: {log.read_text(encoding='utf-8', errors='replace')[-200:]}"
            raise RunError(message)
        time.sleep(PAUSE)
