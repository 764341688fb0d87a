"""Tables of a ledger are asked by SQL; nothing but the answer comes of it, and what is damaged is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rushes.pipelines.store.ledger import DamagedPart, Ledger
from rushes.pipelines.store.sql import reading, tables


@pytest.mark.parametrize("sealed", [True, False])
def test_a_slow_query_draws_nothing_on_stdout(undisturbed: str, sealed: bool) -> None:
    with tables(Ledger(undisturbed), "clips", sealed=sealed) as db:
        assert db.execute("select current_setting('enable_progress_bar')").fetchone() == (False,)


def test_ordered_rows_come_in_the_order_of_the_parts(undisturbed: str) -> None:
    ledger = Ledger(undisturbed).snapshot()
    with tables(ledger, "clips", "labels", ordered=True) as db:
        assert db.sql("select key from clips").fetchall() == [(key,) for key in ledger.read("clips")["key"].to_pylist()]
        assert db.sql("from labels").fetchall() == [], "a table without parts is an empty one"


def test_a_damaged_part_is_named_with_the_remedy(undisturbed: str, tmp_path: Path) -> None:
    shutil.copytree(undisturbed, tmp_path / "run")
    ledger = Ledger(str(tmp_path / "run"))
    part = ledger.parts("clips")[0]
    Path(part.uri).write_bytes(b"no Parquet")
    with (
        pytest.raises(DamagedPart, match=rf"(?s){Path(part.uri).name}.*run the same curate command again"),
        reading(ledger),
        tables(ledger, "clips") as db,
    ):
        db.sql("select key from clips").fetchall()
