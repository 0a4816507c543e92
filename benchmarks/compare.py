"""Two files of figures side by side: ``python -m dacrl_env.benchmarks.compare A B``.

Figures of different machines, or of different times of a shared one, say little by
themselves: look at the ratios to Stable-Baselines3 and to the peak of the core,
which were measured in the same run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

_NAMES = ("task", "workload", "program", "P", "threads")  # what a row is about
_FIGURES = ("steps_per_second", "ratio", "share_of_peak")


def compare(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows that both have, with each figure of both and its change as a factor.

    Raises:
        ValueError: they have no row in common.
    """
    old = {_about(row): row for row in before["rows"]}
    rows = []
    for row in after["rows"]:
        if (earlier := old.get(_about(row))) is None:
            continue
        figures = {}
        for name in _FIGURES:
            a, b = earlier.get(name), row.get(name)
            if a is not None and b is not None:
                figures[name] = (a, b, b / a)
        rows.append({"about": _about(row), "figures": figures})
    if not rows:
        raise ValueError("the two files have no measurement in common")
    return rows


def _about(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(
        f"{row[name]}"
        if name in ("task", "workload", "program")
        else f"{name} {row[name]}"
        for name in _NAMES
        if name in row
    )


def render(rows: list[dict[str, Any]]) -> str:
    """The comparison as a Markdown table."""
    titles = {"steps_per_second": "member-steps/s", "ratio": "× peer"}
    heads = [titles.get(name, "share of the peak") for name in _FIGURES]
    lines = [
        f"| measurement | {' | '.join(heads)} |",
        f"| --- |{' ---: |' * len(heads)}",
    ]
    for row in rows:
        cells = [
            "{:,.3g} → {:,.3g} (× {:.2f})".format(*row["figures"][name])
            if name in row["figures"]
            else "–"
            for name in _FIGURES
        ]
        lines.append(f"| {', '.join(row['about'])} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Print the comparison of two files that ``dacrl bench --json`` wrote."""
    parser = argparse.ArgumentParser(prog="dacrl_env.benchmarks.compare")
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    options = parser.parse_args(arguments)
    files = []
    for path in (options.before, options.after):
        try:
            files.append(json.loads(path.read_text()))
            files[-1]["rows"]
        except (OSError, ValueError, KeyError, TypeError) as failure:
            parser.error(f"{path} is no file of 'dacrl bench --json' ({failure})")
    try:
        print(render(compare(*files)))
    except ValueError as failure:
        parser.error(str(failure))


if __name__ == "__main__":
    main()
