"""The kernel: reading /proc and /sys, and calling the package's C code."""
