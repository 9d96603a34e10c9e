"""What a forked child tells its parent."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class ChildResult:
    """Lines of words that a child leaves for its parent, and that children of its own add to."""

    def __init__(self) -> None:
        """Create an anonymous file, which the parent can read even while other processes have it open."""
        self._fd = os.memfd_create("libcriu_py-answer")

    def write(self, lines: Iterable[Sequence[str]]) -> None:
        """Add lines, by one write; words may not contain tabs or line ends."""
        os.write(self._fd, os.fsencode("".join("\t".join(words) + "\n" for words in lines)))

    def so_far(self) -> list[list[str]]:
        """Return the written lines."""
        text = os.fsdecode(os.pread(self._fd, os.fstat(self._fd).st_size, 0))
        return [line.split("\t") for line in text.split("\n")[:-1]]

    def lines(self) -> list[list[str]]:
        """Return the written lines, and close the file."""
        try:
            return self.so_far()
        finally:
            os.close(self._fd)
