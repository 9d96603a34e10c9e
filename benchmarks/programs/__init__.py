"""
The programs that the benchmarks start: small, and unaware of libcriu_py.

Each imports at the top of the file what it needs, as programs do, does a first
piece of real work and prints one line.
"""
