"""The HTML page of a fit: what a method found, what it took, and the runs behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dacrl_env.comparison import option_panels
from dacrl_env.comparison.courses import Curve
from dacrl_env.comparison.drawing import printable
from dacrl_env.comparison.made import Made
from dacrl_env.comparison.page import ROWS, made_facts, task_facts
from dacrl_env.comparison.page_figures import MOST, Figure, is_wide
from dacrl_env.comparison.pages import Page, Section, Table
from dacrl_env.policies import Fitted, Policy, identity

_SHORT, _LONG = 160, 4_000  # letters of a policy, in a table and in full
_NEEDED = {"generation", "member", "parent", "step", "score"}  # in the trace of a fit
_ABOUT = {"method": "Method", "budget": "Tuning budget", "seed": "Seed"}
_SINGLY = 64  # runs that are shown singly from the beginning


def fit_page(fitted: Fitted, method: str, task: str, file: str, made: Made) -> Page:
    """The page of a fit.

    Args:
        fitted: result of the method.
        method: its name.
        task: id.
        file: of the policy, relative to the page.
        made: how it was made.
    """
    figures, sections, notes = [], [], []
    trace = fitted.trace
    if trace is not None and _is_shown(trace):
        figure, said = _runs_figure(trace)
        figures.append(figure)
        sections.append(
            Section(
                "Runs of the search",
                [
                    "Scores that the method observed, and values that it applied: "
                    "median and range from 10 % to 90 %, and single runs. A run goes "
                    "on under the number of its member, also where it continues from "
                    "another one.",
                    *said,
                ],
                [_runs_table(trace)],
                [
                    "A row per run, with what it came to last; the best are above. A "
                    "click on a column sorts by it."
                ],
                len(figures) - 1,
            )
        )
    course = _course_figure(fitted)
    if course is not None:
        figures.append(course)
    if len(fitted.incumbents) > 1:
        sections.append(
            Section(
                "What it would have returned earlier",
                [],
                [_course_table(fitted)],
                figure=None if course is None else len(figures) - 1,
            )
        )
    cost = fitted.cost
    sections += [
        Section("Policy", [_text(fitted.policy, _LONG)]),
        Section(
            "Cost",
            [
                f"{cost.env_steps:,} training, {cost.eval_steps:,} evaluation and "
                f"{cost.gradient_steps:,} gradient steps, {cost.flops:.3g} "
                "floating-point operations."
            ],
        ),
    ]
    if fitted.online is not None:
        notes.append(
            f"The tuning run that it was chosen by scored {fitted.online:.3f} by the "
            "judged episodes. That is the best of many runs: what the policy is worth, "
            "its test runs tell alone (dacrl evaluate)."
        )
    about = fitted.about or {}
    return Page(
        title=f"Fit of {method} on {task}",
        headline=f"{printable(method)} found {_described(fitted.policy)}.",
        verdict=notes,
        figures=figures,
        policies=[method] if figures else [],
        sections=sections,
        facts={
            **task_facts(task),
            **{_ABOUT.get(name, name): str(value) for name, value in about.items()},
            **made_facts(made),
        },
        commands=made.commands,
        more={file: "the policy"},
    )


def _is_shown(trace: pd.DataFrame) -> bool:
    """Whether it is as `Fitted` says: a method of one's own may keep something else."""
    return {*trace.columns} >= _NEEDED and bool(trace["score"].notna().any())


def _values(policy: Policy) -> Mapping[str, Any] | None:
    """Of a static policy; None of others."""
    content = identity(policy)
    if content["kind"] != "static":
        return None
    arguments = dict(content["arguments"])
    configuration = arguments.pop("configuration", {})
    return {**arguments, **configuration}


def _described(policy: Policy) -> str:
    kind, values = identity(policy)["kind"], _values(policy)
    if values is None:
        return f"a policy of kind {kind}"
    shown = ", ".join(f"{name} {_number(value)}" for name, value in values.items())
    return f"a static configuration: {shown or 'that of the task'}"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else printable(value)


def _text(policy: Policy, letters: int) -> str:
    text = json.dumps(identity(policy), ensure_ascii=False)
    return text if len(text) <= letters else f"{text[:letters]} …"


# -- the runs behind it ----------------------------------------------------------------


def _numeric(trace: pd.DataFrame) -> list[str]:
    """Columns of hyperparameters that are numbers."""
    names = [name for name in trace.columns if name.startswith("hp/")]
    return [name for name in names if option_panels.is_numeric(trace[name])]


def _runs_figure(trace: pd.DataFrame) -> tuple[dict[str, Any], list[str]]:
    names = _numeric(trace)
    runs = trace[["generation", "member"]].drop_duplicates()
    most = max(1, MOST // (1 + len(names)) // int(trace["step"].max()))
    kept = runs.iloc[
        np.linspace(0, len(runs) - 1, min(len(runs), most)).round().astype(int)
    ]
    index = pd.MultiIndex.from_frame(kept)
    titles = [f"start {start}, member {member}" for start, member in index]
    figure = Figure("decisions of a run", bounds=(0, int(trace["step"].max())))
    figure.show_runs = len(index) <= _SINGLY
    for name, height in (("score", 260), *((name, 100) for name in names)):
        each = trace.pivot_table(name, ["generation", "member"], "step", aggfunc="last")
        if each.empty:  # there is none that is a number
            continue
        values = each.to_numpy(dtype=np.float64)
        wide = name != "score" and is_wide(values)
        title = "observed score" if name == "score" else name.removeprefix("hp/")
        more: dict[str, Any] = {"lines": [0, 1]} if name == "score" else {"log": wide}
        panel = figure.add_panel(title.replace("_", " "), height, **more)
        drawn = np.nanquantile(values, [0.5, 0.1, 0.9], axis=0)
        steps = each.columns.to_numpy(dtype=np.float64)
        shape = "linear"
        if name != "score":  # a value holds up to the step that it stands at
            shape, before = "vh", steps[:1] - 1
            steps = np.concatenate([before, steps])
            drawn = np.concatenate([drawn[:, :1], drawn], axis=1)
            each.insert(0, float(before[0]), each.iloc[:, 0])
        figure.add_curve(0, panel, Curve(steps, *drawn), shape)
        figure.add_runs(0, panel, each.reindex(index), titles, shape)
    copies = int((trace["parent"] != trace["member"]).sum())
    said = []
    if copies:
        said.append(f"Runs went on as copies of others: {copies:,} times.")
    if len(kept) < len(runs):
        said.append(
            f"Of {len(runs):,} runs {len(kept):,}, evenly spaced, can be shown singly."
        )
    return figure.data(), said


def _runs_table(trace: pd.DataFrame) -> Table:
    last = trace.sort_values("step", kind="stable")
    last = last.groupby(["generation", "member"], sort=False).tail(1)
    last = last.sort_values("score", ascending=False, kind="stable").head(ROWS)
    names = [name for name in trace.columns if name.startswith("hp/")]
    cells = {
        "start": last["generation"].map(str),
        "member": last["member"].map(str),
        "decisions": last["step"].map(str),
        "last score": [f"{score:.4f}" for score in last["score"]],
    }
    for name in names:
        cells[name.removeprefix("hp/")] = last[name].map(_number)
    if "configuration" in last:
        cells["configuration"] = last["configuration"].map(printable)
    return _table(list(cells), list(cells.values()), 0)


def _table(heads: Sequence[str], columns: Sequence[Any], texts: int) -> Table:
    return Table(heads, [[*row] for row in zip(*columns, strict=True)], texts)


# -- what it would have returned -------------------------------------------------------


def _steps(fitted: Fitted) -> list[int]:
    return [cost.env_steps + cost.eval_steps for cost, _ in fitted.incumbents]


def _course_figure(fitted: Fitted) -> dict[str, Any] | None:
    """Values of static policies that it would have returned; None: there are none."""
    found = [_values(policy) for _, policy in fitted.incumbents]
    known = [values for values in found if values is not None]
    if len(known) < max(2, len(found)):
        return None
    names = [
        name
        for name in known[0]
        if all(type(values.get(name)) in (int, float) for values in known)
    ]
    if not names:
        return None
    steps = np.array(_steps(fitted), dtype=np.float64)
    figure = Figure("steps spent on tuning, evaluation included")
    for name in names:
        values = np.array([one[name] for one in known], dtype=np.float64)
        panel = figure.add_panel(name.replace("_", " "), log=is_wide(values))
        figure.add_curve(0, panel, Curve(steps, values, values, values), "hv")
    return figure.data()


def _course_table(fitted: Fitted) -> Table:
    policies = [_text(policy, _SHORT) for _, policy in fitted.incumbents]
    steps = [f"{number:,}" for number in _steps(fitted)]
    return _table(["policy", "steps spent"], [policies, steps], 1)
