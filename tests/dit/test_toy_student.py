from __future__ import annotations

import torch

from rushes.dit import toy, toy_student


def test_true_clips_show_what_is_asked_and_blurred_ones_are_further_from_them_than_others_are():
    asked, clips = toy_student.true("one")
    assert [toy.seen(toy.decode(clip.latents, toy_student.RATES)) for clip in clips] == asked
    one, other = (torch.stack([clip.latents for clip in made]) for made in (clips, toy_student.true("other")[1]))
    blurred = torch.nn.functional.avg_pool2d(other.flatten(0, 1), 3, 1, 1).unflatten(0, other.shape[:2])
    floor = toy_student.apart(one, other)
    assert 0 < 3 * floor < toy_student.apart(one, blurred)
    assert 3 * floor < toy_student.apart(one, other[:16].repeat(16, 1, 1, 1, 1))  # each prompt one clip
