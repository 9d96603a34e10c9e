"""scripts/install-criu: what it finds, what it says, and how it reads apt's sources."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"


def install_criu(
    home: Path, *arguments: str | Path, kernel: str = "6.1.0-13-amd64", path: str = os.environ["PATH"]
) -> subprocess.CompletedProcess[str]:
    """Run the script with a home directory of its own, on a machine whose `uname -r` says what is given."""
    programs = home / "programs"
    programs.mkdir(exist_ok=True)
    (programs / "uname").write_text(f"#!/bin/sh\necho {kernel}\n", encoding="ascii")
    (programs / "uname").chmod(0o755)
    env = {"HOME": str(home), "PATH": f"{programs}:{path}"}
    argv = [str(SCRIPTS / "install-criu"), *map(str, arguments)]
    return subprocess.run(argv, check=False, capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL)


def make_prefix(prefix: Path, version: str) -> Path:
    """Make a prefix whose criu program says that it is of a version."""
    (prefix / "include" / "criu").mkdir(parents=True)
    (prefix / "include" / "criu" / "criu.h").touch()
    (prefix / "sbin").mkdir()
    criu = prefix / "sbin" / "criu"
    criu.write_text(f"#!/bin/sh\necho 'Version: {version}'\n", encoding="ascii")
    criu.chmod(0o755)
    return prefix


def built_prefix(prefix: Path, kind: str, recipe: int | None = None) -> Path:
    """Make a prefix as the script leaves one that it has built, in the way of today if no other is given."""
    make_prefix(prefix, "4.2.1")
    made = re.search(r"^readonly recipe=(\d+)", (SCRIPTS / "install-criu").read_text(encoding="utf-8"), re.MULTILINE)
    assert made
    number = made[1] if recipe is None else recipe
    (prefix / ".stamp").write_text(f"criu 4.2.1, suites trixie sid, recipe {number}, {kind}\n", encoding="ascii")
    return prefix


def without_apt(tmp_path: Path) -> str:
    """Make a directory for PATH with what the script needs and no apt, so that it can build nothing."""
    directory = tmp_path / "no-apt"
    directory.mkdir()
    for name in ("bash", "cat", "cc", "dirname", "head", "ls", "mkdir", "rm", "sed", "sort"):
        found = shutil.which(name)
        assert found
        (directory / name).symlink_to(found)
    return str(directory)


def sources(form: str, text: str, suite: str = "trixie") -> str:
    """Let the script's own function turn a bookworm machine's apt sources into those of another suite."""
    code = f'. "{SCRIPTS}/apt-sources.sh"; {form}_sources bookworm {suite}'
    return subprocess.run(["bash", "-euc", code], check=True, capture_output=True, text=True, input=text).stdout


@pytest.mark.parametrize("version", ["3.18", "3.19", "4.1.1", "4.10", "10.0"])
def test_new_enough_criu_in_prefix_is_used(tmp_path: Path, version: str) -> None:
    """A CRIU of 3.18 or newer that somebody has put into the prefix is reported, and nothing is done."""
    prefix = make_prefix(tmp_path / "criu", version)
    for arguments in (("--check",), ()):
        done = install_criu(tmp_path, "--prefix", prefix, *arguments)
        assert (done.returncode, done.stdout) == (0, f"install-criu: CRIU {version} is in {prefix}\n"), done.stderr


def test_old_criu_in_prefix_will_not_do(tmp_path: Path) -> None:
    """One that is too old counts as none, and the message names the command that gets another."""
    prefix = make_prefix(tmp_path / "criu", "3.17.1")
    done = install_criu(tmp_path, "--check", "--from-source", "--prefix", prefix)
    assert done.returncode == 1
    assert f"no CRIU 3.18 or newer with headers in {prefix}" in done.stderr
    assert "get one: scripts/install-criu" in done.stderr


@pytest.mark.parametrize(
    ("kernel", "status"), [("6.15.9", 0), ("6.16.0", 1), ("6.18.44-fc-v782", 1), ("7.0.1+deb14", 1), ("5.10.0", 0)]
)
def test_new_kernels_want_a_newer_criu(tmp_path: Path, kernel: str, status: int) -> None:
    """From Linux 6.16 on CRIU 4.1 cannot dump network sockets, so it takes 4.2, unless a suite is named."""
    prefix = make_prefix(tmp_path / "criu", "4.1.1")
    arguments = ("--check", "--from-source", "--prefix", prefix)
    done = install_criu(tmp_path, *arguments, kernel=kernel)
    assert (done.returncode, "no CRIU 4.2 or newer" in done.stderr) == (status, bool(status)), done.stderr
    assert install_criu(tmp_path, *arguments, "--suite", "trixie", kernel=kernel).returncode == 0


def test_a_lean_build_is_kept(tmp_path: Path) -> None:
    """One that was built in the way of today is used, and a full one too where none of a kind is asked for."""
    path = without_apt(tmp_path)
    for kind, wanted in (("lean", "--from-source"), ("full", "--full"), ("portable", "--portable")):
        prefix = built_prefix(tmp_path / kind, kind)
        for arguments in ([], [wanted]):
            done = install_criu(tmp_path, "--prefix", prefix, *arguments, path=path)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout == f"install-criu: CRIU 4.2.1 is in {prefix}, built {kind}\n"


@pytest.mark.parametrize(
    ("kind", "recipe", "arguments"),
    [("lean", None, ["--full"]), ("full", None, ["--from-source"]), ("lean", 1, ["--from-source"])],
    ids=["full wanted", "lean wanted", "older way"],
)
def test_a_build_of_another_kind_is_built_anew(
    tmp_path: Path, kind: str, recipe: int | None, arguments: list[str]
) -> None:
    """Where it cannot be, since there is no apt here, that is an error, and the prefix is as it was."""
    prefix = built_prefix(tmp_path / "criu", kind, recipe)
    done = install_criu(tmp_path, "--prefix", prefix, *arguments, path=without_apt(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert "this machine has no apt" in done.stderr
    assert install_criu(tmp_path, "--check", "--prefix", prefix).returncode == 0


@pytest.mark.parametrize(("kind", "recipe"), [("lean", 1), ("full", 1), ("", 1)])
def test_an_older_way_of_building_goes_on_where_it_must(tmp_path: Path, kind: str, recipe: int) -> None:
    """A cached build is built anew when the way of building changes; where that fails, nothing is lost by it."""
    prefix = built_prefix(tmp_path / "criu", kind, recipe)
    done = install_criu(tmp_path, "--prefix", prefix, path=without_apt(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "this machine has no apt" in done.stderr
    first, second, last = done.stdout.splitlines()
    assert "with an old recipe; rebuilding it" in first
    assert "the build failed; keeping the existing one" in second
    assert last.startswith(f"install-criu: CRIU 4.2.1 is in {prefix}, built ")


MAKEFILE = """\
PKG_CONFIG = pkg-config
LIBS = -luuid
ifneq ($(call pkg-config-check,gnutls)$(call pkg-config-check,uuid),y)
LIBS += -lneither
endif
criu:
\t$(CC) main.c $(LIBS) $(GMONLDOPT) -rdynamic -o criu
lib install-criu install-lib: criu ;
"""
"""What matters of CRIU's own: gnutls is left out, and a library that is not named as optional is asked for."""

PROGRAM = """\
extern void uuid_generate(unsigned char *);
int main(void) { unsigned char uuid[16]; uuid_generate(uuid); return 0; }
"""

COMPILER = """\
#!/bin/sh
for word; do
    case $word in
        -static) {static} ;;
        -print-file-name=*) {archive} ;;
    esac
done
exec /usr/bin/cc "$@"
"""


def make_lean(tmp_path: Path, kind: str, lacks: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Build a program in the way of CRIU, with a toolchain that lacks something; it is `source/criu`."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "Makefile").write_text(MAKEFILE, encoding="ascii")
    (source / "main.c").write_text(PROGRAM, encoding="ascii")
    compiler = tmp_path / "cc"
    compiler.write_text(COMPILER.format(**{"static": "", "archive": "", **lacks}), encoding="ascii")
    compiler.chmod(0o755)
    code = f'work={tmp_path} built_for=/p kind={kind}; . "{SCRIPTS}/install-criu"; make_lean -C "{source}" CC="$CC"'
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "CC": str(compiler)}
    return subprocess.run(["/bin/bash", "-c", code], check=False, env=env, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("lacks", "needed"),
    [
        ({}, []),
        ({"static": "exit 1"}, ["libc.so.6"]),
        ({"static": "exit 1", "archive": 'echo "${word#*=}" && exit'}, ["libc.so.6", "libuuid.so.1"]),
    ],
    ids=["all archives", "no libc.a", "no archives"],
)
def test_a_lean_build_takes_what_archives_there_are(tmp_path: Path, lacks: dict[str, str], needed: list[str]) -> None:
    """All static where the toolchain can, else each library with an archive, else shared; never an optional one."""
    done = make_lean(tmp_path, "lean", lacks)
    assert done.returncode == 0, done.stderr
    program = tmp_path / "source" / "criu"
    subprocess.run([program], check=True)
    told = subprocess.run(["/usr/bin/readelf", "-hd", program], check=True, capture_output=True, text=True).stdout
    assert sorted(re.findall(r"NEEDED.*\[(.*)\]", told)) == needed
    assert "EXEC (" in told


def test_a_build_for_other_machines_is_static_or_fails(tmp_path: Path) -> None:
    """Libraries of this machine are not there."""
    assert make_lean(tmp_path, "portable", {"static": "exit 1"}).returncode != 0
    assert not (tmp_path / "source" / "criu").exists()


def test_default_prefix_follows_xdg(tmp_path: Path) -> None:
    """Without --prefix it is the user's data directory."""
    prefix = make_prefix(tmp_path / ".local" / "share" / "libcriu_py" / "criu", "4.2.1")
    assert f"CRIU 4.2.1 is in {prefix}" in install_criu(tmp_path, "--check").stdout


def test_foreign_directory_is_left_alone(tmp_path: Path) -> None:
    """A prefix that holds something else is not replaced by a build."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    done = install_criu(tmp_path, "--from-source", "--prefix", tmp_path / "precious")
    assert done.returncode == 1
    assert "was not made by this script" in done.stderr
    assert (tmp_path / "precious" / "file").exists()


@pytest.mark.parametrize("arguments", [("--frob",), ("--prefix",), ("x",)])
def test_wrong_command_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A mistake on the command line ends with status 2 and one sentence."""
    done = install_criu(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "see scripts/install-criu --help" in done.stderr


def test_help_names_every_option(tmp_path: Path) -> None:
    """--help tells what there is."""
    text = install_criu(tmp_path, "--help").stdout
    assert all(option in text for option in ("--prefix DIR", "--from-source", "--full", "--suite NAME", "--check"))


@pytest.mark.parametrize(
    ("line", "turned"),
    [
        ("deb http://m/debian bookworm main", "deb-src http://m/debian trixie main\n"),
        ("deb http://m/debian/ bookworm contrib main # c", "deb-src http://m/debian/ trixie main\n"),
        (
            "deb [arch=amd64 signed-by=/k.gpg] http://m/debian bookworm main",
            "deb-src [ signed-by=/k.gpg] http://m/debian trixie main\n",
        ),
        ("deb http://m/debian bookworm-updates main", ""),
        ("deb http://m/debian-security bookworm main", ""),
        ("deb http://other/apt bookworm main", ""),
        ("deb http://m/debian bookworm contrib", ""),
        ("# deb http://m/debian bookworm main", ""),
        ("deb-src http://m/debian bookworm main", ""),
    ],
)
def test_one_line_sources(line: str, turned: str) -> None:
    """The mirror and its options are kept; what is not Debian's main archive is left out."""
    assert sources("one_line", line + "\n") == turned


def test_deb822_sources() -> None:
    """The mirror and its key are kept, an embedded one too; other paragraphs are left out."""
    text = """\
# comment
Types: deb deb-src
# comment
URIs: http://m/debian
Suites: bookworm bookworm-updates
Components: main contrib
Architectures: amd64
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 xyz
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: http://m/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://disabled/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://other/debian
Suites: nodistro
Components: main
"""
    assert sources("deb822", text, "sid") == (
        "Types: deb-src\n"
        "Suites: sid\n"
        "Components: main\n"
        "URIs: http://m/debian\n"
        "Signed-By:\n"
        " -----BEGIN PGP PUBLIC KEY BLOCK-----\n"
        " .\n"
        " xyz\n"
        " -----END PGP PUBLIC KEY BLOCK-----\n"
        "\n"
    )
