"""Files by URI, on local disk or in an object store: written whole or not at all. A leaf: no Ray.

Paths without a scheme are local, `s3://` goes through s3fs; the region and endpoint of S3 come from the environment
(`AWS_DEFAULT_REGION`, `AWS_ENDPOINT_URL`), and no credential is ever written anywhere. What each call asks of a store,
one request mostly, stands in `objects`.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
import pyarrow.fs as pafs
from botocore.exceptions import BotoCoreError

from rushes.pipelines.store import objects
from rushes.pipelines.store.objects import Entry

WRITE_BYTES = 2**20  # small writes are gathered up to here
FLOW_BYTES = 2**24  # the disk is told to begin with what has been written
PUT_BYTES = 64 * 2**20  # up to here an object is put in one request
_CREDENTIALS = re.compile(
    r"(?<=://)[^/@:\s]+:(?!\d+(?:/|\s|$))[^@\s]*@"  # a secret key may hold slashes; a port is no secret
    r"|(?<=://)[^/@\s]+@|(?<![^\s\"'(])[^\s/@:\"']+:[^\s/@\"']+@"
)
_QUERY_SECRET = re.compile(r"(?i)([?&](?:x-amz-[a-z-]*|[\w-]*(?:signature|sig|token|key|secret|password))=)[^&#\s]+")
_SIGNED = re.compile(r"(?i)[?&](?:x-amz-(?:signature|credential|security-token)|signature|awsaccesskeyid)=")


class StopsTheRun(Exception):
    """What no other unit would fare better with; the message is one sentence for people."""


class StorageError(StopsTheRun, RuntimeError):
    """A file or object could not be read or written; the message names it and the remedy."""


def is_local(uri: str) -> bool:
    """Whether a URI names a file on local disk."""
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> Path:
    """Return the path behind a local URI."""
    return Path(uri.removeprefix("file://"))


def absolute(uri: str) -> str:
    """Return a URI that means the same from every working folder."""
    return os.path.abspath(local_path(uri)) if is_local(uri) else uri.rstrip("/")  # noqa: PTH100 - ".." goes too


def redact(text: str) -> str:
    """Return text without the credentials that a URI can carry, in front of its host or in its query."""
    return _QUERY_SECRET.sub(r"\1…", _CREDENTIALS.sub("…@", text))


def check_uri(uri: str) -> None:
    """Raise ValueError for a URI that can never be opened here: of the web, or with credentials in it.

    The message shows none of them. What is found in a store's name would be told by its client in an error.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme == "file":
        return
    if scheme in ("http", "https"):
        raise ValueError(
            f"{redact(uri)}: {scheme}:// is not read or written; download the file and name it, or name its bucket "
            "as s3:// (another store's address goes into AWS_ENDPOINT_URL)"
        )
    host = rest.split("/", 1)[0]
    if "@" in host or (":" in host and not host.startswith("arn:")):
        shown = f"{scheme}://…@{rest.rpartition('@')[2]}" if "@" in rest else f"{scheme}://…"
        raise ValueError(
            f"{redact(shown)}: credentials do not belong into a URI, which is saved and shown; take them out and give "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or AWS_PROFILE"
        )
    if _SIGNED.search(rest):
        raise ValueError(
            f"{redact(uri)}: a signed link is no name of an object; leave out what begins with the question mark and "
            "give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or AWS_PROFILE"
        )


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the fsspec file system of a URI and the path inside it. Raises ValueError for one that has none.

    A bucket's is made once in a process. It remembers no listing, which others may change, and reads an object in one
    stream: for several it would ask for the size first.
    """
    check_uri(uri)
    if is_local(uri):
        fs, path = fsspec.core.url_to_fs(uri if "://" in uri else str(Path(uri).absolute()))
    elif uri.startswith("s3://"):
        fs, path = fsspec.core.url_to_fs(uri, use_listings_cache=False, max_concurrency=1)
    else:
        raise ValueError(f"{redact(uri)} is neither a path nor an s3:// URI; give one of these")
    return fs, path


def arrow(uris: Sequence[str]) -> tuple[pafs.FileSystem, list[str]]:
    """Return one Arrow file system for URIs of the same kind, and their paths in it.

    Disk and S3 are Arrow's own, not fsspec behind a handler: DuckDB scans in threads that wait for one another, and a
    Python file system among them needs the interpreter's lock that the waiting thread holds.
    """
    paths = [filesystem(uri)[1] for uri in uris]
    if is_local(uris[0]):
        return pafs.LocalFileSystem(), paths
    return _arrow_s3(), paths


def _arrow_s3() -> pafs.FileSystem:
    """Return Arrow's S3, told of endpoint and region as s3fs is; the credentials it finds by itself."""
    given = {
        "endpoint_override": os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"),
        "region": os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("AWS_REGION"),
    }
    return pafs.S3FileSystem(**{name: value for name, value in given.items() if value})


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Turn what a store's client raises when it cannot ask or may not into an error that names the remedy."""
    try:
        yield
    except BotoCoreError as error:
        raise StorageError(
            f"cannot reach {redact(uri)}: {redact(str(error))}; "
            "check AWS_ENDPOINT_URL, AWS_DEFAULT_REGION and the credentials"
        ) from error
    except PermissionError as error:
        if is_local(uri):
            raise
        said = f"no access to {redact(uri)}: {redact(str(error))}; check the credentials and what they may do"
        raise StorageError(said) from error


def exists(uri: str) -> bool:
    """Whether a file or object is there; of folders only local ones are."""
    if is_local(uri):
        return local_path(uri).exists()
    with reaching(uri):
        return objects.head(*filesystem(uri)) is not None


def size(uri: str) -> int:
    """Return the size of a file or object in bytes. Raises FileNotFoundError where there is none."""
    if is_local(uri):
        return local_path(uri).stat().st_size
    with reaching(uri):
        found = objects.head(*filesystem(uri))
    if found is None:
        raise FileNotFoundError(errno.ENOENT, "there is no such object", uri)
    return found.size_bytes


def read_bytes(uri: str) -> bytes:
    """Return all bytes of a file or object, in one request. Raises FileNotFoundError where there is none."""
    if is_local(uri):
        return local_path(uri).read_bytes()
    with reaching(uri):
        return objects.get(*filesystem(uri)).data


def read_if_there(uri: str) -> bytes | None:
    """Return all bytes of a file or object, None where there is none: one question, where asking first takes two."""
    try:
        return read_bytes(uri)
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_range(uri: str, offset: int, size_bytes: int) -> bytes:
    """Return a part of a file or object, in one request; less where it ends before."""
    if is_local(uri):
        with local_path(uri).open("rb") as file:
            file.seek(offset)
            return file.read(size_bytes)
    with reaching(uri):
        return objects.get(*filesystem(uri), offset, offset + size_bytes).data if size_bytes else b""


def read_into(uri: str, offset: int, buffer: memoryview) -> int:
    """Fill a buffer with a part of a file or object, in one request; return how many bytes there were."""
    if is_local(uri):
        with local_path(uri).open("rb", buffering=0) as file:
            file.seek(offset)
            return file.readinto(buffer)
    data = read_range(uri, offset, len(buffer))
    buffer[: len(data)] = data
    return len(data)


@contextmanager
def open_read(uri: str) -> Iterator[BinaryIO]:
    """Open a file or object for reading; seekable. An object is asked for when it is first read or sought from its end.

    It comes whole in one request where it is small, else by pieces of `objects.PIECE_BYTES`, one of them held.
    """
    if is_local(uri):
        with local_path(uri).open("rb") as file:
            yield file
        return
    with reaching(uri), io.BufferedReader(objects.Reader(pieces(uri, objects.PIECE_BYTES))) as file:
        yield cast(BinaryIO, file)


def pieces(uri: str, hold_bytes: int) -> objects.Pieces:
    """Return the bytes of an object for several readers that share them, holding up to so many."""
    fs, path = filesystem(uri)
    return objects.Pieces(fs, path, hold_bytes)


def write_bytes(uri: str, data: bytes) -> None:
    """Write a file whole: readers see the old content or the new, never a part of it."""
    if is_local(uri) or len(data) > PUT_BYTES:
        with open_write(uri) as file:
            file.write(data)
        return
    with _writing(uri):
        fs, path = filesystem(uri)
        fs.pipe_file(path, data)


@contextmanager
def open_write(uri: str) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name only when the block ends without an error.

    Raises StorageError that names the target where the disk is full, the target read-only or access refused.
    """
    writer = _local_write(local_path(uri)) if is_local(uri) else _object_write(uri)
    with _writing(uri), writer as file:
        yield file


@contextmanager
def alone(folder: str) -> Iterator[None]:
    """Hold a local folder alone, made where it is missing; the lock ends with the process, however that ends.

    Raises StorageError where another process holds it. An object store has no locks: nothing is held there.
    """
    if not is_local(folder):
        yield
        return
    path = local_path(folder)
    with _writing(folder):
        path.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDONLY)
    try:
        _lock(handle, folder)
        yield
    finally:
        os.close(handle)
        with suppress(OSError):  # still empty: nothing came of it
            path.rmdir()


def _lock(handle: int, folder: str) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StorageError(f"another process is at work on {folder}; wait for it to end") from error


@contextmanager
def _writing(uri: str) -> Iterator[None]:
    """Name the target of a failed write. What fails on another file, such as an input, passes as it is."""
    try:
        with reaching(uri):
            yield
    except OSError as error:
        if error.filename and is_local(uri) and not _belongs(Path(error.filename), local_path(uri)):
            raise
        raise StorageError(f"cannot write {uri}: {_reason(error)}") from error


def _belongs(path: Path, target: Path) -> bool:
    return path == target or path in target.parents or (path.parent == target.parent and path.suffix == ".part")


@contextmanager
def _local_write(path: Path) -> Iterator[BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with io.BufferedWriter(_Flowing(handle, "wb"), WRITE_BYTES) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class _Flowing(io.FileIO):
    """A file of which the disk begins to take what is written at once, and not only when it is synced at the end.

    So writing takes as long as the disk or as whoever makes the bytes, whichever is slower, and not both together.
    """

    _written = _sent = 0

    def write(self, data: Any) -> int:
        """Write bytes; return how many."""
        count = super().write(data)
        self._written += count
        if self._written - self._sent >= FLOW_BYTES and hasattr(os, "posix_fadvise"):
            # Linux then writes what is dirty in the range, without waiting for it.
            os.posix_fadvise(self.fileno(), self._sent, self._written - self._sent, os.POSIX_FADV_DONTNEED)
            self._sent = self._written
        return count


@contextmanager
def _object_write(uri: str) -> Iterator[BinaryIO]:
    """Gather up to `PUT_BYTES`, which become an object in one request; only what is more is uploaded in parts."""
    fs, path = filesystem(uri)
    file: Any = fs.open(path, "wb", block_size=PUT_BYTES + 1)
    try:
        yield cast(BinaryIO, file)
        file.close()
    except BaseException:
        file.discard()
        file.closed = True  # else its end as an object of Python would commit it
        raise


def _reason(error: OSError) -> str:
    remedies = {
        2: "no folder can be made there; choose another --out",
        28: "no space left; free some space and run the same command again, finished units are kept",
        30: "the target is read-only; choose a writable --out",
        13: "permission denied; check the rights on the target or the credentials",
        17: "a file stands where a folder should be; choose another --out",
        20: "a file stands where a folder should be; choose another --out",
        122: "the disk quota is exceeded; free some space and run the same command again",
    }
    said = error.strerror or str(error)
    return remedies.get(error.errno or 0, f"{said}; check the path, or choose another --out")


def list_files(folder: str, prefix: str = "", recursive: bool = False) -> list[str]:
    """Return the URIs of the files in a folder whose names start with `prefix`, sorted; none where it is missing.

    In a bucket `prefix` begins the name of what stands in the folder itself, a file or another folder.
    """
    return sorted(entry.uri for entry in list_entries(folder, prefix, recursive))


def list_entries(folder: str, prefix: str = "", recursive: bool = False) -> Iterator[Entry]:
    """Yield what `list_files` returns in any order, with sizes and versions, a thousand objects a request."""
    if not is_local(folder):
        with reaching(folder), suppress(FileNotFoundError):
            yield from objects.listed(*filesystem(folder), prefix, recursive)
        return
    root = local_path(folder)
    base = folder.rstrip("/")  # as it was given: callers compare with URIs that begin so, such as ./run/…
    for path in root.rglob(f"{prefix}*") if recursive else root.glob(f"{prefix}*"):
        with suppress(FileNotFoundError):  # others may remove one meanwhile
            if path.is_file() and not path.name.startswith("."):
                found = path.stat()
                yield Entry(f"{base}/{path.relative_to(root)}", found.st_size, str(found.st_mtime_ns))


def list_folders(folder: str) -> list[str]:
    """Return the names of the folders in a folder, sorted, hidden ones left out; none where it is missing."""
    found: list[str] = []
    if is_local(folder):
        root = local_path(folder)
        found = [path.name for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    else:
        with reaching(folder), suppress(FileNotFoundError):
            found = list(objects.folders(*filesystem(folder)))
    return sorted(name for name in found if not name.startswith("."))


def remove(uri: str) -> None:
    """Remove a file or object; nothing happens where it is already gone."""
    remove_many([uri])


def remove_many(uris: Sequence[str]) -> None:
    """Remove files, or objects of one bucket, a thousand a request; nothing happens where they are already gone."""
    for uri in uris:
        if is_local(uri):
            local_path(uri).unlink(missing_ok=True)
    paths = [filesystem(uri)[1] for uri in uris if not is_local(uri)]
    if paths:
        with reaching(uris[0]), suppress(FileNotFoundError):
            objects.remove(filesystem(uris[0])[0], paths)


def sweep(folder: str) -> None:
    """Remove the temporary files that a killed run left below a local folder."""
    if is_local(folder):
        for path in local_path(folder).rglob(".*.part"):
            path.unlink(missing_ok=True)
