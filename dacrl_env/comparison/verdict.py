"""Who is ahead of the reference, in sentences, and whether that can be told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from dacrl_env.comparison.drawing import printable
from dacrl_env.comparison.pages import Table
from dacrl_env.comparison.tables import cells_of

METRIC = "report_auc"
"""What comparisons are judged by, as suites are if nothing else is asked for."""

FEW = 10
"""Runs, or pairs of them, below which intervals of a bootstrap are too narrow."""


class Verdict(NamedTuple):
    """What a comparison says.

    Attributes:
        headline: a sentence.
        more: further sentences.
        table: what they rest on; None: there is nothing to compare.
    """

    headline: str
    more: list[str]
    table: Table | None


def verdict(
    results: pd.DataFrame, differences: pd.DataFrame, reference: str
) -> Verdict:
    """Of one task.

    A policy is ahead where the whole 95 % interval of its paired difference in `METRIC`
    lies above 0, and behind where it lies below.

    Args:
        results: of `dacrl_env.comparison.report.table`.
        differences: of `dacrl_env.comparison.report.paired`.
        reference: the policy that others are compared with.
    """
    rows = differences[differences["metric"] == METRIC].reset_index(drop=True)
    if rows.empty:
        own = results[results["policy"] == reference].iloc[0]
        said = f"{printable(reference)} scores {own[f'{METRIC}_mean']:.3f} in {METRIC}"
        low, high = own[f"{METRIC}_mean_low"], own[f"{METRIC}_mean_high"]
        if np.isfinite(low):
            said += f" [{low:.3f}, {high:.3f}]"
        why = (
            "it is the only policy, so there is nothing to compare it with"
            if len(results) == 1
            else "no other policy has test seeds in common with it, so nothing can be "
            "told of who is ahead"
        )
        return Verdict(f"{said}; {why}.", [], None)
    order = np.argsort(-rows["difference"].to_numpy(), kind="stable")
    rows = rows.iloc[order].reset_index(drop=True)
    cells = cells_of(rows)[0]
    words, headline = judged(
        list(cells["policy"]),
        rows["difference_low"],
        rows["difference_high"],
        printable(reference),
        f" by {cells['difference'][0]} in {METRIC}, over {cells['pairs'][0]} runs "
        "paired by seed",
    )
    table = Table(
        ["policy", "verdict", "difference", "P(better)", "pairs"],
        [
            [row["policy"], word, row["difference"], row["P(better)"], row["pairs"]]
            for row, word in zip(cells.to_dict("records"), words, strict=True)
        ],
        texts=2,
    )
    return Verdict(headline, _caveats(results, rows), table)


def judged(
    policies: Sequence[str],
    lows: Iterable[float],
    highs: Iterable[float],
    reference: str,
    how: str,
) -> tuple[list[str], str]:
    """What intervals say.

    Args:
        policies: beside the reference, the best first.
        lows: lower ends of the intervals of their differences; NaN: no interval.
        highs: upper ends.
        reference: what they are compared with.
        how: by how much the first is ahead, should it be.

    Returns:
        A word for each policy, and a sentence.
    """
    words = [
        "ahead" if low > 0 else "behind" if high < 0 else "not told apart"
        for low, high in zip(lows, highs, strict=True)
    ]
    named: dict[str, list[str]] = {}
    for policy, word in zip(policies, words, strict=True):
        named.setdefault(word, []).append(policy)
    ahead, behind = named.get("ahead", []), named.get("behind", [])
    unclear = named.get("not told apart", [])
    if ahead:
        said = f"{ahead[0]} is ahead of {reference}{how}"
        if len(ahead) > 1:
            said += f"; so {_is(ahead[1:])} {_listed(ahead[1:])}, by less"
    elif not behind:
        both = _listed([reference, *unclear])
        said = f"Nothing can be told: these runs do not tell {both} apart"
    else:
        said = f"No policy is ahead of {reference}: {_listed(behind)} "
        said += f"{_is(behind)} behind"
        if unclear:
            said += f", and of {_listed(unclear)} nothing can be told"
    return words, f"{said}."


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _listed(names: Sequence[str]) -> str:
    """Names in a sentence, the first of many."""
    if len(names) > 5:
        names = [*names[:4], f"{len(names) - 4} others"]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _caveats(results: pd.DataFrame, rows: pd.DataFrame) -> list[str]:
    """What limits the verdict."""
    said = [
        f"{METRIC} is the mean of the judged scores of a run: 0 is a random policy, 1 "
        "the task's reference. Ahead or behind means that the whole 95 % interval of "
        "the difference lies on one side of 0."
    ]
    if len(rows) > 1:
        said.append(
            "Every interval is a 95 % interval for itself: of twenty policies that do "
            "not differ, one is ahead or behind by chance. Policies that are ahead are "
            "not compared with each other."
        )
    few = rows.loc[rows["pairs"] < FEW, "policy"]
    if len(few):
        said.append(few_runs(few, "pairs of runs"))
    return said + about_single_fits(
        [policy for policy, fits in _tuned(results) if fits == 1]
    )


def few_runs(policies: Iterable[str], what: str) -> str:
    """A sentence on policies of which there are fewer runs than `FEW`."""
    return (
        f"Of {_listed([*map(printable, policies)])} there are fewer than {FEW} {what}: "
        "such intervals are too narrow, so take more seeds before you rely on them."
    )


def about_single_fits(policies: Sequence[str]) -> list[str]:
    """A sentence on policies that a method made once; none of no policies."""
    if not policies:
        return []
    return [
        f"{_listed([*map(printable, policies)])} {_is(policies)} the result of a "
        "single fit: the interval says nothing about what another fit gives."
    ]


def single_fits(summary: pd.DataFrame) -> list[str]:
    """Policies that a method made, and made once.

    Args:
        summary: of `dacrl_env.comparison.report.summarize`, of any number of tasks.
    """
    fits = summary.groupby("policy", sort=False)["run"].nunique().rename("fits")
    spent = [name for name in summary.columns if name.startswith("tuning_")]
    costs = summary.groupby("policy", sort=False)[spent].max()
    return [p for p, n in _tuned(costs.join(fits).reset_index()) if n == 1]


def _tuned(rows: pd.DataFrame) -> list[tuple[str, int]]:
    """Policies that methods made, and by how many fits.

    Args:
        rows: one a policy, with columns ``tuning_…`` and ``fits``.
    """
    spent = [name for name in rows.columns if name.startswith("tuning_")]
    tuned = rows[rows[spent].sum(axis=1) > 0]
    return [*zip(tuned["policy"], tuned["fits"].astype(int), strict=True)]
