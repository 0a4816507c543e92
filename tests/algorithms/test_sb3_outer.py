"""Stable-Baselines3 as a learner: snapshots, outer environments, configuration."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import textwrap
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch
from cases import quick, sb3_n_steps
from gymnasium.utils.env_checker import check_env
from sb3_runs import (
    ALGORITHMS,
    DQN_ID,
    OPTIONS,
    cartpole,
    make,
    single,
    vector,
)
from sb3_runs import globals_kept as _globals_kept  # noqa: F401 (a fixture)

import dacrl_env
from dacrl_env.algorithms.sb3 import arguments
from dacrl_env.algorithms.sb3.envs import MemberEnvs
from dacrl_env.core import streams
from dacrl_env.core.snapshot import Snapshot, SnapshotNotSupported, leaves
from dacrl_env.inner_envs.env import ENVS
from dacrl_env.tasks.registration import TASKS as REGISTERED
from dacrl_env.tasks.registration import get_task, load_learner

# -- snapshots, fork -------------------------------------------------------------


def learner_rows(env: Any, everything: bool = True) -> dict[str, bytes]:
    """Without everything: not the episodes, nor how they end in the replay."""
    state = env.population.state.learner
    episodes = ("envs.", "replay.dones", "replay.timeouts")
    return {
        name: np.asarray(leaf).tobytes()
        for name, leaf in leaves(state)
        if everything or not name.startswith(episodes)
    }


@pytest.mark.parametrize("name", quick(ALGORITHMS, "dqn", "ppo"))
def test_exact_snapshots_are_not_promised(name: str) -> None:
    env = single(name)
    env.reset(seed=0)
    before = learner_rows(env)
    with pytest.raises(SnapshotNotSupported, match="exact=False"):
        env.snapshot()
    assert learner_rows(env) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_learner_snapshots(name: str, tmp_path: Path) -> None:
    a, b = single(name), single(name)
    a.reset(seed=0)
    b.reset(seed=1)
    for _ in range(2):
        a.step(np.full(3, 0.2))
    b.step(np.full(3, -0.5))
    path = tmp_path / "run.safetensors"
    snap = a.snapshot(exact=False)
    snap.save(path)
    before = learner_rows(a, everything=False)
    a.restore(snap)
    b.restore(Snapshot.load(path))
    for env in (a, b):
        assert learner_rows(env, everything=False) == before
    assert learner_rows(a) == learner_rows(b)
    here = [env.step(np.full(3, 0.1)) for env in (a, b)]
    assert learner_rows(a) == learner_rows(b)
    assert learner_rows(a, everything=False) != before
    assert (here[0][0] == here[1][0]).all()
    there = elsewhere(name, path)
    assert there["observation"] == here[0][0].tolist()
    parameters = a.population.state.learner.parameters[0]
    assert there["parameters"] == parameters.tolist()


def elsewhere(name: str, path: Path) -> dict[str, Any]:
    """The same continuation in another process."""
    program = """
        import json, sys
        import numpy as np
        sys.path[:0] = [sys.argv[1], f"{sys.argv[1]}/.."]
        import sb3_runs as here
        from dacrl_env.core.snapshot import Snapshot
        env = here.single(sys.argv[2])
        env.restore(Snapshot.load(sys.argv[3]))
        observation = env.step(np.full(3, 0.1))[0]
        parameters = env.population.state.learner.parameters[0]
        print(json.dumps({
            "observation": observation.tolist(), "parameters": parameters.tolist()
        }))
    """
    directory = str(Path(__file__).parent)
    command = [sys.executable, "-c", textwrap.dedent(program), directory, name, path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_snapshots_of_the_two_implementations_do_not_mix() -> None:
    ours, theirs = single("dqn", implementation="compiled"), single("dqn")
    for env in (ours, theirs):
        env.reset(seed=0)
    with pytest.raises(dacrl_env.SnapshotError, match="sb3_kwargs"):
        ours.restore(theirs.snapshot(exact=False))


@pytest.mark.parametrize("name", quick(ALGORITHMS, "dqn"))
@pytest.mark.parametrize("shared", [False, True])
def test_fork(name: str, shared: bool) -> None:
    envs = vector(name)
    envs.reset(seed=0)
    envs.step(np.zeros((3, 3)))
    other = {n: np.asarray(v[2]).copy() for n, v in leaves(envs.population.state)}
    envs.fork([0, 0, 2], shared_streams=shared)
    learner = envs.population.state.learner
    assert torch.equal(learner.parameters[0], learner.parameters[1])
    assert torch.equal(learner.optimizer.moments[0], learner.optimizer.moments[1])
    for n, v in leaves(envs.population.state):
        assert (np.asarray(v[2]).tobytes()) == other[n].tobytes(), n
    envs.step(np.zeros((3, 3)))
    same = torch.equal(learner.parameters[0], learner.parameters[1])
    assert same == shared
    draws = learner.generators.numpy
    assert (draws[0] == draws[1]).all() == shared
    # the new streams go on from decision to decision, they do not start again
    assert (learner.generators.keys == streams.of(learner.keys, "init")).all()
    first = draws[1].copy()
    envs.step(np.zeros((3, 3)))
    assert (draws[1] != first).any()


# -- the outer environments ------------------------------------------------------


def test_gymnasium_checker() -> None:
    env = gym.make(
        DQN_ID, implementation="sb3", budget=2000, learning_starts=100, eval_episodes=2
    )
    check_env(env.unwrapped, skip_render_check=True)


@pytest.mark.parametrize("name", quick(ALGORITHMS, "dqn", "ppo"))
def test_silent(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = single(name)
        env.reset(seed=0)
        for _ in range(4):
            env.step(env.action_space.sample())
    assert capfd.readouterr() == ("", "")


def test_make_vec_members_are_single_environments() -> None:
    options: dict[str, Any] = {
        "implementation": "sb3",
        "eval_episodes": 2,
        **OPTIONS["dqn"],
    }
    envs = gym.make_vec(DQN_ID, num_envs=2, **options)
    env = gym.make(DQN_ID, **options)
    many, _ = envs.reset(seed=[4, 5])
    one, _ = env.reset(seed=5)
    actions = np.array([[0.3, 0.0, -0.3], [0.1, -0.2, 0.4]], np.float32)
    assert (many[1] == one).all()
    for _ in range(4):
        many, rewards, ended, _, infos = envs.step(actions)
        one, reward, over, _, info = env.step(actions[1])
        assert rewards[1] == reward
        assert ended[1] == over
    assert (infos["final_obs"][1] == one).all()
    assert (
        infos["final_info"]["objectives"]["samples"][1]
        == (info["objectives"]["samples"])
    )


@pytest.mark.parametrize("name", quick(ALGORITHMS, "dqn", "ppo"))
def test_seeds(name: str) -> None:
    env = single(name)

    def run(seed: int) -> list[list[float]]:
        env.reset(seed=seed)
        return [env.step(np.full(3, 0.1))[0].tolist() for _ in range(2)]

    first = run(3)
    assert run(4) != first
    assert run(3) == first


def test_physics_reach_the_environments() -> None:
    heavy = cartpole()
    heavy.physics = {**heavy.physics, "gravity": 3.0}
    a, b = (make("dqn", env=env) for env in (cartpole(), heavy))
    for runs in (a, b):
        runs.train(10)
    assert "envs.variables" in a.differences(b)


def test_continuous_actions() -> None:
    env = ENVS["Pendulum-v1"]()
    runs = make("ppo", env=env)
    runs.train(48)
    assert runs.state.gradient_steps[0] > 0
    assert arguments.of(runs.learner.config, env)["policy"] == "MlpPolicy"
    returns, steps = runs.learner.play(
        runs.state,
        np.array([0]),
        np.array([[3]], np.uint64),
        np.array([[*env.physics.values()]]),
    )
    assert steps.tolist() == [200]
    assert returns[0, 0] < 0


@pytest.mark.slow
def test_bytes_are_fed_as_they_are() -> None:
    runs = make("dqn", env=ENVS["MiniGrid-Empty-5x5-v0"](), replay_capacity=100)
    runs.train(60)
    assert runs.state.replay.observations.dtype == np.uint8
    with runs.learner.off_policy.loaded(runs.state, 0) as model, torch.no_grad():
        seen = torch.from_numpy(runs.state.replay.observations[0, :1, 0])
        layers = model.q_net.q_net
        inputs = seen.float().flatten(1)
        assert inputs.max() > 1
        assert torch.equal(model.q_net(seen), layers(inputs))


# -- configuration ---------------------------------------------------------------


def test_fields_are_those_of_our_own_learners() -> None:
    """A new field needs a decision in algorithms/sb3: passed on, or refused."""
    known = {
        "dqn": {
            "hidden_sizes",
            "num_inner_envs",
            "activation",
            "replay_capacity",
            "learning_starts",
            "conv_channels",
            "normalize_observations",
            "fourier_features",
            "fourier_scale",
        },
        "ppo": {
            "hidden_sizes",
            "num_inner_envs",
            "activation",
            "rollout_length",
            "normalize_observations",
            "normalize_rewards",
            "normalize_advantages",
            "clip_range_vf",
            "conv_channels",
            "fourier_features",
            "fourier_scale",
        },
        "sac": {
            "hidden_sizes",
            "num_inner_envs",
            "activation",
            "replay_capacity",
            "learning_starts",
            "held_starts",
        },
    }
    for name in ALGORITHMS:
        config = load_learner(name, "compiled").config_class
        assert {f.name for f in fields(config)} == known[name]
        ours = {f.name for f in fields(load_learner(name, "sb3").config_class)}
        assert ours == known[name] | {"sb3_kwargs"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dqn", {"fixed": {"double_q": True}}, r"pass fixed={'double_q': False}"),
        ("dqn", {"fixed": {"loss": "mse"}}, "only loss='huber'"),
        ("dqn", {"hyperparameters": ["priority_alpha"]}, "only priority_alpha=0.0"),
        ("dqn", {"hyperparameters": ["n_step"]}, "n_step cannot change during a run"),
        ("ppo", {"normalize_observations": True}, "pass normalize_observations=False"),
        ("ppo", {"normalize_rewards": True}, "pass normalize_rewards=False"),
        ("dqn", {"normalize_observations": True}, "pass normalize_observations=False"),
        ("dqn", {"fourier_features": 8}, "must be 0 with.*pass fourier_features=0"),
        ("dqn", {"conv_channels": 16}, r"those of this inner environment are \(4,\)"),
        ("ppo", {"conv_channels": 16}, r"those of this inner environment are \(4,\)"),
        (
            "dqn",
            {"conv_channels": 16, "sb3_kwargs": {"policy": "CnnPolicy"}},
            "no room for policy 'CnnPolicy'",
        ),
        (
            "ppo",
            {
                "conv_channels": 16,
                "sb3_kwargs": {"policy_kwargs": {"share_features_extractor": True}},
            },
            "no room for policy_kwargs 'share_features_extractor'",
        ),
        ("dqn", {"activation": "gelu"}, "valid: relu, tanh"),
        ("dqn", {"sb3_kwargs": {"learning_rate": 1}}, "hyperparameter learning_rate"),
        ("dqn", {"sb3_kwargs": {"buffer_size": 1}}, "replay_capacity"),
        ("ppo", {"sb3_kwargs": {"n_steps": 1}}, "rollout_length"),
        ("ppo", {"sb3_kwargs": {"seed": 1}}, "the run's streams"),
        ("ppo", {"sb3_kwargs": {"tua": 1}}, "unknown 'tua'.*use_sde"),
        ("dqn", {"sb3_kwargs": [1]}, "of type Mapping"),
        ("sac", {"hyperparameters": ["priority_alpha"]}, "only priority_alpha=0.0"),
        ("sac", {"hyperparameters": ["n_step"]}, "n_step cannot change during a run"),
        ("sac", {"hyperparameters": ["checkpoint"]}, "only checkpoint='none'"),
        ("sac", {"sb3_kwargs": {"ent_coef": 0.1}}, "ent_rule and alpha"),
        ("sac", {"sb3_kwargs": {"target_entropy": -1}}, "parameter target_entropy"),
        ("sac", {"sb3_kwargs": {"action_noise": None}}, "the actor explores"),
        ("sac", {"sb3_kwargs": {"max_grad_norm": 1}}, "unknown 'max_grad_norm'"),
        ("dqn", {"sb3_kwargs": {"policy": lambda: None}}, "names of classes"),
        ("dqn", {"hidden": 1}, "unknown option 'hidden'.*sb3_kwargs"),
    ],
)
def test_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        single(name, **options)


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize(("steps", "envs"), [(1, 1), (1, 3), (2, 1)])
def test_rollouts_may_be_short(steps: int, envs: int, normalized: bool) -> None:
    """A single step's advantage stays as it is, as in this package's own learner."""
    options = {
        "rollout_length": steps,
        "num_inner_envs": envs,
        "normalize_advantages": normalized,
        "budget": 12,
        "decision_interval": 6,
        "eval_episodes": 1,
    }
    env = gym.make("dacrl/PPO-CartPole-v0", implementation="sb3", **options)
    env.reset(seed=0)
    _, _, _, _, info = env.step(np.zeros(3))
    assert info["env_steps"] == 6
    assert not info["diverged"]


DOUBLE_Q = [t.id for t in REGISTERED.values() if t.defaults.get("double_q")]
WITHOUT = {"double_q": False}


@sb3_n_steps  # these tasks have them, too
@pytest.mark.slow
@pytest.mark.parametrize("task", DOUBLE_Q)
def test_what_tasks_have_set_that_sb3_lacks_is_told_at_once(task: str) -> None:
    """The task has set it, not the user, who therefore has to be told."""
    lacking = "has only double_q=False.*pass fixed="
    for make_env in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=lacking) as caught:
            make_env(task, implementation="sb3")
    fixed = ast.literal_eval(str(caught.value).partition("fixed=")[2])
    env: Any = gym.make(task, implementation="sb3", fixed=fixed).unwrapped
    used = {h.name: h.default for h in env.settings.hyperparameters}
    given = get_task(task).defaults
    assert {name: used[name] for name in given} == {**given, **fixed}


@pytest.mark.slow
@sb3_n_steps
def test_a_task_with_double_q_runs_without_it() -> None:
    env: Any = gym.make(
        "dacrl/DQN-Acrobot-v0",
        implementation="sb3",
        fixed=WITHOUT,
        budget=400,
        decision_interval=200,
        learning_starts=100,
        eval_episodes=1,
    ).unwrapped
    env.reset(seed=0)
    ended = False
    while not ended:
        *_, ended, _, info = env.step(np.zeros(3))
    assert info["env_steps"] == 400
    assert info["gradient_steps"] == 75  # one every 4 steps, after the first 100
    assert env.population.learner.model.replay_buffer.n_steps == 3


def test_n_step_needs_a_stable_baselines3_that_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Older(stable_baselines3.DQN):
        def __init__(self, policy: Any, env: Any, tau: float = 1.0) -> None:
            """As far as the names of arguments go."""

    monkeypatch.setattr(stable_baselines3, "DQN", Older)
    with pytest.raises(ValueError, match=r"n_step=3 .* 2\.7 or newer"):
        make("dqn", n_step=3)


@pytest.mark.parametrize(
    ("call", "given"),
    [
        ("get_attr", ("gravity",)),
        ("set_attr", ("gravity", 1.0)),
        ("env_method", ("render",)),
    ],
)
def test_unsupported_calls_are_named(call: str, given: tuple[Any, ...]) -> None:
    venv = MemberEnvs(cartpole(), 2)
    assert venv.get_attr("render_mode") == [None, None]
    with pytest.raises(AttributeError, match=rf"{call}\('{given[0]}'\)"):
        getattr(venv, call)(*given)
    assert not venv.has_attr("gravity")


def test_unknown_implementation() -> None:
    with pytest.raises(ValueError, match="valid: compiled, sb3"):
        single("dqn", implementation="tianshou")


@pytest.mark.parametrize("name", quick(ALGORITHMS, "dqn"))
@pytest.mark.parametrize("named", [False, True])
def test_any_configuration(name: str, named: bool, tmp_path: Path) -> None:
    policy = {
        "activation_fn": "torch.nn.modules.activation:ELU" if named else torch.nn.ELU,
        "optimizer_class": "torch.optim.sgd:SGD" if named else torch.optim.SGD,
        "optimizer_kwargs": {"momentum": 0.5},
        "net_arch": [5, 3],
    }
    a, b = (single(name, sb3_kwargs={"policy_kwargs": policy}) for _ in range(2))
    model = a.population.learner.model
    assert "ELU" in str(model.policy)
    own = model.actor if name == "sac" else model.policy
    assert isinstance(own.optimizer, torch.optim.SGD)
    sizes = [tuple(p.shape) for p in model.policy.parameters() if p.dim() == 2]
    assert (3, 5) in sizes
    a.reset(seed=0)
    for _ in range(2):
        a.step(np.zeros(3))
    learner = a.population.state.learner
    assert learner.optimizer.started.all()
    momentum = learner.optimizer.moments
    # the temperature is one number, with two moments of Adam
    more = 1 if name == "sac" else 0
    assert momentum.shape[1] == learner.parameters.shape[1] + more
    assert momentum.abs().sum() > 0
    path = tmp_path / "run.safetensors"
    a.snapshot(exact=False).save(path)
    for env in (a, b):
        env.restore(Snapshot.load(path))
        env.step(np.zeros(3))
    assert learner_rows(a) == learner_rows(b)


def test_static_choices_are_passed_on() -> None:
    model = make("dqn", num_inner_envs=2).learner.model
    assert model.learning_starts == 20
    assert model.n_envs == 2
    model = make("ppo").learner.model
    assert model.clip_range_vf is None
    assert model.normalize_advantage
    assert model.n_steps == 8
    other = {"clip_range_vf": 0.1, "normalize_advantages": False}
    model = make("ppo", activation="relu", **other).learner.model
    assert model.clip_range_vf(1.0) == 0.1
    assert not model.normalize_advantage
    assert "ReLU" in str(model.policy)


def test_soft_targets() -> None:
    runs = make("dqn", tau=0.5, target_update_interval=1)
    runs.train(60)
    assert not torch.equal(runs.state.target, runs.state.parameters)
    hard = make("dqn", target_update_interval=1, train_freq=256)
    hard.train(60)
    assert torch.equal(hard.state.target, hard.state.parameters)


def test_early_stopping_is_charged_for_what_it_used() -> None:
    # the first minibatch has no divergence yet, the second has
    options = {"batch_size": 6, "stop_early": True, "target_kl": 1e-12}
    runs = make("ppo", **options)
    runs.train(16)
    assert runs.interval.updates.tolist() == [1]
    assert runs.interval.samples.tolist() == [6]
    full = make("ppo", batch_size=6)
    full.train(16)
    assert full.interval.updates.tolist() == [9]
    assert full.interval.samples.tolist() == [48]


def test_batch_norms_are_part_of_the_state() -> None:
    kwargs = {"policy": "test_sb3_outer:Normed"}
    runs = make("dqn", [0, 1], sb3_kwargs=kwargs)
    cut = make("dqn", [0, 1], sb3_kwargs=kwargs)
    assert runs.state.buffers.shape[1] > 0
    start = runs.state.buffers.copy()
    runs.train(60)
    cut.train(25)
    cut.train(35)
    assert (runs.state.buffers != start).any(1).all()
    assert runs.differences(cut, 0) == runs.differences(cut, 1) == []


def __getattr__(name: str) -> Any:
    """A policy with batch norms, made when it is asked for."""
    if name != "Normed":
        raise AttributeError(name)
    from stable_baselines3.common.torch_layers import FlattenExtractor
    from stable_baselines3.dqn.policies import DQNPolicy

    class Extractor(FlattenExtractor):
        def __init__(self, space: Any) -> None:
            super().__init__(space)
            self.norm = torch.nn.BatchNorm1d(self.features_dim)

        def forward(self, observations: torch.Tensor) -> torch.Tensor:
            return self.norm(super().forward(observations))

    class Normed(DQNPolicy):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs, features_extractor_class=Extractor)

    return Normed
