"""What an index of packages shows, and where it leads."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HOME = "https://github.com/dacrl-env/dacrl-env"


def test_pages_of_the_project_are_named() -> None:
    urls = PROJECT["urls"]
    assert {"Repository", "Documentation", "Issues", "Changelog"} <= urls.keys()
    assert all(url.startswith(HOME) for url in urls.values())
    for url in urls.values():
        place = re.sub(rf"{HOME}(/(tree|blob)/main/?)?", "", url)
        if place and place != "/issues":
            assert (ROOT / place).exists(), url


def test_what_an_index_asks_for_is_there() -> None:
    needed = {"name", "description", "readme", "license", "classifiers", "keywords"}
    assert needed <= PROJECT.keys()
    assert PROJECT["requires-python"] == ">=3.11"
    assert len(PROJECT["description"]) <= 512  # what indexes take
    assert (ROOT / PROJECT["readme"]).is_file()
    for pattern in PROJECT["license-files"]:
        assert list(ROOT.glob(pattern)), pattern


def test_readme_says_how_it_is_installed() -> None:
    text = (ROOT / PROJECT["readme"]).read_text()
    assert f"pip install {PROJECT['name']}" in text
    for extra in re.findall(rf"{PROJECT['name']}\[([\w-]+)\]", text):
        assert extra in PROJECT["optional-dependencies"]


def test_extras_that_pages_name_exist() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for extra in re.findall(r"dacrl-env\[([\w-]+)\]", page.read_text()):
            assert extra in PROJECT["optional-dependencies"], page.name
