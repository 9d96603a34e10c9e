"""Python's monotonic clocks go on from a reading, for all who hold the functions, and can be put back."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import threading, time
from time import monotonic, monotonic_ns, perf_counter, perf_counter_ns
from libcriu_py.linux.clocks import Clocks

before = monotonic()
clocks = Clocks()
assert 0 <= monotonic() - before < 1, "nothing changes before the copy"
time.sleep(0.3)
clocks.go_on()
units = {monotonic: 1, time.monotonic: 1, perf_counter: 1, monotonic_ns: 1e9, perf_counter_ns: 1e9}
for clock, unit in units.items():
    assert 0 <= clock() / unit - before < 0.2, clock
    assert type(clock()) is (float if unit == 1 else int), clock
assert 0.1 < threading.Event().wait(0.1) or monotonic() - before > 0.1
again = Clocks()          # of a copy that is dumped again
time.sleep(0.2)
again.go_on()
assert monotonic() - before < 0.4
again.put_back()
clocks.put_back()
assert monotonic() - before > 0.5
print("right")
"""


def test_clocks_go_on() -> None:
    """They do so from where they were, are exact to the type, and the kernel's are back in the original."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("right\n", "")
