"""Runs `alexnet WORDS` as a process of torchrun and writes down its exit code, whatever ends it.

The code goes to a file named by the rank in the folder EXITS: torchrun tells no rank's code.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda *_: None)  # torchrun sends them to the whole group
    code = subprocess.run([sys.executable, "-m", "alexnet", *sys.argv[1:]]).returncode
    Path(os.environ["EXITS"], os.environ["RANK"]).write_text(str(code))
    return code


if __name__ == "__main__":
    sys.exit(main())
