"""What lies where in a tar shard. Its headers are read once, and what they say is kept in the cache."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import posixpath
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from pretext.datasets.decoding import check_regular, image_suffixes
from pretext.datasets.fingerprints import Listing, digest
from pretext.system.cache import cache_folder
from pretext.system.checkpoint import atomic_write
from pretext.system.errors import UserError
from pretext.system.progress import counted
from pretext.system.stored_json import Shape, misfit, parse_json

VERSION = 1
"""Raise it whenever an index changes for the same shard."""
AT_ONCE = 8
"""Number of shards that are indexed at the same time."""
LONGEST_CLASS = 4096
"""A `.cls` member of more bytes is not a class."""
BLOCK = tarfile.BLOCKSIZE
COMPRESSED = {b"\x1f\x8b": "gzip -d", b"BZ": "bzip2 -d", b"\xfd7": "xz -d", b"\x28\xb5": "zstd -d"}
"""The first bytes of compressed files, and what unpacks them."""


@dataclass
class TarIndex:
    """The members of one shard that matter here. A key is a member's path up to the first dot of its name."""

    names: list[str] = field(default_factory=list)
    """The path of each picture in the shard."""
    offsets: list[int] = field(default_factory=list)
    """The place of each picture's first byte."""
    sizes: list[int] = field(default_factory=list)
    """Number of bytes of each picture."""
    cls: dict[str, str] = field(default_factory=dict)
    """The text of each `.cls` member, by its key."""
    json: dict[str, list[int]] = field(default_factory=dict)
    """Place and size of each `.json` member, by its key."""
    links: int = 0
    """Number of links that lead to no picture of the shard."""
    ended: bool = True
    """Whether the archive ends with its end mark."""


SHAPE: Shape = {
    "names": [str],
    "offsets": [int],
    "sizes": [int],
    "cls": {"*": str},
    "json": {"*": [int]},
    "links": int,
    "ended": bool,
}


def indexed(paths: Sequence[str]) -> list[TarIndex]:
    """Return the index of each shard; several are read at once.

    Raises:
        UserError: If a shard cannot be read, is compressed, truncated or no tar archive, or names a member twice.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(_remembered, paths)
        return list(counted(found, "index shards", len(paths), unit="shard"))


def read_json_labels(path: str, index: TarIndex, wanted: str) -> dict[str, str | int]:
    """Return a value of each `.json` member of a shard, by the member's key; from the cache if nothing has changed.

    Args:
        path: The shard.
        index: Its index.
        wanted: The key of the value; `a.b` is the key b in the object a. Members without it are left out.

    Raises:
        UserError: If a member is not valid JSON, or a value is neither text nor a whole number.
    """
    listing = Listing([path])
    cached = cache_folder("shards") / digest(str(VERSION), "json", wanted, *listing.lines)
    with contextlib.suppress(FileNotFoundError, ValueError):
        stored = json.loads(cached.read_bytes())
        if not misfit(stored, {"*": (str, int)}):
            return stored
    found: dict[str, str | int] = {}
    with Path(path).open("rb") as stream:
        for key, (offset, size) in index.json.items():
            source = f"{path}: {key}.json"
            value = parse_json(os.pread(stream.fileno(), size, offset), source=source, remedy="write the shard again")
            for part in wanted.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if value is not None:
                if isinstance(value, bool) or not isinstance(value, str | int):
                    raise UserError(f"{source}: {wanted} is {str(value)[:40]!r}; a class is a name or a whole number")
                found[key] = value
    if index.json and not found:
        raise UserError(f"{path}: label={wanted}: no .json member has this key")
    if listing.is_settled():
        with atomic_write(cached) as temporary:
            temporary.write_text(json.dumps(found))
    return found


def key_of(name: str) -> str:
    """Return a member's path up to the first dot of its name."""
    folder, _, base = name.rpartition("/")
    key = base.partition(".")[0]
    return f"{folder}/{key}" if folder else key


def _remembered(path: str) -> TarIndex:
    """Return the index of a shard, from the cache if the shard has not changed."""
    listing = Listing([path])
    cached = cache_folder("shards") / digest(str(VERSION), *listing.lines)
    with contextlib.suppress(FileNotFoundError, ValueError):
        stored = json.loads(cached.read_bytes())
        if not misfit(stored, SHAPE):
            return TarIndex(**stored)
    index = _read(path)
    if listing.is_settled():
        with atomic_write(cached) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(index)))
    return index


def _read(path: str) -> TarIndex:
    try:
        check_regular(path)
        with Path(path).open("rb") as stream:
            start = stream.read(2)
            if start in COMPRESSED:
                raise UserError(
                    f"{path}: is compressed, so that no picture can be read by itself; unpack it by "
                    f"{COMPRESSED[start]}, pictures are compressed already"
                )
            stream.seek(0)
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                return _members(path, archive)
    except tarfile.ReadError as error:
        if "unexpected end" in str(error):
            raise UserError(f"{path}: is truncated; copy it again") from None
        raise UserError(f"{path}: not a tar archive ({error})") from None
    except tarfile.HeaderError as error:
        raise UserError(f"{path}: not a sound tar archive ({error}); copy it again") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


def _members(path: str, archive: tarfile.TarFile) -> TarIndex:
    index = TarIndex()
    place: dict[str, tuple[int, int]] = {}
    suffixes = image_suffixes()
    descriptor: int = archive.fileobj.fileno()  # type: ignore[union-attr, attr-defined]
    archive.offset, archive.firstmember = 0, None  # type: ignore[attr-defined]  # opening has read the first one
    while (member := _next(archive, descriptor)) is not None:
        name = posixpath.normpath(member.name).lstrip("/")
        suffix = posixpath.splitext(name)[1].lower()
        is_image = suffix in suffixes
        if not (is_image or suffix in (".cls", ".json")) or posixpath.basename(name).startswith(".") or member.isdir():
            continue
        span = member.offset_data, member.size
        if member.islnk() and (target := posixpath.normpath(member.linkname).lstrip("/")) in place:
            span = place[target]
        elif not member.isreg() or member.issparse():
            index.links += is_image
            continue
        if name in place:
            raise UserError(f"{path}: holds {name} twice; names in a shard must differ, write it again")
        place[name] = span
        if is_image:
            index.names.append(name)
            index.offsets.append(span[0])
            index.sizes.append(span[1])
        elif suffix == ".json":
            index.json[key_of(name)] = [*span]
        elif span[1] > LONGEST_CLASS:
            raise UserError(f"{path}: {name} has {span[1]:,} bytes, which is no class")
        else:
            text = os.pread(descriptor, span[1], span[0])
            index.cls[key_of(name)] = text.decode("utf-8-sig", errors="replace").strip()
    size = os.fstat(descriptor).st_size
    if (
        archive.offset > size
        or (end := os.pread(descriptor, BLOCK, archive.offset)).strip(b"\0")
        or 0 < len(end) < BLOCK
    ):
        at = min(archive.offset, size)
        raise UserError(f"{path}: is truncated or damaged at byte {at:,}; copy it again")
    index.ended = bool(end)
    return index


def _next(archive: tarfile.TarFile, descriptor: int) -> tarfile.TarInfo | None:
    """Return the member that begins at `archive.offset`, and move that on; None at the end.

    A plain header, as nearly all are, is read here, at a third of the time that tarfile takes.
    """
    header = os.pread(descriptor, BLOCK, archive.offset)
    size, checksum = _octal(header[124:136]), _octal(header[148:156])
    is_plain = header[156:157] in (b"0", b"\0") and header[257:262] == b"ustar" and size is not None
    if is_plain and not archive.pax_headers and checksum == _checksum(header):
        # the prefix is POSIX's; GNU's format has other fields there
        parts = [header[345:500], header[:100]] if header[257:263] == b"ustar\0" else [header[:100]]
        texts = [part.partition(b"\0")[0].decode(errors="surrogateescape") for part in parts]
        member = tarfile.TarInfo("/".join(filter(None, texts)))
        if not member.name.endswith("/"):  # else a folder, in the oldest format
            member.size, member.offset_data = size or 0, archive.offset + BLOCK
            archive.offset = member.offset_data + -(-member.size // BLOCK) * BLOCK
            return member
    archive.fileobj.seek(archive.offset)  # type: ignore[union-attr]
    following = archive.next()
    archive.members = []  # type: ignore[attr-defined]  # it would keep them all
    return following


def _octal(digits: bytes) -> int | None:
    """Return the number in a field of a header; None if it is written in another way, as very large ones are."""
    stripped = digits.strip(b" \0")
    return int(stripped, 8) if stripped and not stripped.strip(b"01234567") else None


def _checksum(header: bytes) -> int:
    """Return the checksum of a header, in which the bytes of the checksum itself count as spaces."""
    return sum(header) - sum(header[148:156]) + 8 * 32
