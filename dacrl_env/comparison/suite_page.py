"""The HTML page of a suite: several policies on several tasks, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dacrl_env.comparison.aggregate import OBJECTIVES, Aggregates
from dacrl_env.comparison.courses import Curve
from dacrl_env.comparison.drawing import printable
from dacrl_env.comparison.made import Made
from dacrl_env.comparison.page import made_facts
from dacrl_env.comparison.page_figures import Figure, forest_panel
from dacrl_env.comparison.pages import NAME, Page, Section, Table, paragraphs
from dacrl_env.comparison.verdict import (
    FEW,
    Verdict,
    about_single_fits,
    few_runs,
    judged,
)


def suite_page(
    found: Aggregates,
    name: str,
    facts: Mapping[str, str],
    overall: pd.DataFrame,
    tasks: pd.DataFrame,
    folders: Mapping[str, str],
    notes: Sequence[str],
    values: Mapping[str, tuple[str, str]],
    single: Sequence[str],
    about: str,
    files: Mapping[str, str],
    made: Made,
) -> Page:
    """The page of a suite.

    Args:
        found: what the suite came to.
        name: of the suite.
        facts: settings, by name.
        overall: cells of all tasks together, as text.
        tasks: cells with a row per task, as text.
        folders: of the comparisons on tasks, by id of task.
        notes: sentences.
        values: title, and what is better, of columns of ``found.overall``.
        single: policies that a method made once.
        about: how to read it, in Markdown.
        files: beside the page, by what is in them.
        made: how it was made.
    """
    said = _verdict(found, single)
    policies = [str(policy) for policy in found.overall["policy"]]
    column = OBJECTIVES[found.objective]
    figures, sections = [], []
    if found.common:
        figures = [_forest(found, values), _profile(found, policies)]
        sections = [
            Section("Over all tasks", [], [_table(overall)], figure=0),
            Section(
                "Performance profile",
                [
                    "The share of runs above a score, mean over tasks, with its 95 % "
                    "band. A curve that lies above another one everywhere is that of a "
                    "policy that is better at any level."
                ],
                figure=1,
            ),
        ]
    else:
        sections = [Section("Over all tasks", [], [_table(overall)])]
    links = [f"../{folders[task]}/{NAME}" for task in tasks["task"]]
    sections += [
        Section(
            "Task by task",
            [
                f"Mean {column} with its 95 % interval. Each task has a page of its "
                "own, with learning curves and single runs."
            ],
            [_table(tasks)._replace(links=links)],
            ["A click on a column sorts by it."],
        ),
        Section("How to read this", paragraphs(about)),
    ]
    return Page(
        title=f"Suite {name}",
        headline=said.headline,
        verdict=said.more,
        verdict_table=said.table,
        notes=notes,
        figures=figures,
        policies=policies,
        sections=sections,
        facts={**facts, **made_facts(made)},
        commands=made.commands,
        more=files,
    )


def _table(cells: pd.DataFrame) -> Table:
    return Table(list(map(printable, cells.columns)), cells.to_numpy().tolist())


def _verdict(found: Aggregates, single: Sequence[str]) -> Verdict:
    """By the probability that a run is better than one of the reference."""
    rows = found.overall
    others = rows[(rows["policy"] != found.reference) & rows["probability"].notna()]
    reference = printable(found.reference)
    if others.empty:
        return Verdict(
            f"There is nothing to compare {reference} with: no other policy has "
            "results of the same tasks.",
            [],
            None,
        )
    others = others.sort_values("probability", ascending=False, kind="stable")
    column = OBJECTIVES[found.objective]
    columns = ["probability", "probability_low", "probability_high"]
    chances = [
        f"{chance:.3f}" + ("" if np.isnan(low) else f" [{low:.3f}, {high:.3f}]")
        for chance, low, high in others[columns].to_numpy(dtype=np.float64).tolist()
    ]
    tasks = [int(number) for number in others["probability_tasks"]]
    first = (
        f"a run of it is better in {column} than one of {reference} with probability "
        f"{chances[0]}, mean over {tasks[0]} tasks"
    )
    words, headline = judged(
        list(map(printable, others["policy"])),
        others["probability_low"] - 0.5,
        others["probability_high"] - 0.5,
        reference,
        f": {first}",
    )
    table = Table(
        ["policy", "verdict", "P(better)", "tasks"],
        [
            [printable(policy), word, chance, str(number)]
            for policy, word, chance, number in zip(
                others["policy"], words, chances, tasks, strict=True
            )
        ],
        texts=2,
    )
    more = [
        "Ahead or behind means that the whole 95 % interval of P(better), the "
        "probability that a run is better than one of the reference on the same task, "
        "lies on one side of 0.5. Intervals speak of these tasks alone.",
    ]
    if len(others) > 1:
        more.append(
            "Every interval is a 95 % interval for itself: of twenty policies that do "
            "not differ, one is ahead or behind by chance."
        )
    least = found.tasks.groupby("policy", sort=False)["runs"].min()
    few = [policy for policy in least.index[least < FEW] if policy != found.reference]
    if few:
        more.append(few_runs(few, "runs on a task"))
    return Verdict(headline, more + about_single_fits(single), table)


def _forest(found: Aggregates, values: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    panels = []
    for name, (title, better) in values.items():
        columns = [name, f"{name}_low", f"{name}_high"]
        rows = found.overall[columns].itertuples(index=False)
        panels.append(
            forest_panel(
                title,
                f"{better} is better",
                [(place, *row) for place, row in enumerate(rows)],
                0.5 if name == "probability" else None,
            )
        )
    return {"kind": "forest", "panels": panels}


def _profile(found: Aggregates, policies: Sequence[str]) -> dict[str, Any]:
    scores = found.profile["score"]
    figure = Figure(
        title=f"score ({OBJECTIVES[found.objective].replace('_', ' ')})",
        bounds=(scores.min(), scores.max()),
    )
    panel = figure.add_panel("share of runs above it", 280, range=[0, 1.02])
    for place, policy in enumerate(policies):
        rows = found.profile[found.profile["policy"] == policy]
        columns = (rows[c].to_numpy() for c in ("score", "share"))
        bounds = (rows[f"share_{end}"].to_numpy() for end in ("low", "high"))
        figure.add_curve(place, panel, Curve(*columns, *bounds), "hv")
    return figure.data()
