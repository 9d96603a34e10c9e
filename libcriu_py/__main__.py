"""Make ``python -m libcriu_py`` the command ``libcriu-py``."""

import sys

from libcriu_py.cli import main

if __name__ == "__main__":
    sys.exit(main())
