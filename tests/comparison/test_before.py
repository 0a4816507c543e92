"""What comes to light before the first training step, and what is not lost after it."""

from __future__ import annotations

import os
import pickle
import shutil
import threading
from collections import namedtuple
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dacrl_env
from dacrl_env.cli.commands import main
from dacrl_env.comparison import before, comparison
from dacrl_env.comparison.comparison import anytime, check
from dacrl_env.methods.trials import Trials, rehearse
from dacrl_env.outer.population import Population
from dacrl_env.policies import METHODS, Cost, Fitted, get_method
from dacrl_env.policies.static import Static
from dacrl_env.studies import oracle

QUADRATIC = "dacrl/NoisyQuadratic-v0"
CARTPOLE = "dacrl/DQN-CartPole-v0"
SMALL = {"budget": 400, "eval_episodes": 1, "learning_starts": 100}


class TrainedError(Exception):
    pass


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be trained."""

    def advance(self: Population, *arguments: Any) -> None:
        raise TrainedError

    monkeypatch.setattr(Population, "advance", advance)


class Policy:
    action_mode = "continuous"

    def __init__(self, action: Any = 0.0) -> None:
        self.action = action

    def reset(self, envs: Any, seed: int) -> None:
        pass

    def act(self, observations: Any, infos: Mapping[str, Any]) -> Any:
        return np.full((len(observations), 1), self.action)


# -- names and options ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        (["default", "linear,hyperparameter=epsilon,start=1"], "epsilon"),
        (["default", "static,learning_rate=-1"], "range"),
        (["default", Policy(np.nan)], "policy Policy: actions must be finite"),
        (["default", Policy("a")], "real numbers"),
        ({"a": Policy(), "b": Policy([0.0, 0.0])}, "shape"),
        (["default", "meta-gradients"], "'sgd'; valid: dqn, ppo"),
        (["default", "pretrained/dqn-cartpole-switch-0"], "was made for"),
    ],
)
@pytest.mark.usefixtures("untrained")
def test_all_policies_are_tried_before_any_is_run(policies: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dacrl_env.compare(QUADRATIC, policies, 2)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("random-search,space={'lr': (1, 2)}", "method .*unknown hyperparameter 'lr'"),
        ("grid-search,points=9", "a tuning budget of 400 steps is below 9 candidates"),
        ("hyperband,family='gates'", "mean 'gate'"),
        ("smac,space={'learning_rate': (1, 0)}", "inverted"),
        ("tpe,space={'learning_rate': (0, 1)}", "range"),
        ("cma-es,seeds=1,generation=4,start={'rate': 1}", "unknown parameter 'rate'"),
        ("pbt,interval=50", "leaves no exploit"),
        ("pb2,population=9", "below a population of 9"),
        ("cma-es,seeds=1,generation=4,rows=('progres',),family='gate'", "'progress'"),
        ("sequential-halving,candidates=8", "below 3 rounds of 8 runs"),
        ("controller-ppo,population=9", "below one round of 9 runs"),
        ("controller-ppo,population=2,rows=('progres',)", "mean 'progress'"),
    ],
)
@pytest.mark.usefixtures("untrained")
def test_all_methods_are_tried_before_any_is_run(method: str, message: str) -> None:
    """A method that suits comes first."""
    methods = ["random-search,population=2", method]
    given = {"tuning_budget": 400, "runs": 1, "seeds": 2}
    with pytest.raises(ValueError, match=message):
        dacrl_env.compare(QUADRATIC, methods=methods, **given)
    with pytest.raises(ValueError, match=message):
        anytime(QUADRATIC, methods, **given)
    with pytest.raises(ValueError, match=message):
        dacrl_env.fit(QUADRATIC, method, 400)


@pytest.mark.parametrize("method", METHODS)
def test_a_rehearsal_of_every_method_trains_nothing(
    method: str, untrained: None
) -> None:
    made, task = get_method(method), dacrl_env.get_task(CARTPOLE)
    rehearse(made, task, 100_000, **SMALL)
    trials = Trials(task, 400, 0, made, **SMALL)
    trials.begin([0])  # which is no rehearsal any more
    with pytest.raises(TrainedError):
        trials.advance(np.full((1, 1, 3), [1e-3, 0.1, 64]))


@pytest.mark.parametrize("task", ["dacrl/DQN-LunarLander-v0"])  # if there is Box2D
@pytest.mark.parametrize("method", ["pbt", "pb2"])
def test_runs_that_cannot_be_copied_are_known_before(
    task: str, method: str, untrained: None
) -> None:
    with pytest.raises(ValueError, match=f"method {method}: .* cannot be copied"):
        check(task, methods=method, tuning_budget=4_000, **SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "tets"}, "unknown split 'tets'.*mean 'test'"),
        ({"budget": 19, "decision_interval": 1}, "too small to report"),
        ({"runs": 0}, "runs must be at least 1"),
        ({"num_threads": 0}, "num_threads must be a whole number of at least 1"),
        ({"batch": 1.5}, "batch must be at least 1"),
        ({"policy_seeds": [9]}, "seeds in common"),
        ({"num_envs": 3}, "cannot be given"),
    ],
)
@pytest.mark.parametrize("kind", ["policies", "methods"])
@pytest.mark.usefixtures("untrained")
def test_options_are_tried_before_anything_is_run(
    options: dict[str, Any], message: str, kind: str
) -> None:
    given: dict[str, Any] = {kind: "default" if kind == "policies" else "random-search"}
    if kind == "policies" and "policy_seeds" in options:
        options = {"policy_seeds": 0}
        message = "policy_seeds must be at least 1"
    with pytest.raises(ValueError, match=message):
        dacrl_env.compare(QUADRATIC, **given, tuning_budget=400, seeds=2, **options)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["defaults", "--tasks", QUADRATIC, "nothing"], "unknown task 'nothing'"),
        (["defaults", "--tasks", QUADRATIC, "CartPole-v1"], "no task"),
        (["oracle", "--tasks", QUADRATIC, "nothing"], "unknown task 'nothing'"),
        (
            ["oracle", "--tasks", QUADRATIC, CARTPOLE, "--set", "learning_starts=9"],
            "unknown option 'learning_starts' of dacrl/NoisyQuadratic",
        ),
        (["oracle", QUADRATIC, "--budget", "100"], "race.*takes? [0-9]|below"),
        (["oracle", QUADRATIC, "--configurations", "1"], "configurations"),
    ],
)
@pytest.mark.usefixtures("untrained")
def test_all_tasks_are_tried_before_any_is_run(
    tmp_path: Path, capsys, command: list[str], message: str
) -> None:
    import re

    assert main([*command, "--out", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert re.search(message, err)
    assert "steps/s" not in err


def test_what_dynamics_are_worth_takes_two_seeds(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 2 seeds"):
        oracle.oracle(QUADRATIC, store=tmp_path, seeds=1)


def test_objects_that_cannot_be_copied_or_sent_are_known_before() -> None:
    locked = Policy()
    locked.lock = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"Policy cannot be copied .*lock"):
        dacrl_env.compare(QUADRATIC, locked, 2)
    assert not dacrl_env.evaluate(QUADRATIC, locked, 2).empty

    class Copied(Policy):
        def __deepcopy__(self, memo: Any) -> Copied:
            return self

        def __reduce__(self) -> Any:
            raise TypeError("stays here")

    with pytest.raises(ValueError, match=r"sent to worker processes .*stays here"):
        dacrl_env.compare(
            QUADRATIC, [Copied(), "default"], 2, num_threads=2, executor="processes"
        )
    assert not dacrl_env.compare(QUADRATIC, Copied(), 2).empty


# -- methods of one's own ------------------------------------------------------------


@dataclass(frozen=True)
class Own:
    """Returns what it is told to."""

    returns: str = "fitted"
    limit: int = 10**9

    def check(self, task: Any, budget: int, /, **options: Any) -> None:
        if budget > self.limit:
            raise ValueError(f"at most {self.limit} steps, got {budget}")

    def fit(
        self,
        task: Any,
        budget: int,
        seed: int,
        /,
        store: Any = None,
        progress: Any = None,
        **options: Any,
    ) -> Any:
        trials = Trials(task, budget, seed, self, store, progress, **options)
        trials.begin(trials.tuning_seeds(1))
        trials.advance(np.full((trials.decisions, 1, 1), 0.02))
        policy: Any = Static(learning_rate=0.02)
        fitted = trials.fitted(policy)
        locked = Fitted(Policy(threading.Lock()), Cost(1), trace=fitted.trace)
        return {
            "fitted": fitted,
            "policy": policy,
            "nothing": None,
            "odd": Fitted(Policy(0.5), fitted.cost, trace=fitted.trace),
            "locked": locked,
            "cost": Fitted(policy, 3),  # type: ignore[arg-type]
            "negative": Fitted(policy, Cost(np.int64(-5))),  # type: ignore[arg-type]
            "endless": Fitted(policy, Cost(1, flops=np.inf)),
            "online": Fitted(policy, Cost(1), online=np.nan),
            "no number": Fitted(Static(learning_rate=np.nan), Cost(1)),
            "far": Fitted(Static(learning_rate=5e9), Cost(1)),
        }[self.returns]


class Plain:
    def fit(self, *arguments: Any, **options: Any) -> Any: ...


@dataclass(frozen=True)
class Few:
    def fit(self, task: Any, budget: int) -> Any: ...


@dataclass(frozen=True)
class SaysPolicy:
    def fit(self, *arguments: Any, **options: Any) -> Static: ...  # type: ignore[empty-body]


@dataclass(frozen=True)
class SaysNothing:
    def fit(self, *arguments: Any, **options: Any) -> None: ...


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Plain, "no dataclass"),
        (Few, r"cannot be called as fit\(task, budget, seed"),
        (SaysPolicy, "says that its fit returns Static"),
        (SaysNothing, "says that its fit returns NoneType"),
        (Own(limit=50), "at most 50 steps, got 100"),
    ],
)
def test_what_is_known_of_a_method_of_one_s_own(
    method: Any, message: str, untrained: None
) -> None:
    given = {"tuning_budget": 100, "seeds": 2, "runs": 1}
    with pytest.raises(ValueError, match=message):
        dacrl_env.compare(
            QUADRATIC, methods={"a": "random-search", "b": method}, **given
        )


def test_a_fit_of_one_s_own_is_used() -> None:
    assert dacrl_env.fit(QUADRATIC, Own, 100).policy.config == {"learning_rate": 0.02}


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        ("policy", "returned an object of class Static, not a dacrl_env"),
        ("nothing", "returned nothing, not a dacrl_env"),
        ("odd", "a fit that cannot be kept: a Policy cannot be written out; valid"),
        ("cost", "its cost is a dacrl_env.policies.Cost, got 3"),
        ("negative", "env_steps of a cost is a whole number from 0 up, got -5"),
        ("endless", "flops of a cost is a number from 0 up, got inf"),
        ("online", "online is a finite score or None, got nan"),
        ("no number", "its policy is .*learning_rate.*nan"),
        ("far", "learning_rate = .* lies outside its range"),
    ],
)
@pytest.mark.parametrize("kept", [True, False])
def test_what_a_method_returns_is_not_lost(
    tmp_path: Path, returns: str, message: str, kept: bool
) -> None:
    store = tmp_path / "store" if kept else None
    with pytest.raises(ValueError, match=message) as caught:
        dacrl_env.fit(QUADRATIC, Own(returns), 100, store=store)
    place = Path(str(caught.value).partition("returned is in ")[2].partition(",")[0])
    assert place.is_relative_to(tmp_path) == kept
    found = pickle.loads(place.read_bytes())  # this test's own
    if returns == "policy":
        assert found.config == {"learning_rate": 0.02}
    elif returns == "odd":
        assert len(found.trace) == 50
        assert found.policy.action == 0.5
    if kept:  # a second one beside it
        with pytest.raises(ValueError, match=r"-1\.pkl"):
            dacrl_env.fit(QUADRATIC, Own(returns), 100, store=store)
    else:
        shutil.rmtree(place.parent)


def test_what_cannot_be_pickled_is_kept_as_text_and_table(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="as text, its runs in") as caught:
        dacrl_env.fit(QUADRATIC, Own("locked"), 100, store=tmp_path)
    table = str(caught.value).rpartition("its runs in ")[2]
    assert len(pd.read_csv(table)) == 50


# -- places --------------------------------------------------------------------------


def unwritable(tmp_path: Path) -> list[Path]:
    (tmp_path / "file").write_text("")
    # a directory in which nobody can make files, whoever runs this
    return [
        tmp_path / "file",
        tmp_path / "file" / "below",
        Path(f"/proc/{os.getpid()}"),
    ]


COMMANDS = {
    "compare": ["compare", QUADRATIC, "--policies", "default"],
    "evaluate": ["evaluate", QUADRATIC, "default"],
    "fit": ["fit", QUADRATIC, "random-search", "--budget", "100"],
    "defaults": ["defaults", "--tasks", QUADRATIC],
    "oracle": ["oracle", QUADRATIC],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.usefixtures("untrained")
def test_results_need_a_place(tmp_path: Path, capsys, command: str) -> None:
    for out in unwritable(tmp_path):
        assert main([*COMMANDS[command], "--out", str(out)]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"dacrl: results cannot be written to {out}: ")
        assert err.count("\n") == 1


@pytest.mark.usefixtures("untrained")
def test_a_store_needs_a_place(tmp_path: Path) -> None:
    for place in unwritable(tmp_path):
        with pytest.raises(OSError, match=r"not a directory|cannot be written"):
            dacrl_env.compare(QUADRATIC, "default", 2, store=place)
        with pytest.raises(OSError, match=r"not a directory|cannot be written"):
            dacrl_env.fit(QUADRATIC, "random-search", 100, store=place)


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.usefixtures("untrained")
def test_what_is_refused_leaves_no_folder(tmp_path: Path, there: bool) -> None:
    out = tmp_path / "out"
    if there:
        out.mkdir()
    for command in ("compare", "evaluate", "fit"):
        line = [*COMMANDS[command], "--run-budget", "7", "--out", str(out)]
        assert main(line) == 2
        assert out.exists() == there


def test_figures_of_measurements_need_a_place(tmp_path: Path, capsys) -> None:
    lines = {
        "is a directory": ["bench", "--json", str(tmp_path)],
        "there is no directory": ["bench", "--json", str(tmp_path / "a" / "b.json")],
        "no directory": ["references", "--seconds", "--out", str(tmp_path / "c" / "d")],
    }
    for message, line in lines.items():
        assert main(line) == 2
        assert message in capsys.readouterr().err


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("free", "method", "fits"),
    [(10**9, None, True), (10**6, None, False), (3e6, "pbt", False)],
)
def test_results_need_room(
    tmp_path: Path, monkeypatch, free: int, method: str | None, fits: bool
) -> None:
    monkeypatch.setattr(before.shutil, "disk_usage", lambda _: Usage(0, 0, free))
    given: dict[str, Any] = {"policies": "default", "seeds": 2, "store": tmp_path}
    if method is not None:
        given |= {"methods": method, "tuning_budget": 40_000}
    if fits:
        check(CARTPOLE, **given, **SMALL)
        return
    with pytest.raises(
        OSError, match=r"has room for .* needs roughly .* MB: .* for"
    ) as e:
        dacrl_env.compare(CARTPOLE, **given, **SMALL)
    assert str(tmp_path) in str(e.value)
    assert list(tmp_path.iterdir()) == []


def test_what_is_reserved_covers_what_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = ["compare", CARTPOLE, "--policies", "default", "random", "--seeds", "4"]
    line += [
        "--num-threads",
        "1",
        "--run-budget",
        "2000",
        "--set",
        "learning_starts=200",
    ]
    assert main([*line, "eval_episodes=1", "--out", str(out)]) == 0
    written = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    assert written < before.REPORT_BYTES + 8 * before.RUN_BYTES


def test_nothing_is_left_of_the_trial(tmp_path: Path) -> None:
    check(QUADRATIC, "default", 2, store=tmp_path / "a")
    assert list((tmp_path / "a").iterdir()) == []
    assert comparison.check is check
