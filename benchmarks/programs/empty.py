"""Print a line: what remains is the interpreter's own start."""

from __future__ import annotations


def main() -> None:
    """Print a line."""
    print("ready", flush=True)


if __name__ == "__main__":
    main()
