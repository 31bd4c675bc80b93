"""What is loaded as kernels: only what this user built from these sources, whole, or has named."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from foveal.kernels import build as native
from foveal.kernels.build import build, library
from foveal.kernels.load import SYMBOLS, load

STRANGER = 54321
FAKE = """echo "$@" >> {log}
while [ "$1" != -o ]; do shift; done
echo library > "$2"
"""
"""A compiler that writes down how it is called, and the same file whatever it is told."""
HOMELESS = """
import pwd, sys, tempfile
from pathlib import Path

def nobody(number):
    raise KeyError(number)

pwd.getpwuid = nobody
import foveal.benchmark.machine
from foveal.kernels import build
from foveal.storage.cache import home_folder
assert home_folder() is None
print(build.build())
"""
Damage = Callable[[Path], None]
needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="no compiler")
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files to other users"
)


@pytest.fixture(autouse=True)
def forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget the kernels of this process, and load other ones from an empty cache."""
    monkeypatch.setenv("FOVEAL_CACHE", str(tmp_path / "cache"))
    for name in ("FOVEAL_KERNELS", "FOVEAL_NATIVE"):
        monkeypatch.delenv(name, raising=False)
    library.cache_clear()
    yield
    monkeypatch.undo()
    library.cache_clear()


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the compiler a fake one with an argument; give the file of its calls."""
    (tmp_path / "cc.sh").write_text(FAKE.format(log=tmp_path / "calls"))
    monkeypatch.setenv("CC", f"sh '{tmp_path / 'cc.sh'}' -m64")
    return tmp_path / "calls"


def builds(calls: Path) -> int:
    return sum(" -shared " in line for line in calls.read_text().splitlines())


def test_a_compiler_has_arguments(calls: Path) -> None:
    assert build().read_text() == "library\n"
    lines = calls.read_text().splitlines()
    assert len(lines) > 10 and all(line.startswith("-m64 ") for line in lines)


def test_it_is_kept_where_new_files_are_open_to_all(calls: Path) -> None:
    before = os.umask(0)
    try:
        assert build() == build() and builds(calls) == 1
    finally:
        os.umask(before)


def other_content(path: Path) -> None:
    path.write_text("a stub\n")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def without_digest(path: Path) -> None:
    path.rename(path.with_name("-".join(path.name.split("-")[:2]) + ".so"))


def with_another_digest(path: Path) -> None:
    path.rename(path.with_name("-".join(path.name.split("-")[:2]) + f"-{'0' * 32}.so"))


def writable_by_others(path: Path) -> None:
    path.chmod(0o666)


def a_link(path: Path) -> None:
    shutil.copyfile(path, path.with_name("elsewhere"))
    path.unlink()
    path.symlink_to(path.with_name("elsewhere"))


def of_another_user(path: Path) -> None:
    os.chown(path, STRANGER, STRANGER)


DAMAGES = (other_content, cut, without_digest, with_another_digest, writable_by_others, a_link)


@pytest.mark.parametrize("damage", [*DAMAGES, pytest.param(of_another_user, marks=needs_root)])
def test_what_is_not_as_it_was_built_is_built_anew_once(damage: Damage, calls: Path) -> None:
    path = build()
    damage(path)
    assert build() == build() == path
    assert path.read_text() == "library\n" and builds(calls) == 2
    found = path.lstat()
    assert found.st_uid == os.geteuid() and not found.st_mode & 0o022 and not path.is_symlink()


def test_what_a_killed_build_left_is_deleted_an_hour_later(calls: Path, tmp_path: Path) -> None:
    """Of this user, of a process that is gone, in the cache: all else stays, what a link points to too."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    dead, old = process.pid, time.time() - 2 * native.LONG_DEAD
    cache = tmp_path / "cache"
    left = cache / f"build-{dead}-left"
    young, alive = cache / f"build-{dead}-young", cache / f"build-{os.getpid()}-alive"
    others = [cache / name for name in ("build-x-y", "build-", "tmp12345", f"kernels-{dead}-1")]
    for path in (left, young, alive, *others, elsewhere := tmp_path / f"build-{dead}-elsewhere"):
        path.mkdir(parents=True)
        (path / "a.o").write_text("half of it")
        os.utime(path, (old, old))
    young.touch()
    cache.chmod(0o700)
    (link := cache / f"build-{dead}-link").symlink_to(elsewhere)
    (left / "link").symlink_to(elsewhere)
    os.utime(left, (old, old))
    library_path = build(path=tmp_path / "own.so")
    assert left.is_dir(), "in a folder of the user's own nothing is looked for"
    assert library_path.parent == tmp_path and build().parent == cache
    assert not left.exists()
    assert all((path / "a.o").is_file() for path in (young, alive, *others, elsewhere, link))
    assert not [path for path in cache.glob(f"build-{os.getpid()}-*") if path != alive]


def test_the_folder_of_a_build_names_its_process(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(
        native, "_run", lambda words: seen.append(words[-1]) or subprocess.run(words, check=True)
    )
    build()
    assert seen and all(f"/build-{os.getpid()}-" in name for name in seen[:-1])


@needs_root
def test_a_library_planted_by_another_user_is_not_found(
    calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even one with the right name, in a folder that was open to all and has been closed since."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = build()
    os.chown(path, STRANGER, STRANGER)
    path.parent.chmod(0o777)
    with pytest.warns(RuntimeWarning, match="other users can write"):
        assert build().parent == tmp_path / f"foveal-{os.geteuid()}"
    path.parent.chmod(0o755)
    assert build() == path and path.stat().st_uid == os.geteuid()


def test_a_change_of_a_source_or_a_header_is_built_anew(
    calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "foveal"
    shutil.copytree(native.SOURCES, package / "cpu")
    shutil.copytree(native.HEADERS, package / "include")
    monkeypatch.setattr(native, "SOURCES", package / "cpu")
    monkeypatch.setattr(native, "HEADERS", package / "include")
    found = [build()]
    for changed in ("cpu/maps/tiles.c", "cpu/platform/rows.h", "include/foveal.h"):
        text = (package / changed).read_text()
        assert "1" in text
        (package / changed).write_text(text.replace("1", "2", 1))
        found.append(build())
    assert len(set(found)) == builds(calls) == 4
    assert build() == found[-1] and builds(calls) == 4


def slow(match: str) -> str:
    """Find no kernels with one warning that matches; return why."""
    library.cache_clear()
    with pytest.warns(RuntimeWarning, match=f"several times slower: .*{match}") as said:
        assert not native.available() and not native.available()
    assert len(said) == 1
    return native.why_not()


def test_without_any_compiler_one_warning_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for nothing in ("", "  "):
        monkeypatch.setenv("CC", nothing)
        slow("there is no C compiler; install gcc")
    monkeypatch.setenv("CC", "gcc '-m64")
    slow("CC is .*which cannot be read .*name a compiler")


def test_a_compiler_whose_path_has_spaces_is_found(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = calls.with_name("my compiler")
    program.write_text("#!/bin/sh\n" + FAKE.format(log=calls))
    program.chmod(0o755)
    monkeypatch.setenv("CC", str(program))
    assert build().is_file() and builds(calls) == 1


def test_a_named_library_that_is_absent_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEAL_KERNELS", str(tmp_path / "no-such.so"))
    slow("no file .*no-such.so, which FOVEAL_KERNELS names")


@needs_compiler
@pytest.mark.parametrize("left", [0, 1])
def test_a_library_without_our_functions_is_refused(
    left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = SYMBOLS[left:] if left else ()
    stub(tmp_path / "stub.so", given)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOVEAL_KERNELS", "stub.so")
    why = slow(f"stub.so lacks {len(SYMBOLS) - len(given)} of {len(SYMBOLS)} functions")
    assert SYMBOLS[0] in why and ("..." in why) == (not left)
    stub(tmp_path / "whole.so", SYMBOLS)
    monkeypatch.setenv("FOVEAL_KERNELS", "whole.so")
    library.cache_clear()
    assert native.available() and native.built() == "whole"


@needs_compiler
def test_a_library_of_ours_that_is_cut_anywhere_is_refused_and_kills_nothing(tmp_path: Path) -> None:
    whole = tmp_path / "whole.so"
    stub(whole, SYMBOLS)
    for left in (0, 1, 20, 63, 64, 1000, whole.stat().st_size // 2, whole.stat().st_size - 1):
        part = tmp_path / f"{left}.so"
        part.write_bytes(whole.read_bytes()[:left])
        code = f"import os; os.environ['FOVEAL_KERNELS'] = {str(part)!r}\n"
        code += "from foveal.kernels import build; print(build.why_not())"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and part.name in done.stdout, (left, done)
    assert load(whole)


def test_the_functions_that_are_asked_for_are_those_that_python_calls_and_c_gives() -> None:
    package = native.HEADERS.parent
    python = "".join(f.read_text() for f in package.rglob("*.py"))
    c = "".join(f.read_text() for f in native.SOURCES.rglob("*.c"))
    assert set(SYMBOLS) == set(re.findall(r"\.(foveal_\w+)", python))
    assert set(SYMBOLS) <= set(re.findall(r"^EXPORT [\w ]+?\W(foveal_\w+)\(", c, re.MULTILINE))


def test_a_user_without_a_home_builds_in_a_folder_of_its_own(calls: Path, tmp_path: Path) -> None:
    """As under `docker run --user 12345`: no HOME, and no entry in the list of users."""
    (tmp_path / "tmp").mkdir()
    kept = {name: value for name, value in os.environ.items() if name not in ("HOME", "FOVEAL_CACHE")}
    done = subprocess.run(
        [sys.executable, "-c", HOMELESS],
        env={**kept, "TMPDIR": str(tmp_path / "tmp")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).parent == tmp_path / "tmp" / f"foveal-{os.geteuid()}"
    assert done.stderr.count("there is no home folder") == 1 and builds(calls) == 1


def stub(path: Path, names: tuple[str, ...]) -> None:
    """Compile a library of functions that do nothing."""
    path.with_suffix(".c").write_text("int other;\n" + "".join(f"void {name}(void) {{}}\n" for name in names))
    subprocess.run(["gcc", "-shared", "-fPIC", path.with_suffix(".c"), "-o", path], check=True)
