"""A configuration in which some values follow curves and the others stay.

What people tune by hand looks like this: every entry of Stable-Baselines3's Zoo sets
some hyperparameters and lets others fall over the run (Raffin 2020, "RL Baselines3
Zoo", github.com/DLR-RM/rl-baselines3-zoo).
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.policies.schedules import SHAPES, Curve, wanted
from dacrl_env.policies.static import extremes
from dacrl_env.tasks import Option

_ZOO = "lin_"  # how the Zoo writes a straight line to zero
_EXAMPLE = "linear(1e-3, 1e-5, fraction=0.5)"


class Combined:
    """Some hyperparameters follow curves, others have one value, the rest defaults.

    As a text: ``combined,learning_rate=linear(1e-3,1e-5),batch_size=128`` with curves
    that read ``shape(start, end, fraction=1.0, stairs=4)``. ``lin_0.001`` is a straight
    line to zero, as the Zoo writes it; it ends at the lowest value that there is.

    Args:
        decisions: outer steps a run, if there are curves; values hold in between. None:
            100, or the nearest number that runs can have.
        **config: name to a number, an option of a choice, or a curve: a dict of
            its arguments, a text as above, or a Curve.

    Raises:
        ValueError: something that is neither a number nor a curve; at `reset`, unknown
            names or values out of range.
    """

    action_mode = "values"

    def __init__(self, decisions: int | None = None, **config: Any) -> None:
        read = {name: _read(name, value) for name, value in config.items()}
        self.constants = {n: v for n, v in read.items() if not isinstance(v, Curve)}
        self.curves = {n: v for n, v in read.items() if isinstance(v, Curve)}
        # lines to zero, which end where the range does
        self.capped = [n for n, v in config.items() if _is_zoo(v)]
        self.hyperparameters = tuple(config)
        self.extremes = extremes({n: (v,) for n, v in self.constants.items()})
        for name, curve in self.curves.items():
            low, high = curve.extremes
            self.extremes[name] = (high if name in self.capped else low, high)
        self.given = decisions
        self.decisions, self.decisions_near = wanted(decisions)
        if not self.curves:
            self.decisions = self.decisions_near = None

    def arguments(self) -> dict[str, Any]:
        """What makes it again, as JSON values."""
        written: dict[str, Any] = {}
        for name in self.hyperparameters:
            curve = self.curves.get(name)
            if curve is None:
                written[name] = self.constants[name]
            elif name in self.capped:
                written[name] = f"{_ZOO}{curve.start!r}"
            else:
                about = {f.name: getattr(curve, f.name) for f in fields(Curve)}
                default = {f.name: f.default for f in fields(Curve)}
                written[name] = {k: v for k, v in about.items() if v != default[k]}
        return written if self.given is None else {"decisions": self.given, **written}

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Check all values that will be applied."""
        self.envs = envs
        settings = envs.settings
        envs.to_actions(self.constants)
        at = np.arange(0, settings.budget, settings.decision_interval)
        for name, values in self._values(at / settings.budget).items():
            settings.number(name).check(values)

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, d)`` for the values at each member's progress."""
        progress = infos["env_steps"] / self.envs.settings.budget
        return self.envs.to_actions({**self.constants, **self._values(progress)})

    def _values(self, progress: Any) -> dict[str, NDArray[np.float64]]:
        """What the curves say at shares of the budget ``(n,)``, each ``(n,)``."""
        found = {name: curve.values(progress) for name, curve in self.curves.items()}
        for name in self.capped:
            least = self.envs.settings.number(name).low
            found[name] = np.maximum(found[name], least)
        return found


def _read(name: str, value: Any) -> Option | Curve:
    """A number, an option of a choice, or a curve.

    Raises:
        ValueError: it is neither.
    """
    try:
        if isinstance(value, Curve):
            return value
        if isinstance(value, Mapping):
            return Curve(**value)
        if _is_zoo(value):
            return Curve("linear", float(value.removeprefix(_ZOO)), 0.0)
        if isinstance(value, bool | np.bool_):
            return bool(value)
        if isinstance(value, str):
            # a name by itself is an option of a choice, see `reset`
            return value if value.isidentifier() else _curve(value)
        if isinstance(value, int | float | np.number) and math.isfinite(value):
            return int(value) if isinstance(value, int | np.integer) else float(value)
        raise TypeError("neither")
    except (TypeError, SyntaxError) as error:
        raise ValueError(
            f"{name} must be a number or a curve such as {_EXAMPLE}, got {value!r}; "
            f"shapes: {', '.join(SHAPES)}"
        ) from error
    except ValueError as error:
        raise ValueError(f"{name}={value}: {error}") from error


def _is_zoo(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(_ZOO)


def _curve(text: str) -> Curve:
    """A curve as it is called: ``shape(start, end, …)``."""
    call = ast.parse(text.strip(), mode="eval").body
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise TypeError("no call")
    try:
        arguments = [ast.literal_eval(value) for value in call.args]
        keywords = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except ValueError:
        raise TypeError("no literals") from None
    return Curve(call.func.id, *arguments, **keywords)
