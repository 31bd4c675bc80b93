"""The page about embedding: its code runs as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from foveal.data.image import save_image
from foveal.data.synthetic import street
from foveal.kernels import build

PAGE = (Path(__file__).parents[2] / "docs/embedding.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_does_what_it_says(tmp_path: Path, blocked: str) -> None:
    save_image(street(3, (180, 240))[0], tmp_path / "street.png")
    export, run = blocks("python")
    subprocess.run([sys.executable, "-c", export], cwd=tmp_path, check=True)
    done = subprocess.run(
        [sys.executable, "-c", blocked + run], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert re.fullmatch(r"work 0\.(2\d\d|300) \w+\n", done.stdout), done.stdout
    compiler = shutil.which("gcc") or pytest.skip("no gcc")
    (tmp_path / "page.c").write_text(blocks("c")[0])
    # What `build("native", Path("libfoveal.so"))` makes; the runtime above has made it, and it is kept.
    make = "import shutil\nfrom foveal.kernels.build import build\nshutil.copy(build(), 'libfoveal.so')"
    subprocess.run([sys.executable, "-c", blocked + make], cwd=tmp_path, check=True)
    words = [
        compiler,
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Werror",
        f"-I{build.HEADERS}",
        "page.c",
        "-o",
        "page",
    ]
    subprocess.run([*words, "-L.", "-lfoveal"], cwd=tmp_path, check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run(
        [str(tmp_path / "page")], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert re.fullmatch(r"work 0\.(2\d\d|300), first pixel \w+\n", done.stdout), done.stdout


def test_the_header_can_be_read_as_cpp(tmp_path: Path) -> None:
    compiler = shutil.which("g++") or pytest.skip("no g++")
    (tmp_path / "page.cpp").write_text("#include <foveal.h>\nint main() { return foveal_api_version(); }\n")
    words = [compiler, "-std=c++11", "-Wall", "-Wextra", "-Werror", f"-I{build.HEADERS}", "-c", "page.cpp"]
    subprocess.run(words, cwd=tmp_path, check=True)
