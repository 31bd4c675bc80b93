"""Mutation testing: change one thing at a time in the files that decide, and see that a test fails.

    python scripts/mutants.py                       # all files below: about an hour on one core
    python scripts/mutants.py cost/timing.py        # some of them

What survives is written with its change; docs/mutants.md says why no test can fail for those that stay.
mutmut works on a copy of the checkout.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from foveal.storage.atomic import write_atomically

ROOT = Path(__file__).parents[1]
PLANS = ("test_planner", "test_planner_shared", "test_plan_optimal", "test_plan_scores")
TESTS: dict[str, list[str]] = {
    "geometry/planner.py": [f"tests/geometry/{name}.py" for name in PLANS],
    "geometry/plan.py": [
        f"tests/geometry/{name}.py" for name in ("test_plan", "test_plan_file", "test_plan_scores")
    ],
    "geometry/compact.py": ["tests/geometry/test_compact.py"],
    "geometry/refine.py": [f"tests/geometry/{name}.py" for name in PLANS],
    "geometry/reuse.py": ["tests/geometry/test_reuse.py"],
    "geometry/motion.py": ["tests/geometry/test_motion.py"],
    "geometry/layout.py": [
        "tests/geometry/test_layout.py",
        *(f"tests/ops/{name}.py" for name in ("test_fetch_halo", "test_borders")),
    ],
    "geometry/halo_table.py": [f"tests/ops/{name}.py" for name in ("test_fetch_halo", "test_borders")],
    "evaluation/metrics.py": ["tests/evaluation/test_metrics.py"],
    "calibration/risk/table.py": [f"tests/calibration/test_{name}.py" for name in ("risk", "coverage")],
    "calibration/risk/bounds.py": ["tests/calibration/test_bounds.py"],
    "calibration/risk/coverage.py": ["tests/calibration/test_coverage.py"],
    "calibration/risk/measure.py": ["tests/calibration/test_measure.py"],
    "cost/by_plan.py": ["tests/cost/test_by_plan.py"],
    "cost/macs.py": ["tests/cost/test_cost.py", "tests/cost/test_kernel_macs.py"],
    "cost/timing.py": ["tests/cost"],
}
"""Files of the package, and the tests that must notice a change in them."""
RUN = "from mutmut.__main__ import cli; cli()"
"""Not `-m mutmut`: the mutants import that module, and it must be the one that runs."""
SURVIVED = 0, 33, None
"""Exit codes of mutants that no test noticed: tests passed, there was none, or it was not run."""
UNTOUCHED = {"cost/macs.py": ["return False"]}
"""Lines of a file that stay: what PyTorch calls while it makes a class cannot be a mutant yet."""
BESIDE = ("tests", "studies", "recipes", "scripts", "benchmarks", "docs", "README.md", "pyproject.toml")


def mutate(file: str, folder: Path) -> str:
    """Test the mutants of a file; return what survived, each with its change."""
    for name in ("src", *BESIDE):
        found = ROOT / name
        (shutil.copytree if found.is_dir() else shutil.copy)(found, folder / name)
    config = folder / "pyproject.toml"
    write_atomically(
        config,
        f'{config.read_text()}\n[tool.mutmut]\nsource_paths = ["src"]\nonly_mutate = ["src/foveal/{file}"]\n'
        f"do_not_mutate_patterns = {UNTOUCHED.get(file, [])!r}\n"
        f"pytest_add_cli_args_test_selection = {TESTS[file]!r}\nalso_copy = {list(BESIDE)!r}\n",
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def mutmut(*words: str) -> str:
        command = [sys.executable, "-c", RUN, *words]
        done = subprocess.run(
            command, cwd=folder, env=environment, check=False, capture_output=True, text=True
        )
        if done.returncode and words[0] == "run":
            raise SystemExit(f"mutmut cannot test {file}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    mutmut("run", "--max-children", "1")
    record = json.loads((folder / "mutants" / "src" / "foveal" / f"{file}.meta").read_text())
    exits: dict[str, int | None] = record["exit_code_by_key"]
    names = [name for name, code in exits.items() if code in SURVIVED]
    changes = [line for name in names for line in [f"# {name}", *_change(mutmut("show", name))]]
    return "\n".join([f"{file}: {len(exits)} mutants, {len(names)} survive", *changes])


def _change(text: str) -> list[str]:
    return [line for line in text.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]


def main() -> None:
    wanted = sys.argv[1:] or list(TESTS)
    unknown = [file for file in wanted if file not in TESTS]
    if unknown:
        raise SystemExit(f"{unknown[0]} has no mutants here; known: {', '.join(TESTS)}")
    for file in wanted:
        with tempfile.TemporaryDirectory() as folder:
            print(mutate(file, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
