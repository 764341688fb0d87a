"""Scoring: real models on real frames, shared passes, and nothing that runs without its weights."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from rushes.filters import embed, tags
from rushes.pipelines.config import ScoreConfig
from rushes.pipelines.models import eyes, score
from rushes.pipelines.store.ledger import to_table


def _jpegs(path: Path, count: int = 2, stride: int = 10, side_px: int = 320) -> list[bytes]:
    found = []
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number % stride == 0:
                picture = frame.to_image()
                picture.thumbnail((side_px, side_px))
                found.append(_jpeg(picture))
            if len(found) == count:
                break
    return found


def _jpeg(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=85)
    return data.getvalue()


def _plain(value: int) -> bytes:
    return _jpeg(Image.new("RGB", (320, 180), (value,) * 3))


@pytest.fixture(scope="module")
def scorer() -> score.Scorer:
    torch.set_num_threads(1)
    return score.Scorer(ScoreConfig(scorers=["embedding", "tags", "quality"], batch_frames=4))


@pytest.fixture(scope="module")
def clips(bikes: Path, bunny: Path) -> list[dict[str, Any]]:
    carphone = bikes.with_name("carphone_pristine.mp4")
    return [{"key": path.stem, "jpegs": _jpegs(path, count)} for path, count in ((bikes, 3), (carphone, 2), (bunny, 1))]


@pytest.fixture(scope="module")
def rows(scorer: score.Scorer, clips: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return scorer(clips)


def _one(rows: list[dict[str, Any]], key: str, scorer: str) -> dict[str, Any]:
    [row] = [row for row in rows if (row["key"], row["scorer"]) == (key, scorer)]
    return row


def test_rows_fit_the_ledger_a_row_per_clip_and_scorer(rows: list[dict[str, Any]]) -> None:
    table = to_table("scores", rows)
    assert table.num_rows == 9
    assert table["model"].to_pylist()[:3] == ["efficientnet-lite0-57934424"] * 2 + [rows[2]["model"]]
    assert rows[2]["model"].startswith("brisque-")


def test_a_man_in_a_suit_is_tagged_so(rows: list[dict[str, Any]]) -> None:
    row = _one(rows, "carphone_pristine", "tags")
    assert tags.parse(row["label"])[0].name == "suit"
    assert row["value"] > 0.7


def test_what_the_labels_call_dog_bottles_and_bed_are_tagged_so(scorer: score.Scorer, footage: Path) -> None:
    files = {
        "dog": "sam2__01_dog.mp4",
        "bottle": "sample-videos__bottle-detection.mp4",
        "bed or couch": "sam2__bedroom.mp4",
    }
    found = scorer([{"key": name, "jpegs": _jpegs(footage / file, 2, 20)} for name, file in files.items()])
    for name in files:
        assert tags.parse(_one(found, name, "tags")["label"])[0].name == name


def test_batches_of_any_size_give_the_same_rows(rows: list[dict[str, Any]], clips: list[dict[str, Any]]) -> None:
    alone = score.Scorer(ScoreConfig(scorers=["embedding", "tags", "quality"], batch_frames=1))
    for one, other in zip(rows, [row for clip in clips for row in alone([clip])], strict=True):
        assert (one["key"], one["scorer"]) == (other["key"], other["scorer"])
        assert one["value"] == pytest.approx(other["value"], abs=1e-4)
        assert one["vector"] == pytest.approx(other["vector"], abs=1e-4)


def test_shots_of_one_film_are_nearer_to_each_other_than_to_another_film(rows: list[dict[str, Any]]) -> None:
    vectors = {key: np.array(_one(rows, key, "embedding")["vector"]) for key in ("bikes", "carphone_pristine")}
    assert np.linalg.norm(vectors["bikes"]) == pytest.approx(1.0, abs=1e-5)
    assert _one(rows, "bikes", "embedding")["value"] > float(vectors["bikes"] @ vectors["carphone_pristine"])


def test_compression_lowers_quality_on_the_real_pair(scorer: score.Scorer, bikes: Path) -> None:
    pair = [
        {"key": name, "jpegs": _jpegs(bikes.with_name(f"carphone_{name}.mp4"), 3)} for name in ("pristine", "distorted")
    ]
    found = scorer(pair)
    assert _one(found, "pristine", "quality")["value"] > _one(found, "distorted", "quality")["value"] + 5


def test_a_black_clip_has_no_quality_and_says_so(scorer: score.Scorer) -> None:
    row = _one(scorer([{"key": "black", "jpegs": [_plain(0), _plain(0)]}]), "black", "quality")
    assert (row["value"], row["label"]) == (None, "flat")
    assert to_table("scores", [row])["value"].to_pylist() == [None]


def test_bars_are_cut_off_before_a_model_looks(scorer: score.Scorer, clips: list[dict[str, Any]]) -> None:
    picture = Image.open(io.BytesIO(clips[1]["jpegs"][0]))
    boxed = Image.new("RGB", (picture.width, picture.height * 2))
    boxed.paste(picture, (0, picture.height // 2))
    bars = {"crop_top": 0.25, "crop_bottom": 0.25, "crop_left": 0.0, "crop_right": None}
    with_bars, without = scorer([{"key": "a", "jpegs": [_jpeg(boxed)]}, {"key": "b", "jpegs": [_jpeg(boxed)], **bars}])[
        1::3
    ]
    assert tags.parse(without["label"])[0].name == "suit"
    assert without["value"] > with_bars["value"]


def test_one_pass_of_nudenet_tells_faces_and_bare_bodies(clips: list[dict[str, Any]]) -> None:
    pytest.importorskip("nudenet")
    found = score.Scorer(ScoreConfig(scorers=["nsfw", "faces"]))(clips)
    man = _one(found, "carphone_pristine", "faces")
    assert (man["label"], man["model"].split()[1]) == ("1", "320n")
    assert man["value"] == pytest.approx(0.1, abs=0.05)
    assert _one(found, "carphone_pristine", "nsfw")["label"] == ""
    assert _one(found, "carphone_pristine", "nsfw")["value"] < 0.1
    assert [_one(found, key, "faces")["label"] for key in ("bikes", "bigbuckbunny")] == ["0", "0"]


def test_faces_on_the_labelled_footage_are_where_people_look_at_the_camera(footage: Path) -> None:
    pytest.importorskip("nudenet")
    people = ["dom-examples__video.mp4", "sample-videos__help.mkv", "sample-videos__yes.mkv"]
    none = ["shared-assets__flower.mp4", "learning-area__rabbit.mp4", "sample-videos__car-detection.mp4"]
    clips = [{"key": name, "jpegs": _jpegs(footage / name, 2, 20)} for name in (*people, *none)]
    found = score.Scorer(ScoreConfig(scorers=["faces", "nsfw"]))(clips)
    assert [_one(found, name, "faces")["label"] for name in people] == ["1", "1", "1"]
    assert [_one(found, name, "faces")["label"] for name in none] == ["0", "0", "0"]
    assert max(_one(found, name, "nsfw")["value"] for name in people) < 0.2


@pytest.mark.parametrize(("jpegs", "message"), [([], "no representative frame"), ([b"junk"], "no readable JPEG")])
def test_a_clip_without_a_readable_frame_is_named(scorer: score.Scorer, jpegs: list[bytes], message: str) -> None:
    with pytest.raises(score.FrameError, match=f"the-key.*{message}"):
        scorer([{"key": "the-key", "jpegs": jpegs}])


def test_no_clips_give_no_rows(scorer: score.Scorer) -> None:
    assert scorer([]) == []


def test_an_unknown_scorer_is_named_with_the_choice() -> None:
    with pytest.raises(ValueError, match=r"no scorer 'beauty'; choose from embedding, tags, quality"):
        score.check(ScoreConfig(scorers=["beauty"]))


# --- OpenCLIP: a small model with random weights, made here; the real ones are the user's to give ---------------------

TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import open_clip

    folder = tmp_path_factory.mktemp("clip")
    (folder / "rushes-tiny.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "rushes-tiny.json")
    torch.manual_seed(0)
    state = open_clip.create_model("rushes-tiny", pretrained_text=False).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "tiny.safetensors")
    torch.save({"weight": torch.randn(1, 24), "bias": torch.tensor([5.0])}, folder / "head.pth")
    return folder


@pytest.fixture
def given(folder: Path) -> Callable[..., ScoreConfig]:
    def config(**changes: Any) -> ScoreConfig:
        settings = {
            "scorers": ["clip", "aesthetic"],
            "clip_model": "rushes-tiny",
            "clip_weights": str(folder / "tiny.safetensors"),
            "aesthetic_head": str(folder / "head.pth"),
        }
        return ScoreConfig(**{**settings, **changes})

    return config


def test_openclip_from_a_path_scores_as_computed_directly(
    folder: Path, given: Callable[..., ScoreConfig], clips: list[dict[str, Any]]
) -> None:
    import open_clip
    from safetensors.torch import load_file

    found = score.Scorer(given())(clips[:1])
    model, _, transform = open_clip.create_model_and_transforms("rushes-tiny", pretrained_text=False)
    model.load_state_dict(load_file(folder / "tiny.safetensors"))
    batch = torch.stack([transform(Image.open(io.BytesIO(jpeg)).convert("RGB")) for jpeg in clips[0]["jpegs"]])
    with torch.inference_mode():
        units = torch.nn.functional.normalize(model.eval().encode_image(batch), dim=-1)
    mean = torch.nn.functional.normalize(units.mean(dim=0), dim=-1)
    assert _one(found, "bikes", "clip")["vector"] == pytest.approx(mean.numpy(), abs=1e-5)
    head = torch.load(folder / "head.pth", weights_only=True)
    expected = torch.nn.functional.linear(units, head["weight"], head["bias"]).mean()
    assert _one(found, "bikes", "aesthetic")["value"] == pytest.approx(float(expected), abs=1e-4)
    assert _one(found, "bikes", "aesthetic")["model"] == "rushes-tiny tiny.safetensors head.pth"


def test_openclip_from_a_local_folder_needs_no_weights_setting(
    folder: Path, given: Callable[..., ScoreConfig], clips: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": {}}))
    (tmp_path / "open_clip_model.safetensors").write_bytes((folder / "tiny.safetensors").read_bytes())
    config = given(scorers=["clip"], clip_model=f"local-dir:{tmp_path}", clip_weights="")
    one, other = score.Scorer(config)(clips[:1]), score.Scorer(given(scorers=["clip"]))(clips[:1])
    assert one[0]["vector"] == pytest.approx(other[0]["vector"], abs=1e-5)


def test_weights_of_another_architecture_are_refused(given: Callable[..., ScoreConfig]) -> None:
    with pytest.raises(ValueError, match="must be the architecture that the weights were trained for"):
        score.Scorer(given(scorers=["clip"], clip_model="ViT-S-32-alt"))


def test_weights_that_give_no_numbers_are_an_error_naming_the_network(
    folder: Path, given: Callable[..., ScoreConfig], clips: list[dict[str, Any]], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    state = load_file(folder / "tiny.safetensors")
    save_file({name: torch.full_like(value, torch.nan) for name, value in state.items()}, tmp_path / "nan.safetensors")
    with pytest.raises(score.ModelError, match="the network clip gave embedding that is not finite"):
        score.Scorer(given(clip_weights=str(tmp_path / "nan.safetensors")))(clips)


def test_a_head_of_another_width_is_refused_with_both_before_anything_runs(
    folder: Path, given: Callable[..., ScoreConfig], tmp_path: Path
) -> None:
    torch.save({"weight": torch.randn(1, 768), "bias": torch.zeros(1)}, tmp_path / "laion.pth")
    with pytest.raises(ValueError, match=r"head reads embeddings of 768 numbers, the OpenCLIP model rushes-tiny.* 24"):
        score.check(given(aesthetic_head=str(tmp_path / "laion.pth")))
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": {}}))
    with pytest.raises(ValueError, match=r"768 numbers.* gives 24"):
        score.check(given(aesthetic_head=str(tmp_path / "laion.pth"), clip_model=f"local-dir:{tmp_path}"))
    score.check(given())


def test_openclip_looks_at_batches_across_clips(
    given: Callable[..., ScoreConfig], clips: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, look = [], embed.look_clip
    scorer = score.Scorer(given(batch_frames=4))
    monkeypatch.setattr(embed, "look_clip", lambda clip, images: sizes.append(len(images)) or look(clip, images))
    together = scorer(clips)
    assert sizes == [4, 2]  # three clips of 3, 2 and 1 frames
    for one, other in zip(together, [row for clip in clips for row in scorer([clip])], strict=True):
        assert one["vector"] == pytest.approx(other["vector"], abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_weights": ""}, r"need weights of OpenCLIP rushes-tiny.*--score\.clip_weights"),
        ({"clip_weights": "/nowhere/w.safetensors"}, r"are not at /nowhere/w.safetensors.*--score\.clip_weights"),
        ({"clip_model": "ViT-L-14", "clip_weights": "no-such-tag"}, r"neither a file nor a pretrained tag.*openai"),
        ({"aesthetic_head": ""}, r"needs LAION's linear head.*--score\.aesthetic_head"),
        ({"clip_model": "local-dir:/nowhere"}, r"holds no open_clip_config.json"),
    ],
)
def test_missing_weights_are_named_before_anything_runs(
    given: Callable[..., ScoreConfig], changes: dict[str, str], message: str
) -> None:
    with pytest.raises(score.MissingModel, match=message):
        score.check(given(**changes))


def test_a_clip_model_without_weights_is_never_random(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": {}}))
    with pytest.raises(ValueError, match="cannot be loaded"):
        embed.load_clip(f"local-dir:{tmp_path}", "")


def test_on_a_cpu_a_network_is_shown_no_more_frames_than_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eyes, "device", lambda: "cpu")
    assert [eyes.frames_at_once("lite0", most) for most in (1, 16)] == [1, 2]
    assert eyes.frames_at_once("clip", 16) == 16
    monkeypatch.setattr(eyes, "device", lambda: "cuda")
    assert eyes.frames_at_once("lite0", 16) == 16
