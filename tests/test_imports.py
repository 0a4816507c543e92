"""What imports what: packages in their order, leaves by themselves, no circles.

Imports within functions count. Those for annotations alone (``if TYPE_CHECKING``) never
run and do not.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACES = {
    "dacrl_env": ROOT / "dacrl_env",
    "dacrl_env.agents": ROOT / "agents",
    "dacrl_env.baselines": ROOT / "baselines",
    "dacrl_env.benchmarks": ROOT / "benchmarks",
}
# The core: a module imports its own package and those that stand before it. Tasks stand
# before algorithms, which say by `tasks.Number` what may be changed of them.
ORDER = (
    "core",
    "kernels",
    "inner_envs",
    "tasks",
    "algorithms",
    "outer",
    "policies",
    "methods",
    "comparison",
    "studies",
    "integrations",
    "cli",
)
# the one module of the core that names agents and baselines, in texts
TABLE = "dacrl_env.policies.protocol"
NAMES = re.compile(r"dacrl_env\.(agents|baselines)([.:]\w+)*")


def _files() -> Iterator[tuple[str, Path]]:
    for package, folder in PLACES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join([package, *parts]).removesuffix(".__init__"), path


MODULES = dict(_files())


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All that may run."""
    left = [tree]
    while left:
        node = left.pop()
        yield node
        if not isinstance(node, ast.If) or "TYPE_CHECKING" not in ast.unparse(
            node.test
        ):
            left += ast.iter_child_nodes(node)


@cache
def _tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text())


@cache
def _imported(name: str) -> set[str]:
    """Modules of ours that a module imports."""
    package = any(other.startswith(f"{name}.") for other in MODULES)
    here = name if package else name.rpartition(".")[0]
    found = set()
    for node in _nodes(_tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = here.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, *filter(None, [base])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                found.add(whole if whole in MODULES else base)
    return found & MODULES.keys()


def _place(name: str) -> str:
    """The package that a module lies in; "": none, or the package of all."""
    place = name.split(".")[1] if name.count(".") else ""
    # one place, as long as there are learners in two packages
    return "algorithms" if place == "learners" else place


CORE = [name for name in MODULES if _place(name) in ("", "__main__", *ORDER)]


def test_every_package_has_a_place() -> None:
    assert {_place(name) for name in MODULES} == {
        *("", "__main__", "agents", "baselines", "benchmarks"),
        *ORDER,
    }


@pytest.mark.parametrize("package", ORDER)
def test_a_package_imports_those_before_it(package: str) -> None:
    above = ORDER[ORDER.index(package) + 1 :]
    wrong = [
        f"{name} imports {other}"
        for name in CORE
        for other in sorted(_imported(name))
        if _place(name) == package and _place(other) in above
    ]
    assert wrong == []


def test_the_core_knows_agents_and_baselines_by_one_table_of_names() -> None:
    wrong = [
        f"{name} imports {other}"
        for name in CORE
        for other in sorted(_imported(name))
        if _place(other) in ("agents", "baselines")
    ]
    wrong += [
        f"{name} names {node.value}"
        for name in CORE
        for node in _nodes(_tree(name))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if NAMES.fullmatch(node.value) and name != TABLE
    ]
    assert wrong == []


def test_baselines_do_not_import_each_other() -> None:
    wrong = [
        f"{name} imports {other}"
        for name in MODULES
        for other in sorted(_imported(name) - {"dacrl_env.baselines"})
        if _place(name) == _place(other) == "baselines"
    ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    done: set[str] = set()

    def visit(name: str, above: list[str]) -> None:
        assert name not in above, " imports ".join([*above[above.index(name) :], name])
        if name not in done:
            for other in sorted(_run(name)):
                visit(other, [*above, name])
            done.add(name)

    for name in MODULES:
        visit(name, [])


def _run(name: str) -> set[str]:
    """What importing a module runs: what it imports, and packages that those lie in."""
    found = set(_imported(name))
    for other in _imported(name):
        parts = other.split(".")
        packages = {".".join(parts[:k]) for k in range(1, len(parts))}
        # those that it lies in itself are run before it
        found |= {p for p in packages if not f"{name}.".startswith(f"{p}.")}
    return found
