from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "times.py"
TESTS = """
import subprocess, sys, time
import pytest

def spend(seconds):
    while time.process_time() < seconds:
        pass

@pytest.fixture(scope="module")
def slow():
    spend(time.process_time() + 0.2)

def test_with_a_fixture(slow):
    pass

def test_with_a_process(slow):
    subprocess.run([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.4: pass"])

def test_that_waits():
    time.sleep(0.3)
"""


def test_processor_time_is_counted_where_it_is_spent(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    words = [sys.executable, SCRIPT, tmp_path, "-c", tmp_path / "pytest.ini", "-p", "no:cacheprovider"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = dict(reversed(line) for line in re.findall(r"^ +([\d.]+) s  (.*)$", done.stdout, re.MULTILINE))
    assert float(said["test_some.py::test_with_a_fixture"]) >= 0.2
    assert float(said["test_some.py::test_with_a_process"]) >= 0.4
    assert float(said["test_some.py::test_that_waits"]) < 0.2
    assert float(said["test_some.py"]) >= 0.6 and float(said["test_some.py::slow (module)"]) >= 0.2
    assert re.search(r"^\d\.\d s of processors in 3 tests$", done.stdout, re.MULTILINE)
