"""A source as a file: opening and probing it, its spans. Listing inputs lives here too. No Ray.

Probing reads headers, a few packets and decodes one picture, which alone tells when the source begins and how it is
turned. Content decides what a file is, never its suffix.
"""

from __future__ import annotations

import glob
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from itertools import chain, islice, pairwise
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

import av
import av.error
from av.container import InputContainer
from av.video.stream import VideoStream

from rushes.pipelines.colour import tags
from rushes.pipelines.config import InputConfig, ScanConfig
from rushes.pipelines.media import clocks, fetched, lists, streams
from rushes.pipelines.media.passed_over import PassedOver, line
from rushes.pipelines.store import clip, objects, storage

VIDEO_SUFFIXES = frozenset(
    {
        ".264", ".265", ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".h264", ".h265", ".hevc",
        ".ivf", ".m2ts", ".m2v", ".m4v", ".mj2", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf",
        ".nut", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".y4m",
    }
)  # fmt: skip
FIRST_PICTURE_PACKETS = 300  # packets tried until one gives a picture
SQUARE_TOLERANCE = 0.005  # a sample aspect this near to 1 is a rounding of the encoder, not a shape
_PLAYLISTS = {"hls", "dash", "concat", "imf", "sdp", "rtsp", "ffmetadata"}


class FootageError(ValueError):
    """A source that cannot be used at all.

    Attributes:
        code: missing, empty, not_video, still_picture, playlist, no_video_stream, no_index, unreadable, encrypted,
            too_large, changed, joined or crashed.
        reason: What was found.
        remedy: What to do.
    """

    def __init__(self, uri: str, code: str, reason: str, remedy: str):
        super().__init__(f"{uri}: {reason}; {remedy}")
        self.uri, self.code, self.reason, self.remedy = uri, code, reason, remedy

    def __reduce__(self) -> tuple[Any, ...]:
        return FootageError, (self.uri, self.code, self.reason, self.remedy)


@contextmanager
def open_container(uri: str, within: clocks.Range | None = None) -> Iterator[InputContainer]:
    """Open a video file or object for reading, or a stretch of its bytes as if it were a file of its own.

    Raises FootageError with the reason where it is none.
    """
    with ExitStack() as stack:
        try:
            container = _open(uri, within, stack)
        except (av.error.FFmpegError, OSError) as error:
            raise _why_not(uri, error) from error
        name = container.format.name
        if name in _PLAYLISTS:
            raise FootageError(uri, "playlist", f"a playlist ({name}), not footage", "list the files it names instead")
        if name == "image2" or name.endswith("_pipe"):
            raise FootageError(uri, "still_picture", "a still picture, not a video", "remove it from the inputs")
        for picture in streams.doubtful(container):
            with ExitStack() as other:
                streams.flag_single(picture, _open(uri, within, other))
        yield container


def _open(uri: str, within: clocks.Range | None, stack: ExitStack) -> InputContainer:
    # A file may be a playlist in disguise: nothing beyond local files may be opened on its behalf.
    options = {"protocol_whitelist": "file"}
    file: Any
    if storage.is_local(uri):
        path = storage.local_path(uri).absolute()
        if path.is_dir():
            raise IsADirectoryError(21, "a folder, not a file")
        if path.exists() and not path.is_file():  # reading it could wait for ever
            raise OSError("a pipe or a device, not a file")
        file = str(path) if within is None else stack.enter_context(path.open("rb"))
    else:
        stack.enter_context(storage.reaching(uri))
        pieces = fetched.of(uri)
        pieces.read(0, 1)  # what is wrong with the object is better told from here than through FFmpeg
        file = stack.enter_context(objects.Reader(pieces))
    if within is not None:
        file = clocks.Window(file, within)
    return stack.enter_context(av.open(file, metadata_errors="ignore", options=options))


def _why_not(uri: str, error: Exception) -> FootageError:
    """Return the clearest reason why a file could not be opened."""
    if isinstance(error, av.error.FFmpegError) and _is_playlist(uri):
        return FootageError(uri, "playlist", "a playlist, not footage", "list the files it names instead")
    if isinstance(error, FileNotFoundError):
        return FootageError(uri, "missing", "there is no such file", "check the path, or remove it from the inputs")
    if isinstance(error, IsADirectoryError):
        return FootageError(uri, "not_video", "a folder, not a file", "give it as an input of its own")
    if not isinstance(error, av.error.InvalidDataError):
        reason = f"cannot be read ({getattr(error, 'strerror', None) or error})"
        remedy = "check the rights on it and the connection, then use --retry-failed"
        return FootageError(uri, "unreadable", reason, remedy)
    with open_small(uri) as (file, size_bytes):
        head = file.read(4096)
    if size_bytes == 0:
        return FootageError(uri, "empty", "the file is empty", "fetch it again, or remove it from the inputs")
    if head[4:8] in {b"ftyp", b"styp", b"moof", b"sidx", b"mdat", b"moov", b"wide"}:
        reason = "an mp4/mov without a usable index (moov): cut short, or one segment of a stream"
        return FootageError(uri, "no_index", reason, "fetch it again, or join it with its initialisation segment")
    if b"\0" not in head:
        return FootageError(uri, "not_video", "text, not a video", "remove it from the inputs")
    reason = "not a video, or its header is broken"
    return FootageError(uri, "not_video", reason, "fetch it again, or remove it from the inputs")


def _is_playlist(uri: str) -> bool:
    try:
        with open_small(uri) as (file, _):
            return lists.is_playlist(file.read(4096))
    except OSError:
        return False


@contextmanager
def open_small(uri: str) -> Iterator[tuple[BinaryIO, int]]:
    """Open for a few small reads, and tell the size: of an object each fetches what is not here already and no more."""
    if storage.is_local(uri):
        with storage.open_read(uri) as file:
            yield file, storage.size(uri)
        return
    with objects.Reader(fetched.of(uri), holds=False) as reader:
        yield cast(BinaryIO, reader), reader.seek(0, os.SEEK_END)


def video_stream(container: InputContainer) -> VideoStream:
    """Return the footage of a container, as `streams.best` finds it: whoever reads a source reads the same one.

    Raises:
        FootageError: If there is none.
    """
    if (stream := streams.best(container)) is not None:
        return stream
    kinds = {"a picture beside it" if stream.type == "video" else stream.type for stream in container.streams}
    found = ", ".join(sorted(kinds)) or "no stream"
    uri = str(container.name)
    raise FootageError(uri, "no_video_stream", f"holds {found} but no video", "remove it from the inputs")


def probe(uri: str, scan: ScanConfig) -> dict[str, Any]:
    """Return the columns of table `sources` that the file itself decides.

    `width` and `height` are as displayed: after rotation and sample aspect. `rotation_deg` is the clockwise turn that
    a player makes. `start_s` is the timestamp of the first picture shown, from which all our times count. Where the
    clock starts again in the middle (`clocks`), all but the length is told of the first piece.

    Raises:
        FootageError: If nothing can be made of the file.
    """
    if not storage.is_local(uri):
        fetched.afresh(uri)
    facts: dict[str, Any] = dict.fromkeys(clocks.COLUMNS) | _facts(uri, scan)
    digest = _digest(uri)
    if facts["container"] in clocks.DISCONTINUOUS:
        pieces = _pieces(uri, digest.size_bytes)
        if pieces and pieces[0].within:
            facts |= _first_facts(uri, scan, pieces) | clocks.columns(pieces)
        elif pieces:
            facts["duration_s"] = pieces[0].start_s + pieces[0].duration_s - facts["start_s"]
    facts["bit_rate"] = facts["bit_rate"] or int(digest.size_bytes * 8 / max(facts["duration_s"], 0.001))
    return {
        "source_id": digest.source_id, "uri": uri, "size_bytes": digest.size_bytes,
        "digest": digest.sampled, "digest_full": digest.full, **facts,
    }  # fmt: skip


def _first_facts(uri: str, scan: ScanConfig, pieces: Sequence[clocks.Piece]) -> dict[str, Any]:
    """Return the facts of the first piece of which a picture can be decoded."""
    for piece in pieces:
        with suppress(FootageError):
            return _facts(uri, scan, piece.within)
    return {}


def _facts(uri: str, scan: ScanConfig, within: clocks.Range | None = None) -> dict[str, Any]:
    """Return what headers, the first packets and the first picture say."""
    with open_container(uri, within) as container:
        stream = _footage(uri, container)
        _admit(uri, stream, scan)
        guessed = streams.is_guessed(container, stream)
        picture, times, packets = _beginning(uri, container, stream)
        time = streams.timing(container, stream, times, packets, guessed)
        facts = _described(container, stream, picture) | _sound(container)
    if max(picture.width, picture.height) > scan.max_side_px:
        raise _too_large(uri, picture.width, picture.height, scan)
    start_s = streams.seconds(picture.pts, picture.time_base) or 0.0
    duration_s = time.end_s - start_s if time.absolute and time.end_s > start_s else time.end_s
    facts |= {"start_s": start_s, "duration_s": duration_s}
    return facts | {"fps": time.fps, "variable_fps": time.variable}


def _footage(uri: str, container: InputContainer) -> VideoStream:
    try:
        return video_stream(container)
    except FootageError as error:  # a stretch of a file, and an object, do not know their names
        raise FootageError(uri, error.code, error.reason, error.remedy) from None


def _pieces(uri: str, size_bytes: int) -> list[clocks.Piece]:
    with open_container(uri) as container:
        found = clocks.find(container, _footage(uri, container), size_bytes)
    for at, piece in enumerate(found if found and found[0].within else []):
        with suppress(FootageError), open_container(uri, piece.within) as container:
            found[at] = clocks.by_itself(piece, container, _footage(uri, container))
    return found


def digest_of(uri: str) -> clip.Digest:
    """Return the content digest of a file or object as it is now, reading a few blocks of it."""
    if not storage.is_local(uri):
        fetched.afresh(uri).read(0, 1)  # as the decoder will; a small object is here with it
    return _digest(uri)


def _digest(uri: str) -> clip.Digest:
    """Return the content digest of a file, or of what was fetched of an object and the version it was fetched of."""
    if not storage.is_local(uri) and (version := fetched.of(uri).version):
        return _digest_of_version(uri, version)
    with open_small(uri) as (file, size_bytes):
        return clip.digest(file, size_bytes)


@lru_cache(maxsize=4096)
def _digest_of_version(uri: str, version: str) -> clip.Digest:
    """Return the digest of the object that is being worked on: once in a process, however many spans it has."""
    with open_small(uri) as (file, size_bytes):
        return clip.digest(file, size_bytes)


def check_unchanged(source: Mapping[str, Any]) -> None:
    """Raise FootageError unless a source still holds the content that was probed.

    Its clips would bear the key, the captions and the licence of other footage.
    """
    uri = source["uri"]
    try:
        found = digest_of(uri).sampled
    except OSError as error:
        raise _why_not(uri, error) from error
    if found != source["digest"]:
        remedy = "curate it into another --out; or put the old file back (or keep the new) and use --retry-failed"
        raise FootageError(uri, "changed", "its content is another than when it was probed", remedy)


def _admit(uri: str, stream: VideoStream, scan: ScanConfig) -> None:
    """Refuse what must not or cannot be decoded."""
    context = stream.codec_context
    if context is None:
        reason = "its codec is unknown to this FFmpeg"
        raise FootageError(uri, "unreadable", reason, "re-encode it to H.264, HEVC, VP9 or AV1")
    if max(context.width, context.height) > scan.max_side_px:
        raise _too_large(uri, context.width, context.height, scan)
    context.options = {"max_pixels": str(scan.max_side_px**2)}


def _too_large(uri: str, width: int, height: int, scan: ScanConfig) -> FootageError:
    reason = f"frames of {width}×{height}, the limit is {scan.max_side_px} a side"
    return FootageError(uri, "too_large", reason, "raise scan.max_side_px or shrink the file")


def _beginning(uri: str, container: InputContainer, stream: VideoStream) -> tuple[av.VideoFrame, list[float], int]:
    """Return the first picture, the timestamps of the packets read and their number."""
    read = 0
    times: list[float] = []
    picture: av.VideoFrame | None = None
    reason = "not one picture in it can be decoded"
    packets = islice(container.demux(stream), FIRST_PICTURE_PACKETS)
    while picture is None or len(times) < streams.PROBED_PACKETS:
        try:
            packet = next(packets, None)
            if packet is None:
                break
            if packet.has_sidedata("encryption_info") or packet.has_sidedata("encryption_init_info"):
                remedy = "decrypt it first; Rushes holds no keys"
                raise FootageError(uri, "encrypted", "the video is encrypted (Common Encryption)", remedy)
            read += packet.size > 0
            if packet.pts is not None:
                times.append(float(packet.pts * packet.time_base))
            if picture is None:
                picture = next(iter(streams.decoded(container, stream, packet)), None)
        except av.error.FFmpegError as error:
            reason = f"not one picture in it can be decoded ({(error.strerror or str(error)).lower()})"
    if picture is None:
        raise FootageError(uri, "unreadable", reason, "fetch it again, or re-encode it from the original")
    return picture, times, read


def _described(container: InputContainer, stream: VideoStream, picture: av.VideoFrame) -> dict[str, Any]:
    """Return what the headers and the first picture say about codec, shape and colour."""
    context, pixel = stream.codec_context, picture.format
    turn = int(round(-picture.rotation / 90) * 90) % 360
    aspect = float(stream.sample_aspect_ratio or context.sample_aspect_ratio or 1) or 1.0
    width = picture.width if abs(aspect - 1) < SQUARE_TOLERANCE else max(1, round(picture.width * aspect))
    width, height = (picture.height, width) if turn in {90, 270} else (width, picture.height)
    return {
        "container": container.format.name.split(",")[0], "video_codec": context.codec.canonical_name,
        "pixel_format": pixel.name, "bit_depth": max(component.bits for component in pixel.components),
        "width": width, "height": height, "coded_width": picture.width, "coded_height": picture.height,
        "rotation_deg": turn, "sample_aspect": aspect, "bit_rate": context.bit_rate or 0,
        **tags.columns(picture),
    }  # fmt: skip


def _sound(container: InputContainer) -> dict[str, Any]:
    stream = container.streams.audio[0] if container.streams.audio else None
    if stream is None or stream.codec_context is None:
        return {"audio_codec": None, "audio_channels": None, "audio_rate_hz": None}
    context = stream.codec_context
    return {
        "audio_codec": context.codec.canonical_name,
        "audio_channels": context.channels,
        "audio_rate_hz": context.sample_rate,
    }


def spans(duration_s: float, scan: ScanConfig) -> list[tuple[float, float]]:
    """Return half-open ranges of about `span_s` that cover a source; the last has no end, as durations may err."""
    count = 1 if not duration_s or duration_s <= 1.5 * scan.span_s else round(duration_s / scan.span_s)
    borders = [*(scan.span_s * i for i in range(count)), math.inf]
    return list(pairwise(borders))


def expand(
    inputs: Sequence[str], config: InputConfig, passed_over: PassedOver | None = None
) -> Iterator[dict[str, Any]]:
    """Yield a row {uri, size_bytes, version, caption, licence, rights, extra} for each source, each once.

    Inputs are files, folders (searched for video suffixes), globs, `s3://` forms of these, and lists in CSV, JSONL or
    Parquet, whose relative paths count from the list's folder and whose further columns go to `extra` as JSON. Memory
    grows by a few bytes a source only. `version` tells a file's content has changed: modification time or etag. What
    folders hold besides is counted in `passed_over`.

    Raises:
        ValueError: For an input that is missing, a folder without videos, a list that cannot be read or lacks the
            column of URIs.
    """
    seen: set[bytes] = set()
    passed_over = passed_over or PassedOver()
    for name in inputs:
        rows = _reached(name, config, passed_over)
        first = next(rows, None)
        if first is None:
            suffixes = " ".join(sorted(VIDEO_SUFFIXES))
            others = line(passed_over.rows().get(storage.absolute(name), []))
            told = f"{name} holds no video; name a folder with files such as {suffixes}, or the files"
            raise ValueError(f"{told} ({others})" if others else told)
        for row in chain([first], rows):
            mark = hashlib.blake2b(row["uri"].encode("utf-8", "surrogateescape"), digest_size=8).digest()
            if mark not in seen:
                seen.add(mark)
                yield row


def _reached(name: str, config: InputConfig, passed_over: PassedOver) -> Iterator[dict[str, Any]]:
    with storage.reaching(name):
        yield from _expanded(name, config, passed_over)


def _expanded(name: str, config: InputConfig, passed_over: PassedOver) -> Iterator[dict[str, Any]]:
    local = storage.is_local(name)
    uri = os.path.abspath(storage.local_path(name)) if local else name  # noqa: PTH100 - "..", but no links resolved
    fs, path = storage.filesystem(uri)
    info = _stat(fs, path)
    if info is None and glob.has_magic(name):
        named = glob.glob(path, recursive=True) if local else []  # noqa: PTH207 - patterns are absolute
        found = {file: fs.info(file) for file in named} if local else fs.glob(path, detail=True)
        for item in (found[key] for key in sorted(found)):
            if item["type"] == "file":
                yield _row(_uri_of(uri, item["name"]), item)
    elif info is None:
        raise ValueError(f"{name}: there is no such file, folder or object; check the path and the credentials")
    elif info["type"] == "directory":
        yield from _in_folder(storage.absolute(uri), _walked(fs, path) if local else _found(uri), config, passed_over)
    elif PurePosixPath(path).suffix.lower() in lists.SUFFIXES:
        yield from _listed(uri, config)
    else:
        yield _row(uri, info)


def _in_folder(
    folder: str, files: Iterable[tuple[str, Mapping[str, Any]]], config: InputConfig, passed_over: PassedOver
) -> Iterator[dict[str, Any]]:
    """Yield a row for each file with the suffix of a video, and count the others but for hidden ones."""
    taken = VIDEO_SUFFIXES | {f".{suffix.strip().lower().lstrip('.')}" for suffix in config.suffixes}
    passed_over.look_at(folder)
    for where, item in files:
        name = PurePosixPath(where).name
        if name.startswith("."):
            continue
        if PurePosixPath(name).suffix.lower() in taken:
            yield _row(where, item)
        else:
            passed_over.add(folder, name, item.get("size"))


def _walked(fs: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield path and facts of the files in a local folder, folder after folder."""
    for folder, folders, files in fs.walk(path, detail=True, topdown=True):
        ordered = sorted(folders.items())
        folders.clear()
        folders.update(ordered)
        for key in sorted(files):
            yield f"{folder}/{key}", files[key]


def _found(uri: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield URI and facts of the objects below a prefix: a thousand a request, which alone stand in memory."""
    for entry in storage.list_entries(uri, recursive=True):
        yield entry.uri, {"size": entry.size_bytes, "ETag": entry.version}


def _stat(fs: Any, path: str) -> dict[str, Any] | None:
    try:
        return cast("dict[str, Any]", fs.info(path))
    except FileNotFoundError:
        return None


def _uri_of(parent: str, path: str) -> str:
    return path if storage.is_local(parent) else f"{parent.split('://', 1)[0]}://{path}"


def _row(uri: str, info: Mapping[str, Any], **columns: str | None) -> dict[str, Any]:
    storage.check_uri(uri)  # an entry of a list is opened much later, by a worker
    if not uri.isascii() and uri != uri.encode(errors="replace").decode():
        raise ValueError(f"{uri!r}: the name is not UTF-8, so no table can hold it; rename the file")
    changed = info.get("mtime", info.get("ETag", info.get("LastModified")))
    version = str(round(changed * 1e9)) if isinstance(changed, float) else changed and str(changed).strip('"')
    blank = dict.fromkeys(("caption", "licence", "rights", "extra"))
    return {"uri": uri, "size_bytes": info.get("size"), "version": version or None, **blank, **columns}


def _listed(uri: str, config: InputConfig) -> Iterator[dict[str, Any]]:
    """Yield the rows of a list; remote entries are not looked up, so that a list of millions opens at once."""
    named = {
        "uri": config.uri_column,
        "caption": config.caption_column,
        "licence": config.licence_column,
        "rights": config.rights_column,
    }
    folder = uri.rsplit("/", 1)[0]
    number = -1
    for number, record in enumerate(lists.records(uri, config.uri_column)):
        target = record.get(config.uri_column)
        if config.uri_column not in record:
            raise lists.no_column(f"{uri}, row {number},", config.uri_column, record)
        if not isinstance(target, str) or not target.strip():
            raise ValueError(f"{uri}: row {number} names no video in column {config.uri_column!r}; fill or remove it")
        target = lists.target(target, folder)
        info: Mapping[str, Any] = {}
        if storage.is_local(target):
            info = _stat(*storage.filesystem(target)) or {}
        texts = {key: _text(record.get(column)) for key, column in named.items() if key != "uri"}
        rest = {key: value for key, value in record.items() if key not in named.values() and value is not None}
        extra = json.dumps(rest, sort_keys=True, ensure_ascii=False, default=str) if rest else None
        yield _row(target, info, **texts, extra=extra)
    if number < 0:
        raise ValueError(f"{uri} lists no video: it has no row; add one for each, or leave the list out")


def _text(value: Any) -> str | None:
    text = None if value is None else str(value).strip()
    return text or None
