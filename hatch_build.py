"""Build hook: wheels with the C kernels prebuilt, for machines without a compiler.

Only with FOVEAL_PREBUILT=1 in the environment, or the names of some processors there, such as x86-64-v3; an
ordinary install stays pure Python and builds the kernels on first use, for its own processor. OpenMP is left
to be resolved when the kernels are loaded: PyTorch has loaded its own then, and a process must not have two;
without PyTorch they bring what they need to run alone.
"""

from __future__ import annotations

import os
import platform
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SETTINGS = runpy.run_path(str(Path(__file__).parent / "src" / "foveal" / "kernels" / "flags.py"))
"""How the package compiles the kernels itself; it need not be installed here."""

FLAGS = (*SETTINGS["FLAGS"], SETTINGS["OPENMP"], "-DFOVEAL_PREBUILT")
MACHINES = SETTINGS["MACHINES"]


class Kernels(BuildHookInterface):
    """Compiles src/foveal/kernels/cpu into one library per processor."""

    PLUGIN_NAME = "custom"
    scratch: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and mark the wheel as one for this platform."""
        wanted = os.environ.get("FOVEAL_PREBUILT", "0")
        if wanted in ("", "0") or self.target_name != "wheel":
            return
        machine = platform.machine()
        if not sys.platform.startswith("linux") or machine not in MACHINES:
            sys.exit(
                f"prebuilt kernels are for Linux on {', '.join(MACHINES)}; "
                f"this is {sys.platform} on {machine}"
            )
        targets = MACHINES[machine] if wanted == "1" else wanted.split(",")
        if unknown := sorted(set(targets) - set(MACHINES[machine])):
            sys.exit(f"FOVEAL_PREBUILT names {unknown[0]}; give 1, or some of {','.join(MACHINES[machine])}")
        folder = Path(self.root) / "src" / "foveal" / "kernels" / "cpu"
        self.scratch = tempfile.TemporaryDirectory()
        for target in targets:
            name = f"foveal-{sys.platform}-{target}.so"
            library = Path(self.scratch.name) / name
            compile_to(library, folder, target)
            build_data["force_include"][str(library)] = f"foveal/kernels/cpu/{name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{os.environ.get('FOVEAL_PLATFORM', f'linux_{machine}')}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled, once it is in the wheel."""
        if self.scratch is not None:
            self.scratch.cleanup()


def compile_to(library: Path, folder: Path, target: str) -> None:
    """Compile all sources of a folder for a processor into a library without the symbols of OpenMP."""
    compiler = shlex.split(os.environ.get("CC", "")) or [shutil.which("gcc") or "cc"]
    arch, objects = SETTINGS["architecture"](target), []
    include = f"-I{folder}", f"-I{folder.parents[1] / 'include'}"
    for source in sorted(folder.rglob("*.c")):
        objects.append(library.with_name(f"{target}-{'-'.join(source.relative_to(folder).parts)}.o"))
        subprocess.run([*compiler, *FLAGS, *include, arch, "-c", source, "-o", objects[-1]], check=True)
    subprocess.run([*compiler, "-shared", "-o", library, *objects, "-lm"], check=True)
