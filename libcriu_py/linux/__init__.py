"""The kernel: what it tells of processes, and what it is asked by C."""
