from pathlib import Path

import numpy as np
import pytest
import torch

from rushes.filters import transnet
from rushes.pipelines.models import weights


@pytest.fixture(scope="module")
def model() -> transnet.TransNet:
    torch.set_num_threads(1)
    return transnet.load(weights.transnet())


def test_a_cut_in_the_middle_of_a_window_is_seen_where_it_is(model: transnet.TransNet) -> None:
    rng = np.random.default_rng(0)
    shots = [rng.integers(0, 255, (27, 48, 3), np.uint8) for _ in range(2)]
    window = np.stack([shots[at >= 50] for at in range(100)])
    (said,) = transnet.look(model, [window])
    assert said.shape == (50, 2) and said[:, 0].max() > 0.5
    assert abs(int(said[:, 0].argmax()) - 24) <= 1


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="TransNetV2"):
        transnet.load(tmp_path / "other.pth")
