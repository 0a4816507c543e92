"""``dacrl list`` and ``dacrl tasks``: what there is, and what its arguments mean."""

from __future__ import annotations

import argparse
import inspect
import shutil
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from docstring_parser import DocstringStyle, parse

from dacrl_env.cli import listing_pages
from dacrl_env.core.checks import forgiven, unknown
from dacrl_env.core.specs import read_spec

KINDS = ("tasks", "policies", "methods", "knobs", "suites")
_MAKES = {"policies": "policy", "methods": "method"}
_KINDS_OF = {what: kind for kind, what in _MAKES.items()}


def add_commands(commands: Any) -> None:
    """Add the commands to the others of a parser."""
    listed = commands.add_parser(
        "list",
        help="tasks, policies, methods, knobs or suites; with a NAME all about it",
        epilog="examples: dacrl list tasks; dacrl list methods hyperband; "
        "dacrl list policies freeze-when-good --json; dacrl list knobs dqn",
    )
    listed.add_argument("kind", choices=KINDS, help="what is listed")
    listed.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="one of them; of knobs: the algorithm that has them",
    )
    listed.add_argument("--json", dest="as_json", action="store_true", help="as JSON")
    listed.add_argument(
        "--markdown", action="store_true", help="all of a kind, as a page of Markdown"
    )
    listed.set_defaults(command=show)

    tasks = commands.add_parser("tasks", help="all about every task")
    tasks.add_argument("--markdown", action="store_true", help="as docs/tasks.md")
    tasks.set_defaults(command=show_tasks)


def show(options: argparse.Namespace) -> Any:
    """Print what there is of a kind, or all about one of them."""
    kind, name = options.kind, options.name
    if options.markdown:
        if options.as_json or name is not None:
            raise ValueError("--markdown is a page of all; leave out NAME and --json")
        print(page(kind))
        return None
    if kind == "knobs":
        return _show_knobs(name, options.as_json)
    if kind == "tasks":
        found = _tasks() if name is None else about_task(name)
    elif kind == "suites":
        found = suites()
        if name is not None and name not in found:
            raise ValueError(unknown("suite", name, found))
        found = found if name is None else {name: found[name]}
    elif name is None:
        found = {n: about(n, _MAKES[kind])["summary"] for n in names(kind)}
        found |= _lines_of_others(kind)
    else:
        found = about(name, _MAKES[kind])
    if options.as_json:
        return found
    if name is None or kind == "suites":
        print(_table({k: _line(v) for k, v in found.items()}))
        if kind in _MAKES:
            print(f"\nall about one: dacrl list {kind} NAME")
    else:
        print(_task_text(found) if kind == "tasks" else described(found))
    return None


def page(kind: str) -> str:
    """All of one of `KINDS` as a page of Markdown."""
    from dacrl_env.tasks.registration import ALGORITHMS, markdown

    if kind == "tasks":
        return markdown()
    if kind == "suites":
        found = suites()
    elif kind == "knobs":
        found = {name: about_knobs(name) for name in ALGORITHMS}
    else:
        found = {name: about(name, _MAKES[kind]) for name in names(kind)}
    return listing_pages.page(kind, found)


def show_tasks(options: argparse.Namespace) -> None:
    """Print all about every task, or the page of them."""
    from dacrl_env.policies.protocol import offered_by_others
    from dacrl_env.tasks.registration import listed, markdown

    if options.markdown:
        print(markdown())
        return
    for task in listed():
        print(_task_text(about_task(task)))
    for kind in ("policies", "methods"):
        every = [*names(kind), *offered_by_others(_MAKES[kind]), "or module:Class"]
        print(_table({kind: ", ".join(every)}))


# -- tasks ---------------------------------------------------------------------------


def _tasks() -> dict[str, Any]:
    from dacrl_env.tasks.registration import listed

    return {task.id: about_task(task) for task in listed()}


def about_task(task: Any) -> dict[str, Any]:
    """All about a task, as JSON values.

    Args:
        task: id or task.

    Raises:
        ValueError: an unknown task.
    """
    from dacrl_env.outer.settings import own_hyperparameters
    from dacrl_env.policies.tuned import tuned
    from dacrl_env.tasks import bases, headroom, measured, returns
    from dacrl_env.tasks.registration import ALGORITHMS, get_task, load

    task = get_task(task)
    learner = load(ALGORITHMS[task.algorithm])
    controlled = list(task.controlled or learner.controlled)
    known = own_hyperparameters(task, learner.hyperparameters)
    gains = headroom.entry_of(task.id)
    scale = returns.known(task)
    sets = {"train": task.train_instances, "test": task.test_instances}
    differing = [name for those in sets.values() for i in those for name in i.physics]
    return {
        "id": task.id,
        "description": task.description,
        "inner environment": task.inner_env,
        "algorithm": task.algorithm,
        "budget": task.budget,
        "decisions": task.decisions,
        "judged by": task.judged_by,
        "returns": None if scale is None else scale._asdict(),
        "returns are": returns.shown(task),
        "instances": {
            kind: [instance.name for instance in those] for kind, those in sets.items()
        },
        "instances differ in": list(dict.fromkeys(differing)),
        "controlled": controlled,
        "can be controlled": [name for name in known if name not in controlled],
        "seconds a run": measured.seconds().get(task.id, {}).get("seconds"),
        "base": bases.shown(task.id),
        "headroom": {kind: gains[kind] for kind in headroom.KINDS if kind in gains},
        "tuned policies": list(tuned(task.id)),
        "tags": list(headroom.tags_of(task)),
    }


def _task_text(found: Mapping[str, Any]) -> str:
    from dacrl_env.tasks import headroom

    rows = {
        "inner environment": f"{found['inner environment'] or 'none'}, algorithm "
        f"{found['algorithm']}",
        "budget": f"{found['budget']:,} steps, {found['decisions']} decisions",
        "judged by": f"{found['judged by']} episodes",
        "returns": found["returns are"],
        "instances": _instances_text(found),
        "controlled": ", ".join(found["controlled"]),
        "can be controlled": ", ".join(found["can be controlled"]),
        "base": found["base"],
        "headroom": headroom.shown(found["id"]),
        "tuned policies": ", ".join(found["tuned policies"]) or "–",
        "tags": ", ".join(found["tags"]) or "–",
    }
    first = "\n".join(_wrapped(f"{found['id']}: {found['description']}"))
    return f"{first}\n{_table(rows, '  ')}"


def _instances_text(found: Mapping[str, Any]) -> str:
    if not found["instances differ in"]:
        return "one, the inner environment as it is"
    counts = [f"{len(names)} to {kind}" for kind, names in found["instances"].items()]
    return f"{', '.join(counts)}; differ in {', '.join(found['instances differ in'])}"


def suites() -> dict[str, Any]:
    """Ids of the tasks of each suite, by its name."""
    from dacrl_env.tasks.headroom import SUITES, suite
    from dacrl_env.tasks.registration import listed

    found = {}
    for name in SUITES:
        try:
            found[name] = suite(name, listed())
        except ValueError:  # no task has the tag
            found[name] = []
    return found


# -- knobs ---------------------------------------------------------------------------


def about_knobs(algorithm: str) -> list[dict[str, Any]]:
    """What an action may set in runs of an algorithm, as JSON values.

    Args:
        algorithm: name, as tasks have it.

    Returns:
        Of each knob ``name``, ``kind`` ("number", "choice" or "event"), ``default``
        (none of an event), ``controlled`` (whether actions set it where a task says
        nothing else), ``condition`` (the choice and its options that it is used with;
        none, if it always is), and ``low``, ``high``, ``scale``, ``integer`` of a
        number or ``options`` of the others.

    Raises:
        ValueError: an unknown algorithm.
    """
    from dacrl_env.tasks import Event, Number
    from dacrl_env.tasks.registration import ALGORITHMS, load

    if algorithm not in ALGORITHMS:
        raise ValueError(unknown("algorithm", algorithm, ALGORITHMS))
    learner, found = load(ALGORITHMS[algorithm]), []
    for knob in learner.hyperparameters:
        one: dict[str, Any] = {"name": knob.name}
        if isinstance(knob, Number):
            one |= {"kind": "number", "low": knob.low, "high": knob.high}
            one |= {"scale": knob.scale, "integer": knob.integer}
        else:
            one["kind"] = "event" if isinstance(knob, Event) else "choice"
            one["options"] = list(knob.options)
        if not isinstance(knob, Event):
            one["default"] = knob.default
        one["controlled"] = knob.name in learner.controlled
        if knob.condition is not None:
            one["condition"] = asdict(knob.condition)
        found.append(one)
    return found


def _show_knobs(algorithm: str | None, as_json: bool) -> Any:
    from dacrl_env.tasks.registration import ALGORITHMS

    algorithms = ALGORITHMS if algorithm is None else [algorithm]
    found = {name: about_knobs(name) for name in algorithms}
    if as_json:
        return found
    for name, knobs in found.items():
        print(f"{name} (* controlled by default)")
        rows = {f"{one['name']}{' *' * one['controlled']}": one for one in knobs}
        print(_table({k: listing_pages.knob_line(v) for k, v in rows.items()}, "  "))
    return None


# -- policies and methods ------------------------------------------------------------


def names(kind: str) -> Iterable[str]:
    """Names of policies or methods that come with the package."""
    from dacrl_env.policies import METHODS, POLICIES, pretrained

    return METHODS if kind == "methods" else [*POLICIES, *pretrained()]


def _lines_of_others(kind: str) -> dict[str, str]:
    """A line about each policy or method of other distributions, faults included."""
    from dacrl_env.policies.protocol import offered_by_others

    lines = {}
    for name, one in offered_by_others(_MAKES[kind]).items():
        try:
            summary = about(name, _MAKES[kind])["summary"]
        except (ValueError, TypeError) as error:  # also of what has no signature
            lines[name] = str(error)
        else:
            lines[name] = f"{summary} ({one.distribution})".lstrip()
    return lines


def about(spec: str, what: str) -> dict[str, Any]:
    """What a policy or method is, and its arguments, as JSON values.

    Args:
        spec: a name, ``"module:Class"`` or a file, with arguments or without.
        what: "policy" or "method".

    Returns:
        ``name``, ``summary``, ``text``, ``arguments``: each with ``name``, ``type``,
        ``default`` (none, if it is required) and ``meaning``. Of one that another
        distribution offers also ``entry`` and ``distribution``.

    Raises:
        ValueError: an unknown name.
    """
    from dacrl_env.policies.protocol import (
        factory_of,
        load_fitted,
        offered_by_others,
    )

    name = read_spec(spec, what)[0]
    factory, preset = factory_of(name, what)
    if factory is load_fitted:
        return _about_file(name)
    name, own = forgiven(name, names(_KINDS_OF[what])), {}
    if name not in names(_KINDS_OF[what]) and ":" not in name:
        others = offered_by_others(what)
        one = others[name := forgiven(name, others)]
        own = {"entry": one.entry, "distribution": one.distribution}
    page = parse(inspect.getdoc(factory) or "", DocstringStyle.GOOGLE)
    meanings = _meanings(factory)
    arguments = []
    for parameter in inspect.signature(factory).parameters.values():
        described = {"name": parameter.name, "type": _type(parameter.annotation)}
        if parameter.name in preset:
            described["default"] = repr(preset[parameter.name])
        elif parameter.kind is parameter.VAR_KEYWORD:
            described["name"] = "NAME"
            described["default"] = "as it is"
        elif parameter.default is not parameter.empty:
            described["default"] = repr(parameter.default)
        meaning = meanings.get(parameter.name) or ""
        arguments.append({**described, "meaning": " ".join(meaning.split())})
    text = page.long_description or ""
    summary = " ".join((page.short_description or "").split())
    found = {"name": name, "summary": summary, "text": text, "arguments": arguments}
    return found | own


def described_by_name(word: str) -> str | None:
    """All about a policy or method with a name; None: the word names none."""
    from dacrl_env.policies import METHODS, POLICIES
    from dacrl_env.policies.protocol import offered_by_others

    name = word.rpartition("=")[2] if "," not in word else word.partition(",")[0]
    for what, table in (("policy", POLICIES), ("method", METHODS)):
        known = forgiven(name, table)
        if known in table:
            return described(about(known, what))
    for what in () if word.startswith("-") else ("policy", "method"):
        others = offered_by_others(what)
        known = forgiven(name, others)
        if known in others:
            try:
                return described(about(known, what))
            except (ValueError, TypeError) as error:
                return str(error)
    return None


def _meanings(factory: Any) -> dict[str, str]:
    """What docstrings of a class and of those it rests on say of arguments."""
    found: dict[str, str] = {}
    for kind in reversed(getattr(factory, "__mro__", (factory,))):
        for one in parse(kind.__doc__ or "", DocstringStyle.GOOGLE).params:
            found[one.arg_name.lstrip("*")] = one.description or ""
    return found


def _about_file(name: str) -> dict[str, Any]:
    from dacrl_env.policies.protocol import get_policy

    fitted: Any = get_policy(name)
    given = ", ".join(f"{k}={v}" for k, v in (fitted.settings or {}).items())
    text = f"{type(fitted.policy).__name__}, made for {fitted.task or 'any task'}"
    arguments = [
        {
            "name": "any_task",
            "type": "bool",
            "default": "False",
            "meaning": "run it on other tasks, and with runs of another length",
        }
    ]
    return {
        "name": name,
        "summary": "a policy from a file.",
        "text": f"{text}{f' with {given}' if given else ''}.",
        "arguments": arguments,
    }


def _type(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    return (
        annotation
        if isinstance(annotation, str)
        else inspect.formatannotation(annotation)
    )


def described(found: Mapping[str, Any]) -> str:
    """What `about` found, as text for a terminal."""
    lines = _wrapped(f"{found['name']}: {found['summary']}")
    if "distribution" in found:
        lines += _wrapped(f"from {found['distribution']}: {found['entry']}")
    if found["text"]:
        lines += ["", *_wrapped(found["text"])]
    if found["arguments"]:
        lines += ["", "arguments, after commas, as NAME=VALUE:"]
    for one in found["arguments"]:
        default = f", default {one['default']}" if "default" in one else ", required"
        lines += textwrap.wrap(
            f"{one['name']} ({one['type'] or 'any'}{default})", width(),
            initial_indent="  ", subsequent_indent=4 * " ", break_on_hyphens=False,
        )  # fmt: skip
        lines += textwrap.wrap(
            one["meaning"].replace("``", ""), width() - 6, initial_indent=6 * " ",
            subsequent_indent=6 * " ", break_on_hyphens=False,
        )  # fmt: skip
    return "\n".join(lines)


# -- tables --------------------------------------------------------------------------


def width() -> int:
    """Columns of the terminal; 88 where there is none."""
    return max(40, shutil.get_terminal_size((88, 24)).columns)


def _wrapped(text: str) -> list[str]:
    wrap: Callable[[str], list[str]] = lambda part: textwrap.wrap(  # noqa: E731
        part, width(), break_on_hyphens=False
    )
    parts = [" ".join(part.split()) for part in text.split("\n\n")]
    return "\n\n".join("\n".join(wrap(part)) for part in parts).split("\n")


def _line(value: Any) -> str:
    """One line about a task, a policy or method, or the tasks of a suite."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ", ".join(value) or "no task"
    from dacrl_env.tasks import headroom

    gain = headroom.shown(value["id"])
    return value["description"] + ("" if gain == "–" else f" ({gain})")


def _table(rows: Mapping[str, str], indent: str = "") -> str:
    """Names and what is said of them, wrapped to the terminal."""
    first = max(map(len, rows), default=0) + 2
    room = width() - len(indent) - first
    beside = room >= 30
    lines = []
    for name, text in rows.items():
        if not beside:  # too narrow: below
            lines.append(f"{indent}{name}")
            more = f"{indent}    "
            lines += textwrap.wrap(
                text, width(), initial_indent=more, subsequent_indent=more,
                break_on_hyphens=False,
            )  # fmt: skip
            continue
        parts = textwrap.wrap(text, room, break_on_hyphens=False) or [""]
        lines.append(f"{indent}{name:{first}}{parts[0]}".rstrip())
        lines += [f"{indent}{'':{first}}{part}" for part in parts[1:]]
    return "\n".join(lines)
