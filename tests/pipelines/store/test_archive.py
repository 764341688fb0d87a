"""Archives: any tar reads ours, ours takes nothing that it should not."""

from __future__ import annotations

import contextlib
import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.pipelines.store import archive

Files = dict[str, bytes]


def written(files: Files) -> bytes:
    stream = io.BytesIO()
    writer = archive.Writer(stream)
    for name, data in files.items():
        writer.add(name, data)
    writer.end()
    assert writer.offset == len(stream.getvalue())
    return stream.getvalue()


files_ = st.dictionaries(st.from_regex(r"[a-z0-9]{1,20}\.[a-z]{1,4}", fullmatch=True), st.binary(max_size=1500))


@given(files_)
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back_by_us_and_by_tarfile(files: Files) -> None:
    data = written(files)
    assert len(data) == sum(archive.member_bytes(len(one)) for one in files.values()) + len(archive.END)
    assert {member.name: member.data for member in archive.read(io.BytesIO(data))} == files
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]
        assert found == files and all((info.mtime, info.uid, info.mode) == (0, 0, 0o644) for info in tar)


def test_offsets_point_at_the_content() -> None:
    data = written({"a.txt": b"first", "b.txt": b"second"})
    for member in archive.read(io.BytesIO(data)):
        assert data[member.offset : member.offset + len(member.data)] == member.data


def test_unwanted_members_are_not_read() -> None:
    class Counting(io.BytesIO):
        bytes_read = 0

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            self.bytes_read += len(data)
            return data

    stream = Counting(written({"big.mp4": bytes(10**6), "a.txt": b"hello"}))
    assert [member.data for member in archive.read(stream, lambda name: name == "a.txt")] == [b"hello"]
    assert stream.bytes_read < 5000


@given(st.integers(0, 3 * 512 + 2 * 512 - 1))
@settings(max_examples=60, deadline=None)
def test_a_truncated_archive_is_an_error_wherever_it_ends(length: int) -> None:
    data = written({"a.bin": bytes(range(256)) * 4})
    if any(data[length:]) or length < 3 * 512:
        with pytest.raises(archive.ArchiveError, match=r"ends at byte|damaged header"):
            list(archive.read(io.BytesIO(data[:length])))


@given(st.binary(max_size=2000))
@settings(max_examples=100, deadline=None)
def test_noise_is_an_error_or_empty_and_never_anything_else(noise: bytes) -> None:
    with contextlib.suppress(archive.ArchiveError):
        assert list(archive.read(io.BytesIO(noise))) == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, b"x", b"L"])
def test_links_folders_devices_and_extended_headers_are_refused(kind: bytes) -> None:
    header = tarfile.TarInfo("a.txt")
    header.type, header.linkname = kind, "/etc/passwd"
    with pytest.raises(archive.ArchiveError, match="no regular file"):
        list(archive.read(io.BytesIO(header.tobuf(tarfile.USTAR_FORMAT) + archive.END)))


def test_a_header_cannot_make_the_reader_allocate_more_than_the_limit() -> None:
    header = tarfile.TarInfo("a.txt")
    header.size = 7 * 2**30
    with pytest.raises(archive.ArchiveError, match="no regular file of at most"):
        list(archive.read(io.BytesIO(header.tobuf(tarfile.USTAR_FORMAT) + archive.END)))
