"""The page docs/headroom.md: one table and one figure of all that was measured.

It is made of what `dacrl headroom --keep` has put into the package, so that no run is
needed to make it anew: ``dacrl headroom-page docs``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dacrl_env.comparison.drawing import COLOURS, DPI, save
from dacrl_env.comparison.stats import shown
from dacrl_env.core.files import write_text
from dacrl_env.studies.headroom_branching import CONTROLS, READINGS
from dacrl_env.tasks.headroom import KINDS, LEAST, measured, ruled
from dacrl_env.tasks.rungs import RUNGS, SCHEDULE, STATIC

NAME = "headroom"
_TEXT = f"""\
# Headroom: what dynamics are worth

Made by `dacrl headroom-page docs` of what `dacrl headroom TASK --keep` has measured;
`dacrl_env/studies/headroom.py` says how. On each task some of eight rungs are tuned by
sequential halving at one budget each, over all numbers and choices of the algorithm:

- *static-tuned*: a configuration that holds throughout. All rungs begin where its
  search ended, and so does a second one for a static configuration, whose end is this
  rung: none is ahead by having been tuned longer;
- *open-loop-tuned*: a schedule of every hyperparameter, which begins at the static one;
- *freeze-tuned* and *checkpoint-tuned*: rules that look at the score, tuned together
  with the configuration, from the static one on;
- *frozen-schedule-tuned*: a schedule with such a rule, tuned together, from the static
  configuration on: what looking adds to a schedule;
- *restart-tuned*: networks begin anew where the score is poor and they have had some
  patience; the configuration is tuned together with the rule, from the static one on;
- *swap-tuned*: networks that have fallen change places with those that were put aside
  before, and learning all but stops while the score is good; tuned together with the
  configuration, from the static one on;
- *switch-tuned*: one configuration below a score and another above it, from the static
  one on.

A rung costs as much as the search for a static configuration. So a task has some rules
alone, chosen by a look at runs on other seeds than those it is judged on; where there
is –, nothing is known, and *state* may be more than it says. All of that several times
over, independently; what comes out is judged by its reports on test seeds and test
instances. *Schedule* is what the open-loop rung scores above the static one, *state*
what the better rule scores above the better open loop. Rules, and the fit of each that
is kept, are chosen by further runs on the tuning split; open loops by their test score,
which favours the open loop. Brackets are 95 % intervals over fits and seeds: Student's,
with as many degrees of freedom as what varies most has (`crossed_mean` in
`dacrl_env/comparison/stats.py`).

A gain of at least {LEAST:g} whose interval lies above zero is a tag of the task. Where
the policies that are kept were run on seeds that were held back (below), the interval
lies above zero there, too. A task with neither is tagged smoke, and is not in the suite
`default`. *Looking* is what the better rule loses when each run goes by the scores of
another: the control. *By chance* is how often the task has the tag state, or schedule,
where all rungs draw their scores from the same runs, those of the default
configuration, and fits of a rung differ as they were measured to: 1,000 times, and all
else as measured.

A task's next version, which starts at a base, has the same figures but for its default:
the policies compared set every hyperparameter."""
_ONCE = """\
On tasks marked * the static configuration was searched once, so that part of what a
schedule scores above it may come of more tuning. *State* compares rungs that had
equally many runs there, except where the static one is the better open loop. The fit
that is kept was chosen by the final score of runs of its search."""
_NARROW = """\
On tasks marked † brackets are percentiles of a bootstrap of fits and seeds. Where fits
differ and are three, these miss in up to a fifth of cases. Scores of each fit were not
kept there, and *by chance* is of fits that do not differ."""
_HELD = """\
The fit of each rung that comes with the package, chosen on the tuning split, on further
test seeds (`dacrl headroom-confirm`). Intervals are over seeds. *Spaced* is what a rule
that restarts networks, or swaps them, scores above its own configuration with up to 8
restarts, or 16 swaps, at equal distances, the best of several numbers of them."""

_BRANCHING = """\
Runs of *static-tuned* are stopped at 20, 50 and 80 % of their budget. From each state
copies go on to the end under it and under five other configurations, drawn from all
numbers and choices, half of them near it (`dacrl headroom-branch`). What switching
gains in final score above continuing is read in two ways, as means over the three
points. *Pooled*: one configuration is chosen for all runs, as a schedule could; where
that is to continue, nothing is gained. *Per run*: each run chooses by what comes of its
own state. Copies that choose are not those that are valued. Whoever chooses has few
copies to choose by, once in a run, and so a gain is no bound of what dynamics are
worth; events, such as swaps, are not among the branches. In the *control*, at 80 %, all
copies go on as before: what is chosen means nothing there. Brackets are 95 % intervals
over the runs, Student's."""


def write(directory: str | os.PathLike[str]) -> list[Path]:
    """Write ``headroom.md`` and ``headroom.png``, by which it is illustrated.

    Args:
        directory: is made if it is not there.

    Returns:
        Paths of what was written.

    Raises:
        ValueError: nothing is measured, or ``headroom.json`` is damaged.
        OSError: a file cannot be written.
    """
    entries = measured()
    if not entries:
        raise ValueError("nothing is measured yet; dacrl headroom TASK --keep does it")
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"{NAME}.md"
    write_text(page, markdown(entries))
    return [page, figure(entries, folder / f"{NAME}.png")]


def markdown(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """The page.

    Args:
        entries: of ``headroom.json``, by task.
    """
    columns = ("default", *RUNGS, *KINDS, "looking")
    lines = [
        _TEXT,
        "",
        f"![Gains by task, with intervals]({NAME}.png)",
        "",
        "| task | objective | " + " | ".join(columns) + " | by chance | tags |",
        "| --- | --- | " + "---: | " * (len(columns) + 1) + "--- |",
    ]
    once = [
        task
        for task, entry in entries.items()
        if not entry.get("settings", {}).get("static_twice")
    ]
    narrow = [task for task, entry in entries.items() if "by_fit" not in entry]
    for task, entry in entries.items():
        values = {**entry.get("values", {}), **{k: entry.get(k) for k in KINDS}}
        if "best" in entry:
            values["looking"] = values.get(f"{entry['best'][1]}, what looking is worth")
        cells = [shown(values.get(name)) for name in columns]
        chance = entry.get("by_chance")
        cells.append(" / ".join(f"{chance[k]:.1%}" for k in KINDS) if chance else "–")
        tags = ", ".join(ruled(entry))
        marks = [m for m, those in {"*": once, "†": narrow}.items() if task in those]
        first = " ".join([task, *marks])
        objective = entry.get("objective", "–")
        lines.append(f"| {first} | {objective} | {' | '.join(cells)} | {tags} |")
    for those, note in ((once, _ONCE), (narrow, _NARROW)):
        if those:
            lines += ["", note]
    confirmed = {
        task: entry["confirmed"]
        for task, entry in entries.items()
        if "confirmed" in entry
    }
    if confirmed:
        lines += ["", *_held_back(entries, confirmed)]
    branched = {
        task: entry["branching"]
        for task, entry in entries.items()
        if "branching" in entry
    }
    if branched:
        lines += ["", *_branching(branched)]
    lines += ["", "## Commands", "", "```"]
    lines += [_command(task, entry) for task, entry in entries.items()]
    lines += [
        f"dacrl headroom-confirm {task} --seeds {found['seeds'][0]}:"
        f"{found['seeds'][1] + 1} --keep --out DIR"
        for task, found in confirmed.items()
    ]
    for task, found in branched.items():
        counts = " ".join(f"--{name} {n}" for name, n in found["settings"].items())
        lines.append(f"dacrl headroom-branch {task} {counts} --keep --out DIR")
    versions = sorted({str(entry.get("version", "–")) for entry in entries.values()})
    lines += ["```", "", f"Made by version {', '.join(versions)}.", ""]
    return "\n".join(lines)


def _held_back(
    entries: Mapping[str, Mapping[str, Any]],
    confirmed: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Lines of what was found on seeds that nothing was chosen by."""
    columns = ("default", STATIC, SCHEDULE, "rule", *KINDS, "looking", "spaced")
    lines = [
        "## On seeds that were held back",
        "",
        _HELD,
        "",
        "| task | seeds | which rule | " + " | ".join(columns) + " |",
        "| --- | --- | --- |" + " ---: |" * len(columns),
    ]
    for task, found in confirmed.items():
        rule = entries[task]["best"][1]
        values = {**found["values"], "rule": found["values"][rule]}
        cells = [shown(values.get(name)) for name in columns]
        first, last = found["seeds"]
        lines.append(f"| {task} | {first}–{last} | {rule} | {' | '.join(cells)} |")
    return lines


def _branching(branched: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines of what switching in the middle of runs gains."""
    columns = (*READINGS, *CONTROLS)
    lines = [
        "## Switching in the middle of runs",
        "",
        _BRANCHING,
        "",
        "| task | runs | " + " | ".join(columns) + " |",
        "| --- | ---: |" + " ---: |" * len(columns),
    ]
    for task, found in branched.items():
        cells = [shown(found["values"].get(name)) for name in columns]
        lines.append(f"| {task} | {found['settings']['runs']} | {' | '.join(cells)} |")
    return lines


def _command(task: str, entry: Mapping[str, Any]) -> str:
    """What measured an entry."""
    settings = entry.get("settings", {})
    words = ["dacrl headroom", task, f"--objective {entry.get('objective', 'auc')}"]
    words += [
        f"--{name.replace('_', '-')} {settings[name]:g}"
        for name in ("runs", "fits", "most_work", "generations")
        if settings.get(name) is not None
    ]
    if "rungs" in settings and tuple(settings["rungs"]) != RUNGS:
        words.append(f"--rungs {' '.join(settings['rungs'])}")
    if "seeds" in settings:
        first, last = settings["seeds"]
        words.append(f"--seeds {first}:{last + 1}")
    return " ".join([*words, "--keep --out DIR"])


def figure(
    entries: Mapping[str, Mapping[str, Any]], path: str | os.PathLike[str]
) -> Path:
    """Draw gains of both kinds with their intervals, the largest value of state first.

    Args:
        entries: of ``headroom.json``, by task.
        path: PNG file to write.
    """
    tasks = sorted(entries, key=lambda task: _value(entries[task].get("state")))
    picture = Figure((6.5, 1.1 + 0.42 * len(tasks)), DPI, layout="constrained")
    axis = picture.subplots()
    for k, (kind, colour) in enumerate(zip(KINDS, COLOURS[1:], strict=False)):
        for y, task in enumerate(tasks):
            gain = entries[task].get(kind)
            if gain is None:
                continue
            value, low, high = gain
            at = y + 0.12 - 0.24 * k
            axis.plot([low, high], [at, at], color=colour, linewidth=1.5)
            label = f"value of {'a ' if kind == 'schedule' else ''}{kind}"
            shown = {line.get_label() for line in axis.get_lines()}
            axis.plot(
                value, at, "o", color=colour, markersize=5,
                label=f"_{label}" if label in shown else label,
            )  # fmt: skip
    axis.axvline(0, color="0.6", linewidth=0.8)
    axis.axvline(LEAST, color="0.6", linewidth=0.8, linestyle=":")
    axis.set_yticks(range(len(tasks)))
    axis.set_yticklabels([task.removeprefix("dacrl/") for task in tasks], fontsize=8)
    axis.set_ylim(-0.6, len(tasks) - 0.4)
    axis.set_xlabel("gain in score, 95 % interval", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    picture.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return save(picture, Path(path))


def _value(gain: Sequence[float] | None) -> float:
    return float("-inf") if gain is None else gain[0]
