"""Technical quality of a picture without a reference: BRISQUE, from natural scene statistics and a trained SVM.

The statistics follow Mittal, Moorthy, Bovik, "No-Reference Image Quality Assessment in the Spatial Domain" (IEEE TIP
2012); the support vectors and the ranges of the features are those that the package `brisque` carries, trained on the
LIVE database. The package's own feature code is slow (a 2-D convolution of 49 taps) and stops under NumPy ≥ 2.4, so the
features are computed here; a test holds them equal to the package's.

This is *technical* quality: blur, blocks, noise. It says nothing of beauty, and it was trained on photographs: drawn
pictures and test cards get values that mean little.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy.special import gamma

KERNEL_PX, SIGMA = 7, 7 / 6  # the window of the local mean and deviation
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))  # neighbours to the right, below, and on both diagonals


class FlatPicture(ValueError):
    """A picture without texture, or too small, has no natural scene statistics: its quality is not defined."""


@dataclass(frozen=True)
class Brisque:
    """The trained model: support vectors in libsvm and the range of each of the 36 features."""

    svm: Any
    lowest: Float[np.ndarray, " 36"]
    highest: Float[np.ndarray, " 36"]


class _NumbersOnly(pickle.Unpickler):
    """Reads a pickle of plain numbers and refuses everything that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"the ranges may hold numbers only, found {module}.{name}")


def load(folder: Path) -> Brisque:
    """Return the model in the `models` folder of the package `brisque`. Raises ValueError where a file is missing."""
    from libsvm import svmutil  # the bindings load a shared library

    svm, ranges = folder / "svm.txt", folder / "normalize.pickle"
    for path in (svm, ranges):
        if not path.is_file():
            raise ValueError(f"{path} is missing; the package brisque carries it: pip install 'brisque>=0.2'")
    with ranges.open("rb") as file:
        limits = _numbers(file)
    return Brisque(svmutil.svm_load_model(str(svm)), np.array(limits["min_"]), np.array(limits["max_"]))


def _numbers(file: BinaryIO) -> dict[str, list[float]]:
    return _NumbersOnly(file).load()


def quality(model: Brisque, rgb: UInt8[np.ndarray, "h w 3"]) -> float:
    """Return technical quality: 100 is clean, 0 is bad; **higher is better** (100 − BRISQUE, whose 0 is the best).

    On frames of 320 px, clean photographs and films gave 50 … 100, soft or grainy ones 10 … 60, pictures of heavy blur,
    blocks or noise 20 … 55, test cards and nearly black pictures −25 … 45. The value is not clipped.
    Raises FlatPicture where a picture has no texture to measure (all black, a plain card), ValueError where the model
    gives no number.
    """
    value = 100.0 - brisque(model, features(rgb))
    if not np.isfinite(value):
        raise ValueError(f"BRISQUE gave {value}; its model is damaged: pip install --force-reinstall 'brisque>=0.2'")
    return value


def brisque(model: Brisque, values: Float[np.ndarray, " 36"]) -> float:
    """Return the BRISQUE score of features: about 0 (clean) … 100 (bad)."""
    from libsvm import svmutil

    scaled = -1 + 2 * (values - model.lowest) / (model.highest - model.lowest)
    nodes, _ = svmutil.gen_svm_nodearray([float(v) for v in scaled])
    return float(svmutil.libsvm.svm_predict(model.svm, nodes))


def features(rgb: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, " 36"]:
    """Return the 18 statistics at full and at half size. Raises FlatPicture."""
    if min(rgb.shape[:2]) < 2 * KERNEL_PX:
        raise FlatPicture(f"a picture of {rgb.shape[1]}×{rgb.shape[0]} px is too small for BRISQUE; it needs 14×14")
    luma = rgb @ np.array([0.2125, 0.7154, 0.0721]) / 255  # Rec. 709 weights, as the SVM's features were made
    half = cv2.resize(luma, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_CUBIC)
    return np.concatenate([_statistics(luma), _statistics(half)])


def _statistics(luma: Float[np.ndarray, "h w"]) -> Float[np.ndarray, " 18"]:
    coefficients = normalised(luma)
    shape, _, left, right = asymmetric_fit(coefficients)
    found = [shape, (left + right) / 2]
    for down, across in SHIFTS:
        found += asymmetric_fit(_product(coefficients, down, across))
    return np.array(found)


def normalised(luma: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Return mean-subtracted, contrast-normalised coefficients (Eq. 1–3); luma in 0 … 1."""

    def smooth(image: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
        return cv2.GaussianBlur(image, (KERNEL_PX, KERNEL_PX), SIGMA, borderType=cv2.BORDER_CONSTANT)

    mean = smooth(luma)
    deviation = np.sqrt(np.abs(mean**2 - smooth(luma**2)))
    return (luma - mean) / (deviation + 1 / 255)


def _product(values: Float[np.ndarray, "h w"], down: int, across: int) -> Float[np.ndarray, "h2 w2"]:
    """Return the products of neighbours (Eq. 7–10)."""
    height, width = values.shape
    if across < 0:
        return values[down:, :across] * values[: height - down, -across:]
    return values[: height - down, : width - across] * values[down:, across:]


def asymmetric_fit(values: Float[np.ndarray, ...]) -> tuple[float, float, float, float]:
    """Return shape, mean, left and right variance of an asymmetric generalised Gaussian (Eq. 11–15).

    Moments are matched as in Lasmar et al. 2009. Raises FlatPicture where one side has no values.
    """
    below = np.minimum(values, 0.0)
    count = np.count_nonzero(below)
    # OpenCV's sums, since those of BLAS depend on the number of threads.
    squares, squares_below = (cv2.norm(each, cv2.NORM_L2SQR) for each in (values, below))
    left = squares_below / count if count else 0.0
    right = (squares - squares_below) / (values.size - count) if count < values.size else 0.0
    if left == 0 or right <= 0:
        raise FlatPicture("the picture has no texture, so its quality is not defined; drop it by its luma_std")
    skew = np.sqrt(left / right)
    ratio = (cv2.norm(values, cv2.NORM_L1) / values.size) ** 2 / (squares / values.size)
    target = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    ratios, shapes = _shape_table()
    alpha = float(np.interp(target, ratios, shapes))
    scale = np.sqrt(gamma(1 / alpha) / gamma(3 / alpha))
    mean = (np.sqrt(right) - np.sqrt(left)) * scale * gamma(2 / alpha) / gamma(1 / alpha)
    return alpha, float(mean), left, right


@cache
def _shape_table() -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return Γ(2/α)² / (Γ(1/α) Γ(3/α)), which grows with α, on the paper's grid 0.2 … 10, and α."""
    shapes = np.arange(0.2, 10.0, 0.001)
    return gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes)), shapes
