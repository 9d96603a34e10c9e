"""Faults on purpose: each in a place of its own, with a deadline, and judged by what came of it (`make faults`)."""
