"""Kernels of Jupyter that are copies, by jupyter_client as every front end uses it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = [str(Path(sys.executable).parent / "libcriu-py"), "kernel"]
IS_COPY = "'libcriu_py.program.noting' in __import__('sys').modules"
PATIENCE = 60
CLIENT = """
import sys
from jupyter_client.manager import KernelManager
manager = KernelManager(kernel_name="warm")
manager.start_kernel()
client = manager.client()
client.start_channels()
client.wait_for_ready(timeout=60)
print(manager.provisioner.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Install a kernel with pandas."""
    place = tmp_path_factory.mktemp("jupyter")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
            patch.setenv(name, str(place / name))
        patch.delenv("PYTEST_CURRENT_TEST", raising=False)
        (place / "empty").mkdir()
        patch.chdir(place / "empty")
        subprocess.run([*COMMAND, "install", "--name", "warm", "--preload", "pandas"], check=True)
        yield place


class Notebook:
    """A kernel and its client."""

    def __init__(self, **variables: str) -> None:
        self.manager = KernelManager(kernel_name="warm")
        self.manager.start_kernel(stderr=subprocess.DEVNULL, env={**os.environ, **variables})
        self.client = self.manager.client()
        self.client.start_channels()

    def ready(self) -> Notebook:
        """Wait until it answers."""
        self.client.wait_for_ready(timeout=PATIENCE)
        return self

    def run(self, code: str, *, interrupted_at: str = "") -> tuple[str, str]:
        """Run a cell; return its status, or the error's name, and what it printed."""
        said: list[str] = []

        def hear(message: dict[str, Any]) -> None:
            text = message["content"].get("text", "")
            said.append(text)
            if interrupted_at and interrupted_at in text:
                self.manager.interrupt_kernel()

        reply = self.client.execute_interactive(code, timeout=PATIENCE, output_hook=hear)["content"]
        return reply.get("ename", reply["status"]), "".join(said)

    def value(self, expression: str) -> Any:
        """Return what an expression is in the kernel."""
        status, said = self.run(f"print(repr({expression}))")
        assert status == "ok"
        return eval(said)  # noqa: S307 - of our own kernel

    def end(self) -> None:
        """Leave nothing."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


@pytest.fixture
def notebook() -> Iterator[Notebook]:
    """Start a kernel."""
    made = Notebook()
    try:
        yield made.ready()
    finally:
        made.end()


def test_many_at_once() -> None:
    """Each is a copy of its own, with pandas, and random numbers of its own."""
    notebooks = [Notebook() for _ in range(8)]
    try:
        seen = [book.ready().value(f"({IS_COPY}, __import__('os').getpid())") for book in notebooks]
        drawn = [book.value("(__import__('random').random(), __import__('uuid').uuid4().hex)") for book in notebooks]
        frames = [book.value("__import__('pandas').DataFrame({'a': [1, 2]}).a.sum().item()") for book in notebooks]
    finally:
        for book in notebooks:
            book.end()
    assert [is_copy for is_copy, _ in seen] == [True] * 8
    assert [len(set(column)) for column in ([pid for _, pid in seen], *zip(*drawn, strict=True))] == [8, 8, 8]
    assert frames == [3] * 8


@pytest.mark.parametrize("terminal", ["xterm-256color", "dumb", ""])
def test_terminal_of_the_server(terminal: str) -> None:
    """A server that was started elsewhere than the kernel was installed has copies too."""
    notebook = Notebook(TERM=terminal)
    try:
        assert notebook.ready().value(f"({IS_COPY}, __import__('os').environ['TERM'])") == (True, "xterm-color")
    finally:
        notebook.end()


def test_interrupt(notebook: Notebook) -> None:
    """A cell is interrupted, and the kernel goes on with what it had."""
    assert notebook.run("value = 5") == ("ok", "")
    for wait in ("while True: pass", "import time; time.sleep(60)"):
        status, _ = notebook.run(f"print('begins', flush=True)\n{wait}", interrupted_at="begins")
        assert status == "KeyboardInterrupt"
    assert notebook.value("value") == 5


def test_restart(notebook: Notebook) -> None:
    """It is another copy, which knows nothing of the first."""
    assert notebook.run("value = 5")[0] == "ok"
    before = notebook.value("__import__('os').getpid()")
    notebook.manager.restart_kernel(stderr=subprocess.DEVNULL)
    notebook.ready()
    assert notebook.run("value")[0] == "NameError"
    assert notebook.value(f"({IS_COPY}, __import__('os').getpid() != {before})") == (True, True)


def test_shutdown(notebook: Notebook) -> None:
    """It ends by itself when it is asked to, after what is registered for that."""
    code = "import atexit, pathlib\natexit.register(lambda: pathlib.Path('ended').write_text('yes'))"
    assert notebook.run(code)[0] == "ok"
    process = notebook.manager.provisioner.process
    notebook.manager.shutdown_kernel(now=False)
    assert process is None or process.poll() is not None
    assert Path("ended").read_text() == "yes"


def test_stdin_display_and_completion(notebook: Notebook) -> None:
    """What goes over other channels than the shell's works."""
    client = notebook.client
    answer: Any = lambda _: client.input("an answer")  # noqa: E731 - a hook
    said: list[str] = []
    hear: Any = lambda message: said.append(message["content"].get("text", ""))  # noqa: E731
    client.execute_interactive(
        "print(input('?'))", allow_stdin=True, stdin_hook=answer, output_hook=hear, timeout=PATIENCE
    )
    assert "an answer" in "".join(said)
    reply = client.complete("import pand", reply=True, timeout=PATIENCE)
    assert "pandas" in reply["content"]["matches"]
    reply = client.execute_interactive("%timeit -n1 -r1 1\n!echo hello", output_hook=hear, timeout=PATIENCE)
    assert (reply["content"]["status"], "hello" in "".join(said)) == ("ok", True)


def test_dies_with_its_client() -> None:
    """A kernel whose client was killed ends by itself, as ipykernel has it."""
    client = subprocess.Popen([sys.executable, "-c", CLIENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    assert client.stdin is not None
    kernel = os.pidfd_open(int(client.stdout.readline()))
    try:
        client.kill()
        client.wait()
        assert select.select([kernel], [], [], PATIENCE)[0]
    finally:
        if not select.select([kernel], [], [], 0)[0]:
            signal.pidfd_send_signal(kernel, signal.SIGKILL)
        os.close(kernel)
        client.stdin.close()
        client.stdout.close()


def test_list_and_remove(warm: Path) -> None:
    """The command knows its kernels alone, and removes all of one."""
    subprocess.run([*COMMAND, "install", "--name", "other"], check=True, stdout=subprocess.DEVNULL)
    listed = subprocess.run([*COMMAND, "list"], check=True, capture_output=True, text=True).stdout
    kernels = warm / "JUPYTER_DATA_DIR" / "kernels"
    lines = [f"other: {kernels}/other, preloaded: what kernels need", f"warm: {kernels}/warm, preloaded: pandas"]
    assert listed.splitlines() == lines
    subprocess.run([*COMMAND, "remove", "--name", "other"], check=True)
    assert [path.name for path in kernels.iterdir()] == ["warm"]
    refused = subprocess.run([*COMMAND, "remove", "--name", "python3"], check=False, capture_output=True)
    assert (refused.returncode, "python3" in KernelSpecManager().find_kernel_specs()) == (1, True)
