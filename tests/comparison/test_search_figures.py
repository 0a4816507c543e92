"""Rungs of brackets and lineages of forked runs, as pages show them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dacrl_env.comparison import fit_page, search_figures
from dacrl_env.comparison.made import Made
from dacrl_env.comparison.search_figures import (
    brackets,
    copies_table,
    lineages_figure,
    rungs_figure,
    rungs_table,
)
from dacrl_env.methods.lineages import copies, lines
from dacrl_env.policies import Cost, Fitted
from dacrl_env.policies.static import Static

QUADRATIC = "dacrl/NoisyQuadratic-v0"


def bracket(generation: int = 0, better: float = 0.0) -> pd.DataFrame:
    """Four runs, of which two go on after decision 1, and one after decision 2.

    The last of them is behind in the beginning and is the one that goes on.
    """
    rows = [
        *((k, k, 1, 0.1 * k, 0.1**k) for k in range(4)),
        (0, 3, 2, 0.4, 0.1**3),
        (1, 2, 2, 0.3, 0.1**2),
        *((0, 0, step, 0.4 + better, 0.1**3) for step in (3, 4)),
    ]
    names = ["member", "parent", "step", "score", "hp/learning_rate"]
    return pd.DataFrame(rows, columns=names).assign(generation=generation)


@pytest.fixture
def forked() -> pd.DataFrame:
    """Three members, of which member 0 goes on as member 2 after decision 2."""
    step = np.tile(np.arange(1, 5), 3)
    member = np.repeat(np.arange(3), 4)
    copied = (step == 3) & (member == 0)
    return pd.DataFrame(
        {
            "generation": 0,
            "member": member,
            "parent": np.where(copied, 2, member),
            "step": step,
            "score": 0.1 * member + 0.01 * step + 0.5 * ((member == 0) & (step > 2)),
            "hp/learning_rate": np.where((member == 0) & (step > 2), 0.5, 0.1**member),
            "hp/loss": "huber",
        }
    )


def series(figure: dict, panel: int) -> list[tuple[list, list] | None]:
    """Steps and values of the single runs in a panel."""
    (part,) = (p for p in figure["runs"] if p["panel"] == panel)
    return [
        None if one is None else (figure["grids"][one[0]], figure["values"][one[1]])
        for one in part["series"]
    ]


def test_brackets_show_who_was_given_up_when() -> None:
    trace = pd.concat([bracket(), bracket(1, 0.1)], ignore_index=True)
    (one,) = brackets(lines(trace))
    assert one.rungs == ((4, 1), (2, 2), (1, 4))
    figure, said = rungs_figure(trace, [one])
    assert said == []
    (panel,) = figure["panels"]
    assert panel["title"] == "4 → 2 → 1 runs up to decision 1, 2, 4"
    assert panel["marks"] == [1, 2, 4]
    assert figure["runNames"][0][:4] == [
        "start 0, run 0: given up after decision 1",
        "start 0, run 1: given up after decision 1",
        "start 0, run 2: given up after decision 2",
        "start 0, run 3: trained to the end",
    ]
    assert series(figure, 0)[2] == ([1, 2], [0.2, 0.3])
    (best,) = figure["curves"]
    assert best["y"] == [0.3, 0.4, 0.5, 0.5]
    assert best["low"] is None
    heads, columns = rungs_table(trace, [one])
    cells = dict(zip(heads, columns, strict=True))
    assert cells["bracket"] == ["1, 2 times"] * 3
    assert cells["went on"] == ["2", "1", "–"]
    assert cells["rank of the later best"] == ["1 of 4", "1 of 2", "1 of 1"]
    assert cells["best score"] == ["0.3000", "0.4000", "0.5000"]


def test_brackets_of_other_rungs_have_panels_of_their_own() -> None:
    whole = bracket()[lambda t: t["member"] == t["parent"]]  # nobody went on
    other = bracket(1)[lambda t: (t["step"] < 3) | (t["step"] > 9)]
    trace = pd.concat([bracket(), other], ignore_index=True)
    found = brackets(lines(trace))
    assert [one.rungs for one in found] == [((4, 1), (2, 2), (1, 4)), ((4, 1), (2, 2))]
    figure, _ = rungs_figure(trace, found)
    assert [one is None for one in series(figure, 0)] == [False] * 4 + [True] * 4
    assert len(figure["curves"]) == 1  # none of the second came to the end
    assert brackets(lines(whole[whole["step"] == 1])) == []


def test_lineages_lead_through_the_members_they_were_copied_from(
    forked: pd.DataFrame,
) -> None:
    every, found = lines(forked), copies(forked)
    figure, said = lineages_figure(forked, every, found, ["hp/learning_rate"])
    assert said == [
        "The run that ended best: member 2 to decision 2, then member 0 to decision 4."
    ]
    titles = [panel["title"] for panel in figure["panels"]]
    assert titles == ["member", "observed score", "learning rate"]
    names = figure["runNames"][0]
    assert names[0] == "member 0 to decision 2, where it ended"
    place = names.index("member 2 to decision 2, then member 0 to decision 4")
    assert series(figure, 0)[place] == ([0, 2, 4], [2, 2, 0])
    assert series(figure, 2)[place] == ([0, 2, 4], [0.01, 0.01, 0.5])
    best = [curve["y"] for curve in figure["curves"]]
    assert best[0] == [2, 2, 2, 0, 0]
    assert best[1] == [0.21, 0.22, 0.53, 0.54]
    heads, columns = copies_table(forked, found, ["hp/learning_rate", "hp/loss"])
    assert heads[-1] == "learning_rate"  # the loss stayed what it was
    assert [column[0] for column in columns] == [
        *("2", "0", "2", "0.0200", "0.2200"),
        "0.01 → 0.5",
    ]


def test_what_lineages_leave_out_is_said(
    forked: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_figures, "MOST", 4 * 3 * 2)
    trace = pd.concat([forked, forked.assign(generation=1)], ignore_index=True)
    figure, said = lineages_figure(
        trace, lines(trace), copies(trace), ["hp/learning_rate"]
    )
    assert len(figure["runNames"][0]) == 2
    assert said[1:] == [
        "Of 2 starts, the one with most copies is shown, start 0.",
        f"Of {len(lines(forked))} runs 2, evenly spaced, are shown.",
    ]


@pytest.mark.parametrize("name", ["rungs", "lineages", "neither"])
def test_a_page_has_the_figure_of_its_search(name: str, forked: pd.DataFrame) -> None:
    plain = forked.assign(parent=forked["member"])
    trace = {"rungs": bracket(), "lineages": forked, "neither": plain}[name]
    fitted = Fitted(Static(learning_rate=0.1), Cost(), task=QUADRATIC, trace=trace)
    page = fit_page.fit_page(fitted, "mine", QUADRATIC, "a.json", Made())
    titles = [section.title for section in page.sections]
    expected = {"rungs": ["Rungs"], "lineages": ["Lineages"], "neither": []}[name]
    assert [t for t in titles if t in ("Rungs", "Lineages")] == expected
    runs = page.sections[0]
    assert runs.title == "Runs of the search"
    copied = [text for text in runs.before if "copies of others: 1 times" in text]
    assert len(copied) == (name == "lineages")
    if name == "rungs":  # numbers of runs are those they began with
        assert [row[1:3] for row in runs.tables[0].rows] == [
            *(["3", "4"], ["2", "2"], ["1", "1"], ["0", "1"])
        ]
