"""LAION's heads fold into one affine map."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rushes.filters import aesthetic


def test_a_chain_of_linear_layers_folds_to_the_same_scores(tmp_path: Path) -> None:
    torch.manual_seed(0)
    chain = nn.Sequential(nn.Linear(24, 16), nn.Dropout(0.2), nn.Linear(16, 8), nn.Dropout(0.1), nn.Linear(8, 1)).eval()
    torch.save({f"layers.{name}": value for name, value in chain.state_dict().items()}, tmp_path / "v2.pth")
    pictures = torch.randn(5, 24)
    scores = aesthetic.scores(aesthetic.load(tmp_path / "v2.pth"), pictures.numpy())
    assert scores == pytest.approx(chain(pictures).detach().numpy()[:, 0], abs=1e-5)


def test_layers_are_chained_by_number_not_by_letter(tmp_path: Path) -> None:
    sizes = [4] * 11 + [1]
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    state = {
        f"layers.{k}.{name}": value for k, layer in enumerate(layers) for name, value in layer.state_dict().items()
    }
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "deep.safetensors")
    pictures = torch.randn(3, 4)
    scores = aesthetic.scores(aesthetic.load(tmp_path / "deep.safetensors"), pictures.numpy())
    assert scores == pytest.approx(nn.Sequential(*layers)(pictures).detach().numpy()[:, 0], abs=1e-5)


def test_a_head_for_another_model_is_refused_with_both_widths() -> None:
    head = aesthetic.Head(np.zeros(768), 0.0)
    with pytest.raises(ValueError, match=r"768 numbers, the OpenCLIP model ViT-B-32 gives 512"):
        aesthetic.check(head, 512, "ViT-B-32")


def test_the_improved_head_of_laion_loads_by_its_layout(tmp_path: Path) -> None:
    """`sac+logos+ava1-l14-linearMSE.pth`: 768 → 1024 → 128 → 64 → 16 → 1, dropout between, `layers.0, 2, 4, 6, 7`."""
    torch.manual_seed(0)
    sizes = {0: (768, 1024), 2: (1024, 128), 4: (128, 64), 6: (64, 16), 7: (16, 1)}
    layers = {number: nn.Linear(*size) for number, size in sizes.items()}
    torch.save(
        {f"layers.{k}.{name}": value for k, layer in layers.items() for name, value in layer.state_dict().items()},
        tmp_path / "sac+logos+ava1-l14-linearMSE.pth",
    )
    head = aesthetic.load(tmp_path / "sac+logos+ava1-l14-linearMSE.pth")
    aesthetic.check(head, 768, "ViT-L-14")
    pictures = nn.functional.normalize(torch.randn(3, 768), dim=-1)
    expected = nn.Sequential(*layers.values())(pictures).detach().numpy()[:, 0]
    assert aesthetic.scores(head, pictures.numpy()) == pytest.approx(expected, abs=1e-5)


def test_layers_that_do_not_end_in_one_number_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(8, 3).state_dict(), tmp_path / "classifier.pth")
    with pytest.raises(ValueError, match="gives 3 numbers"):
        aesthetic.load(tmp_path / "classifier.pth")
