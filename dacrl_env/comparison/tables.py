"""Tables of a comparison as people read them: cells as text, and Markdown."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dacrl_env.comparison.drawing import escaped, printable

METRICS = ("report_final", "report_auc", "report_best")
COSTS = {
    "env_steps": "training steps",
    "eval_steps": "evaluation steps",
    "gradient_steps": "gradient steps",
    "flops": "floating-point operations",
    "wall_seconds": "wall seconds",
}


def cells_of(result: pd.DataFrame, brief: bool = False) -> list[pd.DataFrame]:
    """What people read of a `paired`, or of a `table` (scores, then costs), as text."""
    policies = [printable(name) for name in result["policy"]]
    if "difference" in result:
        differences = {
            "policy": policies,
            "metric": [str(metric) for metric in result["metric"]],
            "pairs": [str(pairs) for pairs in result["pairs"]],
            "difference": _intervals(result, "difference", "+.3f"),
            "P(better)": _intervals(result, "probability", ".3f"),
        }
        return [pd.DataFrame(differences)]
    scores = {"policy": policies, "runs": [str(runs) for runs in result["runs"]]}
    for metric in METRICS:
        scores[metric] = _intervals(result, f"{metric}_mean", ".3f")
        if metric == METRICS[0] or not brief:
            iqm = _intervals(result, f"{metric}_iqm", ".3f", brief)
            scores[f"{metric} IQM"] = iqm
    scores["failures"] = [f"{share:.1%}" for share in result["failure"]]
    if result["report_online"].notna().any():
        online = _intervals(result, "report_online", ".3f", brief)
        scores["report_online"] = [
            "–" if cell.startswith("nan") else cell for cell in online
        ]
    costs = {"policy": policies}
    for name, title in COSTS.items():
        form = (
            ",.1f" if name == "wall_seconds" else ".3g" if name == "flops" else ",.0f"
        )
        spent = (
            result[f"tuning_{name}"]
            if f"tuning_{name}" in result
            else [0.0] * len(result)
        )
        costs[title] = [
            _charged(before, own, form)
            for before, own in zip(spent, result[name], strict=True)
        ]
    costs["total steps"] = [format(value, ",.0f") for value in result["total_steps"]]
    return [pd.DataFrame(scores), pd.DataFrame(costs)]


def _charged(tuning: float, run: float, form: str) -> str:
    """Cells such as `5,000,000 + 50,000`; the run alone where nothing was tuned."""
    own = format(run, form)
    return own if tuning == 0 else f"{format(tuning, form)} + {own}"


def _intervals(
    result: pd.DataFrame, column: str, form: str, brief: bool = False
) -> list[str]:
    """Cells such as `0.812 [0.790, 0.834]`; no brackets where there is no interval."""
    if brief:
        return [format(value, form) for value in result[column]]
    names = [column, f"{column}_low", f"{column}_high"]
    return [
        format(value, form)
        + ("" if np.isnan(low) else f" [{format(low, form)}, {format(high, form)}]")
        for value, low, high in result[names].itertuples(index=False)
    ]


def markdown(result: pd.DataFrame) -> str:
    """`cells_of` as tables in Markdown."""
    blocks = []
    for cells in cells_of(result):
        lines = [list(cells.columns), [":--"] + ["--:"] * (cells.shape[1] - 1)]
        # all but names are numbers
        lines += [[escaped(line[0]), *line[1:]] for line in cells.values]
        blocks.append("\n".join("| " + " | ".join(line) + " |" for line in lines))
    return "\n\n".join(blocks)


def cell(value: Any) -> str:
    """A value as people read it: four digits of a float, a dash where it is NaN."""
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.4g}"
    return printable(value)


def aligned(
    columns: Mapping[str, Sequence[str]],
    across: int | None = None,
    texts: int = 0,
    rule: bool = False,
) -> str:
    """Cells as plain text, in lines that are not too long.

    Args:
        columns: cells by head.
        across: letters of a line; columns that do not fit follow in further tables,
            beside the texts again. None: as many as needed.
        texts: how many columns, from the left, are texts; others are numbers.
        rule: whether there is a line below the heads.
    """
    whole = [[name, *cells] for name, cells in columns.items()]
    widths = [max(map(len, column)) for column in whole]
    heads = max(1, texts)  # columns that each table begins with
    most = max(widths[heads:], default=0)
    if across is not None and len(whole) > 1:  # long names take several lines
        if across < 8 + sum(2 + size for size in (*widths[1:heads], most)):
            heads, most = 1, max(widths[1:])
        room = across - sum(2 + size for size in (*widths[1:heads], most))
        widths[0] = min(widths[0], max(8, room))
    tables = [list(range(heads))]
    for k in range(heads, len(whole)):
        size = sum(2 + widths[j] for j in (*tables[-1], k)) - 2
        if across is not None and size > across and len(tables[-1]) > heads:
            tables.append(list(range(heads)))
        tables[-1].append(k)
    blocks = []
    for table in tables:
        lines = []
        for row in zip(*(whole[k] for k in table), strict=True):
            first, *more = textwrap.wrap(row[0], widths[0]) or [""]
            cells = [
                cell.ljust(widths[k]) if k < texts else cell.rjust(widths[k])
                for k, cell in zip(table, (first, *row[1:]), strict=True)
            ]
            lines += ["  ".join(cells).rstrip(), *more]
            if rule and len(lines) == 1 + len(more):
                lines.append("  ".join("-" * widths[k] for k in table))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)
