"""The HTML page of a fit: what a method found, what it took, and the runs behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dacrl_env.comparison import fronts, option_panels, search_figures
from dacrl_env.comparison.courses import Curve
from dacrl_env.comparison.drawing import printable
from dacrl_env.comparison.made import Made
from dacrl_env.comparison.page import ROWS, made_facts, task_facts
from dacrl_env.comparison.page_figures import MOST, Figure, is_wide
from dacrl_env.comparison.pages import Page, Section, Table, paragraphs
from dacrl_env.comparison.tables import cell
from dacrl_env.methods.lineages import Copy, Line, copies, has_lines, lines
from dacrl_env.policies import Fitted, Policy, identity

_SHORT, _LONG = 160, 4_000  # letters of a policy, in a table and in full
_ABOUT = {"method": "Method", "budget": "Tuning budget", "seed": "Seed"}
_SINGLY = 64  # runs that are shown singly from the beginning
_LINEAGES = """\
Above: the member under whose number each run trained. Where a line leaves one for
another, the run that was there was given up, and the state of the first one copied.
Below: scores and values along the same lines. The thick line is the lineage of the run
that ended best."""
_RUNGS = """\
Runs that began together, and how many of them went on: at each dotted line the best by
then did, the others end there. Brackets with equal rungs share a panel. The thick line
is the run that ended best."""


def fit_page(
    fitted: Fitted,
    method: str,
    task: str,
    file: str,
    made: Made,
    front_files: Sequence[str] = (),
    front: fronts.Front | None = None,
) -> Page:
    """The page of a fit.

    Args:
        fitted: result of the method.
        method: its name.
        task: id.
        file: of the policy, relative to the page.
        made: how it was made.
        front_files: policies of its front, relative to the page; none: no links.
        front: its front, if it has been made before; else it is made with the default
            reference point.
    """
    figures, sections, notes = [], [], []
    trace = fitted.trace
    if fitted.front:
        figures.append(fronts.page_figure(fitted))
        sections.append(
            _front_section(
                fitted,
                front_files,
                front or fronts.front_of(fitted),
                len(figures) - 1,
            )
        )
    if trace is not None and _is_shown(trace):
        every, found = lines(trace), copies(trace)
        named, renumbered = trace, bool((trace["parent"] != trace["member"]).any())
        if renumbered and not found:
            named = _by_firstcell(trace, every)
        figure, said = _runs_figure(named, len(found))
        figures.append(figure)
        numbers = "A run keeps the number it began with."
        if found:
            numbers = (
                "A run goes on under the number of its member, also where it continues "
                "from another one."
            )
        sections.append(
            Section(
                "Runs of the search",
                [
                    "Scores that the method observed, and values that it applied: "
                    "median and range from 10 % to 90 %, and single runs. " + numbers,
                    *said,
                ],
                [_runs_table(named)],
                [
                    "A row per run, with what it came to last; the best are above. A "
                    "click on a column sorts by it."
                ],
                len(figures) - 1,
            )
        )
        _add_course_of_search(figures, sections, trace, every, found)
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
    return has_lines(trace) and bool(trace["score"].notna().any())


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
    shown = ", ".join(f"{name} {cell(value)}" for name, value in values.items())
    return f"a static configuration: {shown or 'that of the task'}"


def _text(policy: Policy, letters: int) -> str:
    text = json.dumps(identity(policy), ensure_ascii=False)
    return text if len(text) <= letters else f"{text[:letters]} …"


# -- several objectives ----------------------------------------------------------------


def _front_section(
    fitted: Fitted,
    files: Sequence[str],
    front: fronts.Front,
    figure: int,
) -> Section:
    found = front.table
    names = fronts.objectives(fitted)
    heads, columns = ["number"], [[*found["number"].map(str)]]
    if any(_values(one.policy) is None for one in fitted.front):
        heads.append("policy")
        columns.append([_text(one.policy, _SHORT) for one in fitted.front])
        found = found[["number", *names, "online"]]
    texts = len(heads)
    for name in found.columns[1:]:
        heads.append(name)
        columns.append([*found[name].map(cell)])
    return Section(
        "Pareto front",
        [
            "Policies that no other candidate dominates: none is at least as good in "
            "every objective and better in one. Values are means over tuning runs, as "
            "the search observed them; dots are single runs that were trained to the "
            f"end. The policy of the fit is number 1, the best in {names[0]}. Online "
            "is the judged score of the tuning runs; what a policy is worth, its test "
            "runs tell.",
            f"Hypervolume: {front.hypervolume}. It is the share "
            "that the front dominates of the box between the reference point and score "
            "1 at no cost.",
        ],
        [Table(heads, [[*row] for row in zip(*columns, strict=True)], texts, files)],
        figure=figure,
    )


# -- rungs and lineages ----------------------------------------------------------------


def _add_course_of_search(
    figures: list[Any],
    sections: list[Section],
    trace: pd.DataFrame,
    every: Sequence[Line],
    found: Sequence[Copy],
) -> None:
    """Add what brackets or forks there were."""
    if found:
        figure, said = search_figures.lineages_figure(
            trace, every, found, _numeric(trace)
        )
        names = [name for name in trace.columns if name.startswith("hp/")]
        table = search_figures.copies_table(trace, found[:ROWS], names)
        title, texts = "Lineages", [*paragraphs(_LINEAGES), *said]
    else:
        shown = search_figures.brackets(every)
        if not shown:
            return
        figure, left_out = search_figures.rungs_figure(trace, shown)
        table = search_figures.rungs_table(trace, shown)
        title, texts = "Rungs", [*paragraphs(_RUNGS), *left_out]
    figures.append(figure)
    sections.append(Section(title, texts, [_table(*table, 0)], [], len(figures) - 1))


def _by_firstcell(trace: pd.DataFrame, every: Sequence[Line]) -> pd.DataFrame:
    """A trace without copies in which runs keep the number they began with."""
    members = trace["member"].to_numpy().copy()
    for one in every:
        members[one.rows] = one.members[0]
    return trace.assign(member=members, parent=members)


# -- the runs behind it ----------------------------------------------------------------


def _numeric(trace: pd.DataFrame) -> list[str]:
    """Columns of hyperparameters that are numbers."""
    names = [name for name in trace.columns if name.startswith("hp/")]
    return [name for name in names if option_panels.is_numeric(trace[name])]


def _runs_figure(trace: pd.DataFrame, copied: int) -> tuple[dict[str, Any], list[str]]:
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
    said = []
    if copied:
        said.append(f"Runs went on as copies of others: {copied:,} times.")
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
        cells[name.removeprefix("hp/")] = last[name].map(cell)
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
