"""Tests on other kernels than those of this machine, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
import pytest, torch
from foveal.kernels import build
build.loaded()
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", *sys.argv[1:]]))
"""
"""Loads the kernels first: tests are skipped where there are none."""


def with_kernels(library: Path, *tests: str) -> None:
    """Run tests on the kernels of a library; the end of what they say is shown where one fails."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *tests],
        cwd=ROOT,
        env={**os.environ, "FOVEAL_KERNELS": str(library)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
