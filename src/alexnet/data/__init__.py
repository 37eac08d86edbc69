"""Images and labels: found, read, decoded, checked, packed, split, augmented and batched.

These names are stable. The modules they come from are not.
"""

from alexnet.data import draws
from alexnet.data.arrange import find_labelled_files
from alexnet.data.augment import Preprocess, augment, mix
from alexnet.data.dataset import Dataset, open_dataset, reopen_dataset
from alexnet.data.fetch import PUBLISHED_SETS, PublishedSet, RemoteFile, fetch_data_set
from alexnet.data.images import decode_image
from alexnet.data.loader import Batch, Share, read_batch, steps_per_epoch, training_batches
from alexnet.data.pack import PackOptions, pack_images
from alexnet.data.slices import Slice
from alexnet.data.sources import open_source
from alexnet.data.statistics import Statistics

__all__ = [
    "PUBLISHED_SETS",
    "Batch",
    "Dataset",
    "PackOptions",
    "Preprocess",
    "PublishedSet",
    "RemoteFile",
    "Share",
    "Slice",
    "Statistics",
    "augment",
    "decode_image",
    "draws",
    "fetch_data_set",
    "find_labelled_files",
    "mix",
    "open_dataset",
    "open_source",
    "pack_images",
    "read_batch",
    "reopen_dataset",
    "steps_per_epoch",
    "training_batches",
]
