"""The HTML page of a comparison on one task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dacrl_env.comparison.courses import Courses
from dacrl_env.comparison.drawing import printable
from dacrl_env.comparison.made import Made
from dacrl_env.comparison.page_figures import course_figure, forest_panel
from dacrl_env.comparison.pages import VENDORED, Page, Section, Table, paragraphs
from dacrl_env.comparison.tables import METRICS, cells_of
from dacrl_env.comparison.verdict import verdict
from dacrl_env.core import installed
from dacrl_env.core.version import __version__
from dacrl_env.tasks.registration import TASKS
from dacrl_env.tasks.returns import known as known_returns

ROWS = 5_000  # of the table of runs, at most

_CURVES = """\
Above: mean report score and its 95 % bootstrap band; a diverged run counts as the
floor. Below: the median of applied values and their range from 10 % to 90 %, over the
runs that have not diverged. Choices are bands, divided by the share of runs with each
option, from light to dark; events are marks, the larger the more runs they happened in.
A click on a policy shows or hides it, one on “runs” shows its single runs. Lines tell
more under the pointer, and a rectangle drawn over a panel enlarges it."""


def comparison_page(
    frame: pd.DataFrame,
    found: Courses,
    summary: pd.DataFrame,
    results: pd.DataFrame,
    differences: pd.DataFrame,
    reference: str,
    facts: Mapping[str, str],
    notes: Sequence[str],
    about: str,
    units: Mapping[str, str],
    made: Made,
) -> Page:
    """The page of a comparison.

    Args:
        frame: rows of one task.
        found: result of `courses` of the frame.
        summary: of `dacrl_env.comparison.report.summarize`.
        results: of `dacrl_env.comparison.report.table`.
        differences: of `dacrl_env.comparison.report.paired`.
        reference: policy that others are compared with.
        facts: settings, by name.
        notes: sentences.
        about: how to read it, in Markdown.
        units: by name of hyperparameter.
        made: how it was made.
    """
    said = verdict(results, differences, reference)
    figure, shown = course_figure(found, frame, units)
    figures = [figure]
    task = str(frame["task"].iloc[0])
    scores, costs = map(_table, cells_of(results))
    sections = [
        Section(
            "Learning curves and applied values", paragraphs(_CURVES), [], [shown], 0
        )
    ]
    if len(differences):
        places = {policy: place for place, policy in enumerate(found.policies)}
        figures.append(_differences(differences, places))
        sections.append(
            Section(
                f"Differences from {printable(reference)}",
                [],
                [_table(cells_of(differences)[0], texts=2)],
                [
                    "Positive differences are better than the reference, over runs "
                    "paired by seed. P(better) is the probability that a run of the "
                    "policy beats one of the reference, ties counted half; its "
                    "interval ignores the pairing."
                ],
                figure=1,
            )
        )
    runs, left_out = _runs(summary)
    sections += [
        Section("Scores", [], [scores], ["A click on a column sorts by it."]),
        Section(
            "Cost",
            ["Means per test run; for tuned policies tuning + run."],
            [costs],
        ),
        Section("Runs", left_out, [runs]),
        Section("How to read this", paragraphs(about)),
    ]
    return Page(
        title=f"Comparison on {task}",
        headline=said.headline,
        verdict=said.more,
        verdict_table=said.table,
        notes=notes,
        figures=figures,
        policies=found.policies,
        sections=sections,
        facts={**task_facts(task), **facts, **made_facts(made)},
        commands=made.commands,
        more={
            "report.md": "the same as Markdown",
            "curves.png": "the figure",
            "summary.csv": "a row per run",
            "table.csv": "scores and costs in full",
            "paired.csv": "differences in full",
        },
    )


def _table(cells: pd.DataFrame, texts: int = 1) -> Table:
    return Table(list(cells.columns), cells.to_numpy().tolist(), texts)


def _differences(
    differences: pd.DataFrame, places: Mapping[str, int]
) -> dict[str, Any]:
    columns = ["policy", "difference", "difference_low", "difference_high"]
    panels = []
    for metric in METRICS:
        rows = differences.loc[differences["metric"] == metric, columns]
        panels.append(
            forest_panel(
                f"difference in {metric}",
                "more is better",
                [(places[p], *rest) for p, *rest in rows.itertuples(index=False)],
                0.0,
            )
        )
    return {"kind": "forest", "panels": panels}


def _runs(summary: pd.DataFrame) -> tuple[Table, list[str]]:
    """A row per run, and what is left out, in sentences."""
    rows, said = summary, []
    if len(summary) > ROWS:
        use = np.linspace(0, len(summary) - 1, ROWS).round().astype(int)
        rows = summary.iloc[use]
        said = [
            f"Of {len(summary):,} runs {ROWS:,}, evenly spaced, are listed; "
            "summary.csv has all."
        ]
    cells = pd.DataFrame({"policy": rows["policy"].map(printable)})
    if summary["run"].nunique() > 1:
        cells["fit"] = rows["run"].map(str)
    cells["seed"] = rows["seed"].map(str)
    for metric in METRICS:
        cells[metric] = [f"{score:.4f}" for score in rows[metric]]
    cells["failure"] = [
        "diverged" if diverged else "yes" if failed else "no"
        for failed, diverged in zip(rows["failure"], rows["diverged"], strict=True)
    ]
    for name, title in (
        ("env_steps", "training steps"),
        ("gradient_steps", "gradient steps"),
    ):
        cells[title] = [f"{value:,.0f}" for value in rows[name]]
    cells["seconds"] = [f"{value:.2f}" for value in rows["wall_seconds"]]
    return _table(cells), said


def task_facts(task: str) -> dict[str, str]:
    """What the table of tasks says; nothing of a task that is not in it."""
    known = TASKS.get(task)
    if known is None:
        return {"Task": task}
    scale = known_returns(known)
    return {
        "Task": f"{task}: {known.description}" if known.description else task,
        "Algorithm": known.algorithm,
        "Inner environment": str(known.inner_env or "none"),
        "Returns": "measured on first use"
        if scale is None
        else f"score 0 is a return of {scale.random:g}, score 1 one of "
        f"{scale.reference:g}",
    }


def made_facts(made: Made) -> dict[str, str]:
    """Settings that were given, and versions."""
    meant = {"budget": "budget of a run"}
    given = {
        f"Option {meant.get(name, name)}": f"{value}"
        for name, value in made.settings.items()
    }
    versions = made.versions or {
        "dacrl-env": installed.version(),
        **installed.libraries(),
    }
    return {
        **given,
        "Versions": ", ".join(f"{name} {text}" for name, text in versions.items()),
        "Page made with": f"dacrl-env {__version__}, {', '.join(VENDORED.values())}",
    }
