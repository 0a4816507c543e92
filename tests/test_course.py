"""The notebooks of the course: they run, have their parts, and open in Jupyter."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
COURSE = ROOT / "docs" / "course"
NOTEBOOKS = sorted(COURSE.glob("*.py"))
CHEAPEST = ("01",)  # the others are slow tests
SECONDS = 600  # where all is compiled first, and somebody else uses the machine
PARTS = ("Theory", "How small this was", "Exercises", "Sources")
# names of this package that users may import
PUBLIC = ("dacrl_env", "dacrl_env.integrations.optuna")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
YEAR = re.compile(r"\b(?:19|20)\d\d\b")


def _reader() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "_notebooks", ROOT / "docs" / "_notebooks.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reader = _reader()


def _text(notebook: Path) -> str:
    cells = reader.cells(notebook.read_text(encoding="utf-8"))
    return "\n\n".join(cell.source for cell in cells if cell.kind == "markdown")


def _by_name(slow: bool = False) -> list[Any]:
    def marks(path: Path) -> Any:
        return pytest.mark.slow if slow and path.name[:2] not in CHEAPEST else ()

    return [pytest.param(p, id=p.stem, marks=marks(p)) for p in NOTEBOOKS]


def test_there_are_eight() -> None:
    assert [path.name[:3] for path in NOTEBOOKS] == [f"{n:02}-" for n in range(1, 9)]


@pytest.mark.parametrize("notebook", _by_name(slow=True))
def test_runs_as_a_script(notebook: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(notebook)],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "Agg", "DACRL_QUIET": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Warning" not in done.stderr
    assert len(done.stdout.splitlines()) >= 5
    assert not re.search(r"\bnan\b", done.stdout)
    assert [path.name for path in tmp_path.iterdir()] == [f"{notebook.stem}.png"]


@pytest.mark.parametrize("notebook", _by_name())
def test_has_its_parts(notebook: Path) -> None:
    text = _text(notebook)
    number = int(notebook.name[:2])
    assert text.startswith(f"# {number}. ")
    assert text.split("\n\n")[1].startswith("**Question.** ")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert [h for h in headings if h in PARTS] == list(PARTS)
    exercises = text.partition("## Exercises")[2].partition("## Sources")[0]
    each = re.split(r"^\d\. ", exercises, flags=re.MULTILINE)[1:]
    assert 2 <= len(each) <= 3
    assert all("*Hint:*" in exercise for exercise in each)


@pytest.mark.parametrize("notebook", _by_name())
def test_what_is_cited_is_among_its_sources(notebook: Path) -> None:
    text, _, listed = _text(notebook).partition("## Sources")
    sources = re.split(r"^- ", listed, flags=re.MULTILINE)[1:]
    known = {(s.split()[0].rstrip(","), YEAR.findall(s)[0]) for s in sources}
    words = " ".join(text.split())
    for author, year in known:
        assert re.search(rf"\b{author}\b[^.;]{{0,60}}(et al\. )?\(?{year}", words), (
            author
        )
    cited = set(YEAR.findall(words))
    assert cited == {year for _, year in known}


@pytest.mark.parametrize("notebook", _by_name())
def test_imports_what_is_public(notebook: Path) -> None:
    tree = ast.parse(notebook.read_text(encoding="utf-8"))
    imported = {
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        if name.startswith("dacrl_env")
    }
    assert imported <= set(PUBLIC)
    assert "dacrl_env" in imported


@pytest.mark.parametrize("notebook", _by_name())
def test_links_lead_to_files(notebook: Path) -> None:
    for link in LINK.findall(_text(notebook)):
        if ":" not in link:
            assert (COURSE / link.partition("#")[0]).is_file(), link


READ = """
import json, sys
import jupytext
for path in sys.argv[1:]:
    read = jupytext.read(path)
    cells = [(cell["cell_type"], cell["source"]) for cell in read.cells]
    kernel = read.metadata["kernelspec"]["name"]
    print(json.dumps([cells, kernel, jupytext.writes(read, fmt="py:percent")]))
"""


@pytest.mark.slow
def test_jupytext_reads_the_same_cells() -> None:
    pytest.importorskip("jupytext")
    line = [sys.executable, "-c", READ, *map(str, NOTEBOOKS)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    for notebook, told in zip(NOTEBOOKS, done.stdout.splitlines(), strict=True):
        expected, kernel, written = json.loads(told)
        kept = notebook.read_text(encoding="utf-8")
        assert [list(cell) for cell in reader.cells(kept)] == expected, notebook.name
        assert kernel == "python3"
        # the file is what jupytext would write, so that saving changes no line
        assert written.split("# %%", 1)[1].split() == kept.split("# %%", 1)[1].split()


def test_pages_are_made_of_cells() -> None:
    text = "# ---\n# a: 1\n# ---\n\n# %% [markdown]\n# # T\n#\n# x\n\n# %%\nf(1)\n"
    assert reader.markdown(text) == "# T\n\nx\n\n```python\nf(1)\n```\n"
    assert "````python" in reader.markdown("# %%\ns = '```'\n")
    with pytest.raises(ValueError, match="before the first cell"):
        reader.cells("import os\n# %%\n")


def test_navigation_has_the_course_in_its_order() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    (course,) = (entry["Course"] for entry in nav if "Course" in entry)
    pages = [page for entry in course for page in entry.values()]
    expected = [f"course/{path.stem}.md" for path in NOTEBOOKS]
    assert pages == ["course/index.md", *expected]
    listed = LINK.findall((COURSE / "index.md").read_text(encoding="utf-8"))
    assert [x for x in listed if x.endswith(".py")] == [p.name for p in NOTEBOOKS]
