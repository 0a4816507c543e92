"""All Markdown of the repository: examples run, command lines are valid, links lead on.

Before a block of code a comment may say more of it: ``needs: MODULE …`` (it is skipped
where one is missing), ``file: NAME`` (it is a file that the page's other examples
import), ``small: OPTIONS`` (what is added to its command lines here).
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import pytest
import yaml

from dacrl_env.cli.commands import _parser, main
from dacrl_env.cli.listing import KINDS
from dacrl_env.policies import pretrained
from dacrl_env.tasks import registration

ROOT = Path(__file__).parents[1]
TOP = ("README", "ARCHITECTURE", "CHANGELOG", "CONTRIBUTING", "SECURITY")
PAGES = [
    *(ROOT / f"{name}.md" for name in TOP),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "docs" / "course" / "index.md",
    *(ROOT / folder / "results" / "README.md" for folder in ("agents", "baselines")),
]
RAW = "https://raw.githubusercontent.com/dacrl-env/dacrl-env/main/"
QUADRATIC = "dacrl/NoisyQuadratic-v0"
DRY = ("compare", "evaluate", "fit")  # commands that know --dry-run
# what makes a command small enough to be run; those without are parsed alone
SMALL = {
    "bench": "--populations 1 --repeats 1 --seconds 0.05",
    "compare": "--run-budget 2000 --seeds 2 --fits 1 --budget 20000 --anytime 0",
    "evaluate": "--run-budget 2000 --seeds 2",
    "fit": "--run-budget 2000 --budget 64000",
}
BLOCK = re.compile(
    r"(?:<!-- (needs|file|small): ([^>]+) -->\n)?^```(\w*)\n(.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
# what docs/concepts.md has another word for
OTHER_WORDS = {
    r"\bruns? of (?:the|a|an|each|every) methods?\b": "fit",
    r"\b(?:[01]|of|reach\w*) the reference\b(?! return)": "reference return",
    r"\blinear (?:controller|function|layer|network|policy|regression)": "linear",
    r"\b(?:training|search|sampling) budget": "run budget or tuning budget",
}
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A block of code of a page."""

    page: Path
    number: int
    says: str  # "needs", "file", "small" or nothing
    what: str
    language: str
    code: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}-{self.number}"

    def is_small(self, line: list[str]) -> bool:
        """Whether a line can be run, as it is or with what the page says."""
        runs = line[0] in DRY and (self.says == "small" or QUADRATIC in line)
        return runs or line[0] in ("list", "tasks")

    def is_large(self, line: list[str]) -> bool:
        """Whether a line can be run with fewer steps."""
        several = {"--suite", "--tasks"} & set(line)
        return line[0] in SMALL and not several and not self.is_small(line)

    @property
    def lines(self) -> list[list[str]]:
        """Its lines that call dacrl, as arguments; not those with an ellipsis."""
        whole = self.code.replace("\\\n", " ").splitlines()
        ours = [line for line in whole if line.startswith("dacrl ") and "…" not in line]
        return [shlex.split(line, comments=True)[1:] for line in ours]


BLOCKS = [
    Block(page, number, *found)
    for page in PAGES
    for number, found in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
]
PYTHON = [b for b in BLOCKS if b.language == "python" and b.says != "file"]
COMMANDS = [b for b in BLOCKS if b.language != "python" and b.lines]
SUITES = [b for b in COMMANDS if "--suite" in b.code]  # checked on all their tasks
# the pages that a newcomer reads first; examples of the others are slow tests
FIRST = (
    "README.md",
    "quickstart.md",
    "own-environment.md",
    "own-policy.md",
    "results.md",
)
LATER = [b for b in BLOCKS if b.page.name not in FIRST]
LARGE = [
    b
    for b in COMMANDS
    if "results/README" not in b.name  # records of long work
    and any(b.is_large(line) for line in b.lines)
]


def by_name(blocks: list[Block], slow: Sequence[Block] = ()) -> list[Any]:
    marks = {True: (pytest.mark.slow,), False: ()}
    return [pytest.param(b, id=b.name, marks=marks[b in slow]) for b in blocks]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; modules and tasks of an example are forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    tables = (registration.TASKS, registration.ALGORITHMS, gym.registry)
    before = [dict(table) for table in tables]
    modules = set(sys.modules)
    yield tmp_path
    for table, entries in zip(tables, before, strict=True):
        table.clear()  # type: ignore[attr-defined]
        table.update(entries)  # type: ignore[attr-defined]
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(str(tmp_path)):
            del sys.modules[name]


def write_files(block: Block, folder: Path) -> None:
    """The files that a page shows."""
    for other in BLOCKS:
        if other.page == block.page and other.says == "file":
            (folder / other.what).write_text(other.code, encoding="utf-8")


def write_inputs(folder: Path) -> None:
    """What a command reads that an earlier one, left out here, would have made."""
    for name, made in (
        ("dqn-cartpoleshift-switch-2", "tuned/policy.json"),
        ("dqn-cartpoleshift-sac-2", "tuned/policy.safetensors"),
        ("dqn-cartpole-v1-static-tuned", "front/front/2.json"),
    ):
        (folder / made).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pretrained()[f"pretrained/{name}"], folder / made)


def run(line: list[str], more: str = "") -> None:
    """Run a line; the policy file in place of one may be for another task."""
    if more.endswith("--dry-run"):
        line = [w + ",any_task=True" * w.startswith("tuned/policy.") for w in line]
    assert main([*line, *shlex.split(more)]) == 0, shlex.join(line)


def test_there_are_examples() -> None:
    assert len(PYTHON) >= 25
    assert len(COMMANDS) >= 20
    assert {page.name for page in PAGES} >= {"README.md", "concepts.md", "slurm.md"}


@pytest.mark.filterwarnings("ignore")  # of other packages
@pytest.mark.parametrize("block", by_name(PYTHON, LATER))
def test_examples_run(block: Block, folder: Path) -> None:
    needed = block.what.split() if block.says == "needs" else []
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    write_files(block, folder)
    exec(compile(block.code, block.name, "exec"), {"__name__": "example"})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("block", by_name(COMMANDS, [*SUITES, *LATER]))
def test_commands_are_valid(
    block: Block, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is short is run, the rest checked up to its first training."""
    write_files(block, folder)
    write_inputs(folder)
    for line in block.lines:
        _parser().read(line)
        if block.is_small(line):
            run(line, block.what if block.says == "small" else "")
        elif line[0] in DRY and "results/README" not in block.name:
            run(line, "--dry-run")
        elif line[0] == "report":
            made = ["compare", QUADRATIC, "--policies=default", "--seeds=2"]
            run([*made, "--out", line[1]])
            run(line)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("block", by_name(LARGE))
def test_commands_run(block: Block, folder: Path) -> None:
    """Those that train for long, with fewer steps."""
    write_files(block, folder)
    write_inputs(folder)
    for line in block.lines:
        if block.is_large(line):
            more = SMALL[line[0]]
            if line[0] == "evaluate" and "tuned/policy" in line[2]:
                more += " --dry-run"  # which was made for runs of another length
            run(line, more)


@pytest.mark.parametrize(
    "page", [pytest.param(p, id=p.relative_to(ROOT).as_posix()) for p in PAGES]
)
def test_links_lead_to_files(page: Path) -> None:
    code = re.compile(r"^```.*?^```$|`[^`\n]*`", re.DOTALL | re.MULTILINE)
    text = code.sub("", page.read_text(encoding="utf-8"))
    made = {ROOT / "docs" / f"{kind}.md" for kind in KINDS}  # at every build
    for link in LINK.findall(text):
        if link.startswith(RAW):
            assert (ROOT / link.removeprefix(RAW)).is_file(), link
        elif not re.match(r"[a-z]+:|#", link):
            path = (page.parent / link.partition("#")[0]).resolve()
            assert path.is_file() or path in made, link


NOTEBOOKS = sorted((ROOT / "docs" / "course").glob("*.py"))


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda page: page.name)
def test_words_mean_one_thing(page: Path) -> None:
    text = re.sub(r"\s+(?:# +)?", " ", page.read_text(encoding="utf-8"))
    for pattern, word in OTHER_WORDS.items():
        found = re.search(pattern, text, re.IGNORECASE)
        assert found is None, f"{found[0]}: {word}"


def test_readme_is_short_and_shows_its_images_anywhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 140
    images = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert images
    assert all(image.startswith(RAW) for image in images)


def test_every_page_is_in_the_navigation() -> None:
    def entries(nav: Any) -> Iterator[str]:
        for entry in nav if isinstance(nav, list) else nav.values():
            if isinstance(entry, str):
                yield entry
            else:
                yield from entries(entry)

    listed = list(entries(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert len(listed) == len(set(listed))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= set(listed)
    assert {f"{kind}.md" for kind in KINDS} <= set(listed)


def test_links_are_rewritten_for_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mkdocs")
    monkeypatch.syspath_prepend(str(ROOT / "docs"))  # as MkDocs does
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    for page, text, expected in (
        ("index.md", "[a](docs/tasks.md#dqn)", "[a](tasks.md#dqn)"),
        ("index.md", f"![a]({RAW}docs/loop.svg)", "![a](loop.svg)"),
        ("index.md", "[a](LICENSE)", "[a](https://h/r/blob/main/LICENSE)"),
        ("results.md", "[a](../ARCHITECTURE.md)", "[a](design.md)"),
        ("results.md", "`[a](b.md)`", "`[a](b.md)`"),
        ("results.md", "[a](https://x.org/a.md)", "[a](https://x.org/a.md)"),
        ("agents/results/index.md", "![a](b/c.png)", "![a](b/c.png)"),
        ("course/02-b.md", "[a](05-e.py)", "[a](05-e.md)"),
        ("course/02-b.md", "[a](../results.md#x)", "[a](../results.md#x)"),
        ("own-method.md", "[a](course/05-e.py)", "[a](course/05-e.md)"),
        ("agents/results/index.md", "[a](../../README.md)", "[a](../../index.md)"),
    ):
        repository = "https://github.com/dacrl-env/dacrl-env"
        found = hooks.rewritten(text, page, repository)
        assert found.replace(repository, "https://h/r") == expected
