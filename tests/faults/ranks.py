"""What each process of a torchrun does in the resume matrix: trains, is cut, is started anew.

    torchrun ... -m -- faults.ranks DATA WHOLE RUN STEP FIELDS

Trains WHOLE to its end where it is not there yet, then RUN, in which the first process is killed
once STEP is saved; torchrun starts all anew, with another number of workers.
"""

import json
import os
import sys
from pathlib import Path

from faults.training import kill_after, train


def main() -> None:
    data, whole, run = map(Path, sys.argv[1:4])
    step, fields = int(sys.argv[4]), json.loads(sys.argv[5])
    turn = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    if not turn and not (whole / "checkpoints").exists():  # before any process can have begun it
        train(whole, data, fields)
    if not turn:
        kill_after(step)
    train(run, data, fields | {"workers": (fields["workers"] + turn) % 3})


if __name__ == "__main__":
    main()
