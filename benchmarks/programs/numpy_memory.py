"""Print the last number of a large array."""

from __future__ import annotations

from numpy_block import BLOCK


def main() -> None:
    """Print how large the array is, by its last number."""
    print("ready", int(BLOCK[-1]) + 1, flush=True)


if __name__ == "__main__":
    main()
