"""Where compiled code is kept."""

import os
import re
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from cases import slow
from llvmlite.binding import Linkage

from dacrl_env.kernels import compiling

COMPILES = re.compile(r"kernels.compiling import .*(compiled|entry|external)")
SOURCES = [
    path.relative_to(compiling.PACKAGE)
    for path in sorted(compiling.PACKAGE.rglob("*.py"))
    if COMPILES.search(path.read_text())
]


@pytest.mark.parametrize("changed", SOURCES, ids=str)
def test_a_change_in_any_compiled_source_names_another_folder(
    changed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise code of the former version would be loaded."""
    package = tmp_path / "dacrl_env"
    shutil.copytree(compiling.PACKAGE, package)
    monkeypatch.setattr(compiling, "PACKAGE", package)
    digest = compiling.digest.__wrapped__
    before = digest()
    assert digest() == before
    with (package / changed).open("a") as source:
        source.write("# changed\n")
    assert digest() != before


def test_folders_of_folders_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "dacrl_env"
    shutil.copytree(compiling.PACKAGE, package)
    monkeypatch.setattr(compiling, "PACKAGE", package)
    before = compiling.digest.__wrapped__()
    (package / "inner_envs" / "more").mkdir()
    (package / "inner_envs" / "more" / "new.py").touch()
    assert compiling.digest.__wrapped__() != before


def test_whoever_waits_is_told_once(capsys, monkeypatch) -> None:
    monkeypatch.delenv(compiling.QUIET, raising=False)

    @compiling.entry
    def twice(x):
        return 2 * x

    with compiling.announced("numbers of a test"):
        assert twice(2) == 4
        assert twice(2.5) == 5.0
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith("dacrl: compiling numbers of a test; its code is kept")
    with compiling.announced("more numbers"):
        assert twice(3) == 6  # of a kind that there was
    assert capsys.readouterr().err == ""
    monkeypatch.setenv(compiling.QUIET, "1")
    with compiling.announced("complex numbers"):
        assert twice(1j) == 2j
    assert capsys.readouterr().err == ""


PROGRAM = "from dacrl_env.kernels import elementary; print(float(elementary.exp(1)))"


def computed(**env: str) -> tuple[str, str]:
    """What a fresh process computes, and what it says on standard error."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("kept")
    number, said = computed(NUMBA_CACHE_DIR=str(folder))
    assert said == ""
    return folder, number


HOW = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "other": lambda data: bytes(reversed(data)),
    "one bit": lambda data: data[:-9] + bytes([data[-9] ^ 4]) + data[-8:],
}


@pytest.mark.parametrize(
    ("what", "how"),
    [
        pair if pair == ("nbc", "one bit") else slow(*pair)
        for pair in product(("nbi", "nbc"), HOW)
    ],
)
def test_what_is_damaged_is_compiled_anew(kept, tmp_path, what: str, how: str) -> None:
    folder, number = kept
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    files = list(other.rglob(f"*.{what}"))
    assert files
    for file in files:
        file.write_bytes(HOW[how](file.read_bytes()))
    found, said = computed(NUMBA_CACHE_DIR=str(other))
    assert found == number
    assert said.count("is damaged, and compiled anew") == 1
    assert computed(NUMBA_CACHE_DIR=str(other)) == (number, "")


def test_files_of_another_key_are_not_taken(kept, tmp_path) -> None:
    """As when two processes wrote the index at once."""
    folder, number = kept
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    first, *_, last = sorted(other.rglob("*.nbc"))
    for file in other.rglob("*.nbc"):
        shutil.copy(first if file != first else last, file)
    assert computed(NUMBA_CACHE_DIR=str(other)) == (number, "")


@pytest.mark.parametrize(
    "env",
    [
        slow({"NUMBA_CACHE_DIR": "/proc/no such place"}),
        {"NUMBA_CACHE_DIR": "", "XDG_CACHE_HOME": "/dev/null"},
    ],
)
def test_where_nothing_can_be_kept_one_warning_says_so(kept, env) -> None:
    for _ in range(2):
        found, said = computed(**env)
        assert found == kept[1]
        assert said.count("compiled code cannot be kept") == 1
        assert "NUMBA_CACHE_DIR" in said


def test_what_has_just_been_compiled_runs_its_own_copies_of_parts(monkeypatch) -> None:
    """A process takes the first of several functions of one name."""
    monkeypatch.setattr(compiling, "cache_folder", lambda: None)

    def steps(n):  # calls itself, so that no caller takes it in
        return n if n < 2 else steps(n - 1) + steps(n - 2)

    steps = part = compiling.compiled(steps)

    def whole(n):
        return part(n)

    function = compiling.entry(whole)
    assert function(12) == 144
    (made,) = function.overloads.values()
    linkages = {
        f.name: f.linkage
        for f in made.library._final_module.functions
        if not f.is_declaration
    }
    assert Linkage.linkonce_odr not in linkages.values()
    own = [name for name, linkage in linkages.items() if linkage == Linkage.internal]
    assert any("steps" in name for name in own)
