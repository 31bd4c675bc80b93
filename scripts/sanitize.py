"""Run tests on kernels that report every access out of bounds and all undefined behaviour of C.

    python scripts/sanitize.py                            # operations, fusion, programs, laws; ten minutes
    python scripts/sanitize.py tests/ops -k convolve      # or what pytest is told

The kernels are compiled with the AddressSanitizer and UndefinedBehaviorSanitizer of GCC, and loaded instead.
Processes that tests start or fork write their reports to the same folder; any report is a failure. Leaks are
not looked for there: Python and PyTorch keep memory until they end. So a driver in C,
`tests/program/threads.c`, runs one program in four threads at once, watched for races and then for leaks.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch  # before the kernels are built: they are linked to the OpenMP library that it loads

import foveal
from foveal.calibration.export import export_program
from foveal.kernels.build import SOURCES, CannotBuild, build, include
from foveal.kernels.flags import FLAGS
from foveal.storage.atomic import write_atomically

ROOT = Path(__file__).resolve().parent.parent
CHECKS = (
    *("-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"),
    *("-static-libubsan", "-Wl,-Bsymbolic"),
)
"""The sanitizer of undefined behaviour is linked into the kernels and bound to itself: two shared sanitizers
have one place for reports, and this one would then write to the terminal, which tests capture."""
DRIVER = ROOT / "tests/program/threads.c"
WATCHED = {"races": "thread", "leaks": "address"}
"""What the driver is watched for, and by which sanitizer."""
RACING = """
#include <pthread.h>
#include <stdlib.h>
static int shared;
static void *add(void *p) { for (int k = 0; k < 1000; k++) shared++; return p; }
int main(void) {
    pthread_t other;
    pthread_create(&other, NULL, add, NULL);
    add(malloc(64));
    return pthread_join(other, NULL);
}
"""
"""A program that races and leaks."""
TESTS = ("tests/ops", "tests/fusion", "tests/program", "tests/laws")
FAULTY = """
import ctypes, sys
from foveal.kernels.build import loaded
small, (shift, side) = ctypes.create_string_buffer(64), map(int, sys.argv[1:])
small = ctypes.byref(small, shift)
loaded().foveal_halve(small, ctypes.c_int64(1), side, side, 1, small)
"""
FAULTS = {"AddressSanitizer": (0, 512), "misaligned address": (1, 2)}
"""What is reported of a call that reads and writes far out of bounds, and of one with floats at odd bytes."""


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        library, reports = Path(scratch, "kernels.so"), Path(scratch, "reports")
        os.environ["CC"] = "gcc"  # whose sanitizers are loaded below
        try:
            build(path=library, extra=CHECKS)
            environment = checked(library, reports)
        except (CannotBuild, FileNotFoundError) as error:
            print(error, file=sys.stderr)
            return 2
        missed = [
            said for said, words in FAULTS.items() if not is_reported(said, words, environment, reports)
        ]
        if missed:
            print(f"{' and '.join(missed)} is not reported: the sanitizers do not work here", file=sys.stderr)
            return 2
        tests = sys.argv[1:] or [*TESTS, "-n", "2"]
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "timeout=1200", *tests]
        done = subprocess.run(command, env=environment, cwd=ROOT, check=False)
        found = take(reports)
        if not sys.argv[1:]:
            found += drive(Path(scratch))
        print(*found, f"{len(found)} reports of the sanitizers, PyTorch {torch.__version__}", sep="\n")
        return done.returncode or bool(found)


def is_reported(said: str, words: tuple[int, int], environment: dict[str, str], reports: Path) -> bool:
    """Whether a faulty call leaves a report that says something; it is forgotten."""
    command = [sys.executable, "-c", FAULTY, *map(str, words)]
    subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=False)
    return any(said in text for text in take(reports))


def drive(folder: Path) -> list[str]:
    """Run a program of every precision in four threads; return what was reported of races and leaks.

    Raises:
        SystemExit: A program that races and leaks is not reported.
    """
    model, images = (
        foveal.load_model("camvid_rn18"),
        [foveal.street(seed=k)[0][None, :, :128, :192] for k in range(4)],
    )
    write_atomically(folder / "racing.c", RACING)
    found = []
    for what, sanitizer in WATCHED.items():
        if watched([folder / "racing.c"], folder / "racing", sanitizer, []).returncode == 0:
            sys.exit(f"a program with {what} is not reported: the {sanitizer} sanitizer does not work here")
        sources = [*sorted(SOURCES.rglob("*.c")), DRIVER]
        for precision in ("f32", "bf16", "int8"):
            file = folder / f"{precision}.foveal"
            if not file.exists():
                export_program(model, file, precision, images)
            done = watched(sources, folder / f"driver-{sanitizer}", sanitizer, [str(file)])
            print(f"{what}, {precision}: {done.stdout.strip()}")
            if done.returncode:
                found.append(f"{what}, {precision}, exit code {done.returncode}:\n{done.stderr}")
    return found


def watched(
    sources: list[Path], path: Path, sanitizer: str, words: list[str]
) -> subprocess.CompletedProcess[str]:
    """Build a program once with a sanitizer, and run it with words."""
    if not path.exists():
        flags = [flag for flag in FLAGS if flag != "-O3"]
        checks = ["-O1", "-g", "-march=native", f"-fsanitize={sanitizer}"]
        command = ["gcc", *flags, *checks, *include(), *map(str, sources), "-o", str(path), "-pthread", "-lm"]
        subprocess.run(command, check=True)
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    return subprocess.run([path, *words], env=environment, capture_output=True, text=True, check=False)


def checked(library: Path, reports: Path) -> dict[str, str]:
    """Return an environment whose processes load the sanitizers first, and the kernels that call them."""
    reports.mkdir()
    # The sanitizer looks for what throws C++ exceptions when it starts: it must be there before PyTorch is.
    first = [_located(name) for name in ("libasan.so", "libstdc++.so.6")]
    return {
        **os.environ,
        "FOVEAL_KERNELS": str(library),
        "LD_PRELOAD": ":".join(first),
        "ASAN_OPTIONS": f"detect_leaks=0:log_path={reports / 'address'}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={reports / 'undefined'}",
        "OMP_NUM_THREADS": "2",
        "CI": "1",  # tests of kernels are then not skipped without them
    }


def _located(name: str) -> str:
    """Return where GCC has a library.

    Raises:
        FileNotFoundError: It has none.
    """
    told = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    found = told.stdout.strip()
    if not Path(found).is_absolute():
        raise FileNotFoundError(f"there is no {name}; install GCC with its sanitizers and C++")
    return found


def take(reports: Path) -> list[str]:
    """Return what was reported, and forget it."""
    files = sorted(reports.iterdir())
    texts = [file.read_text(errors="replace") for file in files]
    for file in files:
        file.unlink()
    return texts


if __name__ == "__main__":
    sys.exit(main())
