"""Archives that mean harm: they lead out, link, lie about their sizes, repeat and end early."""

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from archives import FLAT, JPEG, tar_bytes, write_files, write_tar, write_zip


def one_member(path: Path, **fields: Any) -> Path:
    """A tar with a good image, and one more member as `fields` say."""
    with tarfile.open(path, "w") as archive:
        for name, more in (("cat/good.jpg", {}), ("cat/evil.jpg", fields)):
            member = tarfile.TarInfo(name)
            member.size = len(JPEG)
            for key, value in more.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(JPEG) if member.isreg() else None)
    return path


def zip_mode(path: Path, mode: int) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("cat/evil.jpg")
        info.external_attr = mode << 16
        archive.writestr("cat/good.jpg", JPEG)
        archive.writestr(info, "/etc/passwd")
    return path


def sparse(path: Path) -> Path:
    """A member in the sparse form of GNU tar 1.0."""
    body = b"1\n0\n10\n".ljust(512, b"\0") + b"0123456789"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("cat/evil.jpg")
        member.size = len(body)
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        member.pax_headers |= {"GNU.sparse.realsize": "99999999"}
        archive.addfile(member, io.BytesIO(body))
    return path


def cut(path: Path, end: int, inner: bool = False) -> Path:
    whole = tar_bytes({f"cat/{i}.jpg": JPEG for i in range(4)})
    part = whole[:end]
    return write_tar(path, {"cat.tar": part}) if inner else write_files(
        path.parent, {path.name: part}
    ) / path.name  # fmt: skip


def negative(path: Path) -> Path:
    """A member of -512 bytes, which sends a reader back to where it was."""
    data = bytearray(tar_bytes({"cat/a.jpg": JPEG, "cat/b.jpg": JPEG}))
    data[124:136] = b"\xff" * 10 + struct.pack(">h", -512)
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    return path


STEP = 512 + -(-len(JPEG) // 512) * 512  # bytes of one image in a tar
HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "upwards": (lambda p: one_member(p, name="../evil.jpg"), "leads out of the archive"),
    "upwards inside": (lambda p: one_member(p, name="cat/../../evil.jpg"), "leads out"),
    "absolute": (lambda p: one_member(p, name="/tmp/evil.jpg"), "leads out of the archive"),
    "backslash": (lambda p: one_member(p, name="cat\\evil.jpg"), "between its folders"),
    "symlink": (lambda p: one_member(p, type=tarfile.SYMTYPE, linkname="/etc"), "is a link"),
    "hardlink": (lambda p: one_member(p, type=tarfile.LNKTYPE, linkname="cat/good.jpg"), "link"),
    "device": (lambda p: one_member(p, type=tarfile.CHRTYPE), "a device"),
    "pipe": (lambda p: one_member(p, type=tarfile.FIFOTYPE), "a device"),
    "long link": (lambda p: one_member(p, type=tarfile.SYMTYPE, linkname="a/" * 4096), "a link"),
    "long name": (lambda p: one_member(p, name="d/" * 2050 + "a.jpg"), "a name of 4,105 letters"),
    "twice": (lambda p: one_member(p, name="cat/good.jpg"), "occurs twice"),
    "case": (lambda p: one_member(p, name="Cat/Good.jpg"), "differ only by case"),
    "between members": (lambda p: cut(p, 2 * STEP), "has no end"),
    "within a member": (lambda p: cut(p, 2 * STEP - 600), "cut short|unexpected end"),
    "within a header": (lambda p: cut(p, 2 * STEP + 100), "cut short|unexpected end"),
    "inner between": (lambda p: cut(p, 2 * STEP, inner=True), "has no end"),
    "inner within": (lambda p: cut(p, 2 * STEP - 600, inner=True), "cut short|unexpected end"),
    "sparse": (sparse, "is a link or a device"),
    "negative": (negative, "get it again|get the archive again"),
    "compressed": (
        lambda p: write_files(p.parent, {p.name: gzip.compress(tar_bytes(FLAT))}) / p.name,
        "unpack",
    ),
    "zip upwards": (lambda p: write_zip(p, {"../evil.jpg": JPEG}), "leads out of the archive"),
    "zip absolute": (lambda p: write_zip(p, {"/tmp/evil.jpg": JPEG}), "leads out"),
    "zip symlink": (lambda p: zip_mode(p, stat.S_IFLNK | 0o777), "is no regular file"),
    "zip device": (lambda p: zip_mode(p, stat.S_IFCHR | 0o600), "is no regular file"),
    "folders by case": (lambda p: one_member(p, name="Cat/evil.jpg"), "folders 'Cat' and 'cat'"),
    "folder upwards": (lambda p: one_member(p, name="../x", type=tarfile.DIRTYPE), "leads out"),
    "zip case": (lambda p: write_zip(p, {"a/1.jpg": JPEG, "A/1.jpg": JPEG}), "only by case"),
}
