"""What ``dacrl list`` lists, as pages of Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_HEAD = {
    "policies": "Policies",
    "methods": "Methods",
    "knobs": "Knobs",
    "suites": "Suites",
}
_WHAT = {
    "policies": "A policy is what sets hyperparameters at each decision of a run. Each "
    "is named as on the command line. Arguments follow the name after commas: "
    "`linear-epsilon,fraction=0.5`.",
    "methods": "A method spends training steps on the tuning split and returns a "
    "policy. Each is named as on the command line. Arguments follow the name after "
    "commas: `random-search,seeds=2`.",
    "knobs": "A knob is what an action may set: a number, a choice or an event. Each "
    "algorithm has its own. Bold ones are controlled by default. "
    "`hyperparameters=[…]` of `gymnasium.make` names others.",
    "suites": "A suite is all tasks with a tag. `dacrl compare --suite NAME` compares "
    "on all of them.",
}


def page(kind: str, found: Mapping[str, Any]) -> str:
    """All of a kind as a page, which names the command that makes it.

    Args:
        kind: "policies", "methods", "knobs" or "suites".
        found: what `listing` says of each, by name.
    """
    lines = [f"# {_HEAD[kind]}", "", f"Made by `dacrl list {kind} --markdown`.", ""]
    lines += [_WHAT[kind], ""]
    for name, about in found.items():
        lines += [f"## {name}", ""]
        if kind == "suites":
            lines += [f"- {task}" for task in about or ["no task"]]
        else:
            lines += _knobs(about) if kind == "knobs" else _one(about)
        lines.append("")
    return "\n".join(lines).rstrip()


def knob_line(knob: Mapping[str, Any]) -> str:
    """One line about a knob, of what `listing.about_knobs` found."""
    parts = [knob["kind"], _values(knob)]
    if "default" in knob:
        parts.append(f"default {_number(knob['default'])}")
    return ", ".join([*parts, *_condition(knob)])


def _knobs(knobs: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| knob | kind | values | default | used |",
        "| --- | --- | --- | ---: | --- |",
    ]
    for one in knobs:
        name = f"**{one['name']}**" if one["controlled"] else one["name"]
        default = _number(one["default"]) if "default" in one else "–"
        used = ", ".join(_condition(one)) or "always"
        kind, values = one["kind"], _values(one)
        lines.append(f"| {name} | {kind} | {values} | {default} | {used} |")
    return lines


def _values(knob: Mapping[str, Any]) -> str:
    if knob["kind"] != "number":
        return " or ".join(map(str, knob["options"]))
    scale = knob["scale"].replace("log_complement", "log in 1 − value")
    return (
        f"{knob['low']:g} to {knob['high']:g} ({scale}"
        f"{', whole numbers' if knob['integer'] else ''})"
    )


def _condition(knob: Mapping[str, Any]) -> list[str]:
    if "condition" not in knob:
        return []
    options = " or ".join(map(str, knob["condition"]["options"]))
    return [f"with {knob['condition']['choice']} {options}"]


def _number(value: Any) -> str:
    plain = isinstance(value, str | bool)
    return str(value) if plain else f"{value:g}"


def _one(found: Mapping[str, Any]) -> list[str]:
    """A policy or method: what it is, and a table of its arguments."""
    lines = [_text(found["summary"])]
    for part in found["text"].split("\n\n"):
        lines += ["", _text(part)] if part.strip() else []
    if found["arguments"]:
        lines += ["", "| argument | type | default | meaning |"]
        lines.append("| --- | --- | --- | --- |")
    for one in found["arguments"]:
        kind = (one["type"] or "any").replace(" | ", " or ")
        default = one.get("default", "required")
        cells = [f"`{one['name']}`", f"`{kind}`", f"`{default}`", _text(one["meaning"])]
        cells = [cell.replace("|", "\\|") for cell in cells]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _text(text: str) -> str:
    """A docstring's sentences as one line of Markdown, code in single backticks."""
    text = " ".join(text.split())
    text = re.sub(r":(?:\w+):`([^`]+)`", r"`\1`", text).replace("``", "`")
    return text.replace("<", "&lt;") if "`" not in text else text
