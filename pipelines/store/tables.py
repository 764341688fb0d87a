"""The tables of the ledger: their columns and what stands in them."""

from __future__ import annotations

import pyarrow as pa

_f, _d, _s, _i, _b = pa.float32(), pa.float64(), pa.string(), pa.int32(), pa.bool_()


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind) for name, kind in columns.items()])


TABLES: dict[str, pa.Schema] = {
    # The work list: which input belongs to which unit. A wave is one addition of inputs to the run.
    "plan": _schema(
        wave=_i, unit=_s, uri=_s, size_bytes=pa.int64(), version=_s, caption=_s, licence=_s, rights=_s, extra=_s
    ),
    # Which unit works on a source, planned when its wave was probed; copies of other sources are left out.
    # `probed_in` is the unit of `sources` that holds its row, `chunks` in how many parts of spans its unit is scanned.
    "units": _schema(wave=_i, unit=_s, probed_in=_s, uri=_s, source_id=_s, duration_s=_d, chunks=_i, unit_s=_d),
    # One row per readable input; probing reads headers only.
    "sources": _schema(
        source_id=_s,
        uri=_s,
        wave=_i,
        unit=_s,
        size_bytes=pa.int64(),
        digest=_s,
        digest_full=_s,
        container=_s,
        video_codec=_s,
        pixel_format=_s,
        bit_depth=_i,
        width=_i,
        height=_i,
        coded_width=_i,
        coded_height=_i,
        rotation_deg=_i,
        sample_aspect=_d,
        fps=_d,
        variable_fps=_b,
        duration_s=_d,
        start_s=_d,
        bit_rate=pa.int64(),
        color_range=_s,
        color_space=_s,
        color_transfer=_s,
        color_primaries=_s,
        hdr=_b,
        audio_codec=_s,
        audio_channels=_i,
        audio_rate_hz=_i,
        caption=_s,
        licence=_s,
        rights=_s,
        extra=_s,
        # Where the clock starts again in the middle: first byte, first timestamp and length of each piece.
        piece_bytes=pa.list_(pa.int64()),
        piece_start_s=pa.list_(_d),
        piece_duration_s=pa.list_(_d),
    ),
    # What stood in the folders of the inputs and was passed over for its suffix; a part for each input.
    "passed_over": _schema(folder=_s, suffix=_s, files=pa.int64(), size_bytes=pa.int64()),
    # One row per span: what the single decode measured, per frame and per motion tick.
    "signals": _schema(
        source_id=_s,
        span=_i,
        start_s=_d,
        end_s=_d,
        frames=_i,
        covered_s=_d,
        time_s=pa.list_(_d),
        duration_s=pa.list_(_f),
        content=pa.list_(_f),
        hue=pa.list_(_f),
        saturation=pa.list_(_f),
        luma=pa.list_(_f),
        histogram=pa.list_(_f),
        doubt=pa.list_(_f),
        key=pa.list_(_f),
        change=pa.list_(_f),
        luma_mean=pa.list_(_f),
        luma_std=pa.list_(_f),
        sharpness=pa.list_(_f),
        parity=pa.list_(_f),  # of candidate frames; NaN elsewhere
        blockiness=pa.list_(_f),  # likewise
        tick_s=pa.list_(_d),
        pan=pa.list_(_f),
        tilt=pa.list_(_f),
        zoom=pa.list_(_f),
        roll=pa.list_(_f),
        object_speed=pa.list_(_f),
        object_area=pa.list_(_f),
        residual=pa.list_(_f),
        bar_left=pa.list_(_f),
        bar_top=pa.list_(_f),
        bar_right=pa.list_(_f),
        bar_bottom=pa.list_(_f),
        dark=pa.list_(_f),
        bright=pa.list_(_f),
        phash=pa.list_(pa.uint64()),
        cell_light=pa.binary(),
        corners=pa.list_(_f),  # of frames that change much; NaN elsewhere
    ),
    # Small pictures (48×27 RGB) of the frames around doubtful ones, for the witness of shots.
    "windows": _schema(source_id=_s, time_s=_d, jpeg=pa.binary()),
    # What the witness says of each frame that it was asked about: how likely a cut is here, and a part of a transition.
    "witness": _schema(source_id=_s, time_s=_d, cut=_f, part=_f),
    # Candidate frames on a fixed grid of time, from which clips take their representatives.
    "frames": _schema(source_id=_s, time_s=_d, jpeg=pa.binary()),
    # Every clip ever found, with its measures; kept or not is decided elsewhere.
    "clips": _schema(
        key=_s,
        source_id=_s,
        uri=_s,
        wave=_i,
        unit=_s,
        start_s=_d,
        end_s=_d,
        duration_s=_d,
        frames=_i,
        width=_i,
        height=_i,
        fps=_d,
        bit_rate=pa.int64(),
        source_duration_s=_d,
        opens_with=_s,
        closes_with=_s,
        cut_score=_f,
        motion=_f,
        camera_speed=_f,
        camera=_s,
        pan=_f,
        tilt=_f,
        zoom=_f,
        roll=_f,
        shake=_f,
        object_speed=_f,  # both null where the camera is too fast to tell
        object_area=_f,
        residual=_f,
        still_picture=_b,
        black=_f,
        white=_f,
        frozen=_f,
        duplicate_frames=_f,
        cadence=_s,  # none, telecine, doubled, irregular; null where it cannot be told
        cadence_fps=_f,  # new pictures per second
        luma_mean=_f,
        luma_std=_f,
        exposure=_f,  # stops over 18 % grey
        clipped_dark=_f,  # share of pixels
        clipped_bright=_f,
        flicker=_f,  # height of the strongest period, 0–255
        interlaced=_f,  # share of moving candidate frames that are combed
        blockiness=_f,  # by which share neighbours differ more across 8×8 blocks
        sharpness=_f,
        crop_left=_f,
        crop_top=_f,
        crop_right=_f,
        crop_bottom=_f,
        phash=pa.list_(pa.uint64()),
        phash_s=pa.list_(_f),
        frame_s=pa.list_(_d),
        caption=_s,
        licence=_s,
        rights=_s,
        extra=_s,
        has_audio=_b,
        hdr=_b,
        color_range=_s,
        digest=_s,
    ),
    # A contact strip of every clip, WebP, for people to look at.
    "strips": _schema(key=_s, webp=pa.binary()),
    # Seconds of a source that are in no clip, and why.
    "trims": _schema(source_id=_s, uri=_s, start_s=_d, end_s=_d, reason=_s),
    # Long form: a scorer owns its rows, so another scorer is no other column.
    "scores": _schema(key=_s, scorer=_s, model=_s, value=_d, label=_s, vector=pa.list_(_f)),
    # What duplicates are found by, made once: bands of MinHash signatures, and the picture of a still clip.
    "sketches": _schema(key=_s, bands=pa.list_(pa.uint32()), picture=pa.binary()),
    # Which clips resemble which: what was measured of couples, whatever a policy says of it (`filters.duplicates`).
    # `seen_…` tells a clip's content, `hashes_…` counts its pictures with structure; `timed_…` are null where no other
    # speed was tried, `unlike` (of the pictures of still clips) where there are not two that can be compared.
    "matches": _schema(
        a=_s,
        b=_s,
        seen_a=pa.uint64(),
        seen_b=pa.uint64(),
        hashes_a=_i,
        hashes_b=_i,
        same_source=_b,
        ticks=_i,
        offset_s=_d,
        distance=_d,
        own=_d,
        standing=_d,
        accord=_d,
        overlap_s=_d,
        timed_speed=_d,
        timed_ticks=_i,
        timed_offset_s=_d,
        timed_distance=_d,
        timed_own=_d,
        timed_standing=_d,
        timed_accord=_d,
        timed_overlap_s=_d,
        unlike=_d,
    ),
    # A part for each policy, sorted by key. `unit` is that of the clip; `cluster` and `weight` only where the policy
    # balances.
    "selection": _schema(
        key=_s,
        unit=_s,
        policy=_s,
        kept=_b,
        stage=_s,
        rule=_s,
        value=_d,
        limit=_d,
        detail=_s,
        duration_s=_d,
        cluster=_i,
        weight=_d,
    ),
    # Who was dropped for whom. Level `bytes` pairs sources, which have no keys; time in the kept clip is
    # speed × time in the dropped one + offset_s; `unit` says what distance and limit count.
    "pairs": _schema(
        policy=_s,
        level=_s,
        key=_s,
        kept_key=_s,
        uri=_s,
        kept_uri=_s,
        distance=_d,
        limit=_d,
        unit=_s,
        speed=_d,
        offset_s=_d,
        overlap_s=_d,
        why=_s,
    ),
    "captions": _schema(
        key=_s,
        source=_s,
        model=_s,
        subject=_s,
        action=_s,
        setting=_s,
        shot_size=_s,
        camera_motion=_s,
        light=_s,
        style=_s,
        short=_s,
        long=_s,
        # `made_by`: the settings that made it. `prompt`: what the model was asked. `checks`: what it said against what
        # was measured. `pictures` and `bound`: the clip it belongs to (`binding.py`).
        made_by=_s,
        prompt=_s,
        checks=_s,
        pictures=_s,
        bound=_s,
    ),
    # `made_by` is the fingerprint of the settings that made a clip, whichever selection it was made for.
    "encoded": _schema(
        key=_s,
        made_by=_s,
        unit=_s,
        wave=_i,
        bucket=_s,
        offset=pa.int64(),
        size_bytes=pa.int64(),
        sha256=_s,
        width=_i,
        height=_i,
        fps=_d,
        frames=_i,
        duration_s=_d,
        codec=_s,
        copied=_b,
        has_audio=_b,
        color_space=_s,
        color_range=_s,
        hdr=_b,
    ),
    "packed": _schema(key=_s, policy=_s, bucket=_s, shard=_s, index=_i, sha256=_s),
    # What each segment of a packed clip costs and loses at each rate, of which one budget for all clips is shared out.
    # `seconds` it lasts; `distortion` is its squared error, in the range [-1, 1], mean over pixels, summed over frames.
    "rates": _schema(
        key=_s,
        shard=_s,
        segment=_i,
        seconds=_d,
        rate=_i,
        latents=_i,
        distortion=_f,
        tokenizer=_s,
        scorer=_s,
    ),
    # A part for each latent shard that is done.
    "latents": _schema(selection=_s, shard=_s, samples=_i, size_bytes=pa.int64(), sha256=_s, tokenizer=_s),
    # What was taken down (`takedowns.py`): a row for each thing named and source that it is. `until` is when it was
    # withdrawn; `key` and its stretch are those of a clip alone; one of kind `similar` `resembles` another that was
    # taken down, and is left out only if `dropped`; `applied` tells whether the ledger is made without it.
    "takedowns": _schema(
        named=_s,
        kind=_s,
        reason=_s,
        since=_s,
        until=_s,
        source_id=_s,
        uri=_s,
        key=_s,
        start_s=_d,
        end_s=_d,
        resembles=_s,
        dropped=_b,
        applied=_b,
    ),
    # What failed, where, and what to do about it. `seconds` is footage lost to the failure.
    "errors": _schema(
        stage=_s, unit=_s, uri=_s, source_id=_s, key=_s, start_s=_d, seconds=_d, code=_s, reason=_s, remedy=_s
    ),
}
