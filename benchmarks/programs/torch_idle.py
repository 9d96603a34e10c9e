"""Run a small network forward with torch, then wait until standard input ends."""

from __future__ import annotations

import sys

import torch_forward


def main() -> None:
    """Run the network, and stay."""
    torch_forward.main()
    sys.stdin.read()


if __name__ == "__main__":
    main()
