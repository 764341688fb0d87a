"""The export of a selection: every clip of its shards becomes videos of the trainer's kind, or a row that says why not.

    DIR/export.json    the settings; another command is refused here
    DIR/export.jsonl   the account: each clip once, exported as which videos, refused by which rule, or failed
    DIR/videos/        the videos, whole under their names or not there
    DIR/README.md      the data card
    DIR/…              the lists and the configuration of the trainer, as its dialect says

The same command goes on where it was stopped, takes up what came into the selection and takes out what left it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from rushes.pipelines.export import account, card, clips, verify
from rushes.pipelines.export.account import ACCOUNT, Journal, Row, Shapes, Totals
from rushes.pipelines.export.captions import caption_of
from rushes.pipelines.export.dialects.dialect import Dialect, Export
from rushes.pipelines.export.dialects.registry import DIALECTS
from rushes.pipelines.export.rules import NO_CAPTION, Piece, Refusal, Rules, plan
from rushes.pipelines.export.settings import ExportConfig, ExportError, claim, record, rules_of
from rushes.pipelines.progress import Reporter
from rushes.pipelines.stages.select import selections
from rushes.pipelines.stages.unit import guard
from rushes.pipelines.store import shards, storage, takedowns
from rushes.pipelines.store.clip import clip_key, is_key
from rushes.pipelines.store.columns import flat
from rushes.pipelines.store.ledger import Ledger
from rushes.pipelines.store.shards import Manifest, ShardInfo
from rushes.pipelines.store.storage import redact
from rushes.pipelines.store.takedowns import Down


def run(
    run: str, out: str, to: str, config: ExportConfig, *, preset: str = "", selection: str = "",
    reporter: Reporter | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Export a selection's shards; return what came of it as plain values, see `account.Totals.record`.

    Args:
        run: A run with shards, here or in an object store.
        out: A local folder, new or with an earlier export of the same settings.
        to: A name of `dialects.registry.DIALECTS`.
        config: How clips are cut.
        preset: A name of `rules.PRESETS`, or empty.
        selection: Which one of several; without it the only one, else the current one.
        reporter: Where progress is shown.

    Raises:
        ExportError: If the folder holds something else, or a whole shard what was taken down.
        ShardError: If there are no such shards.
    """
    if not storage.is_local(out):
        raise ExportError(f"{out}: trainers read folders; give a local one as --out and copy it from there")
    dialect, folder = DIALECTS[to], storage.absolute(out)
    rules = _rules(dialect, config, preset)
    root = selections.folder(run, "shards", selection)
    made = record(run, to, root.rsplit("/", 1)[-1], rules, config)
    with storage.alone(folder):
        claim(folder, made)
        storage.sweep(folder)
        down = takedowns.now(takedowns.read(Ledger(storage.absolute(run))))
        exporter = _Exporter(folder, root, dialect, rules, config, down)
        reporter = reporter or Reporter()
        totals = exporter.all(reporter)
        with reporter.work("lists"):
            dialect.write(Export(folder=folder, shapes=exporter.shapes, shards=root))
            notes = [*exporter.prune(), *_rate(dialect, rules, exporter.shapes)]
            notes += _unpacked(run, made["selection"], exporter.manifest)
            found = {"folder": out, **made, **totals.record()}
            found["notes"] = notes + card.write(run, folder, dialect, config, found)
            account.finish(folder)
        with reporter.work("verify"):
            found["problems"] = verify.problems(folder, dialect, rules)
    return found


def _rate(dialect: Dialect, rules: Rules, shapes: Shapes) -> list[str]:
    """Return what to know where a trainer would take videos of any rate for such of the model's."""
    if dialect.any_rate or rules.fps is not None or not shapes.fps:
        return []
    rates = ", ".join(f"{fps:g}" for fps in sorted(shapes.fps)[:NAMED])
    return [
        f"the videos keep the rates of their clips ({rates}{', …' * (len(shapes.fps) > NAMED)} fps), and "
        f"{dialect.name} takes each for the model's own, so that motion is too slow or too fast: give --for or --fps"
    ]


def _unpacked(run: str, selection: str, manifest: Manifest) -> list[str]:
    """Return what to know of clips that the selection keeps and no shard holds: they never come here."""
    kept = Ledger(storage.absolute(run)).dataset("selection")
    if kept is None:
        return []
    lacking = kept.count_rows(filter=(pc.field("policy") == selection) & pc.field("kept")) - manifest.samples
    return [
        f"{lacking} clips that the selection keeps are in no shard, so not here: describing or cutting them failed, or "
        f"packing has not finished; `rushes report {run} --selection {selection}` says which"
    ] * (lacking > 0)


def _rules(dialect: Dialect, config: ExportConfig, preset: str) -> Rules:
    """Return what the pieces obey. Raises ValueError for rules where the dialect takes shards as they are."""
    rules = rules_of(config, preset, dialect.audio)
    if dialect.whole_shards and (rules.fps or rules.frames.step != 1 or rules.multiple > 1 or rules.max_frames):
        raise ValueError(
            f"{dialect.name} takes shards as they are, nothing in them is cut; leave out --for, --fps, --frames, "
            "--multiple and --max_frames, or choose another dialect"
        )
    return rules


NAMED = 5
"""Frame rates, or files of others, that are named."""
KEY_LENGTH = len(clip_key("0" * 16, 0.0))
LISTED = re.compile(
    r"clips\.lance/.*|videos/[^/]*/(videos2caption\.json|preprocess_t2v\.yaml)|\.rushes/(finished|card)\.json"
)
"""What a dialect, or the account, has in a folder besides, and keeps in order by itself."""


class _Exporter:
    """One export at work."""

    def __init__(self, folder: str, root: str, dialect: Dialect, rules: Rules, config: ExportConfig, down: Down):
        self.folder, self.root, self.dialect, self.rules, self.config = Path(folder), root, dialect, rules, config
        self.down = down
        self.manifest: Manifest = shards.read_manifest(root)
        self.shapes = Shapes()

    def all(self, reporter: Reporter) -> Totals:
        """Export every shard and write the account; return it in numbers."""
        totals = Totals()
        with storage.open_write(str(self.folder / ACCOUNT)) as file:
            states = self._shards(totals, file)
            for _ in reporter.follow("export", states, len(self.manifest.shards), 0):
                pass
        return totals

    def _shards(self, totals: Totals, file: Any) -> Iterator[dict[str, Any]]:
        for info in self.manifest.shards:
            before = totals.clips["failed"]
            clips_, seconds = 0, 0.0
            for row in self._shard(info):
                file.write(account.line_of(row).encode())
                totals.add(row)
                clips_, seconds = clips_ + 1, seconds + row["seconds"]
                for item in account.items_of(row):
                    self.shapes.add(item)
            yield {"items": clips_, "seconds": seconds, "errors": totals.clips["failed"] - before}

    def _shard(self, info: ShardInfo) -> Iterator[Row]:
        """Yield the rows of a shard's clips in their order; several clips are worked on at once."""
        table = shards.read_sidecar(self.root, info)
        gone = flat(table["key"]).filter(self.down.keys(flat(table["key"]))).to_pylist() if self.down else []
        if self.dialect.whole_shards is not None:
            if gone:
                raise ExportError(f"{self.root}/{info.path} holds {gone[0]}, which was taken down; pack the run again")
            self._take(info, self.folder / self.dialect.whole_shards(info.path))
        journal = Journal(str(self.folder), info.path)
        done = journal.done()
        facts = [row | {"gone": row["key"] in gone} for row in table.to_pylist()]
        pool = ThreadPoolExecutor(self.config.workers or os.cpu_count() or 1)
        try:
            for row in pool.map(lambda one: self._clip(info, one, done.get(one["key"])), facts):
                if row["fate"] != "failed" and row != done.get(row["key"]):
                    journal.add(row)
                yield row
        finally:
            pool.shutdown(cancel_futures=True)

    def _take(self, info: ShardInfo, target: Path) -> None:
        """Put a whole shard into the export."""
        index = storage.read_if_there(str(target.with_suffix(".json")))
        if index is not None and json.loads(index)["hash"] == info.sha256 and _size(target) == info.size_bytes:
            return
        if self.config.link and storage.is_local(self.root):
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(OSError):  # another disk: it is copied below
                target.unlink(missing_ok=True)
                target.hardlink_to(storage.local_path(f"{self.root}/{info.path}"))
                return
        with storage.open_read(f"{self.root}/{info.path}") as source, storage.open_write(str(target)) as file:
            shutil.copyfileobj(source, file, storage.WRITE_BYTES)

    def _clip(self, info: ShardInfo, facts: Row, known: Row | None) -> Row:
        """Return the row of one clip, its videos written."""
        caption = caption_of(facts.get("caption") or "", facts, self.config.caption)
        row = {
            "key": facts["key"], "shard": info.path, "sha256": facts.get("sha256") or "", "caption": caption,
            "seconds": facts.get("duration_s") or 0.0, "start_s": facts.get("start_s") or 0.0,
            "uri": redact(facts.get("uri") or ""), "licence": facts.get("licence") or "",
            "rights": facts.get("rights") or "", "fate": "exported", "pieces": [], "rule": "", "value": None,
            "limit": None, "reason": "", "remedy": "",
        }  # fmt: skip
        if facts["gone"]:  # by a command that has not packed yet
            row |= {"rule": "takedown", "reason": "it was taken down", "remedy": "pack the run again"}
            return {**row, "fate": "refused", "caption": ""}
        errors: list[Row] = []
        with guard(errors, key=facts["key"]):
            planned = self._planned(caption, facts)
            if isinstance(planned, Refusal):
                said = {"rule": planned.rule, "value": planned.value, "limit": planned.limit, "reason": planned.reason}
                return {**row, "fate": "refused", **said}
            made, there = self._made(info, facts, known, planned)
        if errors:
            said = {"rule": errors[0]["code"], "reason": errors[0]["reason"], "remedy": errors[0]["remedy"]}
            return {**row, "fate": "failed", **said}
        row["pieces"] = there or [self._write(row["key"], *one) for one in made]
        self._write_texts(row)
        return row

    def _made(
        self, info: ShardInfo, facts: Row, known: Row | None, planned: list[Piece]
    ) -> tuple[list[tuple[Piece, bytes, str]], list[Row]]:
        """Return the videos of a clip that are to be written, or those that stand there already."""
        if self.dialect.whole_shards is not None:
            shard, sounds = self.dialect.whole_shards(info.path), bool(facts.get("has_audio"))
            return [], [self._entry(planned[0], shard, "as it is", facts["mp4_bytes"], sounds)]
        if known is not None and self._stands(known, facts, planned):
            return [], known["pieces"]
        mp4 = storage.read_range(f"{self.root}/{info.path}", facts["mp4_offset"], facts["mp4_bytes"])
        if hashlib.sha256(mp4).hexdigest() != facts.get("sha256"):
            raise clips.PieceError("its bytes in the shard are not those that its facts tell of")
        return [*clips.pieces(mp4, planned, self.rules, self.config.crf)], []

    def _planned(self, caption: str, facts: Row) -> list[Piece] | Refusal:
        if caption.lower() in NO_CAPTION:
            return Refusal(rule="caption", value=caption, limit="a text", reason="it has no caption")
        return plan(facts, self.rules)

    def _stands(self, known: Row, facts: Row, planned: list[Piece]) -> bool:
        """Whether the videos of a clip were made of the same bytes by the same plan and are still there."""
        files = [self.dialect.place(piece, facts["key"]) for piece in planned]
        there = known["pieces"]
        return (
            (known["sha256"], known["fate"]) == (facts.get("sha256"), "exported")
            and [piece["file"] for piece in there] == files
            and all(_size(self.folder / piece["file"]) == piece["size_bytes"] for piece in there)
        )

    def _write(self, key: str, piece: Piece, data: bytes, how: str) -> Row:
        file = self.dialect.place(piece, key)
        storage.write_bytes(str(self.folder / file), data)
        sounds = clips.film_of(str(self.folder / file)).has_audio
        return {**self._entry(piece, file, how, len(data), sounds), "sha256": hashlib.sha256(data).hexdigest()}

    def _entry(self, piece: Piece, file: str, how: str, size_bytes: int, has_audio: bool) -> Row:
        return {
            "file": file, "frames": piece.frames, "width": piece.width, "height": piece.height, "fps": float(piece.fps),
            "start_s": round(piece.start_s, 6), "seconds": round(piece.seconds, 6), "how": how,
            "shown": piece.shown, "size_bytes": size_bytes, "has_audio": has_audio,
        }  # fmt: skip

    def _write_texts(self, row: Row) -> None:
        """Write the caption beside each video of a clip, unless it stands there."""
        for piece in row["pieces"] if self.dialect.txt else []:
            uri, text = str((self.folder / piece["file"]).with_suffix(".txt")), row["caption"].encode()
            if storage.read_if_there(uri) != text:
                storage.write_bytes(uri, text)

    def prune(self) -> list[str]:
        """Remove what is left of clips that left the selection, or that are refused or failed now; return what to know.

        That is their videos, texts and shards, and whatever else bears their key: what a trainer has cached of them.
        """
        items = _sorted(_hash(item.file) for item in account.items(str(self.folder)))
        keys = _sorted(_hash(row["key"]) for row in account.rows(str(self.folder)) if row["pieces"])
        stands = self._stands_now()
        gone = others = 0
        foreign: list[str] = []
        for path in account.files(self.folder):
            file = path.relative_to(self.folder)
            keyed = is_key(path.name[:KEY_LENGTH]) and not path.name[KEY_LENGTH : KEY_LENGTH + 1].isdigit()
            if path.suffix in account.OWN.get(file.parts[0], ()) and (keyed or file.parts[0] not in account.VIDEOS):
                stays = file.as_posix() in stands or _holds(items, _hash(file.with_suffix(".mp4").as_posix()))
            else:
                stays = not keyed or _holds(keys, _hash(path.name[:KEY_LENGTH]))
                others += len(file.parts) > 1 and not keyed and not LISTED.fullmatch(file.as_posix())
                if file.parts[0] in account.VIDEOS and path.suffix == ".mp4" and not keyed:
                    foreign = sorted([*foreign, file.as_posix()])[:NAMED]
            if not stays:
                path.unlink()
                gone += 1
        notes = []
        if foreign:
            notes.append(
                f"{', '.join(foreign)} in {self.folder}: of no clip here, but a trainer will read it with them"
            )
        if gone and others:
            notes.append(
                f"{gone} files of clips that are no longer exported were removed; {others} files that others keep in "
                f"{self.folder} bear no clip's key and may hold them still, as caches do: remove those"
            )
        return notes

    def _stands_now(self) -> set[str]:
        """Return the shards, indexes and journals that there should be."""
        listed = {info.path for info in self.manifest.shards}
        stands = {f"{account.JOURNALS}/{path.removesuffix('.tar')}.jsonl" for path in listed}
        if self.dialect.whole_shards is not None:
            places = {self.dialect.whole_shards(path) for path in listed}
            stands |= places | {f"{place.removesuffix('.tar')}.json" for place in places}
        return stands


def _sorted(hashes: Iterator[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return hashes, sorted, to be looked for with `_holds`."""
    found = np.fromiter(hashes, np.uint64)
    found.sort()
    return found


def _holds(hashes: npt.NDArray[np.uint64], one: np.uint64) -> bool:
    place = int(np.searchsorted(hashes, one))
    return place < len(hashes) and bool(hashes[place] == one)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


def _hash(file: str) -> np.uint64:
    """Return eight bytes that stand for a path: a set of the paths themselves would grow with the run."""
    return np.uint64(int.from_bytes(hashlib.blake2b(file.encode(), digest_size=8).digest(), "big"))
