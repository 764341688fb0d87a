import numpy as np

from filters.changes import CELLS, KEEP_FRAMES, Cells, Windows


def step(seen: bytes) -> np.ndarray:
    return np.frombuffer(seen, np.uint8).reshape(CELLS)


def test_cells_hold_mean_light_and_change_in_quarters_of_a_level() -> None:
    cells, dark = Cells(), np.full((72, 128), 40, np.uint8)
    light = dark.copy()
    light[:8, :8] = 50
    assert set(cells.push(0.0, dark).change) == {0}
    found = cells.push(0.04, light)
    assert step(found.light)[0, 0] == 50 and step(found.light)[1, 1] == 40
    assert step(found.change)[0, 0] == 40 and step(found.change)[1:].max() == 0


def test_pictures_are_kept_around_doubt_and_at_either_end_only() -> None:
    windows, bgr = Windows(), np.zeros((72, 128, 3), np.uint8)
    for at in range(1000):
        windows.push(at / 25, bgr, at == 500)
    windows.end()
    kept = [round(time_s * 25) for time_s, _ in windows.kept]
    ends = [*range(KEEP_FRAMES), *range(1000 - KEEP_FRAMES, 1000)]
    assert kept == sorted({*ends, *range(500 - KEEP_FRAMES + 1, 500 + KEEP_FRAMES + 1)})
    assert len(windows.kept[0][1]) == 48 * 27 * 3


def test_doubt_depends_on_the_last_moments_alone() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 72, 128), dtype=np.uint8)
    noise[::7] = noise[0]
    whole, late = Cells(), Cells()
    told = [whole.push(at / 25, luma).is_doubtful for at, luma in enumerate(noise)]
    again = [late.push(at / 25, noise[at]).is_doubtful for at in range(30, 60)]
    assert told[46:] == again[16:]
