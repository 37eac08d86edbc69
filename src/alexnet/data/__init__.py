"""Images and labels: found, read, decoded, checked, packed, split, augmented and batched.

These names are stable. The modules they come from are not.
"""

from alexnet.data import draws
from alexnet.data.augment import Preprocess, augment, mix
from alexnet.data.dataset import Dataset, open_dataset, reopen_dataset
from alexnet.data.images import decode_image
from alexnet.data.loader import Batch, Share, read_batch, steps_per_epoch, training_batches
from alexnet.data.slices import Slice
from alexnet.data.sources import open_source
from alexnet.data.statistics import Statistics

__all__ = [
    "Batch",
    "Dataset",
    "Preprocess",
    "Share",
    "Slice",
    "Statistics",
    "augment",
    "decode_image",
    "draws",
    "mix",
    "open_dataset",
    "open_source",
    "read_batch",
    "reopen_dataset",
    "steps_per_epoch",
    "training_batches",
]
