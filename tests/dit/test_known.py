from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load as tensors_from
from safetensors.torch import save as tensors_to

from rushes.dit import known
from rushes.dit.config import DiTConfig, TrainConfig
from rushes.dit.data import Batch, LatentClip, pack
from rushes.dit.model import Condition, DiT, load, save
from rushes.dit.module import FlowModule
from rushes.dit.plan import VALIDATION, Ticket
from rushes.dit.statistics import Statistics

CONFIG = TrainConfig(model=DiTConfig(size="pico", in_channels=4, facts=("pan",)))
SCALE = Statistics(
    mean=torch.zeros(4), std=torch.ones(4), fact_mean=torch.zeros(1), fact_std=torch.ones(1), typical={},
    captioned=False, token_s=0.5,
)  # fmt: skip


def clip(number: int, latents: int, side: int) -> LatentClip:
    dice = torch.Generator().manual_seed(number)
    return LatentClip(
        key=str(number), latents=torch.randn(latents, 4, side, side, generator=dice),
        times_s=torch.arange(latents) / 2, rates=(8,) * latents, counts=(1,) * latents, caption="",
        facts={"pan": 0.1 * number, "fps": 16.0},
    )  # fmt: skip


def batch(clips: list[LatentClip], masks: list[torch.Tensor]) -> Batch:
    packed, nothing = pack(clips, CONFIG.model), torch.zeros(len(clips), 384)
    tickets = [Ticket(seed=0, clip=one.key, epoch=0, window=0) for one in clips]
    told = Condition(words=nothing[:0], word_lengths=(0,) * len(clips), pooled=nothing, facts=packed.facts)
    return Batch(
        packed=packed, condition=replace(told, known=torch.cat(masks)), tickets=tickets,
        normals=torch.tensor([float(one.key) for one in clips]), uniforms=torch.full((len(clips), 6), 0.99),
        duration_s=1.0, weight=1, position=None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def awake() -> FlowModule:
    torch.manual_seed(0)
    module = FlowModule(CONFIG, SCALE)
    for name, parameter in module.net.named_parameters():
        torch.nn.init.normal_(parameter, mean=2.0 if name.endswith("_norm.weight") else 0.0, std=0.05)
    return module


def answer(net: DiT, one: Batch, condition: Condition | None = None) -> torch.Tensor:
    told, packed = condition or one.condition, one.packed
    t = torch.linspace(0.3, 0.9, len(packed.lengths))
    return net(packed.tokens, packed.positions, packed.rates, packed.orders, packed.lengths, t, told)


ONE, TWO = clip(1, 4, 4), clip(2, 3, 6)
FIRST, BOX = torch.arange(16) < 8, known.around((0.0, 0.0, 0.5, 0.5), 3, 3).flatten().repeat(3)


def test_a_model_is_unchanged_to_the_bit_until_its_layer_for_known_tokens_is_trained(awake):
    net, given = copy.deepcopy(awake.net), batch([ONE, TWO], [FIRST, BOX])
    changed = answer(net, given)
    torch.nn.init.zeros_(net.known_in.weight)
    untold = answer(net, given, replace(given.condition, known=None))
    assert torch.equal(answer(net, given), untold) and (changed - untold).abs().max() > 0.01
    assert not DiT(CONFIG.model).known_in.weight.any()


def test_a_clip_with_known_tokens_in_a_pack_is_the_clip_alone(awake):
    packs = [batch([ONE, TWO], [FIRST, BOX]), batch([ONE], [FIRST]), batch([TWO], [BOX])]
    losses = [awake.training_step(one, 0) for one in packs]
    gradients = [torch.autograd.grad(loss, awake.net.known_in.weight)[0] for loss in losses]
    torch.testing.assert_close(losses[0], losses[1] + losses[2])
    torch.testing.assert_close(gradients[0], gradients[1] + gradients[2])
    assert all(gradient.any() for gradient in gradients)


def test_known_tokens_are_clean_and_bear_no_loss(awake):
    given = batch([ONE, TWO], [FIRST, BOX])
    t, noise = torch.tensor([0.4, 0.9]), awake.noise(given)
    mask = given.condition.known
    tokens: list[torch.Tensor] = []

    def velocity(x, *rest):
        tokens.append(x)
        return torch.where(mask[:, None], 1e3, x)

    loss = awake._loss(velocity_of(awake, velocity), given, t, given.condition, noise)
    assert torch.equal(tokens[0][mask], given.packed.tokens[mask]) and mask.any()
    assert (tokens[0] != given.packed.tokens)[~mask].all() and loss < 100
    louder = torch.where(mask[:, None], 7 * noise, noise)
    assert awake._loss(velocity_of(awake, velocity), given, t, given.condition, louder) == loss


def velocity_of(awake: FlowModule, act) -> DiT:
    net = copy.deepcopy(awake.net)
    net.forward = act
    return net


def test_what_is_known_is_drawn_for_each_clip_and_epoch_and_most_often_nothing_is():
    counts, share, found = (2, 4, 1, 2), 0.3, Counter()
    for epoch in range(1000):
        ticket = Ticket(seed=0, clip="a", epoch=epoch, window=0)
        mask = known.drawn(ticket, counts, 4, 6, share)
        assert torch.equal(mask, known.drawn(ticket, counts, 4, 6, share)) and not mask.all()
        picture = mask.view(9, 4, 6)
        if not mask.any():
            kind = "none"
        elif (picture == picture[0]).all():
            kind = "around"
        else:
            whole = [piece.all() for piece in picture.split(counts)]
            assert mask.sum() == 24 * sum(n for n, known in zip(counts, whole, strict=True) if known)
            kind = "ends" if whole[0] and whole[-1] else "last" if whole[-1] else f"first {sum(whole)}"
        found[kind] += 1
    assert set(found) == {"none", "around", "ends", "last", "first 1", "first 2", "first 3"}
    assert found["none"] == pytest.approx(700, abs=60) and min(found.values()) > 10
    assert all(found[kind] == pytest.approx(75, abs=30) for kind in ("around", "ends", "last"))


def test_nothing_is_given_of_what_is_too_short_or_measured():
    tickets = [Ticket(seed=0, clip="a", epoch=epoch, window=0) for epoch in range(100)]
    assert not any(known.drawn(ticket, (4,), 1, 1, 0.5).any() for ticket in tickets)
    assert not known.drawn(Ticket(seed=0, clip="a", epoch=VALIDATION, window=0), (4, 4), 4, 4, 0.999).any()
    with pytest.raises(ValueError, match=r"known=0.7 .* most are generated whole"):
        TrainConfig(known=0.7)


def test_a_box_hides_every_token_that_it_touches():
    outside = known.around((0.25, 0.0, 0.7, 0.5), rows=2, columns=4)
    assert outside.tolist() == [[True, False, False, True], [True, True, True, True]]
    assert not known.around((0.1, 0.1, 0.9, 0.9), 2, 2).any()
    assert known.around((0.5, 0.5, 0.5, 0.5), 2, 2).sum() == 3  # a point lies in one token


def test_a_model_saved_before_tokens_could_be_known_gets_a_layer_of_zeros(awake, tmp_path):
    save(awake.net, str(tmp_path), {})
    weights = tensors_from((tmp_path / "model.safetensors").read_bytes())
    del weights["known_in.weight"]
    (tmp_path / "model.safetensors").write_bytes(tensors_to(weights))
    net, given = load(str(tmp_path))[0], batch([ONE], [FIRST])
    assert not net.known_in.weight.any()
    untold = answer(awake.net, given, replace(given.condition, known=None))
    assert torch.equal(answer(net, given), untold)
