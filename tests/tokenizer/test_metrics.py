from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from rushes.tokenizer.metrics import flicker, psnr, ssim


def pictures(seed: int, height: int, width: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    dice = torch.Generator().manual_seed(seed)
    x = torch.rand(2, 3, height, width, generator=dice) * 2 - 1
    return x, (x + noise * torch.randn(x.shape, generator=dice)).clamp(-1, 1)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 99), height=st.integers(11, 30), width=st.integers(11, 30), noise=st.sampled_from([0, 0.1, 1])
)
def test_ssim_is_that_of_scikit_image(seed, height, width, noise):
    x, y = pictures(seed, height, width, noise)
    for i, found in enumerate(ssim(x, y)):
        a, b = ((z[i].double().numpy() + 1) / 2 for z in (x, y))
        expected = structural_similarity(
            a, b, data_range=1, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert float(found) == pytest.approx(expected, abs=1e-5)


def test_ssim_of_equals_is_one_and_falls_with_blur():
    x, _ = pictures(0, 32, 40, 0)
    blurred = [ssim(x, torch.nn.functional.avg_pool2d(x, k, 1, k // 2)).mean() for k in (1, 3, 5)]
    assert float(blurred[0]) == pytest.approx(1) and blurred[0] > blurred[1] > blurred[2]


def test_pictures_smaller_than_the_window_are_refused():
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ssim(torch.zeros(1, 3, 10, 40), torch.zeros(1, 3, 10, 40))
    with pytest.raises(ValueError, match="one shape"):
        ssim(torch.zeros(1, 3, 20, 40), torch.zeros(2, 3, 20, 40))


def test_psnr_of_a_tenth_of_the_range_is_20_db():
    assert psnr(0.2**2) == pytest.approx(20)


def test_a_still_error_does_not_flicker_and_one_that_alternates_by_a_level_does_by_one():
    x = torch.rand(1, 3, 6, 8, 8) * 2 - 1
    assert flicker(x, x + 0.3) == pytest.approx(0, abs=1e-4)
    alternating = torch.tensor(np.arange(6) % 2 / 127.5, dtype=torch.float32)[:, None, None]
    assert flicker(x, x + alternating) == pytest.approx(1, rel=1e-4)


def test_a_single_frame_has_no_flicker_to_measure():
    with pytest.raises(ValueError, match="two frames"):
        flicker(torch.zeros(1, 3, 1, 4, 4), torch.zeros(1, 3, 1, 4, 4))
