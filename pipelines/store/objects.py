"""What an object store is asked: one request for each call here, one for a thousand objects in a listing or removal.

Every request of a bucket costs money and a moment, so nothing is asked twice and nothing is asked just to be sure: a
GET tells size and version of an object beside its bytes. Retries are s3fs's. A leaf: no Ray.
"""

from __future__ import annotations

import errno
import io
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fsspec.asyn import sync

MANY = 1000
"""Objects that S3 lists or removes at once."""
PIECE_BYTES = 8 * 2**20
"""Fetched at once at the beginning of an object, and while it is read on: a small one comes whole."""
JUMP_BYTES = 2 * 2**20
"""Fetched at once elsewhere; what follows is twice as much each time, up to `PIECE_BYTES`."""


@dataclass(frozen=True)
class Entry:
    """One file or object of a listing."""

    uri: str
    """Its URI."""
    size_bytes: int
    """Its size."""
    version: str
    """Tells that its content has changed: an etag."""


@dataclass(frozen=True)
class Fetched:
    """What one GET brought."""

    data: bytes
    """The bytes asked for, fewer where the object ends before."""
    size_bytes: int
    """The size of the whole object."""
    version: str
    """Its etag."""


def _named(fs: Any, path: str) -> dict[str, str]:
    bucket, key, version = fs.split_path(path)
    return {"Bucket": bucket, "Key": key} | ({"VersionId": version} if version else {})


def head(fs: Any, path: str) -> Entry | None:
    """Return what an object is, or None where there is none."""
    try:
        answer = fs.call_s3("head_object", **_named(fs, path))
    except FileNotFoundError:
        return None
    return Entry(f"s3://{path}", int(answer["ContentLength"]), answer.get("ETag", "").strip('"'))


def get(fs: Any, path: str, start: int = 0, end: int | None = None, version: str = "") -> Fetched:
    """Return the bytes from `start` to before `end` of an object.

    Raises:
        FileNotFoundError: Where there is none.
        OSError: Where its version is another than the given one.
    """
    asked = _named(fs, path) | ({"IfMatch": f'"{version}"'} if version else {})
    ranged = start > 0 or end is not None
    if ranged:
        asked["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
    try:
        return _fetched(fs, asked)
    except OSError as error:
        if ranged and _code(error) == "InvalidRange":  # it begins at or after the end
            found = head(fs, path) if start else None
            return Fetched(b"", found.size_bytes if found else 0, version)
        if _code(error) in ("PreconditionFailed", "412"):
            raise OSError(errno.ESTALE, f"s3://{path} was replaced while it was read; read it again") from error
        raise


def tail(fs: Any, path: str, count: int) -> Fetched:
    """Return the last bytes of an object, or all of a smaller one."""
    try:
        return _fetched(fs, _named(fs, path) | {"Range": f"bytes=-{count}"})
    except OSError as error:
        if _code(error) == "InvalidRange":
            return Fetched(b"", 0, "")
        raise


def _fetched(fs: Any, asked: dict[str, str]) -> Fetched:
    data, answer = sync(fs.loop, _body, fs, asked)
    size = str(answer.get("ContentRange", "")).rpartition("/")[2]  # bytes 0-9/1000
    return Fetched(data, int(size or len(data)), answer.get("ETag", "").strip('"'))


def _code(error: OSError) -> str:
    """Return what S3 called an error that s3fs has translated."""
    return str(getattr(error.__cause__, "response", {}).get("Error", {}).get("Code", ""))


async def _body(fs: Any, asked: dict[str, str]) -> tuple[bytes, dict[str, Any]]:
    from s3fs.core import _error_wrapper  # what s3fs itself reads with: a connection lost amid the body is tried again

    async def read() -> tuple[bytes, dict[str, Any]]:
        answer = await fs._call_s3("get_object", **asked)
        try:
            return await answer["Body"].read(), answer
        finally:
            answer["Body"].close()

    found: tuple[bytes, dict[str, Any]] = await _error_wrapper(read, retries=fs.retries)
    return found


def listed(fs: Any, path: str, prefix: str = "", deep: bool = True) -> Iterator[Entry]:
    """Yield the objects below a folder whose names in it begin with `prefix`, in the order of the store."""
    for answer in _pages(fs, path, prefix, "" if deep else "/"):
        for found in answer.get("Contents", []):
            if not found["Key"].endswith("/"):  # a folder that a console made
                uri = f"s3://{fs.split_path(path)[0]}/{found['Key']}"
                yield Entry(uri, int(found["Size"]), found.get("ETag", "").strip('"'))


def folders(fs: Any, path: str) -> Iterator[str]:
    """Yield the names of the folders in a folder."""
    for answer in _pages(fs, path, "", "/"):
        for found in answer.get("CommonPrefixes", []):
            yield found["Prefix"].rstrip("/").rsplit("/", 1)[-1]


def _pages(fs: Any, path: str, prefix: str, delimiter: str) -> Iterator[dict[str, Any]]:
    bucket, key, _ = fs.split_path(path.rstrip("/"))
    asked = {"Bucket": bucket, "Prefix": f"{key}/{prefix}" if key else prefix, "Delimiter": delimiter}
    while True:
        answer = fs.call_s3("list_objects_v2", **asked)
        yield answer
        if not answer.get("IsTruncated"):
            return
        asked["ContinuationToken"] = answer["NextContinuationToken"]


def remove(fs: Any, paths: Sequence[str]) -> None:
    """Remove objects of one bucket; those that are gone already are no error. Raises PermissionError if refused."""
    if len(paths) == 1:
        fs.call_s3("delete_object", **_named(fs, paths[0]))
        return
    for begin in range(0, len(paths), MANY):
        named = [_named(fs, path) for path in paths[begin : begin + MANY]]
        objects = [{name: value for name, value in one.items() if name != "Bucket"} for one in named]
        answer = fs.call_s3("delete_objects", Bucket=named[0]["Bucket"], Delete={"Objects": objects, "Quiet": True})
        for error in answer.get("Errors", []):
            said = f"{error.get('Key')} cannot be removed: {error.get('Message') or error.get('Code')}"
            raise PermissionError(said) if error.get("Code") == "AccessDenied" else OSError(errno.EIO, said)


class Pieces:
    """The bytes of one object, fetched as they are asked for and held up to a limit.

    The first GET brings a small object whole. Of a large one pieces are held, those used last and, before all others
    but the newest, the first one, which every opening reads; reading on fetches more at once than jumping about. All of
    them are of one version. Not for several threads at a time.
    """

    def __init__(self, fs: Any, path: str, hold_bytes: int):
        self.fs, self.path, self.hold_bytes = fs, path, hold_bytes
        self.size_bytes: int | None = None
        """Known after the first request."""
        self.version = ""
        """Likewise."""
        self._held: OrderedDict[int, bytes] = OrderedDict()  # by offset, the one used last at the end

    def read(self, offset: int, count: int) -> bytes:
        """Return bytes from an offset on, fewer only at the end of the object; holds what it fetches."""
        parts, at, end = list[bytes](), offset, offset + count
        while at < end and not self._ends(at):
            part = self._there(at, end - at)
            if not part and end - at > PIECE_BYTES and self.size_bytes is not None:
                part = self._get(at, end).data  # too much to hold: in one request, and passed on
            elif not part:
                self._fetch(at)
                part = self._there(at, end - at)
            if not part:  # the object ends, which only this request has told
                break
            parts.append(part)
            at += len(part)
        return b"".join(parts)

    def sample(self, offset: int, count: int) -> bytes:
        """Return the same bytes as `read`; fetches no more than these and holds none of them."""
        found = self._there(offset, count)
        if len(found) < count and not self._ends(offset + len(found)):
            found += self._get(offset + len(found), offset + count).data
        return found

    def _ends(self, at: int) -> bool:
        return self.size_bytes is not None and at >= self.size_bytes

    def size(self) -> int:
        """Return the size of the object; where it is not known yet, the object's end is fetched, which names it."""
        if self.size_bytes is None:
            fetched = self._known(tail(self.fs, self.path, PIECE_BYTES))
            self._hold(fetched.size_bytes - len(fetched.data), fetched.data)
            return fetched.size_bytes
        return self.size_bytes

    def _there(self, offset: int, count: int) -> bytes:
        """Return what is held from an offset on, up to the end of one piece."""
        for start, data in self._held.items():
            if start <= offset < start + len(data):
                self._held.move_to_end(start)
                return data[offset - start : offset - start + count]
        return b""

    def _fetch(self, at: int) -> None:
        """Fetch and hold the piece that begins here, up to where the next one that is held begins."""
        before = next((len(data) for start, data in self._held.items() if start + len(data) == at), 0)
        want = PIECE_BYTES if at == 0 else min(max(JUMP_BYTES, 2 * before), PIECE_BYTES)
        end = min([at + want, *(start for start in self._held if start > at)])
        self._hold(at, self._get(at, end).data)

    def _get(self, start: int, end: int) -> Fetched:
        return self._known(get(self.fs, self.path, start, end, self.version))

    def _known(self, fetched: Fetched) -> Fetched:
        self.size_bytes, self.version = fetched.size_bytes, fetched.version
        return fetched

    def _hold(self, start: int, data: bytes) -> None:
        if data:
            self._held[start] = data
        while len(self._held) > 1 and sum(map(len, self._held.values())) > self.hold_bytes:
            older = list(self._held)[:-1]
            del self._held[next(filter(None, older), 0)]


class Seekable(io.RawIOBase):
    """A file to read from that knows its place; whoever derives from it says how long it is, and reads."""

    _at = 0

    @abstractmethod
    def length(self) -> int:
        """Return how many bytes there are."""

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, from the beginning, from here or from the end; return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at}.get(whence)
        self._at = max(0, (self.length() if base is None else base) + offset)
        return self._at


class Reader(Seekable):
    """An object as a file to read from, each with its own place in bytes that may be shared."""

    def __init__(self, pieces: Pieces, holds: bool = True):
        """Read these bytes; without `holds` every read fetches what it returns and no more."""
        super().__init__()
        self._pieces, self._read = pieces, pieces.read if holds else pieces.sample

    def length(self) -> int:
        """Return the size of the object."""
        return self._pieces.size()

    def read(self, size: int = -1) -> bytes:
        """Return this many bytes, all that are left for -1; fewer only at the end."""
        if size is None or size < 0:
            self._read(self._at, 1)  # after which the size is known
            size = max(0, self._pieces.size() - self._at)
        data = self._read(self._at, size)
        self._at += len(data)
        return data

    def readall(self) -> bytes:
        """Return all that is left."""
        return self.read()

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; return how many bytes it took."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
