"""A trained network as a policy: what a training program returns, and a file holds.

A file is safetensors: weights, and a JSON header that names task, hyperparameters,
observation rows and package version. Loading it executes nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from dacrl_env.core import streams
from dacrl_env.kernels.elementary import logistic, tanh
from dacrl_env.outer.vector_env import PopulationEnv

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "tanh": tanh,
    "relu": lambda x: np.maximum(x, 0.0),
}
OUTPUTS = ("clip", "tanh", "argmax")
CLIP = 10.0  # normalised observations, as in Stable-Baselines3's VecNormalize
_MOST = 10**6  # decisions of a run, and of those that are seen at once
_EPSILON = 1e-8  # added to their variance, likewise

Arrays = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class About:
    """What a network sees and does.

    Args:
        action_mode: of the environment.
        hyperparameters: names of those it sets, in order.
        rows: names of the observation rows it sees, in order.
        history: decisions stacked in the observation.
        activation: of its hidden layers, "tanh" or "relu".
        output: what makes an action of its output: "clip" or "tanh" to [-1, 1], or
            "argmax".
        decisions: outer steps of a run that it was trained with.
        version: of the package that trained it.
    """

    action_mode: str
    hyperparameters: tuple[str, ...]
    rows: tuple[str, ...]
    history: int
    activation: str
    output: str
    decisions: int
    version: str

    def __post_init__(self) -> None:
        for name in ("hyperparameters", "rows"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple) or not all(
                isinstance(one, str) for one in value
            ):
                raise ValueError(f"{name} of a controller must be names, got {value!r}")
            object.__setattr__(self, name, tuple(value))
        for name in ("history", "decisions"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= _MOST:
                raise ValueError(
                    f"{name} of a controller must be a whole number from 1 to "
                    f"{_MOST:,}, got {value!r}"
                )
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"unknown activation {self.activation!r}; valid: "
                f"{', '.join(ACTIVATIONS)}"
            )
        if self.output not in OUTPUTS:
            raise ValueError(
                f"unknown output {self.output!r}; valid: {', '.join(OUTPUTS)}"
            )


class Controller:
    """A network that sets hyperparameters by what it observes; always its best guess.

    Args:
        about: what it sees and does, or the fields of an `About`.
        weights: by name, or as base64 of a safetensors file: ``mean`` and ``variance``
            ``(D,)`` of the observations; ``weight/k`` ``(in, out)`` and ``bias/k``
            ``(out,)`` of layer k; for a recurrent network also ``lstm/input``
            ``(in, 4 H)``, ``lstm/hidden`` ``(H, 4 H)`` and ``lstm/bias`` ``(4 H,)``,
            gates in torch's order (input, forget, cell, output).
        shuffle: a control: every member is shown what another, drawn anew for each
            decision, has observed.

    Raises:
        ValueError: weights that are damaged or do not fit together.
    """

    def __init__(
        self,
        about: About | Mapping[str, Any],
        weights: Arrays | str,
        shuffle: bool = False,
    ) -> None:
        self.about = about if isinstance(about, About) else About(**about)
        arrays = _decoded(weights) if isinstance(weights, str) else weights
        self.weights = {name: np.asarray(a, np.float32) for name, a in arrays.items()}
        self.shuffle = shuffle
        self.action_mode = self.about.action_mode
        self.controls = self.about.hyperparameters
        self.history = self.about.history
        self.decisions = self.about.decisions
        self._layers, self._lstm = self._checked()
        self._memory: tuple[Floats, Floats] | None = None

    def _checked(self) -> tuple[list[tuple[Floats, Floats]], list[Floats]]:
        """Layers, and the recurrent part, in double precision."""
        wide = {name: a.astype(np.float64) for name, a in self.weights.items()}
        if not all(np.isfinite(a).all() for a in wide.values()):
            raise ValueError("weights of a controller must be finite")
        count = sum(name.startswith("weight/") for name in wide)
        wanted = ["mean", "variance"]
        wanted += [f"{part}/{k}" for k in range(count) for part in ("weight", "bias")]
        recurrent = ["lstm/input", "lstm/hidden", "lstm/bias"]
        if any(name.startswith("lstm/") for name in wide):
            wanted += recurrent
        if set(wide) != set(wanted) or not count:
            odd = sorted(set(wide) ^ set(wanted)) or ["weight/0"]
            raise ValueError(
                f"weights of a controller missing or unknown: {', '.join(odd)}"
            )
        lstm = [wide[name] for name in recurrent if name in wide]
        layers = [(wide[f"weight/{k}"], wide[f"bias/{k}"]) for k in range(count)]
        D = len(self.about.rows)
        outputs = len(self.about.hyperparameters)
        if self.about.output == "argmax":
            outputs = 3**outputs
        width = D
        if lstm:
            H = lstm[1].shape[0]
            shapes = [(D, 4 * H), (H, 4 * H), (4 * H,)]
            fits, width = [a.shape for a in lstm] == shapes, H
        else:
            fits = True
        for weight, bias in layers:
            fits &= weight.shape == (width, *bias.shape) and bias.ndim == 1
            width = len(bias)
        fits &= wide["mean"].shape == wide["variance"].shape == (D,)
        if not fits or width != outputs:
            raise ValueError(
                f"weights of a controller do not fit {D} observation rows, each other "
                f"and {outputs} outputs"
            )
        self._mean, self._scale = wide["mean"], np.sqrt(wide["variance"] + _EPSILON)
        return layers, lstm

    def arguments(self) -> dict[str, Any]:
        """What makes it again, as JSON values."""
        weights = base64.b64encode(save(self.weights)).decode()
        arguments = {"about": self.header(), "weights": weights}
        return {**arguments, "shuffle": True} if self.shuffle else arguments

    def shuffled(self) -> Controller:
        """The same network shown what others observe: a control."""
        return Controller(self.about, self.weights, shuffle=True)

    def header(self) -> dict[str, Any]:
        """Its `About` as JSON values."""
        fields = asdict(self.about)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Find the observation rows.

        Raises:
            ValueError: other hyperparameters or decisions, or missing rows.
        """
        names = envs.population.actions.names
        if tuple(names) != self.about.hyperparameters:
            raise ValueError(
                f"this controller sets {', '.join(self.about.hyperparameters)} in this "
                f"order; the environment controls {', '.join(names)}"
            )
        if envs.settings.action_mode != self.action_mode:
            raise ValueError(
                f"this controller acts in mode {self.action_mode!r}, the environment "
                f"in {envs.settings.action_mode!r}"
            )
        have = list(envs.observation_names)
        missing = [row for row in self.about.rows if row not in have]
        if missing:
            raise ValueError(
                f"this controller sees observation rows that {envs.settings.task.id} "
                f"does not have: {', '.join(missing)}; it has {', '.join(have)}"
            )
        self._columns = np.array([have.index(row) for row in self.about.rows])
        self._keys = envs.policy_keys[:1] if self.shuffle else None
        self._memory = None

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, d)``, or ``(P,)`` in discrete mode."""
        x, steps = observations[:, self._columns], infos["env_steps"]
        if self._keys is not None:
            x = x[streams.seen_by(self._keys, steps)]
        return self.decide(x, steps == 0)

    def decide(
        self, seen: NDArray[np.float32], fresh: NDArray[np.bool_] | None = None
    ) -> NDArray[Any]:
        """Actions ``(P, d)``, or ``(P,)`` in discrete mode.

        Args:
            seen: its observation rows ``(P, D)``.
            fresh: runs that begin ``(P,)``; needed by a recurrent network alone.
        """
        x = np.clip((seen.astype(np.float64) - self._mean) / self._scale, -CLIP, CLIP)
        if self._lstm:
            assert fresh is not None
            x = self._recur(x, fresh)
        activation = ACTIVATIONS[self.about.activation]
        *hidden, (weight, bias) = self._layers
        for w, b in hidden:
            x = activation(_product(x, w) + b)
        outputs = _product(x, weight) + bias
        if self.about.output == "argmax":
            return np.asarray(outputs.argmax(-1))
        if self.about.output == "tanh":
            return tanh(outputs)
        return np.clip(outputs, -1.0, 1.0)

    def _recur(self, x: Floats, fresh: NDArray[np.bool_]) -> Floats:
        """One step ``(P, D)`` to ``(P, H)`` of the recurrent part."""
        w_input, w_hidden, bias = self._lstm
        H = len(w_hidden)
        if self._memory is None:
            self._memory = np.zeros((len(x), H)), np.zeros((len(x), H))
        hidden, cell = (np.where(fresh[:, None], 0.0, m) for m in self._memory)
        gates = _product(x, w_input) + _product(hidden, w_hidden) + bias
        i, f, g, o = np.split(gates, 4, -1)
        cell = logistic(f) * cell + logistic(i) * tanh(g)
        hidden = logistic(o) * tanh(cell)
        self._memory = hidden, cell
        return hidden


def _product(x: Floats, weight: Floats) -> Floats:
    """``x @ weight`` for ``(P, D)``, each row by itself: no bit depends on the others.

    In a matrix product it would, and on a row's place.
    """
    return np.asarray((x[:, :, None] * weight).sum(1))


def _decoded(text: str) -> dict[str, NDArray[Any]]:
    try:
        arrays: dict[str, NDArray[Any]] = load(base64.b64decode(text, validate=True))
    except (ValueError, SafetensorError) as error:
        raise ValueError(f"weights of a controller are damaged: {error}") from error
    return arrays
