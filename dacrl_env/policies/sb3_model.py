"""Models that Stable-Baselines3 has trained on these environments, as policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.outer.settings import Settings

if TYPE_CHECKING:
    from dacrl_env.outer.vector_env import PopulationEnv


class SB3Policy:
    """What a model's ``predict`` says, without its exploration.

    The model and the moments of its observations are copied: training that goes on
    changes nothing here. It cannot be written to a policy file.

    Args:
        model: of Stable-Baselines3 or sb3-contrib, any algorithm, recurrent or not.
        normalize: the ``VecNormalize`` that it was trained behind; None: that of the
            model's environment, if it has one.
        action_mode: of the environment that it was trained on, with what follows; None:
            as the model's environment has it. A model that was loaded without its
            environment needs all of them.
        hyperparameters: names of those it sets, in order.
        decisions: outer steps of a run.
        history: decisions stacked in an observation; 1 where it is not given.

    Raises:
        ValueError: an environment of another kind, or none, and something is not given.
    """

    def __init__(
        self,
        model: Any,
        normalize: Any = None,
        *,
        action_mode: str | None = None,
        hyperparameters: Sequence[str] | None = None,
        decisions: int | None = None,
        history: int | None = None,
    ) -> None:
        settings, found = _trained_on(model)
        normalize = found if normalize is None else normalize
        given: dict[str, Any] = {
            "action_mode": action_mode,
            "hyperparameters": hyperparameters,
            "decisions": decisions,
        }
        if settings is not None:
            own = {
                "action_mode": settings.action_mode,
                "hyperparameters": tuple(h.name for h in settings.controlled),
                "decisions": settings.budget // settings.decision_interval,
            }
            given = {k: own[k] if v is None else v for k, v in given.items()}
            history = settings.history if history is None else history
        missing = [name for name, value in given.items() if value is None]
        if missing:
            raise ValueError(
                f"{type(model).__name__} has no environment of dacrl_env, so that "
                f"{', '.join(missing)} must be given"
            )
        self.action_mode = str(given["action_mode"])
        self.controls = tuple(given["hyperparameters"])
        self.decisions = int(given["decisions"])
        self.history = 1 if history is None else int(history)
        self.algorithm = type(model).__name__
        self._spaces = model.observation_space, model.action_space
        self._policy = _made(*_parts(model.policy))
        self._moments = None
        if normalize is not None and normalize.norm_obs:
            moments, epsilon = normalize.obs_rms, normalize.epsilon
            scale = np.sqrt(moments.var + epsilon)
            self._moments = moments.mean.copy(), scale, float(normalize.clip_obs)
        self._memory: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """A network that has been used has tensors which cannot be copied."""
        return {**vars(self), "_policy": _parts(self._policy), "_memory": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._policy = _made(*self._policy)

    def reset(self, envs: PopulationEnv, seed: int) -> None:
        """Begin without memory.

        Raises:
            ValueError: spaces of observations or actions that the model does not have.
        """
        self._memory = None
        theirs = envs.single_observation_space, envs.single_action_space
        for what, own, other in zip(
            ("observations", "actions"), self._spaces, theirs, strict=True
        ):
            if own.shape != other.shape or type(own) is not type(other):
                raise ValueError(
                    f"this {self.algorithm} has {what} of {own}, the task of {other}"
                )

    def act(
        self, observations: NDArray[np.float32], infos: Mapping[str, Any]
    ) -> NDArray[Any]:
        """Actions ``(P, …)``; a member whose run begins has no memory."""
        if self._moments is not None:
            mean, scale, most = self._moments
            seen = np.clip((observations - mean) / scale, -most, most)
            observations = seen.astype(np.float32)
        begins = np.asarray(infos["env_steps"]) == 0
        actions, self._memory = self._policy.predict(
            observations, self._memory, begins, deterministic=True
        )
        return np.asarray(actions)


from_sb3 = SB3Policy
"""A model as a policy, as `compare` and `evaluate` make one of what they are given."""


def _parts(policy: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Class, arguments and weights of a network, as Stable-Baselines3 saves one."""
    weights = {
        name: w.detach().cpu().clone() for name, w in policy.state_dict().items()
    }
    return type(policy), policy._get_constructor_parameters(), weights


def _made(kind: Any, arguments: dict[str, Any], weights: dict[str, Any]) -> Any:
    made = kind(**arguments)
    made.load_state_dict(weights)
    made.set_training_mode(False)
    return made


def _trained_on(model: Any) -> tuple[Settings | None, Any]:
    """Settings of a model's environment, and its VecNormalize; None: it has none."""
    venv, normalize = model.get_env(), model.get_vec_normalize_env()
    while hasattr(venv, "venv"):
        venv = venv.venv
    inner = getattr(venv, "envs", None)  # a population, or a list
    if isinstance(inner, list):
        inner = inner[0] if inner else None
    inner = getattr(inner, "unwrapped", inner)
    population = getattr(inner, "population", None)
    settings = getattr(population, "settings", None)
    return settings if isinstance(settings, Settings) else None, normalize


def is_model(thing: Any) -> bool:
    """Whether something is a model of Stable-Baselines3; imports nothing for it."""
    names = {f"{k.__module__}:{k.__name__}" for k in type(thing).__mro__}
    return "stable_baselines3.common.base_class:BaseAlgorithm" in names
