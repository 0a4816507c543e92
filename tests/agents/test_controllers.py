"""Controllers: training programs, policy files, and what they see."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from cases import quick, slow
from dacrl_env.agents import checkpoints
from dacrl_env.agents.training import Seen, divisor
from safetensors import safe_open
from safetensors.numpy import save, save_file

import dacrl_env
from dacrl_env.cli.commands import main
from dacrl_env.comparison.evaluation import suitable_options
from dacrl_env.core.store import Store, StoreError
from dacrl_env.integrations.sb3 import to_sb3
from dacrl_env.outer.vector_env import PopulationEnv
from dacrl_env.policies import (
    METHODS,
    Cost,
    Fitted,
    from_json,
    get_method,
    get_policy,
    identity,
    load_fitted,
    pretrained,
    protocol,
    save_fitted,
    to_json,
)
from dacrl_env.policies.network import About, Controller
from dacrl_env.policies.switch import Switch
from dacrl_env.tasks.registration import get_task
from dacrl_env.tasks.rungs import RUNGS

TASK = "dacrl/DQN-CartPole-v0"
QUADRATIC = "dacrl/NoisyQuadratic-v0"
PROGRAMS = [name for name in METHODS if name.startswith("controller-")]
# a run of the quadratic takes 50 steps
SMALL = "population=4,trial_runs=4,trials=2,hidden_sizes=(8,)"
BUDGET = 4 * 50 * 8
MORE = {
    "controller-ppo": "",
    "controller-sac": ",gradient_steps=1,batch_size=16",
    "controller-dqn": ",gradient_steps=1,batch_size=16",
    "controller-recurrent-ppo": ",lstm_size=6,n_epochs=1",
}


def spec_of(name: str, more: str = "") -> str:
    if name == "controller-recurrent-ppo":
        pytest.importorskip("sb3_contrib", reason="needs the extra 'recurrent'")
    return f"{name},{SMALL}{MORE[name]}{more}"


def controller(
    D: int = 3, output: str = "clip", seed: int = 0, rows: tuple[str, ...] = ()
) -> Controller:
    """A small network on the first rows of DQN-CartPole."""
    generator = np.random.default_rng(seed)
    names = ("learning_rate", "epsilon", "batch_size")
    rows = rows or ("progress", "return/now", "signal/loss")[:D]
    outputs = 27 if output == "argmax" else 3
    weights = {
        "mean": generator.normal(size=len(rows)),
        "variance": generator.random(len(rows)) + 0.5,
        "weight/0": generator.normal(size=(len(rows), 5)),
        "bias/0": generator.normal(size=5),
        "weight/1": generator.normal(size=(5, outputs)),
        "bias/1": generator.normal(size=outputs),
    }
    mode = "discrete" if output == "argmax" else "relative"
    about = About(mode, names, rows, 1, "tanh", output, 20, "0")
    return Controller(about, weights)


def environment(policy: Any, P: int = 4, **options: Any) -> PopulationEnv:
    task = get_task(TASK)
    options = {"budget": 2_000, "eval_episodes": 2, **options}
    return PopulationEnv(task, P, **suitable_options(policy, task, options))


# -- networks ------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["clip", "tanh", "argmax"])
def test_a_network_computes_what_its_weights_say(output: str) -> None:
    policy = controller(output=output)
    envs = environment(policy)
    observations, infos = envs.reset(seed=0)
    policy.reset(envs, 0)
    actions = policy.act(observations, infos)
    w = {k: a.astype(float) for k, a in policy.weights.items()}
    columns = [envs.observation_names.index(row) for row in policy.about.rows]
    x = (observations[:, columns] - w["mean"]) / np.sqrt(w["variance"] + 1e-8)
    x = np.tanh(np.clip(x, -10, 10) @ w["weight/0"] + w["bias/0"])
    x = x @ w["weight/1"] + w["bias/1"]
    expected = {
        "clip": np.clip(x, -1, 1),
        "tanh": np.tanh(x),
        "argmax": x.argmax(-1),
    }[output]
    np.testing.assert_allclose(actions, expected, rtol=1e-12)
    assert actions.shape == envs.action_space.shape


def test_an_action_does_not_depend_on_company() -> None:
    policy = controller()
    seen = np.random.default_rng(0).normal(size=(9, 16)).astype(np.float32)
    infos = {"env_steps": np.full(9, 100)}
    policy.reset(environment(policy, 9), 0)
    together = policy.act(seen, infos)
    for P in (1, 2, 5):
        alone = policy.act(seen[:P], infos)
        np.testing.assert_array_equal(alone, together[:P])


def test_shuffled_runs_see_others() -> None:
    plain = controller()
    shuffled = Controller(plain.about, plain.weights, shuffle=True)
    envs = environment(plain, 6)
    observations, infos = envs.reset(seed=0)
    seen = observations + np.arange(6, dtype=np.float32)[:, None] / 100
    for policy in (plain, shuffled):
        policy.reset(envs, 0)
    orders = []
    for steps in (0, 100, 200, 300):
        now = {**infos, "env_steps": np.full(6, steps)}
        own, others = plain.act(seen, now), shuffled.act(seen, now)
        order = [int(np.flatnonzero((own == row).all(1))[0]) for row in others]
        assert sorted(order) == list(range(6))
        assert all(k != i for i, k in enumerate(order))
        orders.append(tuple(order))
    assert len(set(orders)) > 1
    again = Controller(plain.about, plain.weights, shuffle=True)
    again.reset(envs, 0)
    np.testing.assert_array_equal(again.act(seen, now), others)
    with pytest.raises(ValueError, match="at least two runs"):
        again.act(seen[:1], {"env_steps": np.zeros(1)})


@pytest.mark.slow
def test_memory_begins_anew_with_a_run() -> None:
    spec = spec_of("controller-recurrent-ppo")
    policy = get_method(spec).fit(QUADRATIC, BUDGET, 0).policy
    envs = PopulationEnv(QUADRATIC, 2, action_mode="relative", history=policy.history)
    policy.reset(envs, 0)
    D = len(envs.observation_names)
    seen = np.random.default_rng(0).uniform(-1, 1, (2, D)).astype(np.float32)
    first = policy.act(seen, {"env_steps": np.array([0, 0])})
    later = policy.act(seen, {"env_steps": np.array([1, 1])})
    assert (first != later).all()  # it remembers
    fresh = policy.act(seen, {"env_steps": np.array([0, 2])})
    np.testing.assert_array_equal(fresh[0], first[0])
    assert fresh[1] != first[1]


# -- training ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", quick(PROGRAMS, "controller-ppo", "controller-recurrent-ppo")
)
def test_training_gives_a_controller_that_acts_as_its_model(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dacrl_env.agents import training

    kept = {}
    build = training._Training._try

    def watched(self: Any) -> float:
        kept["model"], kept["venv"] = self.model, self.venv
        kept["controller"] = self.controller()
        return build(self)

    monkeypatch.setattr(training._Training, "_try", watched)
    fitted = get_method(spec_of(name)).fit(QUADRATIC, BUDGET, 0)
    model, policy = kept["model"], kept["controller"]
    seen = {"action_mode": policy.action_mode, "history": policy.history}
    envs = PopulationEnv(QUADRATIC, 5, **seen)
    observations, infos = envs.reset(seed=1)
    policy.reset(envs, 0)
    state: Any = None
    for _ in range(3):
        actions = policy.act(observations, infos)
        shown = kept["venv"].normalize_obs(observations)
        start = infos["env_steps"] == 0
        expected, state = model.predict(shown, state, start, deterministic=True)
        np.testing.assert_allclose(actions, expected, atol=1e-5)
        observations, _, _, _, infos = envs.step(actions)
    assert fitted.cost.env_steps <= BUDGET
    assert fitted.task == QUADRATIC
    assert isinstance(fitted.policy, Controller)


@pytest.mark.parametrize("name", quick(PROGRAMS, "controller-recurrent-ppo"))
def test_training_moves_the_network_and_is_repeatable(name: str) -> None:
    def fit(budget: int, seed: int = 0) -> Any:
        fitted = get_method(spec_of(name, ",trial_share=0")).fit(
            QUADRATIC, budget, seed
        )
        return identity(fitted.policy)["arguments"]["weights"]

    short, long = fit(200), fit(600)
    assert long != short
    assert fit(600) == long
    assert fit(600, seed=1) != long


def test_no_global_state_is_read_or_left_changed() -> None:
    def fit() -> Any:
        return identity(
            get_method(spec_of("controller-dqn")).fit(QUADRATIC, BUDGET, 0).policy
        )

    first = fit()
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    torch.set_num_threads(2)
    before = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    generator = torch.get_rng_state()
    assert fit() == first
    assert random.getstate() == before[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_threads_change_nothing() -> None:
    tiny = {"decision_interval": 100, "eval_episodes": 2, "learning_starts": 50}
    spec = "controller-ppo,population=2,trial_runs=1,hidden_sizes=(4,),trial_share=0.5"
    one, two = (
        dacrl_env.fit(TASK, spec, 2_000, run_budget=400, num_threads=number, **tiny)
        for number in (1, 2)
    )
    assert to_json(one.policy) == to_json(two.policy)
    assert one.cost == two.cost


def test_everything_is_charged() -> None:
    tiny = {"budget": 400, "decision_interval": 100, "eval_episodes": 2}
    tiny |= {"learning_starts": 50}
    told = []
    spec = "controller-ppo,population=3,trial_runs=2,trials=2,hidden_sizes=(4,)"
    fitted = get_method(spec).fit(TASK, 9_999, 0, None, told.append, **tiny)
    # 25 % pay for two trials of two runs, 800 each; the rest for six rounds of 1,200
    assert fitted.cost.env_steps == 2 * 800 + 6 * 1_200 == sum(told)
    # an evaluation before training and one a decision, of two episodes each
    runs = 2 * 2 + 6 * 3
    assert fitted.cost.eval_steps >= runs * 5 * 2 * 8
    # a gradient step per four steps after the first fifty, in complete runs of 400
    assert 0 < fitted.cost.gradient_steps <= fitted.cost.env_steps / 4
    assert fitted.cost.flops > 0
    assert fitted.incumbents[-1][0] == fitted.cost
    assert fitted.incumbents[0][0].env_steps == 3 * 1_200 + 800


def test_the_account_follows_the_population_step_by_step() -> None:
    tiny = {"budget": 400, "decision_interval": 100, "eval_episodes": 2}
    tiny |= {"learning_starts": 50}
    plain, envs = PopulationEnv(TASK, 2, **tiny), PopulationEnv(TASK, 2, **tiny)
    told: list[int] = []
    seen = Seen(to_sb3(envs, monitored=False), np.array([3, 0]), told.append)
    seen.seed(5)
    observations, infos = plain.reset(seed=5)
    np.testing.assert_array_equal(seen.reset(), observations[:, [3, 0]])
    assert seen.cost.eval_steps == infos["eval_steps"].sum()
    over = np.zeros(2, np.int64)  # evaluation steps of runs that have ended
    for step in range(1, 10):
        actions = plain.action_space.sample()
        observations, _, ended, _, infos = plain.step(actions)
        shown, _, dones, members = seen.step(actions)
        np.testing.assert_array_equal(shown, observations[:, [3, 0]])
        if ended.all():
            over += infos["final_info"]["eval_steps"]
            for i, member in enumerate(members):
                last = infos["final_obs"][i][[3, 0]]
                np.testing.assert_array_equal(member["terminal_observation"], last)
        assert dones.tolist() == ended.tolist()
        assert seen.cost.env_steps == step * 200 == sum(told)
        assert seen.cost.eval_steps == (over + infos["eval_steps"]).sum()


def test_runs_that_diverge_are_charged_what_they_used() -> None:
    options = {"population": 3, "action_mode": "continuous", "log_std_init": 3.0}
    more = ",".join(f"{k}={v!r}" for k, v in options.items())
    spec = f"controller-ppo,{more},trial_share=0,hidden_sizes=(4,)"
    fitted = get_method(spec).fit(QUADRATIC, 3 * 50 * 4, 0)
    assert 3 * 50 < fitted.cost.env_steps <= 3 * 50 * 4


def test_best_trial_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from dacrl_env.agents import training

    scores = iter([0.1, 0.5, 0.3, 0.4])
    evaluate = training.evaluate

    def scripted(*args: Any, **kwargs: Any) -> Any:
        frame = evaluate(*args, **kwargs)
        assert kwargs["split"] if "split" in kwargs else args[3] == "tuning"
        return frame.assign(score=next(scores))

    monkeypatch.setattr(training, "evaluate", scripted)
    spec = "controller-ppo,population=4,trial_runs=4,trials=4,trial_share=0.5"
    fitted = get_method(spec).fit(QUADRATIC, 8 * 200, 0)
    costs = [cost.env_steps for cost, _ in fitted.incumbents]
    assert costs == [400, 800, 1_600]  # found first and second, then kept
    assert fitted.policy is fitted.incumbents[1][1]


@pytest.mark.parametrize(
    ("name", "read", "expected"),
    [
        (
            "controller-ppo",
            lambda model: model.policy.optimizer.param_groups[0]["lr"],
            [1e-3 * (1 - k / 4) for k in range(4)],
        ),
        ("controller-dqn", lambda model: model.exploration_rate, [1, 0.55, 0.1, 0.1]),
    ],
)
def test_what_falls_over_the_rounds(
    name: str, read: Any, expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dacrl_env.agents import training

    values = []
    log = training._Training._log

    def watched(self: Any, trial: Any) -> None:
        values.append(read(self.model))
        log(self, trial)

    monkeypatch.setattr(training._Training, "_log", watched)
    get_method(spec_of(name, ",trial_share=0")).fit(QUADRATIC, 4 * 200, 0)
    assert values == pytest.approx(expected)


@pytest.mark.parametrize(
    ("objective", "expected"),
    # of 50 decisions; the second run diverged after two, and stays at the floor
    [slow("final", (0.6 - 2.0) / 2), ("auc", (0.5 + (0.4 - 2.0 * 49) / 50) / 2)],
)
def test_what_a_trial_is_worth(
    objective: str, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dacrl_env.agents import training

    def run(seed: int, scores: list[float]) -> pd.DataFrame:
        steps = np.arange(len(scores) + 1)
        score = [9.0, *scores]  # before training: counts for nothing
        spent = dict.fromkeys(("env_steps", "eval_steps", "gradient_steps"), steps)
        return pd.DataFrame(
            {
                **{"seed": seed, "step": steps, "score": score, "flops": 0.0, **spent},
                "diverged": False,
            }
        )

    frame = pd.concat([run(0, [0.4, 0.6] * 25), run(1, [0.4, -2.0])], ignore_index=True)
    # a report between two decisions has no score
    between = frame.tail(1).assign(score=np.nan, eval_steps=np.nan)
    frame = pd.concat([frame, between], ignore_index=True)
    monkeypatch.setattr(training, "evaluate", lambda *_, **__: frame)
    trials = []
    log = training._Training._log

    def watched(self: Any, trial: Any) -> None:
        trials.append(trial)
        log(self, trial)

    monkeypatch.setattr(training._Training, "_log", watched)
    spec = f"controller-ppo,{SMALL},objective={objective!r}"
    get_method(spec).fit(QUADRATIC, BUDGET, 0)
    assert [t for t in trials if t is not None] == pytest.approx([expected] * 2)


def test_time_only_controller_sees_progress_alone() -> None:
    spec = spec_of("controller-ppo", ",rows=('progress',)")
    policy = get_method(spec).fit(QUADRATIC, BUDGET, 0).policy
    assert policy.about.rows == ("progress",)
    frame = dacrl_env.evaluate(QUADRATIC, policy, range(3))
    rates = frame[frame["step"] > 0].pivot_table("hp/learning_rate", "step", "seed")
    assert (rates.nunique(axis=1) == 1).all()
    assert rates[0].nunique() > 1


@pytest.mark.slow
def test_history_is_stacked_in_training_and_in_use() -> None:
    for history in (1, 4):
        spec = spec_of("controller-ppo", f",history={history}")
        policy = get_method(spec).fit(QUADRATIC, BUDGET, 0).policy
        oldest = [row for row in policy.about.rows if row.endswith("@-3")]
        assert len(oldest) * 4 == (len(policy.about.rows) if history == 4 else 0)
    assert len(dacrl_env.evaluate(QUADRATIC, policy, range(2))) == 2 * 51


def test_more_decisions_than_the_task_has() -> None:
    tiny = {"budget": 2_000, "eval_episodes": 1}
    spec = "controller-ppo,population=2,decisions=40,trial_share=0,hidden_sizes=(4,)"
    fitted = get_method(spec).fit(TASK, 4_000, 0, **tiny)
    frame = dacrl_env.evaluate(TASK, fitted, [0, 1], **tiny)
    assert frame["step"].max() == 40
    # feedback as for every other policy
    assert frame["eval_return"].groupby(frame["seed"]).nunique().max() <= 21


# -- checkpoints ---------------------------------------------------------------------


class StopError(Exception):
    """Ends a training in the middle."""


@pytest.mark.parametrize("name", quick(PROGRAMS, "controller-ppo"))
def test_a_stopped_training_goes_on_to_the_same_result(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dacrl_env.agents import training

    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    # without trials it is the last network that comes out
    more = "" if name == "controller-ppo" else ",trial_share=0"
    method = get_method(spec_of(name, more))
    expected = method.fit(QUADRATIC, BUDGET, 0)
    log = training._Training._log

    def stop_after(rounds: int) -> None:
        def stopping(self: Any, trial: Any) -> None:
            if self.course.rounds > rounds:
                raise StopError
            log(self, trial)

        monkeypatch.setattr(training._Training, "_log", stopping)

    store = Store(tmp_path)
    for rounds in (1, 4):  # with trials, one is in between
        stop_after(rounds)
        with pytest.raises(StopError):
            method.fit(QUADRATIC, BUDGET, 0, store)
    monkeypatch.setattr(training._Training, "_log", log)
    told: list[int] = []
    resumed = method.fit(QUADRATIC, BUDGET, 0, store, told.append)
    assert to_json(resumed.policy) == to_json(expected.policy)
    assert resumed.cost == expected.cost == Cost(sum(told), *_rest(expected.cost))
    assert [(c, to_json(p)) for c, p in resumed.incumbents] == [
        (c, to_json(p)) for c, p in expected.incumbents
    ]


def _rest(cost: Cost) -> tuple[Any, ...]:
    return cost.eval_steps, cost.gradient_steps, cost.flops


def test_training_on_cartpole_goes_on_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # replay, inner environments and a history of evaluations are in the checkpoint
    from dacrl_env.agents import training

    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    tiny = {"budget": 600, "decision_interval": 150, "eval_episodes": 1}
    tiny |= {"learning_starts": 50}
    method = get_method(
        "controller-sac,population=2,trial_runs=2,trials=2,gradient_steps=1,"
        "batch_size=8,hidden_sizes=(8,),history=2"
    )
    expected = method.fit(TASK, 9_600, 0, **tiny)
    attempts = 0
    learn = training.checkpoints.save

    def once(*args: Any) -> None:
        nonlocal attempts
        learn(*args)
        attempts += 1
        if attempts == 3:
            raise StopError

    monkeypatch.setattr(training.checkpoints, "save", once)
    with pytest.raises(StopError):
        method.fit(TASK, 9_600, 0, Store(tmp_path), **tiny)
    resumed = method.fit(TASK, 9_600, 0, Store(tmp_path), **tiny)
    assert to_json(resumed.policy) == to_json(expected.policy)
    assert resumed.cost == expected.cost


@pytest.mark.slow
def test_a_killed_fit_goes_on_from_the_command_line(tmp_path: Path) -> None:
    spec = f"controller-ppo,{SMALL},n_epochs=1"
    command = [sys.executable, "-m", "dacrl_env", "fit", QUADRATIC, spec]
    command += ["--budget", "6000", "--seed", "3"]
    program = (
        "import sys; from dacrl_env.agents import training; "
        "training.CHECKPOINT_SECONDS = 0.0; "
        "from dacrl_env.cli.commands import main; sys.exit(main(sys.argv[1:]))"
    )
    slow = [sys.executable, "-c", program, *command[3:], "--out", str(tmp_path / "a")]
    process = subprocess.Popen(slow, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "a").glob("results/fits/*/checkpoint.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "a" / "policy.safetensors").exists()
    assert main([*command[3:], "--out", str(tmp_path / "a")]) == 0
    assert main([*command[3:], "--out", str(tmp_path / "b")]) == 0
    weights = [(tmp_path / k / "policy.safetensors").read_bytes() for k in "ab"]
    assert weights[0] == weights[1]
    assert not list((tmp_path / "a").glob("results/fits/*"))
    (curve,) = (tmp_path / "b").glob("results/curves/*/curve.csv")
    assert curve.read_text().startswith("round,env_steps,eval_steps,return,trial")
    events = list((tmp_path / "b" / "tensorboard").rglob("events.out.tfevents.*"))
    assert bool(events) == (importlib.util.find_spec("tensorboard") is not None)


@pytest.mark.parametrize("damage", [slow("model"), "population", slow("index")])
def test_damaged_checkpoints_are_reported_and_kept(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dacrl_env.agents import training

    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    method = get_method(spec_of("controller-ppo"))
    method.fit(QUADRATIC, BUDGET, 0, Store(tmp_path))
    (index,) = tmp_path.glob("fits/*/checkpoint.json")
    files = {"index": index}
    files |= {k: next(index.parent.glob(f"{k}-*")) for k in ("model", "population")}
    content = files[damage].read_bytes()
    files[damage].write_bytes(content[: len(content) // 2])
    before = files[damage].read_bytes()
    with pytest.raises(StoreError, match="train anew"):
        method.fit(QUADRATIC, BUDGET, 0, Store(tmp_path))
    assert files[damage].read_bytes() == before


def test_values_survive_the_way_through_a_checkpoint() -> None:
    tree = {
        "a": {0: torch.arange(3), "b": [1, 2.5, None, True, {"c": np.eye(2)}]},
        "scalar": torch.tensor(2.0),
        "tuple": (1, torch.zeros(2, 0)),
        "flags": np.array([True, False]),
    }
    arrays: dict[str, Any] = {}
    flat = json.loads(json.dumps(checkpoints._flat(tree, arrays)))
    again = checkpoints._deep(flat, arrays)
    assert list(again["a"]) == [0, "b"]
    assert torch.equal(again["a"][0], torch.arange(3))
    assert again["a"]["b"][:4] == [1, 2.5, None, True]
    np.testing.assert_array_equal(again["a"]["b"][4]["c"], np.eye(2))
    assert again["scalar"].shape == ()
    assert again["scalar"].dtype == torch.float32
    assert again["tuple"][1].shape == (2, 0)
    assert again["flags"].dtype == bool


# -- policy files --------------------------------------------------------------------


def test_a_file_holds_all_of_a_controller(tmp_path: Path) -> None:
    policy = controller()
    path = tmp_path / "policy.safetensors"
    save_fitted(Fitted(policy, Cost(5, 4, 3, 2.0), task=TASK), path, {"seed": 7})
    again = load_fitted(path)
    assert to_json(again.policy) == to_json(policy)
    assert (again.cost, again.task) == (Cost(5, 4, 3, 2.0), TASK)
    assert again.history == 1
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["dacrl_env.policy"])
    about = header["policy"]["arguments"]["about"]
    assert about["hyperparameters"] == ["learning_rate", "epsilon", "batch_size"]
    assert about["rows"] == list(policy.about.rows)
    assert header["dacrl_env"] == dacrl_env.__version__
    assert header["about"] == {"seed": 7}
    options = {"budget": 2_000, "eval_episodes": 1}
    a = dacrl_env.evaluate(TASK, policy, [0, 1], name="x", **options)
    b = dacrl_env.evaluate(TASK, again, [0, 1], name="x", **options)
    columns = ["seed", "step", "report_score", "hp/learning_rate"]
    assert a[columns].equals(b[columns])


def test_files_of_another_task_say_so(tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    save_fitted(Fitted(controller(), Cost(), task="dacrl/Other-v0"), path, {})
    options = {"budget": 2_000, "eval_episodes": 1}
    with pytest.raises(ValueError, match=r"made for dacrl/Other-v0.*any_task=True"):
        dacrl_env.compare(TASK, [str(path)], [0], **options)
    frame = dacrl_env.evaluate(TASK, f"{path},any_task=True", [0], **options)
    assert len(frame) == 21


def test_the_environment_controls_what_the_network_sets() -> None:
    plain = controller()
    weights = {**plain.weights, "weight/1": plain.weights["weight/1"][:, :2]}
    weights["bias/1"] = plain.weights["bias/1"][:2]
    fields = {**plain.header(), "hyperparameters": ["gamma", "learning_rate"]}
    frame = dacrl_env.evaluate(TASK, Controller(fields, weights), [0], budget=2_000)
    set_by_it = [column for column in frame if column.startswith("hp/")]
    assert set_by_it == ["hp/gamma", "hp/learning_rate"]
    assert frame["hp/gamma"].nunique() > 2


def test_tasks_without_the_rows_say_so() -> None:
    policy = controller(rows=("progress", "signal/kl"))
    with pytest.raises(ValueError, match=r"does not have: signal/kl; it has progress"):
        dacrl_env.evaluate(TASK, policy, [0], budget=2_000)
    named = "sets learning_rate, epsilon, batch_size in this order"
    with pytest.raises(ValueError, match=named):
        dacrl_env.evaluate(
            TASK, controller(), [0], budget=2_000, hyperparameters=["gamma"]
        )
    with pytest.raises(ValueError, match="acts in mode 'relative'"):
        dacrl_env.evaluate(
            TASK, controller(), [0], budget=2_000, action_mode="continuous"
        )


def _header(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return json.loads(file.metadata()["dacrl_env.policy"]), arrays


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, a: h.update(format=3, dacrl_env="9"), "written by dacrl-env 9"),
        (lambda h, a: h["policy"].update(kind="code"), "unknown policy 'code'"),
        (lambda h, a: a.update(mean=a["mean"] + 1), "checksum"),
        (lambda h, a: h.pop("cost"), "cost"),
        (lambda h, a: h["policy"]["arguments"]["about"].pop("rows"), "rows"),
        (lambda h, a: h["policy"]["arguments"]["about"].update(output="x"), "output"),
        (lambda h, a: h["policy"]["arguments"]["about"].update(rows=["a"]), "fit 1"),
    ],
)
def test_files_that_are_wrong_say_what_is_wrong(
    change: Any, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "policy.safetensors"
    save_fitted(Fitted(controller(), Cost(), task=TASK), path, {})
    header, arrays = _header(path)
    change(header, arrays)
    if message != "checksum":  # by somebody who writes it anew
        header["checksum"] = protocol._checksum(header, save(arrays))
    save_file(arrays, path, {"dacrl_env.policy": json.dumps(header)})
    with pytest.raises(ValueError, match=message) as caught:
        get_policy(str(path))
    assert str(path) in str(caught.value)


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    with pytest.raises(FileNotFoundError, match=r"policy\.safetensors"):
        get_policy(str(path))
    save_fitted(Fitted(controller(), Cost(), task=TASK), path, {})
    content = path.read_bytes()
    for damaged in (content[:-100], content[:50], b"", b"cos\nsystem\n"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is no policy file"):
            get_policy(str(path))
    save_file({"a": np.zeros(1)}, path)  # no header of ours
    with pytest.raises(ValueError, match="is no policy file"):
        get_policy(str(path))
    with pytest.raises(ValueError, match=r"ends in \.safetensors"):
        save_fitted(Fitted(controller(), Cost()), tmp_path / "policy.json", {})
    path.write_bytes(content)
    with pytest.raises(ValueError, match="unexpected keyword argument 'speed'"):
        get_policy(f"{path},speed=3")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("bias/1"), "bias/1"),
        (lambda w: w.update(extra=np.zeros(1)), "extra"),
        (lambda w: w.update({"bias/1": np.zeros(2)}), "do not fit"),
        (lambda w: w.update(mean=np.zeros(2)), "do not fit"),
        (lambda w: w.update(mean=np.full(3, np.nan)), "finite"),
        (lambda w: w.update({"lstm/input": np.zeros((3, 4))}), "lstm/hidden"),
    ],
)
def test_weights_that_do_not_fit(change: Any, message: str) -> None:
    policy = controller()
    weights: dict[str, Any] = dict(policy.weights)
    change(weights)
    with pytest.raises(ValueError, match=message):
        Controller(policy.about, weights)
    with pytest.raises(ValueError, match="damaged"):
        Controller(policy.about, "AAAA")


def test_keys_hold_hashes_of_weights() -> None:
    a, b = controller(seed=0), controller(seed=1)
    assert len(json.dumps(identity(a))) < 1_000 < len(json.dumps(to_json(a)))
    assert identity(a) == identity(controller(seed=0)) != identity(b)
    assert to_json(from_json(to_json(a))) == to_json(a)


# -- arguments -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("controller-ppo,objective='best'", "valid: final, auc"),
        ("controller-ppo,population=0", "population"),
        ("controller-ppo,trial_share=1", "trial_share"),
        ("controller-ppo,speed=1", "arguments: "),
        ("controller-ppo,population=4,rows=('future',)", "valid: progress"),
        ("controller-ppo,population=40", "below one round of 40 runs"),
    ],
)
def test_wrong_arguments(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_method(spec).fit(QUADRATIC, 1_000, 0)


@pytest.mark.parametrize(
    "option", ["split", "action_mode", "history", "reward", "report"]
)
def test_options_that_are_not_a_users(option: str) -> None:
    with pytest.raises(ValueError, match=f"cannot be given '{option}'"):
        get_method("controller-ppo").fit(QUADRATIC, 10_000, 0, **{option: 1})


def test_controllers_do_not_act_in_values() -> None:
    with pytest.raises(ValueError, match="'values'; valid: continuous, relative"):
        get_method("controller-ppo,action_mode=values").fit(QUADRATIC, 10_000, 0)


def test_minibatches_divide_a_rollout() -> None:
    assert divisor(640, 128) == 128
    assert divisor(60, 128) == 60
    assert divisor(77, 50) == 11
    assert divisor(7, 3) == 1


@pytest.mark.slow
def test_a_program_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dacrl_env.agents.train_ppo", QUADRATIC]
    command += ["--budget", "1600", "--out", str(tmp_path), "--population", "4"]
    command += ["--trial-runs", "4", "--hidden-sizes", "(8,)", "--seed", "3"]
    command += ["--action-mode", "continuous", "--run-budget", "100"]
    subprocess.run(command, check=True, capture_output=True)
    fitted = load_fitted(tmp_path / "policy.safetensors")
    assert (fitted.task, fitted.action_mode) == (QUADRATIC, "continuous")
    assert fitted.policy.weights["weight/0"].shape[1] == 8


@pytest.mark.slow
def test_methods_are_compared_by_name(tmp_path: Path) -> None:
    spec = spec_of("controller-ppo")
    frame = dacrl_env.compare(
        QUADRATIC,
        ["default"],
        range(3),
        methods=[spec],
        tuning_budget=BUDGET,
        runs=2,
        store=tmp_path,
    )
    assert set(frame["policy"]) == {"default", spec}
    learned = frame[frame["policy"] == spec]
    assert (learned["tuning_env_steps"] > 1_000).all()
    again = dacrl_env.compare(
        QUADRATIC,
        ["default"],
        range(3),
        methods=[spec],
        tuning_budget=BUDGET,
        runs=2,
        store=tmp_path,
    )
    assert again.equals(frame)


@pytest.mark.slow
def test_controls_with_shuffled_observations(tmp_path: Path) -> None:
    spec = spec_of("controller-ppo")

    def compare(shuffled: bool) -> Any:
        return dacrl_env.compare(
            QUADRATIC,
            ["default"],
            range(4),
            methods=[spec, "random-search"],
            tuning_budget=BUDGET,
            runs=2,
            store=tmp_path,
            shuffled=shuffled,
        )

    plain, both = compare(False), compare(True)
    control = both[both["policy"] == f"{spec} shuffled"]
    rest = both[both["policy"] != f"{spec} shuffled"]
    assert rest.reset_index(drop=True).equals(plain)  # found in the store
    own = both[both["policy"] == spec]
    pairs = own.merge(control, on=["run", "seed", "step"])
    assert len(pairs) > 200  # some may have diverged
    later = pairs[pairs["step"] > 1]
    moved = later["hp/learning_rate_x"] != later["hp/learning_rate_y"]
    assert moved.mean() > 0.9
    assert set(control["tuning_env_steps"]) == set(own["tuning_env_steps"])
    assert both.equals(compare(True))


def test_task_and_method_of_a_fit_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method = ["--method", spec_of("controller-ppo"), "--budget", "1600"]
    out = ["--out", str(tmp_path)]
    assert main(["fit", "--task", QUADRATIC, *method, *out]) == 0
    assert (tmp_path / "policy.safetensors").exists()
    assert main(["fit", *method, *out]) == 2
    assert "one task is needed" in capsys.readouterr().err
    twice = ["fit", QUADRATIC, "random-search", *method, *out]
    assert main(twice) == 2
    assert "the method is given twice: random-search" in capsys.readouterr().err


# -- controllers that come with the package ------------------------------------------


CONTROLLERS = [name for name in pretrained() if not name.endswith(RUNGS)]


@pytest.mark.parametrize("name", quick(CONTROLLERS, CONTROLLERS[1]))
def test_pretrained_controllers_run_on_their_tasks(name: str) -> None:
    fitted = get_policy(name)
    assert isinstance(fitted, Fitted)
    assert isinstance(fitted.policy, Controller | Switch)
    assert fitted.cost.env_steps > 0
    task = get_task(str(fitted.task))
    short = {"budget": task.budget // 50, "eval_episodes": 1}
    if task.algorithm == "dqn":
        short["learning_starts"] = 100
    with pytest.raises(ValueError, match=r"made for runs with budget .*any_task=True"):
        dacrl_env.evaluate(task, fitted, [0, 1], **short)
    free = get_policy(f"{name},any_task=True")
    frame = dacrl_env.evaluate(task, free, [0, 1], **short)
    assert set(frame["task"]) == {task.id}


def test_unknown_pretrained_controllers() -> None:
    with pytest.raises(ValueError, match="unknown policy 'pretrained/nothing'"):
        get_policy("pretrained/nothing")
