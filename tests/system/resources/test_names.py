"""Names of hosts and accounts: what the C library and its plugins remember of whom they asked."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import socketserver
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.selfdump import write_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

    Directories = Callable[[Account], Path]

RIGHTS = ("root", "rootless")
"""Modes in which a program may open the files of daemons, and may not."""
IN_PLACE = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
"""A shell command that runs a program with one file in the place of another."""


class _NameServer(socketserver.ThreadingUDPServer):
    """One that knows one address for all names."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, own: str, address: str) -> None:
        super().__init__((own, 53), _Query)
        self.answer = socket.inet_aton(address)


class _Query(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        """Answer a question for an IPv4 address, and have none for others (RFC 1035, 4.1)."""
        data, sock = self.request
        end = data.index(b"\0", 12) + 5
        (kind,) = struct.unpack("!H", data[end - 4 : end - 2])
        known = kind == 1
        header = data[:2] + struct.pack("!HHHHH", 0x8180, 1, known, 0, 0)
        answer = struct.pack("!HHHIH", 0xC00C, 1, 1, 0, 4) + self.server.answer if known else b""  # type: ignore[attr-defined]
        sock.sendto(header + data[12:end] + answer, self.client_address)


@pytest.fixture
def name_servers() -> Iterator[dict[str, str]]:
    """Two name servers; gives the address that each answers with by its own."""
    answers = {"127.9.0.1": "192.0.2.1", "127.9.0.2": "192.0.2.2"}
    servers = [_NameServer(own, address) for own, address in answers.items()]
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()
    yield answers
    for server, thread in zip(servers, threads, strict=True):
        server.shutdown()
        thread.join()
        server.server_close()


def test_name_servers(name_servers: dict[str, str], own_account: Account, directory_of: Directories) -> None:
    """Copies ask the name servers of the place that they are restored in, and not those that the original asked."""
    from tests.system.conftest import Mode

    code = """
    import json, socket
    from libcriu_py import checkpoint
    def ask():
        return socket.gethostbyname("host.test"), socket.getaddrinfo("host.test", 80, socket.AF_INET)[0][4][0]
    with checkpoint():
        before = ask()
    print(json.dumps([*before, *ask()]))
    """
    mode = Mode("root", "root", own_account)
    directory = directory_of(own_account)
    for own in name_servers:
        (directory / own).write_text(f"nameserver {own}\noptions timeout:5\n")
        (directory / own).chmod(0o644)
    first, second = (
        ["unshare", "--mount", "sh", "-c", IN_PLACE, "sh", directory / own, "/etc/resolv.conf"] for own in name_servers
    )
    script = write_program(mode, directory, code)
    command = [own_account.python, "-m", "libcriu_py"]
    taken = mode.run([*first, *command, "snapshot", "--self", "-o", directory / "snap", script])
    assert taken.returncode == 0, taken.stderr
    old, new = name_servers.values()
    for where, address in ((first, old), (second, new)):
        copy = mode.run([*where, *command, "run", "--no-fallback", directory / "snap"])
        assert json.loads(copy.stdout) == [old, old, address, address], copy.stderr


NSCD = """
for place in /run /var/cache; do mount -t tmpfs tmpfs $place; done
serve() {{
    mkdir -p /run/nscd /var/cache/nscd
    mount --bind "$1" /etc/hosts
    {nscd} --foreground --config-file {config} & daemon=$!
    until [ -S /run/nscd/socket ]; do sleep 0.01; done
}}
serve {first}
{dump} >&2 && {{
    kill $daemon
    wait $daemon
    rm -r /run/nscd /var/cache/nscd
    serve {second}
    {run}
}}
kill $daemon
wait $daemon
"""
"""A shell script that has one nscd at the dump, and another one at the restore."""
NSCD_CONFIG = "\n".join(
    f"{setting} hosts {value}"
    for setting, value in {
        "enable-cache": "yes",
        "check-files": "yes",
        "persistent": "yes",
        "shared": "yes",
        "max-db-size": "33554432",
    }.items()
)
SSSD = """
for place in /run /var/lib; do mount -t tmpfs tmpfs $place; done
mount --bind {switch} /etc/nsswitch.conf
serve() {{
    mkdir -p /var/lib/sss/pipes /var/lib/sss/mc
    chmod -R a+rx /var/lib/sss
    {python} {server} "$1" & daemon=$!
    until [ -S /var/lib/sss/pipes/nss ]; do sleep 0.01; done
}}
serve /home/first
{dump} >&2 && {{
    kill $daemon
    wait $daemon
    rm -r /var/lib/sss
    serve /home/second
    {run}
}}
kill $daemon
wait $daemon
"""
"""The same with two daemons that speak as SSSD does."""
SSSD_SERVER = """
import os, socketserver, struct, sys
# A cache that knows nobody: header, one record's place, four hashes (util/mmap_cache.h).
barrier, header = 0xF0000001, 56
fields = [barrier, 1, 1, 1, 42, 32, 8, 16, header, header + 32, header + 40, 0, barrier]
with open("/var/lib/sss/mc/passwd", "wb") as file:
    file.write(struct.pack("=13I4x", *fields) + bytes(40) + b"\\xff" * 16)
os.chmod("/var/lib/sss/mc/passwd", 0o644)
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while head := self.rfile.read(16):
            size, command, _, _ = struct.unpack("=4I", head)
            name = self.rfile.read(size - 16)
            if command == 1:  # SSS_GET_VERSION
                body = struct.pack("=I", 1)
            else:  # SSS_NSS_GETPWNAM and its like (sss_client/sss_cli.h)
                words = [b"someone", b"x", b"", sys.argv[1].encode(), b"/bin/sh"]
                body = struct.pack("=4I", 1, 0, 4242, 4242) + b"\\0".join(words) + b"\\0"
            self.wfile.write(struct.pack("=4I", 16 + len(body), command, 0, 0) + body)
            self.wfile.flush()
class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
os.umask(0)
Server("/var/lib/sss/pipes/nss", Handler).serve_forever()
"""


def unpacked(package: str) -> Path:
    """Return the directory that a package was unpacked in."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    path = Path(base, "libcriu_py", "unpacked", package)
    assert path.exists(), f"{path} is missing: scripts/install-test-tools makes it"
    return path


@pytest.mark.parametrize("name", RIGHTS)
def test_nscd(name: str, mode_named: Callable[[str], Mode], directory_of: Directories) -> None:
    """The databases of nscd, which its users can map but not open, are dropped; a copy maps those of its own nscd."""
    code = """
    import json, socket
    from libcriu_py import checkpoint
    def ask():
        with open("/proc/self/maps") as maps:
            before = [line.split()[5] for line in maps if "/nscd/" in line]
        address = socket.gethostbyname("host.test")
        with open("/proc/self/maps") as maps:
            return before, address, [line.split()[5] for line in maps if "/nscd/" in line]
    with checkpoint():
        first = ask()
    print(json.dumps([first, ask()]))
    """
    mode = mode_named(name)
    directory = directory_of(mode.account)
    (directory / "nscd.conf").write_text(NSCD_CONFIG)
    for number in (1, 2):
        (directory / f"hosts{number}").write_text(f"192.0.2.{number} host.test\n")
        (directory / f"hosts{number}").chmod(0o644)
    script = write_program(mode, directory, code)
    shell = NSCD.format(
        nscd=unpacked("nscd") / "usr/sbin/nscd",
        config=directory / "nscd.conf",
        first=directory / "hosts1",
        second=directory / "hosts2",
        dump=shlex.join([*mode.command, "snapshot", "--self", "-o", str(directory / "snap"), str(script)]),
        run=shlex.join([*mode.command, "run", "--no-fallback", str(directory / "snap")]),
    )
    done = run_as_root(shell)
    assert done.stdout, done.stderr
    database = "/var/cache/nscd/hosts"
    assert json.loads(done.stdout) == [[[], "192.0.2.1", [database]], [[], "192.0.2.2", [database]]], done.stderr


@pytest.mark.parametrize("name", RIGHTS)
def test_sssd(name: str, mode_named: Callable[[str], Mode], directory_of: Directories) -> None:
    """The connection of SSSD's plugin and its caches are let go; a copy asks the daemon that it finds."""
    code = """
    import contextlib, json, os, pwd, socket, stat
    from libcriu_py import checkpoint
    def held():
        with open("/proc/self/maps") as maps:
            found = [line.split()[5] for line in maps if "/var/lib/sss/" in line]
        for name in os.listdir("/proc/self/fd"):
            if os.path.exists(f"/proc/self/fd/{name}") and stat.S_ISSOCK(os.stat(int(name)).st_mode):
                with socket.socket(fileno=os.dup(int(name))) as other, contextlib.suppress(OSError):
                    found.append(other.getpeername())
        return sorted(item for item in found if item)
    def ask():
        before = held()
        # The first one learns that the cache was replaced, the next one opens the new one.
        pwd.getpwnam("someone")
        return before, pwd.getpwnam("someone").pw_dir, held()
    with checkpoint():
        first = ask()
    print(json.dumps([first, ask()]))
    """
    mode = mode_named(name)
    directory = directory_of(mode.account)
    plugin = "libnss_sss.so.2"
    (found,) = unpacked("libnss-sss").rglob(plugin)
    shutil.copy(found, directory / plugin)
    (directory / plugin).chmod(0o644)
    (directory / "nsswitch.conf").write_text("passwd: files sss\n")
    (directory / "nsswitch.conf").chmod(0o644)
    (directory / "sssd.py").write_text(SSSD_SERVER)
    script = write_program(mode, directory, code)
    command = [*mode.prefix, f"LD_LIBRARY_PATH={directory}", str(mode.account.python), "-m", "libcriu_py"]
    shell = SSSD.format(
        switch=directory / "nsswitch.conf",
        python=sys.executable,
        server=directory / "sssd.py",
        dump=shlex.join([*command, "snapshot", "--self", "-o", str(directory / "snap"), str(script)]),
        run=shlex.join([*command, "run", "--no-fallback", str(directory / "snap")]),
    )
    done = run_as_root(shell)
    assert done.stdout, done.stderr
    asked = ["/var/lib/sss/mc/passwd", "/var/lib/sss/pipes/nss"]
    assert json.loads(done.stdout) == [[[], "/home/first", asked], [[], "/home/second", asked]], done.stderr


def run_as_root(shell: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in a mount namespace of its own."""
    argv = ["unshare", "--mount", "sh", "-c", shell]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
