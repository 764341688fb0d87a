from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.tokenizer.discriminator import Discriminator
from rushes.tokenizer.losses import FeatureDistance, balance, hinge, kl


def test_kl_is_that_of_torch_distributions():
    mean, logvar = torch.randn(2, 3, 4, 5, 6), torch.randn(2, 3, 4, 5, 6)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, (0.5 * logvar).exp()), normal(0, 1))
    torch.testing.assert_close(kl(mean, logvar), expected.sum(dim=2).mean())


def test_the_feature_distance_is_zero_for_equals_and_grows_with_blur():
    distance = FeatureDistance().train()
    assert not distance.network.training
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    blurred = [torch.nn.functional.avg_pool2d(x, k, 1, k // 2) for k in (1, 3, 7)]
    same, little, much = (float(distance(x, y)) for y in blurred)
    assert same == 0 and 0 < little < much


def test_the_feature_distance_has_a_gradient_for_the_picture_alone():
    distance = FeatureDistance()
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    distance(x, torch.rand(1, 3, 32, 32)).backward()
    assert x.grad is not None and float(x.grad.abs().sum()) > 0
    assert all(p.grad is None for p in distance.parameters())


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-3, 1e4), seed=st.integers(0, 9))  # below, the weight is held at its most, 1e4
def test_a_balanced_loss_pulls_as_hard_as_the_others_whatever_its_scale(scale, seed):
    dice = torch.Generator().manual_seed(seed)
    again = torch.randn(1, 3, 2, 8, 8, generator=dice).requires_grad_(True)
    target = torch.randn(again.shape, generator=dice)
    kept, judged = (again - target).abs().mean(), -(again * target).mean() * scale
    weight = balance(kept, judged, again)
    pulls = [torch.autograd.grad(loss, again, retain_graph=True)[0].norm() for loss in (kept, weight * judged)]
    torch.testing.assert_close(pulls[0], pulls[1], rtol=1e-3, atol=0)
    assert not weight.requires_grad


def test_the_hinge_is_zero_for_a_sure_judge_and_one_for_one_that_does_not_know():
    assert hinge(torch.full((3,), 2.0), torch.full((5,), -2.0)) == 0
    assert hinge(torch.zeros(3), torch.zeros(5)) == 1
    assert hinge(torch.zeros(3), torch.full((5,), 3.0)) == 2.5


def test_a_discriminator_takes_stills_and_clips_and_learns_to_tell_flicker():
    torch.manual_seed(0)
    judge = Discriminator(width=8)
    assert judge(torch.zeros(2, 3, 1, 32, 32)).shape == (2, 1, 1, 4, 4)
    assert judge(torch.zeros(1, 3, 17, 40, 32)).shape == (1, 1, 5, 5, 4)
    still = (torch.rand(4, 3, 1, 16, 16) * 2 - 1).expand(-1, -1, 8, -1, -1)
    flicker = still * torch.tensor([1.0, -1.0]).repeat(4)[:, None, None]  # each frame alone is as likely as the still
    optimizer = torch.optim.Adam(judge.parameters(), 2e-3)
    for _ in range(60):
        loss = hinge(judge(still), judge(flicker))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.7
