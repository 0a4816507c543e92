"""The examples of the pages on environments, trackers and callbacks run as they are."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("vectorised.md", "trackers.md", "sb3.md")
BLOCK = re.compile(r"(?:<!-- needs: ([\w ]+) -->\n)?```python\n(.*?)```", re.DOTALL)
EXAMPLES = [
    pytest.param(code, (needs or "").split(), id=f"{page}-{number}")
    for page in PAGES
    for number, (needs, code) in enumerate(BLOCK.findall((DOCS / page).read_text()))
]


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 15


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # of other packages
@pytest.mark.parametrize(("code", "needs"), EXAMPLES)
def test_examples_run(
    code: str, needs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = [name for name in needs if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    exec(compile(code, "example", "exec"), {"__name__": "example"})
