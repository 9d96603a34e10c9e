"""Two copies of one snapshot, restored at the same instant, never agree on anything random."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.system.pairs import two_copies

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

    Directories = Callable[[Account], Path]

STANDARD = """
import json, multiprocessing, os, random, secrets, ssl, tempfile, uuid
from libcriu_py import checkpoint
with checkpoint():
    unseeded, seeded = random.Random(), random.Random(42)
    random.seed(1)
    first = seeded.random()
    # Every generator is in use before the dump.
    random.random(), ssl.RAND_bytes(8), uuid.uuid1(), uuid.uuid4(), tempfile.mktemp(), unseeded.random()
    multiprocessing.current_process().authkey
    from multiprocessing.synchronize import SemLock
    next(SemLock._rand)
print(json.dumps({
    "random": random.random(), "unseeded": unseeded.random(), "ssl": ssl.RAND_bytes(16).hex(),
    "pseudo": random.getrandbits(64), "uuid1": str(uuid.uuid1()), "clock_seq": uuid.uuid1().clock_seq,
    "uuid4": str(uuid.uuid4()), "tempfile": tempfile.mktemp(), "key": multiprocessing.current_process().authkey.hex(),
    "semaphore": next(SemLock._rand), "secrets": secrets.token_hex(), "urandom": os.urandom(8).hex(),
    "seeded": seeded.random(),
}))
"""


def test_standard_library_differs(mode: Mode, directory_of: Directories) -> None:
    """random, ssl, uuid, tempfile, multiprocessing and secrets differ; what was made with a seed goes on with it."""
    import random

    one, other = two_copies(mode, directory_of(mode.account), STANDARD)
    expected = random.Random(42)
    expected.random()
    assert one.pop("seeded") == other.pop("seeded") == expected.random()
    assert [name for name in one if one[name] == other[name]] == []


def test_generators_that_are_frozen_differ(mode: Mode, directory_of: Directories) -> None:
    """What the program, or `--exit fast`, keeps from the garbage collector is found all the same, and frozen again."""
    code = """
    import gc, json, random
    from libcriu_py import checkpoint
    generator = random.Random()
    gc.freeze()
    frozen = gc.get_freeze_count()
    with checkpoint():
        pass
    print(json.dumps({"random": generator.random(), "frozen": gc.get_freeze_count() >= frozen}))
    """
    one, other = two_copies(mode, directory_of(mode.account), code)
    assert one["random"] != other["random"]
    assert one["frozen"]
    assert other["frozen"]


def test_seed_is_kept_on_request(mode: Mode, directory_of: Directories) -> None:
    """With keep_seeded the module's own generator keeps the sequence that was asked for."""
    code = """
    import json
    from libcriu_py import checkpoint
    with checkpoint(resources={"random": {"keep_seeded": True}}):
        import random
        random.seed(7)
    print(json.dumps(random.random()))
    """
    import random

    assert two_copies(mode, directory_of(mode.account), code) == [random.Random(7).random()] * 2


def test_switched_off_from_outside(mode: Mode, directory_of: Directories) -> None:
    """LIBCRIU_PY_RESOURCES switches a resource off in a program that knows nothing of it."""
    code = """
    import json, random
    from libcriu_py import checkpoint
    with checkpoint():
        pass
    print(json.dumps(random.random()))
    """
    one, other = two_copies(mode, directory_of(mode.account), code, env={"LIBCRIU_PY_RESOURCES": "-random"})
    assert one == other


def test_numpy_differs(mode: Mode, directory_of: Directories) -> None:
    """
    Numpy's legacy functions, generators made without a seed and what they spawn differ; seeded ones do not.

    So does what they had ready: the second of a pair of normal numbers, and what is left of a word.
    """
    code = """
    import json
    from libcriu_py import checkpoint
    with checkpoint():
        import numpy as np
        np.random.rand(), np.random.standard_normal()
        kinds = [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64]
        drawn = [np.random.default_rng(), np.random.RandomState(), *(np.random.Generator(kind()) for kind in kinds)]
        pairs = [np.random.RandomState(), np.random.RandomState(np.random.PCG64())]
        words = [np.random.Generator(kind()) for kind in kinds]
        for generator in pairs:
            generator.standard_normal()
        for generator in words:
            generator.integers(2**32, dtype=np.uint32)
        drawn += np.random.default_rng().spawn(2) if hasattr(np.random.Generator, "spawn") else []
        parent, sequence = np.random.default_rng(), np.random.SeedSequence()
        seeded = [np.random.default_rng(5), np.random.RandomState(5), np.random.Generator(np.random.PCG64([1, 2]))]
    def number(generator):
        return generator.random() if hasattr(generator, "random") else generator.rand()
    print(json.dumps({
        "drawn": [number(generator) for generator in drawn],
        "spawned": number(np.random.default_rng(parent.bit_generator.seed_seq.spawn(1)[0])),
        "sequence": number(np.random.default_rng(sequence)),
        "normal": np.random.standard_normal(), "pairs": [generator.standard_normal() for generator in pairs],
        "words": [int(generator.integers(2**32, dtype=np.uint32)) for generator in words],
        "legacy": np.random.rand(), "seeded": [number(generator) for generator in seeded],
    }))
    """
    one, other = two_copies(mode, directory_of(mode.account), code)
    assert one.pop("seeded") == other.pop("seeded")
    assert len({*one["drawn"], *other["drawn"]}) == 2 * len(one["drawn"])
    assert not {*one["pairs"], *one["words"]} & {*other["pairs"], *other["words"]}
    for name in ("spawned", "sequence", "legacy", "normal"):
        assert one[name] != other[name], name


@pytest.mark.parametrize("keep", [True, False])
def test_numpy_seeded_by_the_program(mode: Mode, directory_of: Directories, keep: bool) -> None:  # noqa: FBT001
    """After `numpy.random.seed()` the legacy functions differ all the same, unless the sequence is to be kept."""
    import numpy as np

    code = """
    import json
    import numpy as np
    from libcriu_py import checkpoint
    with checkpoint(resources={"numpy": {"keep_seeded": KEEP}}):
        np.random.seed(3)
        np.random.standard_normal()
    print(json.dumps([np.random.standard_normal(), np.random.rand()]))
    """
    one, other = two_copies(mode, directory_of(mode.account), code.replace("KEEP", str(keep)))
    expected = np.random.RandomState(3)
    expected.standard_normal()
    kept = [expected.standard_normal(), expected.rand()]
    if keep:
        assert one == other == kept
    else:
        assert not {*one, *kept} & set(other)


def test_keys_of_cryptography_differ(mode: Mode, directory_of: Directories) -> None:
    """The package `cryptography`, which has an OpenSSL of its own, makes another private key in each copy."""
    code = """
    import json
    from libcriu_py import checkpoint
    from cryptography.hazmat.primitives.asymmetric import ec
    with checkpoint():
        ec.generate_private_key(ec.SECP256R1())
    print(json.dumps(ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value))
    """
    one, other = two_copies(mode, directory_of(mode.account), code)
    assert one != other


def test_program_made_ready_from_outside_differs(mode: Mode, directory_of: Directories) -> None:
    """A program without a line of ours, whose modules were imported before the dump, draws its own numbers."""
    from tests.system.pairs import both
    from tests.system.selfdump import SelfDump, write_program

    code = "import json, random, uuid\nprint(json.dumps([random.random(), uuid.uuid4().hex]))\n"
    directory = directory_of(mode.account)
    script = write_program(mode, directory, code)
    made = mode.run([mode.account.python, "-m", "libcriu_py", "snapshot", "-o", directory / "snap", script])
    assert made.returncode == 0, made.stderr
    one, other = both(SelfDump(mode, directory / "snap", script))
    assert not set(one) & set(other)


LIBRARIES = """
import json, sqlite3
import polars, uuid_utils
from bson import ObjectId
from libcriu_py import checkpoint
numbers = polars.Series(range(10_000))
def draw():
    new = sqlite3.connect(":memory:")
    return {
        "sqlite": connection.execute("select hex(randomblob(8)), random()").fetchone(),
        "new connection": new.execute("select hex(randomblob(8)), random()").fetchone(),
        "object id": str(ObjectId())[8:18], "its counter": str(ObjectId())[18:],
        "uuid4": str(uuid_utils.uuid4()), "uuid7": str(uuid_utils.uuid7())[24:],
        "sample": numbers.sample(5).to_list(), "shuffle": numbers.shuffle().to_list()[:5],
    }
with checkpoint():
    connection = sqlite3.connect(":memory:")
    draw()
print(json.dumps(draw()))
"""


def test_libraries_that_count_on_the_pid_differ(mode: Mode, directory_of: Directories) -> None:
    """SQLite, bson, uuid_utils and polars renew nothing by themselves, since a copy has the pid of the dump."""
    one, other = two_copies(mode, directory_of(mode.account), LIBRARIES)
    assert [name for name in one if one[name] == other[name]] == []


def test_known_fork_callbacks_run_alone(mode: Mode, directory_of: Directories) -> None:
    """One that is on the list is called in a copy while no other thread runs; others, and with "none" all, are not."""
    code = """
    import json, os, sys, threading, time
    from libcriu_py import checkpoint
    from libcriu_py.program import fork_callbacks
    count, called, moved = 0, [], []
    def run():
        global count
        while True:
            count += 1
    def renew():
        called.append("renew")
        before = count
        time.sleep(0.2)
        moved.append(count != before)
    os.register_at_fork(after_in_child=renew)
    os.register_at_fork(after_in_child=lambda: called.append("another"))
    fork_callbacks.KNOWN.add("__main__.renew")
    threading.Thread(target=run, daemon=True).start()
    with checkpoint():
        pass
    before = count
    while count == before:
        time.sleep(0.001)   # all go on
    print(json.dumps([called, moved]), flush=True)
    os._exit(0)
    """
    directory = directory_of(mode.account)
    assert two_copies(mode, directory, code, name="known") == [[["renew"], [False]]] * 2
    none = {"LIBCRIU_PY_FORK_CALLBACKS": "none"}
    assert two_copies(mode, directory, code, name="none", env=none) == [[[], []]] * 2
