"""Where the parts and the classes of a data set lie, from the names of its folders alone.

    train/CLASS, val/CLASS, test/CLASS     parts, by any of the names that people use
    CLASS                                  no parts: the set is cut when it is read
    FOLDER/..., PART/PART/CLASS            either, one folder further in, as archives unpack

Names alone do not make a part: a class may be called "test". What lies in the folder does, see
`find_layout`.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from alexnet.data.image_set import RULES
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


def split_in(name: str) -> str | None:
    """The split that a word of a name says: train of ILSVRC2012_img_train."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((split for word in words if (split := split_of(word))), None)


def is_unlabelled(folder: str) -> bool:
    """Whether a folder is called what people call images to predict."""
    return bool(_UNLABELLED.fullmatch(_plain(folder)))


def _plain(folder: str) -> str:
    return re.sub(r"[\s_-]+", "_", folder.casefold()).strip("_")


def is_shown(name: str) -> bool:
    """Whether a file or folder is part of a set: not hidden, nor what a Mac knows of the others."""
    return name[:1] != "." and name != "__MACOSX"


@dataclass(frozen=True)
class Folders:
    """The folders of a set, from the `names` of all its files and of all its `folders`: on a disk
    or in an archive. A place is a path below the set, "" the set itself."""

    names: Sequence[str]
    folders: Sequence[str] = ()

    @cached_property
    def _within(self) -> dict[str, set[str]]:
        """The names of the folders in each folder."""
        within: dict[str, set[str]] = {}
        for folder in {*self.folders, *self._with_files}:
            while folder:
                above, _, last = folder.rpartition("/")
                within.setdefault(above, set()).add(last)
                folder = above
        return within

    @cached_property
    def _with_files(self) -> set[str]:
        return {name.rpartition("/")[0] for name in self.names}

    @cached_property
    def _with_images(self) -> set[str]:
        return {name.rpartition("/")[0] for name in self.names if is_image(name)}

    @cached_property
    def _above_files(self) -> set[str]:
        return _and_above(self._with_files)

    @cached_property
    def _above_images(self) -> set[str]:
        return _and_above(self._with_images)

    def within(self, place: str) -> tuple[str, ...]:
        """Names of the folders in a folder, sorted."""
        return tuple(sorted(filter(is_shown, self._within.get(place, ()))))

    def has_images(self, place: str) -> bool:
        """Whether images lie directly in a folder."""
        return place in self._with_images

    def holds_other_files_alone(self, place: str) -> bool:
        """Whether a folder has files anywhere below it, and none is an image."""
        return place in self._above_files and place not in self._above_images


def _and_above(folders: Collection[str]) -> set[str]:
    """Folders and all that lie around them."""
    every: set[str] = set()
    for folder in folders:
        while folder and folder not in every:
            every.add(folder)
            folder = folder.rpartition("/")[0]
    return every


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

    def place(self, folder: str) -> tuple[str, str]:
        """(part, class) of the files in a folder: ("train", "cat"); "all" of a set without parts,
        and of what lies beside them; "unlabelled" of images to predict. The class is "" where the
        folder is none."""
        for part, place in self.parts.items():
            if folder == place or folder.startswith(f"{place}/"):
                return part, folder[len(place) + 1 :].partition("/")[0]
        rest = folder
        if self.top:
            if not folder.startswith(f"{self.top}/"):
                return "all", ""
            rest = folder[len(self.top) + 1 :]
        name = rest.partition("/")[0]
        if self.parts and is_unlabelled(name):
            return "unlabelled", ""
        return "all", name

    def taken(self) -> str:
        """A line on what was taken for what, where names alone do not say it; else empty."""
        lines = [
            f"{place} is taken for {part}"
            for part, place in self.parts.items()
            if place.casefold() != part
        ]
        if self.classes:
            one = len(self.classes) == 1
            lines.append(
                f"{', '.join(self.classes)} {'is' if one else 'are'} taken for "
                f"{'a class' if one else 'classes'}: no folder train has class folders in it"
            )
        elif self.top and not self.parts:
            lines.append(f"the classes are the folders in {self.top}")
        return ", ".join(lines)


def find_layout(
    folders: Folders, *, rules: int = RULES, known: Collection[str] | None = ()
) -> Layout:
    """Where the parts and classes of a set lie.

    A folder is a part if it is called so and has class folders in it, and one of those is to train
    on: `train/` that only holds images beside `car/` and `plane/` is a class like them. `known` are
    classes, for which a folder that is called as a part or lies around the set may stand; None: no
    folder around the set is passed through. By the `rules` 0, of 0.1.0, fewer names made a part,
    and a name alone did.
    """
    older = rules == 0
    top = "" if older else _enclosing(folders, known, rules)
    inner = folders.within(top)
    called = {name: part for name in inner if (part := split_of(name, older))}
    if older:
        return _with_parts(folders, top, called, older) if called else Layout(top)
    full = {name: part for name, part in called.items() if folders.within(_join(top, name))}
    if "train" in full.values():
        named = {n: p for n, p in called.items() if n in full or _is_first_of(n, p, full)}
        return _with_parts(folders, top, named)
    flat = [name for name in called if name not in full and name not in (known or ())]
    train = next((name for name in flat if called[name] == "train"), "")
    others = [name for name in inner if name not in called and _holds(folders, _join(top, name))]
    classes = {name for one in full for name in folders.within(_join(top, one))}
    if any(split_of(n, older=True) for n in full) or (full and (not others or classes & {*others})):
        layout = _with_parts(folders, top, full)
        return replace(layout, lacks=_no_class_folders(train)) if train else layout
    flat_part = next((n for n in flat if n != train and split_of(n, older=True)), "")
    if others and flat_part:
        return Layout(
            top,
            lacks=f"{flat_part} holds images and no class folders, beside {', '.join(others[:3])}: "
            "if it is a class, call it otherwise; if it holds images to test with, take it out, or "
            f"make train/CLASS and {called[flat_part]}/CLASS",
        )
    if train and not others:
        return Layout(top, lacks=_no_class_folders(train))
    return Layout(top, classes=tuple(called))


def _holds(folders: Folders, place: str) -> bool:
    return folders.has_images(place) or bool(folders.within(place))


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
    beside = tuple(name for name in folders.within(top) if name not in called)
    return Layout(top, parts, beside, lacks=lacks)


def _enclosing(folders: Folders, known: Collection[str] | None, rules: int) -> str:
    """The folder around a set that alone lies in the root, and so on; "" where there is none. One
    beside it that holds other files and no image, as of a manual, does not count."""
    top = ""
    for _ in range(_DEEPEST):
        inner = folders.within(top)
        if rules >= 2:
            inner = tuple(n for n in inner if not folders.holds_other_files_alone(_join(top, n)))
        if known is None or len(inner) != 1 or inner[0] in known or split_of(inner[0]):
            break
        place = _join(top, inner[0])
        if folders.has_images(place) or not folders.within(place):
            break
        top = place
    return top


def _unwrapped(folders: Folders, place: str, part: str) -> str:
    """The folder with a part's class folders: seg_train/seg_train, train/images."""
    for _ in range(_DEEPEST):
        inner = folders.within(place)
        if len(inner) != 1 or folders.has_images(place):
            break
        if split_of(inner[0]) != part and _plain(inner[0]) not in _WRAPPERS:
            break
        if not folders.within(_join(place, inner[0])):  # the one class that is there
            break
        place = _join(place, inner[0])
    return place


def _join(place: str, name: str) -> str:
    return f"{place}/{name}" if place else name
