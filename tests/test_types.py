"""Types that a program sees that uses the package."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import foveal

USER = """
import torch
from torch import nn
import foveal

model = foveal.adapt(nn.Conv2d(3, 4, 1))
out = model(torch.rand(1, 3, 64, 64), budget=0.4)
reveal_type(model)
reveal_type(foveal.Plan.uniform(1, (64, 64), 32).work)
reveal_type(foveal.measure)
foveal.adapt(3)
"""


def test_type_checkers_see_what_runs() -> None:
    tree = ast.parse(Path(foveal.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0]
    seen = {a.asname: i.module for i in imports if (i.module or "").startswith("foveal") for a in i.names}
    assert seen == foveal._HOMES
    for name, home in foveal._HOMES.items():
        assert hasattr(importlib.import_module(home), name)


def test_a_users_file_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "user.py"
    file.write_text(USER)
    words = [sys.executable, "-m", "mypy", "--no-incremental", str(file)]
    said = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False).stdout
    assert 'Revealed type is "foveal.adaptive.model.AdaptiveModel"' in said
    assert 'Revealed type is "torch._tensor.Tensor"' in said
    assert "def (method: foveal.cost.measure.Adaptive" in said
    assert 'Argument 1 to "adapt" has incompatible type "int"' in said
