"""Tasks as search spaces of ConfigSpace, and back, for any tool that takes those.

ConfigSpace (Lindauer et al. 2019, "BOAH: a tool suite for multi-fidelity Bayesian
optimization and analysis of hyperparameters") is what SMAC, DEHB, Auto-PyTorch and
others search. This package does not need it::

    space = to_configspace("dacrl/DQN-CartPole-v0")
    configuration = space.sample_configuration()  # or what a tool suggests
    dacrl_env.evaluate("dacrl/DQN-CartPole-v0", Static(**values(configuration)), 4)

Numbers keep range, scale, default and whether they are integers, choices their options
and default. What a choice leaves without a meaning is a condition. ConfigSpace has no
scale that is logarithmic in one minus the value: such a number x is there as
``one_minus_x``, on a logarithmic scale, up to the least difference that counts. Events
are no part of a configuration.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dacrl_env.core import installed
from dacrl_env.core.checks import unknown
from dacrl_env.outer.settings import resolve
from dacrl_env.tasks import (
    LEAST_COMPLEMENT,
    Choice,
    Condition,
    Event,
    Knob,
    Number,
    Option,
    Scale,
    Task,
)

if TYPE_CHECKING:
    from ConfigSpace import Configuration, ConfigurationSpace

COMPLEMENT = "one_minus_"  # before the names of numbers near one


def to_configspace(
    task: str | Task,
    hyperparameters: str | Knob | Sequence[str | Knob] | None = None,
    seed: int | None = None,
    **options: Any,
) -> ConfigurationSpace:
    """What can be searched of a task.

    Args:
        task: id or task.
        hyperparameters: those to search, as `gymnasium.make` takes them; None: those
            that are controlled by default.
        seed: of the space's own draws.
        **options: of the environment, such as ``fixed``.

    Raises:
        ModuleNotFoundError: ConfigSpace is not installed.
        ValueError: an unknown name, or an event.
    """
    _require()
    from ConfigSpace import ConfigurationSpace

    if hyperparameters is not None:
        options["hyperparameters"] = hyperparameters
    searched = resolve(task, **options).controlled
    events = [h.name for h in searched if isinstance(h, Event)]
    if events:
        raise ValueError(
            f"{', '.join(events)}: events are no part of a configuration; leave them "
            "out of hyperparameters"
        )
    space = ConfigurationSpace(seed=seed)
    space.add([_parameter(h) for h in searched])
    for h in searched:
        known = {other.name for other in searched}
        if h.condition is not None and h.condition.choice in known:
            space.add(_condition(space, h))
    return space


def from_configspace(space: ConfigurationSpace) -> tuple[Knob, ...]:
    """A space as hyperparameters, for ``gymnasium.make(task, hyperparameters=...)``.

    Args:
        space: names are those of the task's algorithm.

    Raises:
        ValueError: something that cannot be expressed: ordinals, other distributions
            than uniform ones, weights, constants, forbidden combinations, conditions of
            other kinds than ``==`` and ``in`` one choice.
    """
    _require()
    if space.forbidden_clauses:
        raise ValueError(
            f"forbidden combinations cannot be expressed: {space.forbidden_clauses}"
        )
    conditions: dict[str, Condition] = {}
    for condition in space.conditions:
        child, found = _read_condition(condition)
        if child in conditions:
            raise ValueError(f"{child} has several conditions: {space.conditions}")
        conditions[child] = found
    return tuple(_knob(h, conditions.get(h.name)) for h in space.values())


def values(configuration: Configuration | Mapping[str, Any]) -> dict[str, Option]:
    """Values of a configuration by name, those that are active alone.

    They are what `dacrl_env.policies.static.Static` and ``env.to_action`` take.
    """
    result: dict[str, Option] = {}
    for name, value in dict(configuration).items():
        plain = value.item() if hasattr(value, "item") else value
        if name.startswith(COMPLEMENT):
            name = name.removeprefix(COMPLEMENT)
            plain = 1.0 if plain <= LEAST_COMPLEMENT else 1.0 - plain
        result[name] = plain
    return result


def _require() -> None:
    if importlib.util.find_spec("ConfigSpace") is None:
        raise installed.missing("smac", "search spaces need ConfigSpace")


def _parameter(knob: Knob) -> Any:
    from ConfigSpace import Categorical, Float, Integer

    if isinstance(knob, Choice):
        return Categorical(knob.name, knob.options, default=knob.default)
    assert isinstance(knob, Number)
    if knob.scale == "log_complement":
        most, least = 1.0 - knob.low, max(1.0 - knob.high, LEAST_COMPLEMENT)
        default = min(max(1.0 - knob.default, least), most)
        name = f"{COMPLEMENT}{knob.name}"
        return Float(name, (least, most), default=default, log=True)
    log = knob.scale == "log"
    if knob.integer:
        bounds = int(knob.low), int(knob.high)
        return Integer(knob.name, bounds, default=int(knob.default), log=log)
    return Float(knob.name, (knob.low, knob.high), default=knob.default, log=log)


def _condition(space: ConfigurationSpace, knob: Knob) -> Any:
    from ConfigSpace import InCondition

    assert knob.condition is not None
    name = knob.name
    if isinstance(knob, Number) and knob.scale == "log_complement":
        name = f"{COMPLEMENT}{name}"
    parent: Any = space[knob.condition.choice]
    options = [option for option in knob.condition.options if option in parent.choices]
    if not options:
        raise ValueError(
            f"{name} has no meaning with any option of {parent.name} that is searched, "
            f"{', '.join(map(repr, parent.choices))}; leave it out of hyperparameters"
        )
    return InCondition(space[name], parent, options)


def _read_condition(condition: Any) -> tuple[str, Condition]:
    from ConfigSpace import EqualsCondition, InCondition

    if isinstance(condition, EqualsCondition):
        options: Any = (condition.value,)
    elif isinstance(condition, InCondition):
        options = tuple(condition.values)
    else:
        raise ValueError(
            f"a condition of kind {type(condition).__name__} cannot be expressed: "
            f"{condition}; == and in of one choice can"
        )
    return condition.child.name, Condition(condition.parent.name, _plain(options))


def _knob(parameter: Any, condition: Condition | None) -> Knob:
    from ConfigSpace import (
        CategoricalHyperparameter,
        UniformFloatHyperparameter,
        UniformIntegerHyperparameter,
    )

    name = parameter.name
    if isinstance(parameter, CategoricalHyperparameter):
        if parameter.weights is not None:
            raise ValueError(f"weights of {name} cannot be expressed")
        options = _plain(parameter.choices)
        (default,) = _plain([parameter.default_value])
        return Choice(name, options, default, condition)
    if not isinstance(
        parameter, UniformFloatHyperparameter | UniformIntegerHyperparameter
    ):
        kinds = ("uniform floats", "uniform integers", "categories")
        kind = type(parameter).__name__.removesuffix("Hyperparameter")
        raise ValueError(f"{name} cannot be expressed: {unknown('kind', kind, kinds)}")
    low, high, default = (
        float(x) for x in (parameter.lower, parameter.upper, parameter.default_value)
    )
    if name.startswith(COMPLEMENT):
        if not parameter.log:
            raise ValueError(f"{name} must have a logarithmic scale")
        top = 1.0 if low <= LEAST_COMPLEMENT else 1.0 - low
        default = 1.0 if default <= LEAST_COMPLEMENT else 1.0 - default
        return Number(
            name.removeprefix(COMPLEMENT), 1.0 - high, top, default, "log_complement",
            condition=condition,
        )  # fmt: skip
    integer = isinstance(parameter, UniformIntegerHyperparameter)
    scale: Scale = "log" if parameter.log else "linear"
    return Number(name, low, high, default, scale, integer, condition)


def _plain(given: Sequence[Any]) -> tuple[Option, ...]:
    """Options without numpy's own types."""
    return tuple(x.item() if hasattr(x, "item") else x for x in given)
