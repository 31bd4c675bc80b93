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
image = torch.rand(1, 3, 64, 64)
out = model(image, budget=0.4)
reveal_type(model)
reveal_type(out.labels)
reveal_type(out.plan)
reveal_type([part.confidence for part in model([image[0], image[0]], latency_ms=80.0)])
reveal_type(foveal.check(nn.Conv2d(3, 4, 1)).macs)
reveal_type(foveal.measure(foveal.Dense(nn.Conv2d(3, 4, 1)), image))
model(image, budgets=0.4)
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
    kept = Path(__file__).parents[1] / ".mypy_cache" / "user"
    words = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(kept), str(file)]
    said = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False).stdout
    assert 'Revealed type is "foveal.adaptive.model.AdaptiveModel"' in said
    assert 'Revealed type is "torch._tensor.Tensor"' in said
    for line, kind in (
        (10, "torch._tensor.Tensor"),
        (11, "foveal.geometry.plan.Plan | None"),
        (12, "list[torch._tensor.Tensor]"),
        (13, "float | None"),
        (14, "foveal.cost.measure.Cost"),
    ):
        assert f'user.py:{line}: note: Revealed type is "{kind}"' in said.replace("builtins.", ""), said
    assert 'Unexpected keyword argument "budgets"' in said
    assert {line.split(":")[1] for line in said.splitlines() if ": error:" in line} == {"15", "18"}, said
    assert "def (method: foveal.cost.measure.Adaptive" in said
    assert 'Argument 1 to "adapt" has incompatible type "int"' in said
