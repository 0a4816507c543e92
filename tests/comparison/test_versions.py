"""A store never serves what is not asked for, and a report never mixes versions."""

from __future__ import annotations

import importlib
import shutil
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
from cases import slow

import dacrl_env
from dacrl_env.cli.commands import main
from dacrl_env.comparison import results
from dacrl_env.core import installed, provenance
from dacrl_env.core.store import Store
from dacrl_env.policies import POLICIES
from dacrl_env.tasks.rungs import NAMES

QUADRATIC = "dacrl/NoisyQuadratic-v0"
POLICY = """
{head}
class P:
    action_mode = "continuous"
    independent = True
    def reset(self, envs, seed):
        self.action = envs.to_actions({{"learning_rate": {rate}}})
    def act(self, observations, infos): return self.action
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory to work in, whose modules are forgotten by `edit`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    tasks, envs = dict(dacrl_env.TASKS), dict(gym.registry)
    yield tmp_path
    forget(tmp_path)
    dacrl_env.TASKS.clear()
    dacrl_env.TASKS.update(tasks)
    gym.registry.clear()
    gym.registry.update(envs)


def forget(folder: Path) -> None:
    """What another process would not know."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(folder)):
            del sys.modules[name]
    importlib.invalidate_caches()


def edit(name: str = "mine", **parts: Any) -> None:
    Path(f"{name}.py").write_text(POLICY.format(**{"head": "", "rate": 0.1, **parts}))
    forget(Path.cwd())


def finals(*more: str, seeds: str = "2", name: str = "mine:P", out: str = "o") -> Any:
    line = ["compare", QUADRATIC, "--policies", name, "--seeds", seeds, *more]
    assert main([*line, "--num-threads", "1", "--out", out]) == 0
    return reported(out)[name]


def reported(out: str = "o") -> dict[str, tuple[int, float]]:
    """Runs and final scores of the one report in a directory, by name."""
    (path,) = Path(out).glob("*/table.csv")
    table = pd.read_csv(path).set_index("policy")
    return {n: (row["runs"], row["report_final_mean"]) for n, row in table.iterrows()}


# -- what is served ------------------------------------------------------------------


@pytest.mark.slow
def test_an_edit_is_another_policy_and_its_revocation_the_first_again(place, capsys):
    seen = []
    for rate in (0.1, 0.001, 0.1):
        edit(rate=rate)
        seen.append(finals())
        capsys.readouterr()
        assert main(["report", "o"]) == 0
        assert reported()["mine:P"] == seen[-1]
        told = "Of mine:P an older version is there" in capsys.readouterr().out
        assert told == (len(seen) > 1)
    assert seen[0] == seen[2] != seen[1]
    assert len(list(Path("o/results").glob("evaluate*"))) == 2


def test_versions_are_not_pooled(place, capsys):
    for rate, seeds in ((0.1, "0:3"), (0.001, "3:5")):
        edit(rate=rate)
        finals(seeds=seeds)
    assert main(["report", "o"]) == 0
    assert reported()["mine:P"][0] == 2
    assert "older version" in capsys.readouterr().out
    assert "older version" in next(Path("o").glob("*/report.md")).read_text()


@pytest.mark.parametrize(
    ("files", "edited"),
    [
        ({"helper": "RATE = {}\n", "head": "from helper import RATE"}, "helper"),
        ({"helper": "class B:\n    r = {}\n", "head": "import helper"}, "helper"),
    ],
)
def test_an_edited_helper_is_another_policy(place, files, edited):
    rate = "RATE" if "RATE" in files["head"] else "helper.B.r"
    seen = []
    for value in (0.1, 0.001):
        Path(f"{edited}.py").write_text(files["helper"].format(value))
        edit(head=files["head"], rate=rate)
        seen.append(finals())
    assert seen[0] != seen[1]


def test_a_factory_of_a_policy_of_this_package(place):
    text = "from dacrl_env.policies.static import Static\n"
    seen = []
    for body in ("Static(learning_rate=0.1)", "Static(learning_rate=0.001)"):
        Path("mine.py").write_text(f"{text}def make(): return {body}\n")
        forget(place)
        seen.append(finals(name="mine:make"))
    read = (
        "import json\nfrom pathlib import Path\n"
        "def make(): return Static(**json.loads(Path('rate.json').read_text()))\n"
    )
    for rate in (0.1, 0.001):  # what it reads is in what it makes
        Path("mine.py").write_text(text + read)
        Path("rate.json").write_text(f'{{"learning_rate": {rate}}}')
        forget(place)
        seen.append(finals(name="mine:make"))
    assert seen[0] == seen[2] != seen[1] == seen[3]


@pytest.mark.parametrize("argument", ["rate.json", "rate"])
def test_a_file_among_the_arguments(place, argument):
    head = (
        "import json\nclass Q:\n    action_mode = 'continuous'\n"
        "    def __init__(self, path): self.path = path\n"
        "    def reset(self, envs, seed):\n"
        "        with open(self.path.removesuffix('.json') + '.json') as file:\n"
        "            self.a = envs.to_actions(json.load(file))\n"
        "    def act(self, o, infos): return self.a\n"
    )
    seen = []
    for rate in (0.1, 0.001):
        edit(head=head)
        Path("rate.json").write_text(f'{{"learning_rate": {rate}}}')
        seen.append(finals(name=f"mine:Q,path={argument}"))
    assert seen[0] != seen[1]


def test_two_commits_never_share_results(place, monkeypatch, capsys):
    finals(name="default")
    kept = set(Path("o/results").glob("*"))
    monkeypatch.setattr(installed, "version", lambda: "0.1.0+another")
    monkeypatch.setattr(results, "version", lambda: "0.1.0+another")
    finals(name="default")
    assert len(set(Path("o/results").glob("*")) - kept) == 1
    finals(name="random")
    capsys.readouterr()
    assert main(["report", "o"]) == 0
    assert "older dacrl-env" in capsys.readouterr().out
    (entry,) = [e for e in Store("o/results").entries() if e.key["policy"] == "random"]
    assert entry.versions["numpy"] == np.__version__


ENV = """
import gymnasium as gym, numpy as np
{head}
class E(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Discrete(2)
    def __init__(self, pay=1.0): self.pay = pay
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, "f4"), {{}}
    def step(self, action):
        self.t += 1
        return np.zeros(2, "f4"), self.pay * float(action), self.t >= 20, False, {{}}
class W(gym.RewardWrapper):
    def __init__(self, env, factor=1.0):
        super().__init__(env)
        self.factor = factor
    def reward(self, reward): return self.factor * reward
"""
TASK: dict[str, Any] = {
    "id": "own/T-v0", "inner_env": "My-v0", "algorithm": "dqn", "budget": 400,
    "decisions": 4, "random_return": 10.0, "reference_return": 20.0,
    "floor_return": -1.0,
}  # fmt: skip


def definition(place: Path, entry: Any = "myenv:E", head: str = "", **spec: Any) -> Any:
    Path("myenv.py").write_text(ENV.format(head=head))
    forget(place)
    gym.registry.pop("My-v0", None)
    gym.register("My-v0", entry_point=entry, **spec)
    task = {**TASK, "inner_env": spec.pop("inner_env", "My-v0")}
    return results.canonical(dacrl_env.Task(**task).definition())


def test_all_of_a_registration_is_part_of_the_task(place):
    wrapper = gym.envs.registration.WrapperSpec
    changes: list[dict[str, Any]] = [
        {},
        {"kwargs": {"pay": 5.0}},
        {"kwargs": {"pay": np.array([1.0])}},
        {"max_episode_steps": 10},
        {"order_enforce": False},
        {"entry": "myenv:W"},
        {"head": "# edited"},
        {"additional_wrappers": (wrapper("W", "myenv:W", {}),)},
        {"additional_wrappers": (wrapper("W", "myenv:W", {"factor": 2.0}),)},
        {"entry": lambda: gym.make("CartPole-v1")},
        {"entry": lambda: gym.make("Acrobot-v1")},
    ]
    seen = [definition(place, **change) for change in changes]
    assert len(set(seen)) == len(seen)
    assert definition(place) == seen[0]
    Path("helper.py").write_text("R = 1\n")
    first = definition(place, head="import helper")
    Path("helper.py").write_text("R = 2\n")
    assert definition(place, head="import helper") != first
    for spec in (
        {"kwargs": {"pay": "table"}},
        {"additional_wrappers": (wrapper("W", "myenv:W", {"factor": "table"}),)},
    ):
        tables = []
        for text in ("1", "2"):
            Path("table").write_text(text)
            tables.append(definition(place, **spec))
        assert tables[0] != tables[1]
    task = dacrl_env.Task(**{**TASK, "inner_env_kwargs": {"pay": "table"}})
    first = task.definition()
    Path("table").write_text("3")
    assert task.definition() != first


def test_a_changed_registration_is_run_again(place, monkeypatch):
    # `independent` runs may be served one by one: the task has to be the same
    Path("myenv.py").write_text(ENV.format(head=""))
    options = {"eval_episodes": 1, "learning_starts": 100}
    means = []
    for spec in ({}, {"kwargs": {"pay": 5.0}}, {"max_episode_steps": 5}):
        gym.registry.pop("My-v0", None)
        gym.register("My-v0", entry_point="myenv:E", **spec)
        task = dacrl_env.Task(**TASK)
        frame = dacrl_env.compare(task, ["default"], [0, 1], store="s", **options)
        means.append(frame["report_score"].mean())
    assert len(set(means)) == 3
    (kept,) = results.stored("s").values()
    assert kept.frame["report_score"].mean() == means[-1]
    assert len(kept.notes) == 1


def test_inner_environments_of_installed_packages_have_their_version():
    pytest.importorskip("minigrid")
    task = dacrl_env.Task(**{**TASK, "inner_env": "minigrid:MiniGrid-Empty-6x6-v0"})
    version = importlib.metadata.version("minigrid")
    assert task.definition()["inner_env_made"]["source"].startswith(
        f"minigrid {version}"
    )
    # those of this package have the package's
    assert (
        "inner_env_made" not in dacrl_env.get_task("dacrl/DQN-CartPole-v0").definition()
    )


# -- what cannot be told -------------------------------------------------------------


def test_without_source_it_is_run_and_not_kept(place, monkeypatch):
    names: dict[str, Any] = {"__name__": "nowhere"}
    exec(POLICY.format(head="", rate=0.1), names)
    module = type(sys)("nowhere")
    vars(module).update(names)
    monkeypatch.setitem(sys.modules, "nowhere", module)
    with pytest.warns(UserWarning, match="not kept.* no file or cell") as told:
        frame = dacrl_env.compare(
            QUADRATIC, ["default", "nowhere:P"], [0, 1], store="s", batch=2
        )
    assert len(told) == 1
    assert set(frame["policy"]) == {"default", "nowhere:P"}
    assert [key["policy"] for key in Store("s")] == ["default"]
    with warnings.catch_warnings():  # nobody asked for anything to be kept
        warnings.simplefilter("error")
        dacrl_env.compare(QUADRATIC, ["nowhere:P"], [0, 1])


def test_an_option_that_cannot_be_described(place):
    lock = threading.Lock()

    def reward(context: Any) -> Any:
        with lock:
            return context.score

    with pytest.warns(UserWarning, match="not kept"):
        frame = dacrl_env.compare(QUADRATIC, ["default"], [0], store="s", reward=reward)
    assert len(frame)
    assert not list(Path("s").glob("*.parquet"))


def test_a_method_without_source_has_no_journal_and_a_result(place, monkeypatch):
    code = (
        "from dataclasses import dataclass\n"
        "from dacrl_env.baselines.random_search import RandomSearch\n"
        "@dataclass(frozen=True)\nclass M(RandomSearch):\n"
        "    def more(self): return 1\n"
    )
    module = type(sys)("nowhere")
    monkeypatch.setitem(sys.modules, "nowhere", module)
    exec(code, vars(module))
    with pytest.warns(UserWarning, match="not kept") as told:
        frame = dacrl_env.compare(
            QUADRATIC, methods=["nowhere:M"], seeds=[0, 1], tuning_budget=200, runs=1,
            store="s",
        )  # fmt: skip
    assert len(told) == 1
    assert len(frame)
    assert not list(Path("s").rglob("*.parquet"))


def test_options_are_kept_by_what_they_are(place):
    rate = dacrl_env.Number("learning_rate", 1e-3, 0.1, 0.01, "log")
    near = dacrl_env.Number("learning_rate", 1e-3, 0.2, 0.01, "log")

    def units(**options: Any) -> int:
        dacrl_env.compare(QUADRATIC, ["default"], [0, 1], store="s", **options)
        return len(list(Path("s").glob("*.parquet")))

    assert units(hyperparameters=[rate], budget=100) == 1
    assert units(hyperparameters=(rate,), budget=np.int64(100)) == 1
    assert units(hyperparameters=[near], budget=100) == 2
    assert units(reward=lambda c: c.score) == 3
    assert units(reward=lambda c: -c.score) == 4
    assert units(fixed={}, num_threads=1) == units(fixed={}) == 5


def test_workers_notice_that_a_module_was_edited(place):
    edit(rate=0.1)
    files = provenance.files_of(importlib.import_module("mine").P)
    assert set(files) == {"mine"}
    provenance.check_files(files)
    edit(rate=0.2)  # and imported in another process
    with pytest.raises(ValueError, match="module mine was edited while this ran"):
        provenance.check_files(files)


# -- seeds that are there already ----------------------------------------------------


def _untimed(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns="wall_seconds")


@pytest.mark.parametrize(
    "name", ["default", slow("random"), slow("reduce-on-plateau"), "mine:P"]
)
def test_seeds_are_reused_and_give_what_one_call_gives(place, name, monkeypatch):
    edit()
    ran: list[list[int]] = []
    from dacrl_env.comparison import work

    original = work.run_policy

    def watched(policy: Any, task: Any, seeds: Any, *a: Any, **k: Any) -> Any:
        ran.append(list(seeds))
        return original(policy, task, seeds, *a, **k)

    monkeypatch.setattr(work, "run_policy", watched)

    def run(seeds: Any, store: Any) -> pd.DataFrame:
        return _untimed(dacrl_env.compare(QUADRATIC, [name], seeds, store=store))

    run(range(2), "s")
    more = run(range(4), "s")
    assert ran == [[0, 1], [2, 3]]
    pd.testing.assert_frame_equal(more, run(range(4), None))
    ran.clear()
    run(range(5), "s")  # one alone gets company
    run([3, 1], "s")
    run(range(5), "s")
    assert ran == [[4, 0]]
    pd.testing.assert_frame_equal(run([4, 2, 0], "s"), run([4, 2, 0], None))


def test_runs_that_depend_on_those_beside_them_are_not_mixed(place):
    edit(head="", rate=0.1)
    text = Path("mine.py").read_text().replace("independent = True", "pass")
    Path("mine.py").write_text(text)
    forget(place)
    for seeds in (range(2), range(4)):
        dacrl_env.compare(QUADRATIC, ["mine:P"], seeds, store="s")
    assert sorted(key["seeds"] for key in Store("s")) == [[0, 1], [0, 1, 2, 3]]
    options = {"tuning_budget": 500, "runs": 1, "shuffled": True, "store": "t"}
    for seeds in (range(2), range(4)):
        dacrl_env.compare(
            QUADRATIC, methods=["random-search,family='switch'"], seeds=seeds, **options
        )
    units = {(k["policy"][-8:], *k["seeds"]) for k in Store("t") if "policy" in k}
    assert {("shuffled", 0, 1), ("shuffled", 0, 1, 2, 3)} <= units
    assert ("'switch'", 2, 3) in units


SHAPES = ("constant", "linear", "exponential", "cosine", "step")
ARGUMENTS = ",hyperparameter=learning_rate,start=1e-3,end=1e-4"
ALONE = [
    ("compiled", n + (ARGUMENTS if n in SHAPES else ""))
    for n in POLICIES
    if n not in NAMES
]
ALONE.append(("sb3", "reduce-on-plateau"))
# schedules are one class
SOME = [slow(*a) if a[1].startswith(SHAPES[1:]) else a for a in ALONE]
SOME.append(slow("sb3", "random"))


@pytest.mark.parametrize(("implementation", "name"), SOME)
def test_registered_policies_treat_every_run_alone(implementation, name):
    # it goes by a signal that PPO has alone
    learner = "PPO" if name == "adaptive-kl" else "DQN"
    task, own = f"dacrl/{learner}-CartPole-v0", {"learning_starts": 100}
    if learner == "PPO":
        own = {"num_inner_envs": 2, "rollout_length": 10}
    options = {"budget": 400, "decision_interval": 100, "eval_episodes": 1}
    options |= {"hidden_sizes": (8,), "implementation": implementation, **own}
    one, other = (
        _untimed(dacrl_env.evaluate(task, name, seeds, **options)).drop(
            columns=["member", "parent"]
        )
        for seeds in ([0, 1], [2, 1, 0])
    )
    other = other[other["seed"].isin([0, 1])].reset_index(drop=True)
    pd.testing.assert_frame_equal(one, other, check_exact=True)


# -- report while others write -------------------------------------------------------


def test_files_that_come_and_go_while_a_report_reads(place, monkeypatch):
    edit()
    finals(seeds="3")
    (unit,) = Path("o/results").glob("*.parquet")
    read = Store.read

    def gone(self: Any, key: Any) -> Any:
        unit.unlink(missing_ok=True)
        return read(self, key)

    monkeypatch.setattr(Store, "read", gone)
    assert main(["report", "o"]) == 2  # nothing is left of it
    monkeypatch.undo()
    glob = Path.glob

    def listed(self: Path, pattern: str) -> Any:
        yield from glob(self, pattern)
        yield self / f"went-{'0' * 8}-{'0' * 16}-{'0' * 8}.parquet"

    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    finals(seeds="3")
    shutil.copy(next(Path("o/results").glob("*.parquet")), "o/results/x.parquet.tmp-1")
    monkeypatch.setattr(Path, "glob", listed)
    assert len(Store("o/results").keys()) == 1
