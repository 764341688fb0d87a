"""All dialects by the names that `--to` takes."""

from __future__ import annotations

from rushes.pipelines.export.dialects import fiftyone, folders, lists, rows, tables, tomls, webshart

DIALECTS = {
    dialect.name: dialect
    for dialect in (
        folders.FOLDER, tomls.MUSUBI, tomls.DIFFUSION_PIPE, folders.AI_TOOLKIT, folders.SIMPLETUNER, rows.LTX,
        rows.DIFFSYNTH, lists.VIDEOX_FUN, lists.FASTVIDEO, rows.OPEN_SORA, tables.HF, tables.LANCE_TABLE,
        webshart.WEBSHART, fiftyone.FIFTYONE,
    )
}  # fmt: skip
