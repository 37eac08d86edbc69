"""Runs `alexnet WORDS` as a process of torchrun and writes down its exit code, whatever ends it.

The code goes to a file named by the rank in the folder EXITS: torchrun tells no rank's code.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

# Torchrun ends all once one has ended, and that must change no status: here the first is still
# there for it.
LINGERING = """
import os, sys, time
from alexnet.cli import main
code = main(sys.argv[1:])
if os.environ["RANK"] == "0":
    time.sleep(2)
sys.exit(code)
"""


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda *_: None)  # torchrun sends them to the whole group
    code = subprocess.run([sys.executable, "-c", LINGERING, *sys.argv[1:]]).returncode
    Path(os.environ["EXITS"], os.environ["RANK"]).write_text(str(code))
    return code


if __name__ == "__main__":
    sys.exit(main())
