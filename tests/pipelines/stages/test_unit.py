"""Claims about the guard round one source or clip, and about what leaves a run in words. No Ray."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from rushes.pipelines.config import CurateConfig
from rushes.pipelines.stages.caption.stage import CaptionsStop
from rushes.pipelines.stages.pack import pack
from rushes.pipelines.stages.unit import Pictures, Tally, Unit, guard
from rushes.pipelines.store import storage
from tests.pipelines import at_work


def test_what_goes_wrong_with_one_source_is_a_row_without_its_password() -> None:
    errors: list[dict] = []
    with guard(errors, uri="x"):
        raise OSError("cannot open https://me:pass@host/x?token=abc")
    assert errors[0]["code"] == "OSError" and "cannot open https://…@host/x?token=…" in errors[0]["reason"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_no_fault_of_the_clip(number: int) -> None:
    errors: list[dict] = []
    with pytest.raises(storage.StorageError, match=r"no space left in .*TMPDIR"), guard(errors, uri="x"):
        raise OSError(number, "full")
    assert errors == []


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("s3://id:secret@bucket/a.mp4", "s3://…@bucket/a.mp4"),
        ("s3://id:sec/ret+x@bucket/a.mp4", "s3://…@bucket/a.mp4"),  # a secret key may hold slashes
        ('bad bucket "id:secret@bucket"', 'bad bucket "…@bucket"'),  # as a library quotes it
        ("http://host:9000/a@2x.mp4", "http://host:9000/a@2x.mp4"),
        ("https://h/a.mp4?X-Amz-Signature=ab&part=1", "https://h/a.mp4?X-Amz-Signature=…&part=1"),
        ("https://h/a.mp4?v=1&access_token=ab#t", "https://h/a.mp4?v=1&access_token=…#t"),
        ("s3://bucket/key=3/a.mp4", "s3://bucket/key=3/a.mp4"),  # a folder named so, not a query
    ],
)
def test_passwords_go_and_paths_stay(text: str, clean: str) -> None:
    assert storage.redact(text) == clean


class _Failing:
    """A worker to whom only one thing happens."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, unit: Unit) -> Tally:
        raise self.error


@pytest.mark.parametrize(
    "error", [storage.StorageError("no space left"), pack.PackError("no clip of its own"), CaptionsStop("no answer")]
)
def test_what_stops_a_run_comes_back_as_a_sentence(error: Exception, tmp_path: Path) -> None:
    done = at_work.do(str(tmp_path), CurateConfig(), "shots", worker=_Failing(error))
    assert done == {"fatal": str(error)}


def test_what_nobody_expected_is_not_hidden_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        at_work.do(str(tmp_path), CurateConfig(), "shots", worker=_Failing(ZeroDivisionError()))


def test_a_step_that_reads_a_table_it_does_not_name_is_told_so(tmp_path: Path) -> None:
    unit = Unit(str(tmp_path), {"unit": "u", "prints": {"clips": "c" * 12, "frames": "f" * 12}})
    unit.step, unit.reads = "pace", ("sources",)
    with pytest.raises(KeyError, match="pace reads the table clips, which its STAGE does not name"):
        unit.read("clips")
    with pytest.raises(KeyError, match="pace reads the table frames"):
        Pictures(unit, "frames", "s")
