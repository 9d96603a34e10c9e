"""Run the command ``libcriu-py`` as ``python -m libcriu_py``."""

import sys

from libcriu_py.cli import main

if __name__ == "__main__":
    sys.exit(main())
