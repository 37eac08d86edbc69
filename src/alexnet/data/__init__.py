"""Images and labels: opened, decoded, checked, packed, split, augmented and batched.

These names are stable. The modules they come from are not.
"""

from alexnet.data import draws
from alexnet.data.augment import Preprocess, augment, colour_noise, mix
from alexnet.data.dataset import Dataset, open_dataset, reopen_dataset
from alexnet.data.device import DeviceSplit
from alexnet.data.fetch import PUBLISHED_SETS, PublishedSet, RemoteFile, fetch_data_set
from alexnet.data.forms import list_images, open_image_set
from alexnet.data.ilsvrc import OFFICIAL, training_hours
from alexnet.data.image_set import ImageFiles, ImageSet, LabelledImages
from alexnet.data.images import decode_image
from alexnet.data.loader import (
    Batch,
    Share,
    batches_in_order,
    read_batch,
    steps_per_epoch,
    training_batches,
)
from alexnet.data.packed import PackedJpegs
from alexnet.data.packing import PackOptions, pack_images
from alexnet.data.splits import Split
from alexnet.data.statistics import (
    TORCHVISION_MEAN,
    TORCHVISION_STD,
    Statistics,
    measure_statistics,
)

__all__ = [
    "OFFICIAL",
    "PUBLISHED_SETS",
    "TORCHVISION_MEAN",
    "TORCHVISION_STD",
    "Batch",
    "Dataset",
    "DeviceSplit",
    "ImageFiles",
    "ImageSet",
    "LabelledImages",
    "PackOptions",
    "PackedJpegs",
    "Preprocess",
    "PublishedSet",
    "RemoteFile",
    "Share",
    "Split",
    "Statistics",
    "augment",
    "batches_in_order",
    "colour_noise",
    "decode_image",
    "draws",
    "fetch_data_set",
    "list_images",
    "measure_statistics",
    "mix",
    "open_dataset",
    "open_image_set",
    "pack_images",
    "read_batch",
    "reopen_dataset",
    "steps_per_epoch",
    "training_batches",
    "training_hours",
]
