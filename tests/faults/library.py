"""Every fault by name, with its counts."""

from faults import causes, images, packing, reading, saving, training
from faults.tally import Fault

FAULTS = {
    "save-killed": Fault(
        "SIGKILL before each system call of a checkpoint save, and within each write",
        "the newest committed checkpoint loads; the next save leaves no remnant",
        saving.killed, 0, 1,
    ),
    "save-refused": Fault(
        "no space, an I/O error, no permission at each system call of a save",
        "one line; the checkpoints before are there; no remnant",
        saving.refused, 0, 1,
    ),
    "training-killed": Fault(
        "SIGKILL of a real training at a random moment",
        "continued, it ends with the same bits",
        training.kills, 100, 5,
    ),
    "resume-matrix": Fault(
        "cut at the first, a middle, the last step of an epoch and after a validation; 0, 1, 2 "
        "workers; fp32, bf16",
        "continued with another number of workers, it ends with the same bits",
        training.resume_matrix, 24, 3,
    ),
    "resume-matrix-2": Fault(
        "the same with two processes: one is killed, torchrun starts both anew",
        "they go on with another number of workers, and end with the same bits",
        training.resume_matrix_of_two, 24, 0,
    ),
    "cut-files": Fault(
        "a file of a checkpoint ends early", "never loads", reading.cut_short, 500, 50
    ),
    "bit-flips": Fault("one bit of a checkpoint", "never loads", reading.bit_flips, 500, 50),
    "headers": Fault(
        "headers of safetensors by hand, with fitting seals", "one line; none loads",
        reading.headers, 60, 60,
    ),
    "malicious": Fault(
        "pickles and archives that mean harm", "nothing runs; under 1 GiB",
        reading.malicious, 80, 12,
    ),
    "images": Fault(
        "mutated images, checked, trained on and classified",
        "typed errors that name the file; no image takes 2 s",
        images.mutated, 10_000, 100,
    ),
    "archives": Fault(
        "archives by hand, through the packer", "nothing outside the target; all or nothing",
        packing.by_hand, 200, 30,
    ),
    "archives-mutated": Fault(
        "mutated archives, through the packer", "nothing outside the target; all or nothing",
        packing.mutated, 2_000, 30,
    ),
    "causes": Fault(
        "NaN loss, no memory, a dead loader thread, 64 files, no HOME, read-only, the clock a day "
        "back, two runs in one folder",
        "a named cause, or no harm", causes.named, 8, 0,
    ),
}  # fmt: skip
