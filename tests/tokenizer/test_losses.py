from __future__ import annotations

import torch

from tokenizer.losses import FeatureDistance, kl


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
