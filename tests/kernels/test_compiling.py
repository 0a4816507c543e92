"""Where compiled code is kept."""

import shutil
from pathlib import Path

import pytest

from dacrl_env.kernels import compiling

SOURCES = [
    path.relative_to(compiling.PACKAGE)
    for path in sorted(compiling.PACKAGE.rglob("*.py"))
    if "kernels.compiling import" in path.read_text()
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


def test_some_compiled_source_lies_in_a_folder_of_a_folder() -> None:
    assert any(len(path.parts) > 2 for path in SOURCES)
