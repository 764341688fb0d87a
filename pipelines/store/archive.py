"""Tar archives that are equal to the byte for equal content, and a reader that trusts nothing. A leaf.

Plain POSIX ustar with regular files only: no clock, no user, no extended headers. Any tar reads them; the reader here
takes no more than that, so that no header can make it read or allocate more than `MAX_MEMBER_BYTES`.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 512
END = bytes(2 * BLOCK)  # an archive ends with two blocks of zeros
MAX_MEMBER_BYTES = 4 * 2**30
HASH_BYTES = 2**20
"""Hashed at once, beside the writing."""
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)


class ArchiveError(ValueError):
    """An archive is damaged or holds what it may not; the message says what and where."""


@dataclass(frozen=True)
class Member:
    """One file in an archive that was read."""

    name: str
    """Name as it stands in the header."""
    offset: int
    """Where the content begins."""
    data: bytes
    """The content."""


def member_bytes(size_bytes: int) -> int:
    """Return the bytes that a file of this size takes in an archive: a header, and itself padded to whole blocks."""
    return BLOCK + -(-size_bytes // BLOCK) * BLOCK


class _Sha256:
    """SHA-256 of a stream, reckoned in a thread: the hash takes about as long as the disk, and neither holds the GIL.

    What waits is bounded by `HASH_BYTES` and twice the largest piece.
    """

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.pool = ThreadPoolExecutor(1)
        self.pieces: list[bytes] = []
        self.waiting = 0
        self.running: Future[None] | None = None

    def update(self, data: bytes) -> None:
        self.pieces.append(data)
        self.waiting += len(data)
        if self.waiting >= HASH_BYTES:
            self._join()
            self.running = self.pool.submit(self._hash, self.pieces)
            self.pieces, self.waiting = [], 0

    def hexdigest(self) -> str:
        self._join()
        self._hash(self.pieces)
        self.pieces, self.waiting = [], 0
        return self.digest.hexdigest()

    def _join(self) -> None:
        if self.running is not None:
            self.running.result()

    def _hash(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self.digest.update(piece)


class Writer:
    """An archive being written to a stream that need not be seekable."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.offset = 0
        self._sha256 = _Sha256()

    def add(self, name: str, data: bytes) -> int:
        """Append one file; return the offset of its content. Raises ArchiveError for one that is too large."""
        if len(data) > MAX_MEMBER_BYTES:
            raise ArchiveError(f"{name} has {len(data)} bytes; at most {MAX_MEMBER_BYTES} are allowed")
        header = tarfile.TarInfo(name)
        header.size, header.mtime, header.mode = len(data), 0, 0o644
        self._write(header.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict"))
        offset = self.offset
        self._write(data)
        self._write(bytes(-len(data) % BLOCK))
        return offset

    def end(self) -> None:
        """Write the end of the archive."""
        self._write(END)

    @property
    def sha256(self) -> str:
        """SHA-256 of all that was written so far."""
        return self._sha256.hexdigest()

    def _write(self, data: bytes) -> None:
        self.file.write(data)
        self._sha256.update(data)
        self.offset += len(data)


def read(file: BinaryIO, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[Member]:
    """Yield the wanted files of an archive in order, seeking past the others.

    Raises ArchiveError where the archive ends too early, a header is damaged or something is no regular file.
    """
    offset = file.tell()
    while (header := _header(file, offset)) is not None:
        data = file.read(header.size) if wanted(header.name) else None
        if data is None:
            file.seek(header.size, 1)
        elif len(data) < header.size:
            raise ArchiveError(f"ends at byte {offset + BLOCK + len(data)} in the middle of {header.name}")
        file.seek(-header.size % BLOCK, 1)
        if data is not None:
            yield Member(header.name, offset + BLOCK, data)
        offset += member_bytes(header.size)


def _header(file: BinaryIO, offset: int) -> tarfile.TarInfo | None:
    block = file.read(BLOCK)
    if len(block) < BLOCK:
        raise ArchiveError(f"ends at byte {offset + len(block)} without an end mark")
    if not any(block):
        return None
    try:
        header = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise ArchiveError(f"damaged header at byte {offset}: {error}") from error
    if header.type not in _REGULAR or not 0 <= header.size <= MAX_MEMBER_BYTES:
        raise ArchiveError(f"{header.name!r} at byte {offset} is no regular file of at most {MAX_MEMBER_BYTES} bytes")
    return header
