"""CPython's own tests, run in a restored interpreter and in a fresh one."""
