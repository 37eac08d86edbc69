"""Class folders, on a disk or in archives: train/CLASS/*, CLASS/*, or either in a folder around.

On a disk links are followed to files and folders, inside the set and outside, as if what they lead
to lay there. A folder that is already open above is not entered again, so loops end. A link that
leads nowhere is an image that cannot be read, if it is named like one; others are counted and said.

A folder of archives and no other images is read as if they were unpacked in it: cat.zip of images
alone as the folder cat, train.tar as the part train.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple, NoReturn

from alexnet.data.archive import (
    FILE_LIMIT,
    MEMBERS_LIMIT,
    SUFFIXES,
    ArchiveFiles,
    is_archive,
    list_archive,
)
from alexnet.data.image_set import (
    GONE,
    UNLABELLED,
    ImageFiles,
    ImageSet,
    LabelledImages,
    Listing,
    Opening,
    Unlabelled,
    make_files,
    make_image_set,
    no_image,
    reading,
)
from alexnet.data.images import is_image
from alexnet.data.layout import Folders, Layout, find_layout, is_shown, split_in, split_of
from alexnet.errors import DataError
from alexnet.support.options import call

LINKS_LIMIT = 50_000  # links to folders that are followed: they can lead to each other
_NESTED = Path("ILSVRC/Data/CLS-LOC")  # where rules before 2 looked for Kaggle's parts
_NAMED = 5  # folders in a message


@dataclass
class FolderFiles:
    """Files below a folder of a disk by name, sorted: a `Listing`.

    `names` are paths below it with "/" between, `folders` those of all folders, `links` those of
    them that are links. `dangling` are links that lead nowhere and are not named like an image.
    """

    root: Path
    names: list[str]
    folders: list[str] = field(default_factory=list)
    links: frozenset[str] = frozenset()
    dangling: tuple[str, ...] = ()
    prefix: str = ""

    def size(self, index: int) -> int:
        return size_of(self.source(index))

    def stamp(self) -> int:
        total = 0
        for name in self.names:
            try:
                total += os.stat(os.path.join(self.root, name)).st_mtime_ns
            except OSError:
                continue
        return total % (1 << 62)

    def source(self, index: int) -> Path:
        return self.root / self.names[index]

    on_disk = source

    def read(self, index: int) -> bytes:
        """The bytes of a file. DataError where it cannot be read or is larger than FILE_LIMIT."""
        path = self.root / self.names[index]
        with reading(path):
            if not path.is_file():  # to open a pipe would never end
                raise DataError(f"{path}: a link to nothing, or no regular file")
            with open(path, "rb") as file:
                data = file.read(FILE_LIMIT + 1)
        if len(data) > FILE_LIMIT:
            raise DataError(f"{path}: more than {FILE_LIMIT:,} bytes, which is the limit")
        return data


def size_of(file: Path) -> int:
    """Bytes of a file, GONE where there is none."""
    try:
        return file.stat().st_size
    except OSError:
        return GONE


def list_folder(root: Path, *, show_macosx: bool = False) -> FolderFiles:
    """All files below a folder that are not hidden. DataError where a folder cannot be read."""
    names: list[str] = []
    folders: list[str] = []
    links: set[str] = set()
    dangling: list[str] = []

    def is_seen(name: str) -> bool:
        return is_shown(name) or (show_macosx and name == "__MACOSX")

    # Folders to read, each with the identities of those that lead to it.
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while waiting:
        folder, above = waiting.pop()
        full = os.path.join(root, folder)
        with reading(Path(full) if len(full) < 1000 else root / folder.split("/")[0]):
            about = os.stat(full)
            identity = (about.st_dev, about.st_ino)
            if identity in above:
                continue
            if folder:
                folders.append(folder)
            with os.scandir(full) as entries:
                for entry in entries:
                    if not is_seen(entry.name):
                        continue
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir():
                        waiting.append((name, above | {identity}))
                        if entry.is_symlink():
                            links.add(name)
                    # A link to nothing, or a pipe, is to be named where an image is expected.
                    elif is_image(name) or entry.is_file():
                        names.append(name)
                    elif entry.is_symlink() and not os.path.exists(entry.path):
                        dangling.append(name)
        if len(links) > LINKS_LIMIT:
            raise DataError(
                f"{root}: more than {LINKS_LIMIT:,} links to folders, as where they lead to each "
                "other; name a part of it, or copy what they lead to"
            )
        if len(names) + len(folders) > MEMBERS_LIMIT:
            raise DataError(f"{root}: more than {MEMBERS_LIMIT:,} files; name a part of it")
    return FolderFiles(root, sorted(names), sorted(folders), frozenset(links), tuple(dangling))


class TreeFile(NamedTuple):
    """A file: its path as if archives were unpacked, and which file of which listing it is."""

    name: str
    listing: int
    file: int


@dataclass(frozen=True)
class FileTree:
    """All files of a folder or an archive: `entries` sorted by name, and all `folders`. `unread`
    are archives beside the images, which are not opened."""

    root: Path
    listings: tuple[Listing, ...]
    entries: list[TreeFile]
    folders: list[str]
    unread: tuple[str, ...] = ()

    @property
    def images(self) -> list[TreeFile]:
        return [entry for entry in self.entries if is_image(entry.name)]

    @property
    def dangling(self) -> tuple[str, ...]:
        return tuple(name for one in self.listings for name in getattr(one, "dangling", ()))

    def files(self, entries: Sequence[TreeFile]) -> ImageFiles:
        """Some of its files."""
        images = make_files(
            self.listings, ((e.listing, e.file, UNLABELLED) for e in entries)
        ).images
        assert isinstance(images, ImageFiles)
        return images


def list_tree(root: Path, *, archives: bool = False, show_macosx: bool = False) -> FileTree:
    """All files of a folder or an archive. Archives in the folder are opened where there is no
    other image, or where `archives` are to be opened all the same."""
    if not root.is_dir():
        listing = list_archive(root)
        entries = [TreeFile(name, 0, i) for i, name in enumerate(listing.names)]
        return FileTree(root, (listing,), entries, listing.folders)
    folder = list_folder(root, show_macosx=show_macosx)
    entries = [TreeFile(name, 0, i) for i, name in enumerate(folder.names)]
    inner = [n for n in folder.names if "/" not in n and PurePosixPath(n).suffix in SUFFIXES]
    if inner and not archives and any(is_image(entry.name) for entry in entries):
        return FileTree(root, (folder,), entries, folder.folders, tuple(inner))
    opened = [list_archive(root / name) for name in inner]
    entries = [entry for entry in entries if entry.name not in inner]
    folders = list(folder.folders)
    stems = [PurePosixPath(name).stem for name in inner]
    in_parts = any(
        split_in(stem) == "train" and _tops(one) for stem, one in zip(stems, opened, strict=True)
    )
    for number, (name, stem, listing) in enumerate(zip(inner, stems, opened, strict=True), 1):
        listing.prefix = f"{name}/"
        place = _unpacked_to(stem, listing, in_parts)
        entries += [TreeFile(f"{place}{n}", number, i) for i, n in enumerate(listing.names)]
        folders += [f"{place}{n}" for n in listing.folders] + ([place[:-1]] if place else [])
    return FileTree(root, (folder, *opened), sorted(entries), sorted({*folders}))


def _tops(listing: ArchiveFiles) -> set[str]:
    """The outermost folders that hold an archive's images."""
    return {name.partition("/")[0] for name in listing.names if is_image(name) and "/" in name}


def _unpacked_to(stem: str, listing: ArchiveFiles, in_parts: bool) -> str:
    """The folder, ending in "/", that stands for an archive called `stem`; "" for the one around.

    Images without a folder belong to a class of the archive's name. Where there is an archive of
    the part train (`in_parts`), ..._val.tar is the part val, unless a folder inside says so.
    """
    tops = _tops(listing)
    part = split_in(stem) if in_parts else None
    if part and not any(split_of(top) for top in tops):
        return f"{part}/"
    return "" if tops else f"{stem}/"


def open_class_folders(opening: Opening) -> ImageSet | None:
    """A folder of class folders, or an archive of them. None where there is neither a folder nor an
    archive. DataError where it contradicts itself or has too little for what it is opened for."""
    root = opening.root
    if not root.is_dir() and not is_archive(root):
        return None
    if opening.listing is None:
        opening.listing = list_tree(root, show_macosx=opening.rules < 2)
    tree: FileTree = opening.listing
    if not tree.images:
        if not tree.folders and not any(isinstance(x, ArchiveFiles) for x in tree.listings):
            return None
        raise no_image(root)
    return _ClassFolders(tree, opening).image_set()


class _ClassFolders:
    """The parts and classes of a tree, as folders say them."""

    def __init__(self, tree: FileTree, opening: Opening) -> None:
        self.root, self.tree, self.opening, self.start = opening.root, tree, opening, ""
        entries, folders = tree.entries, tree.folders
        if opening.rules < 2 and (self.root / _NESTED / "train").is_dir():
            self.start = f"{_NESTED}/"
            skip = len(self.start)
            entries = [e._replace(name=e.name[skip:]) for e in entries if self._is_below(e.name)]
            folders = [folder[skip:] for folder in folders if self._is_below(folder)]
        self.top = self.root / self.start if self.start else self.root
        self.folders = Folders([entry.name for entry in entries], folders)
        known = () if opening.to_train else opening.known
        self.layout: Layout = find_layout(self.folders, rules=opening.rules, known=known)
        self.others = [entry.name for entry in entries if not is_image(entry.name)]
        self.by_class: dict[str, dict[str, list[TreeFile]]] = {}
        places: dict[str, tuple[str, str]] = {}
        for entry in entries:
            if not is_image(entry.name):
                continue
            folder = entry.name.rpartition("/")[0]
            if folder not in places:
                places[folder] = self.layout.place(folder)
            part, name = places[folder]
            if opening.rules < 2 and not self._was_read(folder, part, name):
                continue
            self.by_class.setdefault(part, {}).setdefault(name, []).append(entry)

    def _is_below(self, name: str) -> bool:
        return name.startswith(self.start)

    def _was_read(self, folder: str, part: str, name: str) -> bool:
        """Whether files in a folder were read by rules before 2: a linked folder inside a class was
        not, nor was `__MACOSX` where a class might be."""
        place = self._place_of(part)
        within = f"{place}/{name}" if place else name
        if name and not is_shown(name):
            return False
        path = folder
        while len(path) > len(within):
            if any(f"{self.start}{path}" in getattr(x, "links", ()) for x in self.tree.listings):
                return False
            path = path.rpartition("/")[0]
        return True

    def _place_of(self, part: str) -> str:
        return self.layout.parts.get(part, self.layout.top)

    def image_set(self) -> ImageSet:
        layout, to_train = self.layout, self.opening.to_train
        parts = tuple(layout.parts) or ("all",)
        if not layout.parts and not self.folders.within(layout.top):
            raise DataError(
                f"{self.top}: holds no class folders: put the images into a folder that is called "
                f"as their class (`{call('classify')}` names images without one)"
            )
        if layout.contradiction or (layout.lacks and (to_train or not layout.parts)):
            raise DataError(f"{self.top}: {layout.contradiction or layout.lacks}")
        classes = self._classes(parts)
        outside = self._outside()
        kind = "folder" if self.root.is_dir() else "archive"
        return make_image_set(
            kind,
            self.root,
            classes,
            {part: self._reader(part, classes) for part in parts},
            folders=dict(layout.parts),
            rules=self.opening.rules,
            outside=self.tree.files(outside) if outside else None,
            others=count_endings(self.others),
            notes=tuple(f"{self.top}: {note}" for note in self._notes(outside)),
        )

    def _classes(self, parts: Sequence[str]) -> tuple[str, ...]:
        """The class folders of the part to train on; of a set that is only tested on, of all."""
        if not self.opening.to_train:
            names = {n for part in parts for n in self.folders.within(self._place_of(part))}
            return self._unlike(tuple(sorted(names)))
        classes = self.folders.within(self._place_of(parts[0]))
        if len(classes) < 2:
            place = self._place_of(parts[0])
            raise DataError(
                f"{self.top / place if place else self.top}: one class cannot be classified, found "
                f"{', '.join(classes) or 'none'}; expected a folder for each of two or more "
                "classes: CLASS/*.jpg or train/CLASS/*.jpg"
            )
        return self._unlike(classes)

    def _unlike(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        """DataError where two classes differ only by case, which a run from before may have."""
        folded: dict[str, str] = {}
        for name in classes if self.opening.rules >= 2 else ():
            if (other := folded.setdefault(name.casefold(), name)) != name:
                raise DataError(
                    f"{self.top}: the folders {other!r} and {name!r} differ only by case; make "
                    "them one"
                )
        return classes

    def _outside(self) -> list[TreeFile]:
        """Images that belong to no class of a part."""
        outside = []
        for part, by_class in self.by_class.items():
            for name, entries in by_class.items():
                if part == "unlabelled" or not name or (part == "all" and self.layout.parts):
                    outside += entries
        return sorted(outside)

    def _notes(self, outside: Sequence[TreeFile]) -> list[str]:
        """What was taken for what, and what is not read."""
        layout, notes = self.layout, []
        if taken := layout.taken():
            notes.append(taken)
        if layout.parts and layout.beside:
            names = ", ".join(layout.beside[:_NAMED])
            notes.append(f"{names} beside {', '.join(layout.parts)}: not read")
        beside = {f"{layout.top}/{n}" if layout.top else n for n in layout.beside}
        lone = [e.name for e in outside if not any(e.name.startswith(f"{b}/") for b in beside)]
        if lone:
            count = f"{len(lone):,} image{'s lie' if len(lone) > 1 else ' lies'}"
            notes.append(f"{count} in no class folder, first {lone[0]}: not read")
        if unread := self.tree.unread:
            what = "archives" if len(unread) > 1 else "an archive"
            notes.append(f"{', '.join(unread[:_NAMED])}: {what} beside the images, not read")
        if dangling := self.tree.dangling:
            count = f"{len(dangling):,} links lead" if len(dangling) > 1 else "1 link leads"
            notes.append(f"{count} nowhere, first {min(dangling)}: not read")
        return notes

    def _reader(self, part: str, classes: tuple[str, ...]) -> Callable[[], LabelledImages]:
        """Gives the files of a part, or says what is wrong with it, when it is read."""
        try:
            return partial(LabelledImages, **vars(self._read(part, classes)))
        except DataError as error:
            return partial(_raise, type(error), str(error))

    def _read(self, part: str, classes: tuple[str, ...]) -> LabelledImages:
        """The files of a part by class, and of a class by name."""
        place = self._place_of(part)
        where = self.top / place if place else self.top
        present = self.folders.within(place)
        by_class = self.by_class.get(part, {})
        if not present:
            why = f"{where}: holds no class folders; sort its images into {classes[0]}, ..."
            raise Unlabelled(why) if by_class.get("") else DataError(why)
        if unknown := sorted(set(present) - set(classes)):
            raise DataError(
                f"{where / unknown[0]}: a class unknown to train; add it there or remove it"
            )
        chosen: list[TreeFile] = []
        labels: list[int] = []
        number = {name: label for label, name in enumerate(classes)}
        for name in present:
            entries = by_class.get(name, [])
            if not entries and self.opening.to_train:
                start = f"{place}/{name}/" if place else f"{name}/"
                others = sum(other.startswith(start) for other in self.others)
                raise DataError(
                    f"{where / name}: no images ({others} other files); add some or remove the "
                    "folder"
                )
            chosen += entries
            labels += [number[name]] * len(entries)
        rows = ((e.listing, e.file, label) for e, label in zip(chosen, labels, strict=True))
        return make_files(self.tree.listings, rows)


def _raise(kind: type[DataError], why: str) -> NoReturn:
    raise kind(why)


def count_endings(names: Sequence[str]) -> dict[str, int]:
    """How many files there are by the ends of their names, most first."""
    endings = Counter(PurePosixPath(name).suffix.lower() for name in names)
    return {ending or "no ending": count for ending, count in endings.most_common()}
