"""``python -m spikeguard``: the command line, also where the script is not on the path."""

import sys

from spikeguard.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
