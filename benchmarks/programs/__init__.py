"""The programs that are started, unaware of libcriu_py: each imports at its top, does some work, prints a line."""
