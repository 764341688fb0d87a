from __future__ import annotations

from pathlib import Path

import pytest

from rushes.pipelines.cli import dit
from rushes.pipelines.cli import main as main_module
from rushes.pipelines.cli.main import main


def test_a_claim_that_fails_is_said_to_and_leaves_its_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dit", "toy", "--claim", "mixture", "--steps", "1", "--out", str(tmp_path)]) == 1
    figure, picture = capsys.readouterr().out.splitlines()
    assert figure.startswith("relative error of the velocity: ") and figure.endswith(", below 0.05 expected: missed")
    assert picture == f"{tmp_path}/mixture.svg" and Path(picture).exists()


def test_lists_and_pairs_of_sampling_may_be_written_without_brackets():
    plain = [
        "run",
        "--rates",
        "4,4,8",
        "--mask",
        "0,0.25,1,.5",
        "--guide",
        "pan=3",
        "--guide",
        "prompt=2",
        "--seed",
        "1",
    ]
    parser = main_module.build()[1]["dit sample"]
    found = parser.parse_args(dit._sample_words(plain))
    assert (found.rates, found.mask, found.guide) == ((4, 4, 8), (0, 0.25, 1, 0.5), {"pan": 3, "prompt": 2})
    assert dit._sample_words(["--rates", "[4,4]", "--prompt", "a=b, c"]) == ["--rates", "[4,4]", "--prompt", "a=b, c"]


def test_a_prompt_beside_a_file_of_prompts_is_refused(capsys):
    assert main(["dit", "sample", "run", "--prompt", "a", "--prompts", "b.txt"]) == 2
    assert "prompt and prompts contradict each other" in capsys.readouterr().err
