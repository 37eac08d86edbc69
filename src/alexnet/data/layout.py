"""Where the parts and the classes of a data set lie, from the names of its folders alone.

    train/CLASS, val/CLASS, test/CLASS     parts, by any of the names that people use
    CLASS                                  no parts: the set is cut when it is read
    FOLDER/..., PART/PART/CLASS            either, one folder further in, as archives unpack

Names alone do not make a part: a class may be called "test". What lies in the folder does, see
`find_layout`.
"""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from alexnet.data.images import is_image

PARTS: tuple[str, ...] = ("train", "val", "test")

# What people call the folders of a part, in any case, and with what behind it: training_set,
# Train Images, seg_train. Those without anything are known since 0.1.0, but for dev.
_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
_FIRST = frozenset(_NAMES) - {"dev"}
_BEHIND = r"(?:_?(?:set|data|dataset|split|part|images|imgs|image|img|photos|pictures))?"
_KNOWN = re.compile(rf"(?:seg_)?({'|'.join(_NAMES)}){_BEHIND}")
_UNLABELLED = re.compile(rf"(?:seg_)?(?:pred|predict|prediction|predictions|unlabell?ed){_BEHIND}")
_WRAPPERS = frozenset(("images", "imgs", "image", "img", "data", "photos", "pictures", "classes"))
_DEEPEST = 4  # folders around a set that are looked through


def split_of(folder: str, older: bool = False) -> str | None:
    """train, val or test, where a folder is called that or as people call it. `older`: by the names
    alone that 0.1.0 knew."""
    if older:
        return _NAMES[folder.casefold()] if folder.casefold() in _FIRST else None
    match = _KNOWN.fullmatch(_plain(folder))
    return _NAMES[match[1]] if match else None


def is_unlabelled(folder: str) -> bool:
    """Whether a folder is called what people call images to predict."""
    return bool(_UNLABELLED.fullmatch(_plain(folder)))


def _plain(folder: str) -> str:
    return re.sub(r"[\s_-]+", "_", folder.casefold()).strip("_")


def is_shown(name: str) -> bool:
    """Whether a file or folder is part of a set: not hidden, nor what a Mac knows of the others."""
    return name[:1] != "." and name != "__MACOSX"


class Folders(Protocol):
    """The folders of a set: on a disk, or of an archive. A place is a path inside, "" the whole."""

    def inside(self, place: str) -> tuple[str, ...]:
        """Names of the folders in a folder, sorted."""

    def has_images(self, place: str) -> bool:
        """Whether images lie directly in a folder."""


@dataclass(frozen=True)
class FoldersOnDisk:
    root: Path

    def inside(self, place: str) -> tuple[str, ...]:
        with os.scandir(self.root / place) as entries:
            return tuple(sorted(e.name for e in entries if is_shown(e.name) and e.is_dir()))

    def has_images(self, place: str) -> bool:
        with os.scandir(self.root / place) as entries:
            return any(is_image(e.name) and is_shown(e.name) and e.is_file() for e in entries)


@dataclass(frozen=True)
class FoldersOfNames:
    """Those that hold images, by the names of all files, and those that are `empty`."""

    names: Sequence[str]
    empty: Sequence[str] = ()

    @cached_property
    def _folders(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for folder in {*self._with_images, *self.empty}:
            while folder:
                above, _, last = folder.rpartition("/")
                found.setdefault(above, set()).add(last)
                folder = above
        return found

    @cached_property
    def _with_images(self) -> set[str]:
        return {name.rpartition("/")[0] for name in self.names if is_image(name)}

    def inside(self, place: str) -> tuple[str, ...]:
        return tuple(sorted(self._folders.get(place, ())))

    def has_images(self, place: str) -> bool:
        return place in self._with_images


@dataclass(frozen=True)
class Layout:
    """Where things lie in a set.

    `parts` are the folders that hold the class folders of train, val and test; where there are
    none, `top` holds those of all. `beside` are folders next to the parts, `classes` those that are
    called as parts are and are classes. `contradiction` is why it cannot be read at all, `lacks`
    why it cannot be trained on; both are empty of a set that is good.
    """

    top: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    contradiction: str = ""
    lacks: str = ""

    def place(self, name: str, top: int) -> tuple[str, str]:
        """(part, class) of a file: ("train", "cat"); "all" of a set without parts, and of what lies
        beside them; "unlabelled" of images to predict. The class is "" where there is no folder.

        Where no part was found, a folder called as one, anywhere above the file, is one all the
        same; else the class is the first folder below the `top` ones that all images share.
        """
        folders = name.split("/")[:-1]
        for part, place in self.parts.items():
            within = place.split("/")
            if folders[: len(within)] == within:
                return part, folders[len(within)] if len(folders) > len(within) else ""
        depth = len(self.top.split("/")) if self.top else 0
        if self.parts and len(folders) > depth and is_unlabelled(folders[depth]):
            return "unlabelled", ""
        if not self.parts:
            if len(folders) > depth and folders[depth] in self.classes:
                return "all", folders[depth]
            for at, folder in enumerate(folders):
                if part := split_of(folder, older=True) or "":
                    return part, folders[at + 1] if at + 1 < len(folders) else ""
        return "all", folders[min(top, len(folders) - 1)] if folders else ""

    def taken(self) -> str:
        """A line on what was taken for what, where names alone do not say it; else empty."""
        said = [
            f"{place} is taken for {part}"
            for part, place in self.parts.items()
            if place.casefold() != part
        ]
        if self.classes:
            one = len(self.classes) == 1
            said.append(
                f"{', '.join(self.classes)} {'is' if one else 'are'} taken for "
                f"{'a class' if one else 'classes'}: no folder train has class folders in it"
            )
        elif self.top and not self.parts:
            said.append(f"the classes are the folders in {self.top}")
        return ", ".join(said)


def find_layout(
    folders: Folders, *, older: bool = False, known: Collection[str] | None = ()
) -> Layout:
    """Where the parts and classes of a set lie.

    A folder is a part if it is called so and has class folders in it, and one of those is to train
    on: `train/` that only holds images beside `car/` and `plane/` is a class like them. `known` are
    classes, for which a folder that is called as a part or lies around the set may stand; None: no
    folder is looked through. `older` reads a set as 0.1.0 did, by fewer names, which alone made a
    part.
    """
    top = "" if older else _enclosing(folders, known)
    inside = folders.inside(top)
    called = {name: part for name in inside if (part := split_of(name, older))}
    if older:
        return _with_parts(folders, top, called, older) if called else Layout(top)
    full = {name: part for name, part in called.items() if folders.inside(_join(top, name))}
    if "train" in full.values():
        named = {n: p for n, p in called.items() if n in full or _is_first_of(n, p, full)}
        return _with_parts(folders, top, named)
    flat = [name for name in called if name not in full and name not in (known or ())]
    train = next((name for name in flat if called[name] == "train"), "")
    others = [name for name in inside if name not in called and _holds(folders, _join(top, name))]
    classes = {name for one in full for name in folders.inside(_join(top, one))}
    if any(split_of(n, older=True) for n in full) or (full and (not others or classes & {*others})):
        found = _with_parts(folders, top, full)
        return replace(found, lacks=_no_class_folders(train)) if train else found
    held = next((n for n in flat if n != train and split_of(n, older=True)), "")
    if others and held:
        return Layout(
            top,
            lacks=f"{held} holds images and no class folders, beside {', '.join(others[:3])}: if "
            "it is a class, call it otherwise; if it holds images to test with, take it out, or "
            f"make train/CLASS and {called[held]}/CLASS",
        )
    if train and not others:
        return Layout(top, lacks=_no_class_folders(train))
    return Layout(top, classes=tuple(called))


def _holds(folders: Folders, place: str) -> bool:
    return folders.has_images(place) or bool(folders.inside(place))


def _no_class_folders(train: str) -> str:
    return f"{train} holds no class folders: sort its images into one for each class"


def _is_first_of(name: str, part: str, full: Mapping[str, str]) -> bool:
    """Whether a folder without class folders is a part all the same, so that what is wrong with it
    is said: under the names of 0.1.0, where no other folder is that part."""
    return part not in full.values() and split_of(name, older=True) is not None


def _with_parts(
    folders: Folders, top: str, called: Mapping[str, str], older: bool = False
) -> Layout:
    """The layout of a set with parts, `called` by the names of their folders."""
    names: dict[str, str] = {}
    for name, part in called.items():
        if part in names:
            twice = f"has {names[part]} and {name}, both for {part}; keep one of them"
            return Layout(top, contradiction=twice)
        names[part] = name
    parts = {}
    for part in PARTS:
        if part in names:
            place = _join(top, names[part])
            parts[part] = place if older else _unwrapped(folders, place, part)
    lacks = ""
    if "train" not in parts:
        lacks = f"has {', '.join(names[part] for part in parts)} but no train; add the folder train"
    beside = tuple(name for name in folders.inside(top) if name not in called)
    return Layout(top, parts, beside, lacks=lacks)


def _enclosing(folders: Folders, known: Collection[str] | None) -> str:
    """The folder around a set that alone lies in the root, and so on; "" where there is none."""
    top = ""
    for _ in range(_DEEPEST):
        inside = folders.inside(top)
        if known is None or len(inside) != 1 or inside[0] in known or split_of(inside[0]):
            break
        inner = _join(top, inside[0])
        if folders.has_images(inner) or not folders.inside(inner):
            break
        top = inner
    return top


def _unwrapped(folders: Folders, place: str, part: str) -> str:
    """The folder with a part's class folders: seg_train/seg_train, train/images."""
    for _ in range(_DEEPEST):
        inside = folders.inside(place)
        if len(inside) != 1 or folders.has_images(place):
            break
        if split_of(inside[0]) != part and _plain(inside[0]) not in _WRAPPERS:
            break
        if not folders.inside(_join(place, inside[0])):  # the one class that is there
            break
        place = _join(place, inside[0])
    return place


def _join(place: str, name: str) -> str:
    return f"{place}/{name}" if place else name
