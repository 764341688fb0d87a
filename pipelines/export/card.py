"""The data card of an export, `README.md`: what is in it, where it comes from, what was done, and what is not known.

The front matter is what Hugging Face reads. The last part follows the European Commission's template for the public
summary of training content (Article 53(1)(d) of Regulation (EU) 2024/1689; 24 July 2025, adopted as C(2025) 8311 on
5 December 2025), section by section: what a run knows is filled in, what only the provider of a model can say is left
to be filled in, and said so.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import yaml

from rushes.pipelines.export.account import ACCOUNT, JOURNALS, PARTLY
from rushes.pipelines.export.dialects.dialect import Dialect
from rushes.pipelines.export.settings import ExportConfig
from rushes.pipelines.report import accounting, facts, measures, summary
from rushes.pipelines.stages.select import selections
from rushes.pipelines.store import storage
from rushes.pipelines.store.ledger import Ledger

CARD, ANEW, WROTE = "README.md", "README.new.md", f"{JOURNALS}/card.json"
"""The card; where it goes if the card was edited by hand; the digest of the card that was written last."""
HUGGING_FACE = frozenset(
    {"cc", "cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0",
     "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-2.0", "cc-by-2.5", "cc-by-nc-sa-2.0",
     "cc-by-nc-sa-3.0", "mit", "apache-2.0", "pddl", "odbl", "odc-by", "unlicense", "wtfpl"}
)  # fmt: skip
"""Licences that Hugging Face knows by name; of any other it wants `other` and a name of our own."""
SOURCES = 20
"""Folders of sources that are listed; the others are summed."""
OPEN = "*to be filled in by the provider*"
_VIDEOS = """
create view clips as select * from read_json('{path}', format='newline_delimited', columns={{
    key: 'VARCHAR', fate: 'VARCHAR', rule: 'VARCHAR', licence: 'VARCHAR', rights: 'VARCHAR', uri: 'VARCHAR',
    seconds: 'DOUBLE', pieces: 'STRUCT(seconds DOUBLE, shown DOUBLE, size_bytes BIGINT, has_audio BOOLEAN)[]'}});
create view videos as
select *, list_sum(list_transform(pieces, lambda p: p.seconds)) as kept_s,
       list_sum(list_transform(pieces, lambda p: p.size_bytes)) as kept_bytes,
       list_bool_or(list_transform(pieces, lambda p: p.has_audio)) as sounds
from clips where fate = 'exported';
"""


def write(run: str, folder: str, dialect: Dialect, config: ExportConfig, found: Mapping[str, Any]) -> list[str]:
    """Write the card of an export; return what to know of it.

    What a provider filled in by hand is kept: then the card of now stands beside it, as `ANEW`.

    Args:
        run: The run; where it has a ledger, the card tells of the whole way from the footage.
        folder: The export, with its account.
        dialect: Whose data it is.
        config: How it was made.
        found: What came of it; see `account.Totals.record`.
    """
    with duckdb.connect() as connection:
        path = str(Path(folder) / ACCOUNT).replace("'", "''")
        connection.execute(_VIDEOS.format(path=path))
        card = _Card(run, dialect, config, found, connection)
        lines = ["---", yaml.safe_dump(card.front(), sort_keys=False, allow_unicode=True) + "---", "", *card.body()]
    data = ("\n".join(lines) + "\n").encode()
    there, told = storage.read_if_there(f"{folder}/{CARD}"), storage.read_if_there(f"{folder}/{WROTE}")
    ours = json.loads(told) if told else []
    if there not in (None, data) and ours and _digest(there or b"") not in ours:
        storage.write_bytes(f"{folder}/{ANEW}", data)
        return [f"{folder}/{CARD} was edited by hand and is kept; the card of now is {folder}/{ANEW}"]
    for known in ([*ours[-1:], _digest(data)], [_digest(data)]):  # both, for it may be killed between card and note
        storage.write_bytes(f"{folder}/{WROTE}", (json.dumps(known) + "\n").encode())
        storage.write_bytes(f"{folder}/{CARD}", data)
    storage.remove(f"{folder}/{ANEW}")
    return []


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class _Card:
    def __init__(
        self, run: str, dialect: Dialect, config: ExportConfig, found: Mapping[str, Any],
        connection: duckdb.DuckDBPyConnection,
    ):  # fmt: skip
        self.run, self.dialect, self.config, self.found, self.connection = run, dialect, config, found, connection
        known = Ledger(run).check() and found["selection"] in selections.names(Ledger(run))
        self.books = accounting.open_books(run, found["selection"]) if known else None
        self.summary = summary.of(run, books=self.books) if self.books else None
        self.licences = self._ask(
            "select coalesce(nullif(licence, ''), 'unknown'), count(*), sum(kept_s) from videos group by 1 "
            "order by 3 desc, 1"
        )
        self.hours = found["video_s"] / 3600

    def _ask(self, query: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(query).fetchall()

    def front(self) -> dict[str, Any]:
        """Return the front matter."""
        names = [name for name, _, _ in self.licences]
        told: dict[str, Any] = {
            "license": names[0].lower() if len(names) == 1 and names[0].lower() in HUGGING_FACE else "other",
            "task_categories": ["text-to-video"],
            "size_categories": [_size_category(self.found["videos"])],
            "tags": ["video", "video-generation", "rushes", self.dialect.name],
        }
        if "license" in told and told["license"] == "other":
            told["license_name"] = "mixed-or-unknown" if len(names) != 1 else _slug(names[0])
        if self._captioners() == {"tags"}:
            told["language"] = ["en"]
        if self.dialect.front:
            told |= self.dialect.front(self.found["videos"], self._size_bytes())
        return told

    def _size_bytes(self) -> int:
        return int(self._ask("select coalesce(sum(kept_bytes), 0) from videos")[0][0])

    def _captioners(self) -> set[str]:
        captions = self.summary["captions"] if self.summary else None
        return set(captions["sources"]) if captions else set()

    def body(self) -> Iterator[str]:
        """Yield the lines of the card."""
        yield from self._what()
        yield from self._rules()
        yield from self._funnel()
        yield from self._policy()
        yield from self._rights()
        yield from self._provenance()
        yield from self._captions()
        yield from self._limits()
        yield from self._removal()
        yield from self._union()

    def _what(self) -> Iterator[str]:
        found, size = self.found, self._size_bytes()
        ((sounds,),) = self._ask("select count(*) filter (sounds) from videos")
        yield from (f"# {found['selection']}, as {self.dialect.name}", "")
        clips = found["clips"]["exported"]
        yield f"{found['videos']} videos of {clips} clips, {self.hours:.3f} hours, {size / 1e6:.1f} MB; {sounds} clips"
        yield "with sound. Cut by Rushes out of longer footage, one shot each, with a caption."
        yield from ("", f"For {self.dialect.trainer}, read at {self.dialect.version}.", "")
        yield f"* It reads {self.dialect.reads}."
        yield from (f"* What it drops or changes: {self.dialect.drops}.", "")
        if self.dialect.loads:
            yield from ("## How to load it", "", "```python", *self.dialect.loads.splitlines(), "```", "")
            yield from ("`DIR` is where this folder lies.", "")

    def _rules(self) -> Iterator[str]:
        found = self.found
        yield from ("## What every video obeys", "")
        rules = {
            "frame rate": f"{found['fps']} fps, constant; frames picked by time"
            if found["fps"]
            else "that of its clip",
            "frames": f"{found['frames']}" + (f", {found['max_frames']} at most" if found["max_frames"] else ""),
            "sides": f"multiples of {found['multiple']}, cropped from the middle"
            if found["multiple"] > 1
            else "as they were",
            "longer clips": "split"
            if found["split"]
            else "trimmed at their end"
            if found["max_frames"]
            else "kept whole",
            "share of its clip": f"at least {found['min_shown']:.0%}" if found["min_shown"] else "any",
            "sound": "kept" if found["audio"] else "dropped",
            "caption": found["caption"],
        }
        yield from (f"* {name}: {text}" for name, text in rules.items())
        made = ", ".join(f"{count} {how}" for how, count in found["made"].items()) or "none"
        yield from (f"* how they were made: {made}", "")
        clips, seconds = found["clips"], found["seconds"]
        told = ", ".join(f"{clips[fate]} {fate} ({seconds[fate]:.1f} s)" for fate in ("exported", "refused", "failed"))
        yield f"`{ACCOUNT}` has every clip of the selection's shards once: {told}."
        yield f"Of the exported clips {found['trimmed_s']:.1f} s were trimmed."
        if found["refused"]:
            yield from ("", *_table(("refused by", "clips"), found["refused"].items()))
        yield ""

    def _funnel(self) -> Iterator[str]:
        if self.books is None or self.summary is None:
            return
        account, policy = self.books.account, self.found["selection"]
        yield from ("## From the footage to here", "")
        yield f"{account.inputs} inputs, {account.input_s / 3600:.3f} hours, under the policy `{policy}`:"
        steps = facts.funnel(account, measures.rules(self.run, policy))
        rows = [(s.name, s.note, s.clips, f"{s.seconds / 3600:.3f}", s.dropped or "") for s in steps]
        yield from ("", *_table(("gate", "rule", "clips left", "hours left", "dropped"), rows), "")
        lost = [(e.fate, e.reason, f"{e.seconds:.1f}", e.clips) for e in account.entries if e.fate != "kept"]
        if lost:
            yield from ("Every second of the footage that is not here:", "")
            yield from (*_table(("fate", "reason", "seconds", "clips"), lost), "")

    def _policy(self) -> Iterator[str]:
        """Yield the text of the policy that chose the clips, which says where each of its limits comes from."""
        text = next(measures.policy_texts(self.run, self.found["selection"]), None) if self.books else None
        if text is not None:
            lines = text.decode("utf-8", "replace").replace("```", "'''").strip().splitlines()
            yield from ("## The policy", "", "```yaml", *lines, "```", "")

    def _rights(self) -> Iterator[str]:
        yield from ("## Licences", "")
        rows = [(name, clips, f"{seconds / 3600:.3f}") for name, clips, seconds in self.licences]
        yield from (*_table(("licence", "clips", "hours"), rows), "")
        holders = self._ask(
            "select rights, count(*), sum(kept_s) from videos where rights != '' group by 1 order by 3 desc, 1 limit 20"
        )
        if holders:
            yield from (
                *_table(("rights holder", "clips", "hours"), [(n, c, f"{s / 3600:.3f}") for n, c, s in holders]),
                "",
            )
        yield "A licence is what the list of inputs said of the source, unchecked. Each clip's stands in the account."
        yield "`license` at the top follows from these: `other` where they are several, or none was given. It is for"
        yield from ("whoever publishes this to decide and to set; what is changed by hand stays.", "")

    def _provenance(self) -> Iterator[str]:
        rows = self._ask(
            "select regexp_replace(uri, '[^/]*$', ''), count(distinct uri), count(*), sum(kept_s) from videos "
            "group by 1 order by 4 desc, 1"
        )
        yield from ("## Where it comes from", "")
        shown = [
            (place or "(no folder)", files, clips, f"{seconds / 3600:.3f}") for place, files, clips, seconds in rows
        ]
        yield from _table(("place", "sources", "clips", "hours"), shown[:SOURCES])
        if len(rows) > SOURCES:
            yield f"… and {len(rows) - SOURCES} more places."
        yield from ("", "Each clip's source and where it begins in it stand in the account.", "")

    def _captions(self) -> Iterator[str]:
        yield from ("## Captions and languages", "")
        captions = self.summary["captions"] if self.summary else None
        if captions:
            told = ", ".join(f"{count} {source}" for source, count in captions["sources"].items())
            yield f"Captions of the run by source: {told}. `tags` are composed, in English, of measurements and"
            yield "ImageNet tags; `given` came with the inputs, `endpoint` and `transformers` are a model's."
            models = self.books.connection.execute(
                "select distinct model from captions where coalesce(model, '') != '' order by 1 limit 20"
            ).fetchall() if self.books else []  # fmt: skip
            yield from (f"* captioner: {name}" for (name,) in models)
            if captions["contradicted"]:
                yield f"* {captions['contradicted']} captions of a model contradicted a measurement"
        yield from ("The language of captions that were not composed, and of speech, is not measured.", "")

    def _limits(self) -> Iterator[str]:
        yield from ("## Known limits", "")
        yield "* Cuts between shots are found by measurements and a network; some are missed, and some are false."
        ((partly, least),) = self._ask(
            "select count(*) filter (p.shown < 0.9995), coalesce(min(p.shown), 1) from (select unnest(pieces) as p "
            "from videos)"
        )
        yield "* Captions describe a whole clip; where a video is a trimmed or split part of it, they may tell of what"
        yield f"  is not in it, and a length that they name is the clip's: so it is with {partly} of"
        yield f"  {self.found['videos']} videos, {self.found['partly']} of which show less than {PARTLY:.0%} of their"
        yield f"  clip and the least {least:.1%}; `shown` in the account tells of each."
        yield "* Scores that dropped clips have biases of their own; nothing here measures whom or what footage shows."
        yield from ("* People in the footage were not asked, as far as this tool knows.", "")

    def _removal(self) -> Iterator[str]:
        yield from ("## How to ask for removal", "")
        yield f"Write to {self.config.contact or OPEN}, naming the source or the clip's key (its video's name)."
        yield "A source or clip that is taken down in the run leaves this folder when the same export runs again;"
        yield "`rushes verify RUN --export FOLDER` proves it. What a trainer has made of it before does not."
        yield ""

    def _union(self) -> Iterator[str]:
        """Yield the fields of the template of the European Commission."""
        bands = ((1e4, "less than 10 000 hours"), (1e6, "10 000 to 1 million hours"))
        band = next((name for limit, name in bands if self.hours < limit), "more than 1 million hours")
        licences = ", ".join(name for name, _, _ in self.licences) or "none"
        fields = (
            ("1.1 Provider identification: name, contact, authorised representative", OPEN),
            ("1.2 Model identification: versioned name, dependencies, date of placement on the Union market", OPEN),
            ("1.3 Modalities", "video with text" + (" and sound" if self.found["audio"] else "")),
            ("1.3 Overall training data size, video", f"{band}: {self.hours:.3f} hours, {self.found['videos']} videos"),
            ("1.3 Latest date of data acquisition; whether it goes on", OPEN),
            ("1.3 Linguistic, regional, demographic characteristics", "not measured; see *Captions and languages*"),
            ("2.1 Publicly available datasets", OPEN),
            (
                "2.2 Private non-publicly available datasets obtained from third parties (2.2.1 licensed by rights "
                "holders, 2.2.2 others)",
                f"{OPEN}; licences that the inputs named: {licences}",
            ),
            (
                "2.3 Data crawled and scraped from online sources",
                f"none by Rushes, which reads what it is given; {OPEN}",
            ),
            ("2.4 User data", OPEN),
            ("2.5 Synthetic data", "captions, by source: " + (", ".join(sorted(self._captioners())) or "unknown")),
            ("2.6 Other sources of data", "see *Where it comes from*"),
            ("3.1 Respect of reservation of rights from text and data mining exception or limitation", OPEN),
            ("3.2 Removal of illegal content", f"rules of the policy `{self.found['selection']}`, see above; {OPEN}"),
            ("3.3 Other information (optional)", "see *What every video obeys*"),
        )
        yield from ("## Public summary of training content (EU template)", "")
        yield from _table(("field", "content"), fields)


def _table(head: Sequence[str], rows: Any) -> Iterator[str]:
    """Yield a table in Markdown."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(' '.join(str(cell).replace('|', '/').split()) for cell in row)} |"


def _slug(name: str) -> str:
    """Return a name as Hugging Face takes it."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-") or "unknown"


def _size_category(count: int) -> str:
    """Return the band of Hugging Face that a number of videos lies in."""
    bands = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M")
    return next((band for power, band in enumerate(bands, 3) if count < 10**power), "100M<n<1B")
