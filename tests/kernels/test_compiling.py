"""Where compiled code is kept."""

import re
import shutil
from pathlib import Path

import pytest

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
