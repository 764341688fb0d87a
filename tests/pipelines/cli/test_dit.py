from __future__ import annotations

from pathlib import Path

import pytest

from rushes.pipelines.cli.main import main


def test_a_claim_that_fails_is_said_to_and_leaves_its_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dit", "toy", "--claim", "mixture", "--steps", "1", "--out", str(tmp_path)]) == 1
    figure, picture = capsys.readouterr().out.splitlines()
    assert figure.startswith("relative error of the velocity: ") and figure.endswith(", below 0.05 expected: missed")
    assert picture == f"{tmp_path}/mixture.svg" and Path(picture).exists()
