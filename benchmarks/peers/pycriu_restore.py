"""
Restore images with pycriu, CRIU's own Python package, as a user of it would: `CRIU IMAGES_FD WORK_DIR FD=KEY...`.

The fds are open, and each takes the place of the file that the key names.
"""

from __future__ import annotations

import os
import sys

import pycriu


def main(argv: list[str]) -> int:
    """Restore, wait and return the exit status."""
    binary, images, work, *inherited = argv
    criu = pycriu.criu()
    criu.use_binary(binary)
    criu.opts.images_dir_fd = int(images)
    directory = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    criu.opts.work_dir_fd = os.dup2(directory, 210)  # inheritable, unlike the first
    criu.opts.log_file = "pycriu.log"
    criu.opts.log_level = 1
    criu.opts.shell_job = True
    criu.opts.unprivileged = True
    # A child of this process and not of criu, so that it can be waited for.
    criu.opts.rst_sibling = True
    for item in inherited:
        fd, _, key = item.partition("=")
        criu.opts.inherit_fd.add(fd=int(fd), key=key)
    pid = criu.restore().pid
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
