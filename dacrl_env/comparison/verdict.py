"""Who is ahead of the reference, in sentences, and whether that can be told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from dacrl_env.comparison.drawing import printable
from dacrl_env.comparison.pages import Table
from dacrl_env.comparison.tables import cells_of

METRIC = "report_auc"
"""What comparisons are judged by, as suites are if nothing else is asked for."""

_FEW = 10  # pairs, below which intervals of a bootstrap are too narrow


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
    cells = cells_of(rows)[0]
    words = list(map(_word, rows["difference_low"], rows["difference_high"]))
    order = np.argsort(-rows["difference"].to_numpy(), kind="stable")
    table = Table(
        ["policy", "verdict", "difference", "P(better)", "pairs"],
        [
            [
                cells["policy"][k], words[k], cells["difference"][k],
                cells["P(better)"][k], cells["pairs"][k],
            ]
            for k in order
        ],
        texts=2,
    )  # fmt: skip
    named = {
        word: [cells["policy"][k] for k in order if words[k] == word]
        for word in ("ahead", "behind", "not told apart")
    }
    best = int(order[0])
    headline = _headline(
        named,
        printable(reference),
        f"{cells['difference'][best]} in {METRIC}, over {cells['pairs'][best]} "
        "runs paired by seed",
    )
    return Verdict(headline, _caveats(results, rows), table)


def _word(low: float, high: float) -> str:
    return "ahead" if low > 0 else "behind" if high < 0 else "not told apart"


def _headline(named: dict[str, list[str]], reference: str, difference: str) -> str:
    ahead, behind, unclear = named["ahead"], named["behind"], named["not told apart"]
    if ahead:
        first = f"{ahead[0]} is ahead of {reference} by {difference}"
        if len(ahead) > 1:
            first += f"; so {_is(ahead[1:])} {_listed(ahead[1:])}, by less"
        return f"{first}."
    if not behind:
        both = _listed([reference, *unclear])
        return f"Nothing can be told: these runs do not tell {both} apart."
    said = f"No policy is ahead of {reference}: {_listed(behind)} {_is(behind)} behind"
    if unclear:
        said += f", and of {_listed(unclear)} nothing can be told"
    return f"{said}."


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
    few = rows.loc[rows["pairs"] < _FEW, "policy"]
    if len(few):
        said.append(
            f"Of {_listed([*map(printable, few)])} there are fewer than {_FEW} pairs "
            "of runs: such intervals are too narrow, so take more seeds before you "
            "rely on them."
        )
    spent = [name for name in results.columns if name.startswith("tuning_")]
    tuned = results[spent].sum(axis=1) > 0
    single = results.loc[tuned & (results["fits"] == 1), "policy"]
    if len(single):
        said.append(
            f"{_listed([*map(printable, single)])} {_is(single.tolist())} the result "
            "of a single fit: the interval says nothing about what another fit gives."
        )
    return said
