"""CPU time of a step of training, for each GFLOP of it: ours beside the transformers of Wan, LTX and CogVideoX.

All are of about ten million parameters, 256 channels in heads of 64, in float32 with one thread, on one clip of 512
tokens of 64 values and 32 words. A step is forward, loss, backward and AdamW. FLOPs are those of matrices and of
attention, forward and backward, as torch counts them for all alike. The four take turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rushes.dit.config import DiTConfig
from rushes.dit.model import Condition, DiT, grid
from rushes.dit.optimizer import BETAS, adamw

WIDTH, HEAD, LATENTS, SIDE, WORDS, TEXT = 256, 64, 8, 8, 32, 384
TOKENS, VALUES, ROUNDS = LATENTS * SIDE * SIDE, 64, 15
Step = tuple[nn.Module, Callable[[], Tensor]]


class Narrow(DiTConfig):
    """Ours between the sizes of the dial."""

    width, blocks, heads = WIDTH, 6, WIDTH // HEAD  # type: ignore[assignment]


def ours() -> Step:
    net = DiT(Narrow())
    positions, ones = grid(torch.arange(LATENTS) / 6, 1, SIDE, SIDE), torch.ones(TOKENS)
    condition = Condition(
        words=torch.randn(WORDS, TEXT), word_lengths=(WORDS,), pooled=torch.randn(1, TEXT),
        facts=torch.zeros(1, len(net.config.facts)),
    )  # fmt: skip
    told = (positions, 4 * ones, 0 * ones, [TOKENS], torch.tensor([0.5]), condition)
    return net, lambda: net(torch.randn(TOKENS, VALUES), *told)


def wan() -> Step:
    from diffusers import WanTransformer3DModel

    net = WanTransformer3DModel(
        num_attention_heads=WIDTH // HEAD, attention_head_dim=HEAD, text_dim=TEXT, ffn_dim=4 * WIDTH, num_layers=9
    )
    latents, words = (1, 16, LATENTS, 2 * SIDE, 2 * SIDE), torch.randn(1, WORDS, TEXT)
    return net, lambda: net(torch.randn(latents), torch.tensor([500]), words, return_dict=False)[0]


def ltx() -> Step:
    from diffusers import LTXVideoTransformer3DModel

    net = LTXVideoTransformer3DModel(
        in_channels=VALUES, out_channels=VALUES, num_attention_heads=WIDTH // HEAD, attention_head_dim=HEAD,
        cross_attention_dim=WIDTH, num_layers=9, caption_channels=TEXT,
    )  # fmt: skip
    told = (torch.randn(1, WORDS, TEXT), torch.tensor([[500]]), torch.ones(1, WORDS), LATENTS, SIDE, SIDE)
    return net, lambda: net(torch.randn(1, TOKENS, VALUES), *told, return_dict=False)[0]


def cogvideox() -> Step:
    from diffusers import CogVideoXTransformer3DModel

    net = CogVideoXTransformer3DModel(
        num_attention_heads=WIDTH // HEAD, attention_head_dim=HEAD, text_embed_dim=TEXT, num_layers=4,
        sample_width=2 * SIDE, sample_height=2 * SIDE, sample_frames=4 * LATENTS - 3, max_text_seq_length=WORDS,
        use_rotary_positional_embeddings=True,
    )  # fmt: skip
    words, angles = torch.randn(1, WORDS, TEXT), torch.randn(TOKENS, HEAD)
    latents, turns = (1, LATENTS, 16, 2 * SIDE, 2 * SIDE), (angles.cos(), angles.sin())
    return net, lambda: net(
        torch.randn(latents), words, torch.tensor([500]), image_rotary_emb=turns, return_dict=False
    )[0]


def optimizer(net: nn.Module) -> torch.optim.Optimizer:
    if isinstance(net, DiT):
        return adamw(net, 1e-4, 0.01)
    return torch.optim.AdamW(net.parameters(), 1e-4, BETAS, fused=True)  # as ours is


def stepping(net: nn.Module, answer: Callable[[], Tensor]) -> Callable[[], None]:
    """Return a step of training."""
    chosen = optimizer(net.train())

    def step() -> None:
        chosen.zero_grad()
        answer().square().mean().backward()
        chosen.step()

    return step


@pytest.mark.bench
def test_a_step_costs_less_for_each_gflop_than_one_of_wan_ltx_and_cogvideox(show: Callable[..., None]) -> None:
    torch.set_num_threads(1)
    steps, gflops, sizes = {}, {}, {}
    for make in (ours, wan, ltx, cogvideox):
        name, (net, answer) = make.__name__, make()
        assert answer().numel() == TOKENS * VALUES
        sizes[name], steps[name] = sum(p.numel() for p in net.parameters()) / 1e6, stepping(net, answer)
        with FlopCounterMode(display=False) as counter:
            answer().square().mean().backward()
        gflops[name] = counter.get_total_flops() / 1e9
    raw: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(ROUNDS + 2):
        for name, step in steps.items():
            begun = time.process_time()
            step()
            if number >= 2:
                raw[name].append(time.process_time() - begun)
    each = {name: 1000 * median(seconds) / gflops[name] for name, seconds in raw.items()}
    rows = [
        [name, f"{sizes[name]:.1f} M", f"{gflops[name]:.1f}", f"{1000 * median(raw[name]):.0f}", f"{each[name]:.1f}"]
        for name in steps
    ]
    show(f"A step of training on {TOKENS} tokens, one thread, medians of {ROUNDS} turns",
         ["transformer", "parameters", "GFLOP", "CPU ms", "ms a GFLOP"], rows, raw)  # fmt: skip
    assert min(each, key=lambda name: each[name]) == "ours"
