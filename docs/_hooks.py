"""What `make docs` adds to the pages of this folder (hooks of MkDocs).

Pages that the command line makes, notebooks, and Markdown that lies elsewhere in the
repository, are made here at every build. Links are written as they work in the
repository, and are rewritten to work on the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import _notebooks  # beside this file, where MkDocs looks, too
from mkdocs.structure.files import File, Files

from dacrl_env.cli import listing

ROOT = Path(__file__).resolve().parents[1]
MADE = ("policies", "methods", "knobs", "suites")  # tasks.md is committed
# Markdown of the repository, and where the site has it
ELSEWHERE = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "design.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "agents/results/README.md": "agents/results/index.md",
    "baselines/results/README.md": "baselines/results/index.md",
}
NOTEBOOKS = "docs/course/"  # where Python files are notebooks
_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]+)(#[^)\s]*)?\)")
_CODE = re.compile(r"(^```.*?^```[^\n]*$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
_ROLE = re.compile(r":(?:class|func|meth|mod|attr):(<code|`)")


def on_files(files: Files, config: Any) -> Files:
    """Add what is made, and what lies elsewhere, with its images."""
    for kind in MADE:
        text = listing.page(kind)
        files.append(File.generated(config, f"{kind}.md", content=text))
    for source, page in ELSEWHERE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
        for image in re.findall(r"!\[[^\]]*\]\(([^)\s:]+)\)", text):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(source), image))
            if not path.startswith("docs/"):
                made = File.generated(config, path, abs_src_path=str(ROOT / path))
                files.append(made)
    for path in sorted((ROOT / NOTEBOOKS).glob("*.py")):
        text = _notebooks.markdown(path.read_text(encoding="utf-8"))
        page = f"{_site(NOTEBOOKS)}{path.stem}.md"
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links as the site needs them, and where a notebook's file is."""
    here = page.file.src_uri
    result = rewritten(markdown, here, config["repo_url"])
    name = f"{posixpath.splitext(posixpath.basename(here))[0]}.py"
    if here.startswith(_site(NOTEBOOKS)) and (ROOT / NOTEBOOKS / name).is_file():
        title, rest = result.split("\n", 1)
        result = (
            f"{title}\n\n*This page is a notebook without its outputs: "
            f"[{name}]({name}), [how to open it](index.md).*\n{rest}"
        )
    return result


def _site(path: str) -> str:
    """Where the site has a file or folder of docs/."""
    return path.removeprefix("docs/")


def rewritten(markdown: str, page: str, repository: str) -> str:
    """Markdown of a page of the site, with links from its source's place changed.

    Args:
        markdown: as it is in the repository.
        page: where the site has it.
        repository: address; absolute links to this repository's files become relative.
    """
    sources = {there: here for here, there in ELSEWHERE.items()}
    source = sources.get(page, f"docs/{page}")
    raw = repository.replace("//github.com/", "//raw.githubusercontent.com/") + "/main/"

    def target(match: re.Match[str]) -> str:
        text, link, anchor = match[1], match[2], match[3] or ""
        if link.startswith(raw):
            path = link.removeprefix(raw)
        elif ":" in link:
            return match[0]
        else:
            path = posixpath.join(posixpath.dirname(source), link)
        path = posixpath.normpath(path)
        if path in ELSEWHERE:
            there = ELSEWHERE[path]
        elif path.startswith(NOTEBOOKS) and path.endswith(".py"):
            there = f"{_site(path).removesuffix('.py')}.md"
        elif path.startswith("docs/"):
            there = _site(path)
        elif text.startswith("!"):
            there = path
        else:
            return f"{text}{repository}/blob/main/{path}{anchor})"
        there = posixpath.relpath(there, posixpath.dirname(page) or ".")
        return f"{text}{there}{anchor})"

    parts = _CODE.split(markdown)
    parts[::2] = [_LINK.sub(target, part) for part in parts[::2]]
    return "".join(parts)


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Docstrings' roles, as :class:, are Sphinx's and mean nothing here."""
    return _ROLE.sub(r"\1", html)
