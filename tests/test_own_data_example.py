from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_data.py"


@pytest.mark.timeout(300)  # some 20 s where nothing else runs; half of it is importing torch
def test_the_example_of_own_data_runs(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    found = subprocess.run(
        [sys.executable, str(EXAMPLE)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    assert "masks holds 0 and 255 alone: background and foreground" in found.stderr
    assert "soil" in found.stdout and "plant" in found.stdout and "skip" in found.stdout
    assert (tmp_path / "own" / "labels" / "0_labels.png").is_file()
    dense = next(line for line in found.stdout.splitlines() if line.startswith("dense "))
    assert float(dense.split()[4]) > 70, "it has learned something"
