"""Tables and figures of a comparison, from its frame alone.

The frame has one row per decision boundary or report point of every inner run (see
`dacrl_env.evaluate`). A run is judged by its report scores: *report_final*,
*report_auc*, *report_best* and *failure* (diverged, or report_final below 0.1). All
intervals are 95 % bootstrap intervals over independent runs; where a method was fitted
more than once, over its fits and over the test seeds that all of them share.
"""

import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from dacrl_env.comparison import option_panels, pages, stats
from dacrl_env.comparison.courses import Courses, courses, learning_curve
from dacrl_env.comparison.drawing import (
    COLOURS,
    DPI,
    STYLES,
    add_legend,
    any_letters,
    escaped,
    is_control,
    printable,
    save,
    wrapped,
)
from dacrl_env.comparison.made import Made
from dacrl_env.comparison.page import comparison_page
from dacrl_env.comparison.tables import COSTS, METRICS, aligned, cells_of, markdown
from dacrl_env.core.files import write_text
from dacrl_env.core.version import __version__

TUNING = {
    f"tuning_{name}": name
    for name in ("env_steps", "eval_steps", "gradient_steps", "flops")
}
"""Columns of what making the policy took, and the cost each belongs to."""
FAILURE_BELOW = 0.1
"""A run that ends below this score has failed, diverged or not."""

_RUN = ["policy", "run", "seed"]
_CHARGED = [*COSTS, *TUNING, "report_online"]
_NEEDED = [*_RUN, "task", "step", *_CHARGED, "report_score", "diverged"]
_UNITS = {
    "batch_size": "samples",
    "target_update_interval": "steps",
    "train_freq": "steps",
}
_NOTE = f"""\
Scores are normalised returns: 0 is a random policy, 1 the task's reference.
*report_final* is the report at the end of a run, *report_auc* the mean over its report
points, *report_best* the highest of them; report points that a diverged run did not
reach count as the task's floor. IQM is the interquartile mean. *Failures* diverged or
ended below {FAILURE_BELOW}. Brackets are 95 % bootstrap intervals over independent
runs. For a method fitted several times fits are resampled, and test seeds, once for all
its fits; where fits differ more than all else, intervals of three of them miss in a
quarter of cases, of five in a sixth. A single fit says nothing about the variation
between fits. Costs are means per test run; where a method made the policy, they are
given as tuning + run = total, and a method that was fitted several times was charged
for each fit alone. *report_online* is the report score of the tuning run that a method
chose its policy by, the best of many by what it observed: it may be compared with other
online results, never with the scores of single runs."""


def summarize(frame: pd.DataFrame, report_points: int = 20) -> pd.DataFrame:
    """Reduces every inner run to one row.

    Args:
        frame: Rows of one task.
        report_points: Report points of a complete run, step 0 not counted.

    Returns:
        Columns `policy, run, seed`, those of `METRICS` (scores), `failure`, `diverged`,
        the columns of `COSTS` and `TUNING`, and `report_online`, in order
        of first appearance.

    Raises:
        ValueError: If columns are missing, the frame is empty or has several tasks or
            repeated rows, or a run that has not diverged is incomplete.
    """
    _check(frame)
    # Numbered by first appearance; then sorted in time, as the store promises no order.
    number = frame.groupby(_RUN, sort=False, observed=True).ngroup().rename("number")
    rows = frame.assign(number=number, diverged=frame["diverged"].astype(bool))
    rows = rows.sort_values(["number", "step", "env_steps"], kind="stable")
    last = rows.groupby("number").tail(1).set_index("number")
    reported = rows[(rows["step"] > 0) & rows["report_score"].notna()]
    alive = reported[~reported["diverged"]].groupby("number")["report_score"]
    total = alive.sum().reindex(last.index, fill_value=0.0)
    missing = report_points - alive.count().reindex(last.index, fill_value=0)

    final, diverged = last["report_score"], last["diverged"]
    wrong = final.isna() | (missing < 0) | ((missing > 0) & ~diverged)
    if wrong.any():
        run = last.index[wrong][0]
        raise ValueError(
            f"{int(wrong.sum())} of {len(last)} runs are incomplete, the first of them "
            f"{last.loc[run, _RUN].to_dict()}: {report_points - missing[run]} of "
            f"{report_points} report points, last report score {final[run]}"
        )
    summary = last[_RUN].copy()
    summary["report_final"] = final
    summary["report_auc"] = (
        total + missing * final.where(diverged, 0.0)
    ) / report_points
    summary["report_best"] = reported.groupby("number")["report_score"].max()
    summary["failure"] = diverged | (final < FAILURE_BELOW)
    summary["diverged"] = diverged
    summary[_CHARGED] = last[_CHARGED]
    return summary.reset_index(drop=True)


def table(summary: pd.DataFrame) -> pd.DataFrame:
    """One row per policy, in order of first appearance.

    Args:
        summary: Result of `summarize`.

    Returns:
        Columns `policy`, `runs` (test runs), `fits` (independent runs of the method);
        for each metric m of `METRICS`: `m_mean`, `m_mean_low`, `m_mean_high`,
        `m_iqm`, `m_iqm_low`, `m_iqm_high`; `failure` (share), `diverged` (share), the
        mean per run of the columns of `COSTS`, the mean per fit of those of `TUNING`,
        `total_steps` (training and evaluation, tuning included), and
        `report_online` with `_low` and `_high` (NaN for policies that were not fitted).

    Raises:
        ValueError: If the summary is empty or has scores that are not finite.
    """
    if summary.empty:
        raise ValueError("the summary has no runs")
    lines = []
    for policy, runs in summary.groupby("policy", sort=False, observed=True):
        fits = runs["run"].nunique()
        line: dict[str, Any] = {"policy": policy, "runs": len(runs), "fits": fits}
        for metric in METRICS:
            scores = runs[metric].to_numpy()
            for name, statistic in (("mean", np.mean), ("iqm", stats.iqm)):
                low, high = stats.bootstrap_interval(
                    scores, statistic, runs["run"], runs["seed"]
                )
                column = f"{metric}_{name}"
                line[column] = float(statistic(scores))
                line[f"{column}_low"], line[f"{column}_high"] = low, high
        shares_and_costs = ["failure", "diverged", *COSTS]
        line |= {name: float(runs[name].mean()) for name in shares_and_costs}
        each = runs.groupby("run").first()
        line |= {name: float(each[name].mean()) for name in TUNING}
        line["total_steps"] = sum(
            line[name] + line[f"tuning_{name}"] for name in ("env_steps", "eval_steps")
        )
        line |= _online(each["report_online"].dropna().to_numpy(dtype=np.float64))
        lines.append(line)
    return pd.DataFrame(lines)


def _online(scores: np.ndarray) -> dict[str, float]:
    """Mean over fits with its interval."""
    if not len(scores):
        return dict.fromkeys(
            ("report_online", "report_online_low", "report_online_high"), np.nan
        )
    low, high = stats.bootstrap_interval(scores)
    mean = float(scores.mean())
    return {
        "report_online": mean,
        "report_online_low": low,
        "report_online_high": high,
    }


def paired(summary: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Differences of every other policy from a reference policy, run by run.

    Where both were fitted several times, the pairs are the (run, seed) common to both;
    where one has a single run (a policy that was not fitted), pairs share the seed.
    Runs without a partner are left out.

    Args:
        summary: Result of `summarize`.
        reference: Policy that the others are compared with.

    Returns:
        One row per policy and metric: `policy, reference, metric, pairs`, `difference`
        with `difference_low` and `difference_high` (positive: better than the
        reference), `probability` of improvement with `probability_low` and
        `probability_high`.

    Raises:
        ValueError: If the reference is unknown or shares no seed with a policy.
    """
    policies = list(summary["policy"].unique())
    if reference not in policies:
        raise ValueError(f"unknown reference {reference!r}; choose one of {policies}")
    base = summary[summary["policy"] == reference]
    lines = []
    for policy in policies:
        if policy == reference:
            continue
        runs = summary[summary["policy"] == policy]
        fitted = min(runs["run"].nunique(), base["run"].nunique()) > 1
        pairs = runs.merge(
            base, on=["run", "seed"] if fitted else ["seed"], suffixes=("", "_base")
        )
        if pairs.empty:
            raise ValueError(f"{policy!r} and {reference!r} have no runs in common")
        base_run = "run" if fitted else "run_base"
        # The side with several fits, if there is one, is where the fits vary.
        varies = "run" if runs["run"].nunique() > 1 else base_run
        side = pairs.drop_duplicates(["run", "seed"])
        other = pairs.drop_duplicates([base_run, "seed"])
        for metric in METRICS:
            gap = stats.paired_difference(
                pairs[metric], pairs[f"{metric}_base"], pairs[varies], pairs["seed"]
            )
            chance = stats.probability_of_improvement(
                side[metric], other[f"{metric}_base"],
                side["run"], other[base_run], side["seed"], other["seed"],
            )  # fmt: skip
            lines.append((policy, reference, metric, len(pairs), *gap, *chance))
    columns = ["policy", "reference", "metric", "pairs"]
    for name in ("difference", "probability"):
        columns += [name, f"{name}_low", f"{name}_high"]
    return pd.DataFrame(lines, columns=columns)


def curves(
    frame: pd.DataFrame,
    path: str | os.PathLike[str] | None = None,
    *,
    ax: Axes | None = None,
) -> Path | Axes:
    """Draws learning curves above the hyperparameters that were applied.

    Top: mean report score with its 95 % bootstrap band; diverged runs count as the
    floor from where they diverged. Below, for each `hp/` column of numbers: median and
    10–90 % range over the runs still alive, as steps, since a value holds during the
    interval that ends at its row. Of choices a band for each policy, divided by the
    share of runs with each option; of events a mark where one happened, the larger the
    more runs it did in.

    Args:
        frame: Rows of one task.
        path: PNG file to write, or PDF or SVG by its ending.
        ax: Axes of a figure of your own, instead of a file: scores are drawn there,
            with labels, and nothing is written.

    Returns:
        `path`, or `ax`.

    Raises:
        ValueError: If columns are missing or the frame is empty or has several tasks,
            or unless one of `path` and `ax` is given.
    """
    if (path is None) == (ax is None):
        raise ValueError("curves takes a path to write, or ax=; give one of them")
    _check(frame)
    found = courses(frame)
    if ax is None:
        assert path is not None  # one of them is given
        return draw_courses(found, path)
    _draw_scores(ax, found)
    ax.set_xlabel("inner training environment steps")
    ax.set_xlim(0, found.end)
    return ax


def _draw_scores(axis: Axes, found: Courses) -> list[Any]:
    """Scores of all policies; returns their lines."""
    axis.axhline(1, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
    axis.axhline(0, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
    lines: list[Any] = []
    for i, policy in enumerate(found.policies):
        look, band = _look(i, len(found.policies))
        x, mean, low, high = found.scores[policy]
        name = printable(policy).replace("$", r"\$")  # no mathematics
        lines += axis.plot(x, mean, label=name, **look)
        axis.fill_between(x, low, high, **band)
    axis.set_ylabel("score\n(0 random, 1 reference)")
    return lines


def _look(i: int, count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of the line and of the band of a policy among others."""
    colour = COLOURS[i % len(COLOURS)]
    line = {"color": colour, "linestyle": STYLES[i % len(STYLES)], "linewidth": 1.5}
    # many bands must not hide the lines
    return line, {"color": colour, "alpha": min(0.14, 0.8 / count), "linewidth": 0}


def draw_courses(found: Courses, path: str | os.PathLike[str]) -> Path:
    """As `curves`, of what is known already; returns ``path``."""
    names, policies, options = found.names, found.policies, found.options
    # No pyplot: a Figure of its own leaves no global state and needs no display.
    figure = Figure((6.5, 2.9 + 1.25 * len(names)), DPI, layout="constrained")
    heights = [2.2, *[1.0] * len(names)]
    grid = figure.subplots(
        len(heights), 1, sharex=True, squeeze=False, height_ratios=heights
    )
    axes: list[Axes] = list(grid[:, 0])
    score, panels = axes[0], dict(zip(names, axes[1:], strict=True))
    shown: dict[str, list[float]] = {name: [] for name in names}
    handles = _draw_scores(score, found)
    for i, policy in enumerate(policies):
        look, band = _look(i, len(policies))
        colour = look["color"]
        for name, axis in panels.items():
            if (policy, name) in found.chosen:
                each = found.chosen[policy, name]
                option_panels.draw(axis, each, options[name], i, colour)
            if (policy, name) not in found.values:
                continue
            x, median, low, high = found.values[policy, name]
            axis.plot(x, median, drawstyle="steps-pre", **look)
            axis.fill_between(x, low, high, step="pre", **band)
            shown[name] += [*low, *high]
    for name, axis in panels.items():
        if name in options:
            option_panels.finish(axis, name, options[name], len(policies))
            continue
        values = np.asarray(shown[name])
        if values.min() > 0 and values.max() > 100 * values.min():
            axis.set_yscale("log")
        short = name.removeprefix("hp/")
        unit = f" ({_UNITS[short]})" if short in _UNITS else ""
        axis.set_ylabel(textwrap.fill(short.replace("_", " ") + unit, 14))
    axes[-1].set_xlabel("inner training environment steps")
    axes[-1].xaxis.set_major_locator(MaxNLocator(6))
    axes[-1].xaxis.set_major_formatter(EngFormatter())
    axes[-1].set_xlim(0, found.end)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
        axis.yaxis.label.set_fontsize(9)
    figure.align_ylabels(list(axes))
    add_legend(figure, handles, policies)
    return save(figure, path)


def gallery(frames: Mapping[str, pd.DataFrame], path: str | os.PathLike[str]) -> Path:
    """Draws the learning curve of one policy on each of several tasks.

    Scores below -1 are cut: some tasks' untrained agents do far worse than random ones.

    Args:
        frames: Task id to rows of one policy.
        path: PNG file to write.

    Returns:
        `path`.

    Raises:
        ValueError: If there is no frame, or one that `curves` would refuse.
    """
    if not frames:
        raise ValueError("no frames to draw")
    across = min(3, len(frames))
    down = -(-len(frames) // across)
    size = 2.6 * across + 0.6, max(2.0, 1.7 * down)
    figure = Figure(size, DPI, layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, sharey=True)
    for axis in grid.ravel()[len(frames) :]:
        axis.set_visible(False)
    titles = [task.removeprefix("dacrl/") for task in frames]
    for k, (axis, frame) in enumerate(zip(grid.ravel(), frames.values(), strict=False)):
        _check(frame)
        reports = np.unique(frame.loc[frame["report_score"].notna(), "env_steps"])
        x, mean, low, high = learning_curve(frame, reports)
        for level in (0, 1):
            axis.axhline(level, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
        axis.plot(x, mean, color=COLOURS[1], linewidth=1.5)
        axis.fill_between(x, low, high, color=COLOURS[1], alpha=0.2, linewidth=0)
        for letters in (28, 20, 14):
            title = wrapped(titles, letters)[k]
            text = axis.set_title(title, fontsize=8, parse_math=False)
            with any_letters():
                width = text.get_window_extent().width
            if width <= 2.4 * DPI:
                break
        axis.set_xlim(0, float(frame["env_steps"].max()))
        axis.xaxis.set_major_locator(MaxNLocator(3))
        axis.xaxis.set_major_formatter(EngFormatter())
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=7)
    low, high = grid[0, 0].get_ylim()  # shared
    grid[0, 0].set_ylim(max(low, -1.05), high)
    figure.supylabel("score\n(0 random, 1 reference)", fontsize=9, ma="center")
    figure.supxlabel("inner training environment steps", fontsize=9)
    return save(figure, path)


def anytime(course: pd.DataFrame, path: str | os.PathLike[str]) -> Path:
    """Draws the test score of what methods would have returned, against their cost.

    Args:
        course: result of :func:`dacrl_env.comparison.comparison.anytime`.
        path: PNG file to write.

    Returns:
        `path`.

    Raises:
        ValueError: If the frame is empty.
    """
    if course.empty:
        raise ValueError("the frame has no rows")
    figure = Figure((6.5, 3.4), DPI, layout="constrained")
    axis = figure.subplots()
    handles: list[Any] = []
    names: list[Any] = []
    for i, (method, rows) in enumerate(course.groupby("policy", sort=False)):
        names.append(method)
        tested = rows.groupby(["run", "steps"])["report_final"].mean()
        fits = [scores.droplevel("run") for _, scores in tested.groupby("run")]
        # between incumbents of a fit the last one stands
        steps = np.unique(rows["steps"])
        values = np.stack([s.reindex(steps).ffill().to_numpy() for s in fits])
        known = ~np.isnan(values).any(0)  # every fit has one by then
        values, steps = values[:, known], steps[known]
        bounds = [stats.bootstrap_interval(v, resamples=500) for v in values.T]
        low, high = np.asarray(bounds).reshape(-1, 2).T
        look: dict[str, Any] = {
            "color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i % len(STYLES)]
        }  # fmt: skip
        mean = values.mean(0)
        if len(steps) == 1:  # a method that ends in one policy
            about = np.stack([mean - low, high - mean])
            handles.append(
                axis.errorbar(steps, mean, about, marker="o", capsize=3, **look)
            )
            continue
        handles += axis.step(steps, mean, where="post", **look)
        axis.fill_between(
            steps, low, high, step="post", alpha=0.12, color=look["color"], linewidth=0
        )
    axis.set_xscale("log")
    least, most = axis.get_xlim()
    subs = (1.0, 2.0, 5.0) if most < 100 * least else (1.0,)
    few = most < 10 * least  # there may be no power of ten in between
    axis.xaxis.set_major_locator(MaxNLocator(4) if few else LogLocator(subs=subs))
    axis.xaxis.set_major_formatter(EngFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("inner environment steps spent on tuning, evaluation included")
    axis.set_ylabel("test score at the end of a run")
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
    add_legend(figure, handles, names)
    return save(figure, path)


def check_names(names: Sequence[str]) -> None:
    """Whether names of policies can stand in tables.

    Raises:
        ValueError: one has line ends or other control characters.
    """
    for name in names:
        if any(map(is_control, name)):
            raise ValueError(
                f"{name!r} has control characters or line ends, which tables cannot "
                "show; give it a label without them: label=policy"
            )


def render(result: pd.DataFrame, across: int | None = None) -> str:
    """Aligns a result of `table` or `paired` as plain text for a terminal.

    Of the IQM only that of report_final is shown, and no interval, for want of width;
    `table.csv` has them.

    Args:
        result: Of `table` or `paired`.
        across: Letters of a line; None: as many as needed.
    """
    blocks = [
        aligned(
            {str(name): list(cells[name]) for name in cells},
            across,
            2 if "metric" in cells else 1,
            rule=True,
        )
        for cells in cells_of(result, brief=True)
    ]
    return "\n\n".join(blocks) + "\n"


class Report(NamedTuple):
    """What a comparison came to."""

    path: Path  # of report.md
    table: pd.DataFrame  # see `table`
    paired: pd.DataFrame  # see `paired`
    alone: list[str]  # sentences on policies without differences
    page: Path  # of report.html
    reference: str  # policy of the paired differences


def write_report(
    frame: pd.DataFrame,
    directory: str | os.PathLike[str],
    reference: str | None = None,
    notes: Sequence[str] = (),
    made: Made | None = None,
) -> Report:
    """Writes `report.md` and `report.html`, with tables and a figure as files.

    They are `summary.csv`, `table.csv`, `paired.csv` and `curves.png`. The page is one
    file that needs nothing else.

    Args:
        frame: Rows of one task.
        directory: Made if missing; files of an earlier report are replaced.
        reference: Policy for the paired differences; None takes the first one.
        notes: What else there is to say, in sentences.
        made: How it was made, for the page; None: not known.

    Policies that share no seed with the reference have no differences from it.

    Returns:
        What was written; each file is there whole or as it was before.

    Raises:
        ValueError: As `summarize`, or an unknown reference; nothing is written then.
    """
    summary = summarize(frame)
    policies = list(summary["policy"].unique())
    reference = policies[0] if reference is None else reference
    results = table(summary)
    differences, alone = comparable(summary, reference)

    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "summary.csv", summary.to_csv(index=False))
    write_text(folder / "table.csv", results.to_csv(index=False))
    write_text(folder / "paired.csv", differences.to_csv(index=False))
    found = courses(frame)
    draw_courses(found, folder / "curves.png")

    task = frame["task"].iloc[0]
    facts = {
        "Policies": ", ".join(policies),
        "Test runs": f"{len(summary)} ({summary['seed'].nunique()} seeds)",
        "Budget": f"{summary['env_steps'].max():,.0f} environment steps a run",
    }
    for name in ("split", "instance"):
        if name in frame:
            values = [str(value) for value in frame[name].dropna().unique()]
            listed = ", ".join(values[:8]) + (", …" if len(values) > 8 else "")
            facts[name.capitalize()] = listed or "default"
    parts = [
        f"# Comparison on {task}",
        "\n".join(f"- {name}: {escaped(value)}" for name, value in facts.items())
        + f"\n- Made with: dacrl-env {__version__}",
        *map(escaped, [*notes, *alone]),
        "## Scores and cost",
        markdown(results),
    ]
    if len(differences):
        parts += [
            f"## Paired differences from {escaped(reference)}",
            markdown(differences),
            "Positive differences are better than the reference, over runs paired by "
            "seed. P(better) is the probability that a run of the policy beats one of "
            "the reference, ties counted half; its interval ignores the pairing.",
        ]
    parts += [
        "## Learning curves and applied hyperparameters",
        "![Learning curves and applied hyperparameters](curves.png)",
        "Curves: mean report score and its 95 % bootstrap band. Hyperparameters: "
        "median and 10–90 % range over the runs that have not diverged.",
        "## How to read this",
        _NOTE,
        "`summary.csv` has one row per run, `table.csv` and `paired.csv` the numbers "
        "above in full.",
    ]
    path = folder / "report.md"
    write_text(path, "\n\n".join(parts) + "\n")
    page = comparison_page(
        frame, found, summary, results, differences, reference, facts,
        [*notes, *alone], _NOTE, _UNITS, made or Made(),
    )  # fmt: skip
    written = page.write(folder / pages.NAME)
    return Report(path, results, differences, alone, written, reference)


def comparable(summary: pd.DataFrame, reference: str) -> tuple[pd.DataFrame, list[str]]:
    """`paired` of the policies that have runs in common with the reference.

    Returns:
        The differences, and sentences about those that have none.

    Raises:
        ValueError: If the reference is unknown.
    """
    base = summary[summary["policy"] == reference]
    keep, alone = [], []
    for policy, runs in summary.groupby("policy", sort=False):
        fitted = min(runs["run"].nunique(), base["run"].nunique()) > 1
        shared = ["run", "seed"] if fitted else ["seed"]
        if runs.merge(base, on=shared).empty and len(base):
            alone.append(
                f"{policy} and {reference} have no test seeds in common, and so no "
                "difference."
            )
        else:
            keep.append(policy)
    return paired(summary[summary["policy"].isin(keep)], reference), alone


def _check(frame: pd.DataFrame) -> None:
    missing = [name for name in _NEEDED if name not in frame]
    if missing:
        raise ValueError(f"the frame lacks the columns {missing}")
    if frame.empty:
        raise ValueError("the frame has no rows")
    if frame[_RUN].isna().any(axis=None):
        raise ValueError(f"the columns {_RUN} must not have missing values")
    tasks = list(frame["task"].unique())
    if len(tasks) > 1:
        raise ValueError(
            f"scores of different tasks do not compare; select one: {tasks}"
        )
    twice = frame.duplicated([*_RUN, "step", "env_steps"])
    if twice.any():
        raise ValueError(
            f"{int(twice.sum())} rows repeat a (policy, run, seed, step), the first of "
            f"them {frame.loc[twice, _RUN].iloc[0].to_dict()}"
        )
