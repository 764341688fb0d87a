"""How soon the command line answers, and what it imports for that. Target: `rushes --help` under a second."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from rushes.pipelines.store.ledger import Ledger

REPO = Path(__file__).parents[2]
ROUNDS = 5
HEAVY = ("ray", "torch", "cv2", "av", "pyarrow", "duckdb")
CHILD = f"""
import sys
from rushes.pipelines.cli.main import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code or 0
print("\\nIMPORTED", code, *(name for name in {HEAVY} if name in sys.modules))
"""


def started(*arguments: str) -> tuple[float, list[str]]:
    """Return the median wall seconds of a command and, from a run of its own, its exit code and heavy imports."""
    seconds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "rushes.pipelines.cli.main", *arguments], cwd=REPO, capture_output=True)
        seconds.append(time.perf_counter() - begun)
    done = subprocess.run([sys.executable, "-c", CHILD, *arguments], cwd=REPO, capture_output=True, text=True)
    assert "IMPORTED" in done.stdout, done.stderr
    return median(seconds), done.stdout.rpartition("IMPORTED")[2].split()


@pytest.mark.bench
def test_the_command_line_answers(tmp_path: Path, show: Any) -> None:
    ledger = Ledger(str(tmp_path / "run"))
    ledger.create()
    source = {"source_id": "a" * 16, "uri": "a.mp4", "wave": 0, "unit": "u", "duration_s": 5.0}
    ledger.write("sources", "u", [source], "0" * 12)
    rows = []
    for arguments in (("--help",), ("report", "--help"), ("report", str(tmp_path / "run"))):
        seconds, (code, *heavy) = started(*arguments)
        rows.append([f"`rushes {arguments[0]}{' RUN' if len(arguments) > 1 and arguments[1] != '--help' else ''}"
                     f"{' --help' if arguments[1:] == ('--help',) else ''}`", f"{seconds:.2f}", code,
                     " ".join(heavy) or "none"])  # fmt: skip
        assert seconds > 0 and not {"ray", "torch"} & set(heavy)
    show(f"Start of the command line (medians of {ROUNDS})", ["command", "wall, s", "exit", "heavy imports"], rows)
