"""A folder whose lock another process holds."""

import subprocess
import sys
from contextlib import contextmanager


@contextmanager
def other_process_holds(folder):
    """Another process holds the lock of a folder inside the block."""
    code = (
        "import sys\nfrom spikeguard.storage.folder_lock import locked\n"
        "with locked(sys.argv[1]):\n    print(flush=True)\n    sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(folder)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    try:
        yield
    finally:
        process.communicate("")
