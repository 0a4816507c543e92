"""The command line, as a user calls it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from dacrl_env.cli.commands import main

TASK = "dacrl/DQN-CartPole-v0"
POLICIES = ["default", "freeze-when-good"]


def shown(out, name):
    """A file of the one comparison in a directory."""
    (path,) = out.glob(f"*/{name}")
    return path


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    out = tmp_path_factory.mktemp("comparison")
    assert main(_compare(out)) == 0
    return out


def _compare(out, *more):
    return [
        "compare",
        TASK,
        "--policies",
        *POLICIES,
        "--seeds",
        "3",
        "--run-budget",
        "2000",
        "--num-threads",
        "1",
        "--out",
        str(out),
        *more,
    ]


def test_compare_writes_the_report(comparison):
    for name in ("curves.png", "paired.csv", "report.md", "summary.csv", "table.csv"):
        assert shown(comparison, name).stat().st_size > 0
    folder = shown(comparison, "report.md").parent
    assert folder.name.startswith("dacrl-DQN-CartPole-v0-2000-")
    assert {path.name for path in comparison.iterdir()} == {folder.name, "results"}
    assert pd.read_csv(shown(comparison, "table.csv"))["policy"].tolist() == POLICIES
    assert len(pd.read_csv(shown(comparison, "summary.csv"))) == 6


def test_compare_prints_table_differences_and_where_the_report_is(comparison, capsys):
    assert main(_compare(comparison, "--reference", "freeze-when-good")) == 0
    out = capsys.readouterr().out
    assert "report_final" in out
    assert "gradient steps" in out
    assert f"report: {shown(comparison, 'report.md')}" in out
    paired = pd.read_csv(shown(comparison, "paired.csv"))
    assert set(paired["reference"]) == {"freeze-when-good"}


@pytest.mark.slow
def test_labels_are_shown_instead_of_long_names(tmp_path):
    first, second = POLICIES
    arguments = _compare(tmp_path, "--reference", "mine", "--methods")
    arguments += ["race=random-search,seeds=1", "--budget", "8e3", "--runs", "1"]
    arguments[arguments.index(second)] = f"mine={second}"
    assert main(arguments) == 0
    names = [first, "mine", "race"]
    assert pd.read_csv(shown(tmp_path, "table.csv"))["policy"].tolist() == names
    assert set(pd.read_csv(shown(tmp_path, "paired.csv"))["reference"]) == {"mine"}
    # and in a report from what is kept
    assert main(["report", str(tmp_path)]) == 0
    assert set(pd.read_csv(shown(tmp_path, "table.csv"))["policy"]) == set(names)
    more = _compare(tmp_path)
    more[more.index(first)] = f"plain={first}"
    assert main(more) == 0  # a new label, and none is forgotten
    assert main(["report", str(tmp_path)]) == 0
    assert set(pd.read_csv(shown(tmp_path, "table.csv"))["policy"]) == {
        "plain",
        *names[1:],
    }
    (tmp_path / "labels.json").unlink()
    # what is kept is found again by another label
    kept = {
        path: path.stat().st_mtime_ns for path in tmp_path.glob("results/*.parquet")
    }
    arguments[arguments.index("mine")] = "yours"
    arguments[arguments.index(f"mine={second}")] = f"yours={second}"
    assert main(arguments) == 0
    now = {path: path.stat().st_mtime_ns for path in tmp_path.glob("results/*.parquet")}
    assert kept == now


def test_a_label_given_again_is_taken_from_what_had_it(tmp_path):
    base = ["compare", QUADRATIC, "--seeds", "2", "--num-threads", "1"]
    base += ["--out", str(tmp_path), "--policies"]
    assert main([*base, "mine=default"]) == 0
    assert main([*base, "mine=random"]) == 0
    assert main(["report", str(tmp_path)]) == 0
    table = pd.read_csv(shown(tmp_path, "table.csv"))
    assert set(table["policy"]) == {"default", "mine"}
    assert set(table["runs"]) == {2}


def test_seeds_by_their_numbers(tmp_path):
    base = ["compare", QUADRATIC, "--policies", "random", "--num-threads", "1"]
    base += ["--out", str(tmp_path), "--seeds"]

    def final(seeds):
        assert main([*base, seeds]) == 0
        rows = pd.read_csv(shown(tmp_path, "summary.csv"))
        return rows.set_index("seed")["report_final"]

    six = final("6")
    assert six.index.tolist() == [0, 1, 2, 3, 4, 5]
    pd.testing.assert_series_equal(final("4:6"), six.loc[4:])


def test_report_from_the_store_alone(comparison, capsys):
    report = shown(comparison, "report.md")
    report.unlink()
    assert main(["report", str(comparison)]) == 0
    assert report.exists()
    assert "default" in capsys.readouterr().out


def test_evaluate_one_policy(tmp_path, capsys):
    arguments = ["evaluate", TASK, "linear-epsilon,fraction=0.5", "--seeds", "2"]
    arguments += ["--run-budget", "2000", "--num-threads", "1", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert "linear-epsilon,fraction=0.5" in capsys.readouterr().out


def test_tasks_lists_what_there_is(capsys, no_bases):
    assert main(["tasks"]) == 0
    out = capsys.readouterr().out
    pretrained = "pretrained/dqn-cartpole-switch-0"
    for word in (TASK, "50,000", "learning_rate", "reduce-on-plateau", pretrained):
        assert word in out


def test_the_documented_tasks_are_the_registered_ones(capsys):
    assert main(["tasks", "--markdown"]) == 0
    documented = Path(__file__).parents[2] / "docs" / "tasks.md"
    assert capsys.readouterr().out == documented.read_text()


def test_references_measures_what_is_registered(capsys):
    assert main(["references", TASK, "--episodes", "500", "--runs", "1"]) == 0
    out = capsys.readouterr().out
    assert "registered reference 500" in out


@pytest.mark.slow
def test_bench_compares_with_stable_baselines3(tmp_path, capsys):
    file = tmp_path / "bench.json"
    arguments = ["bench", "--populations", "2", "--repeats", "1", "--seconds", "0.05"]
    assert main([*arguments, "--json", str(file)]) == 0
    out = capsys.readouterr().out
    for workload in (
        "DQN, a gradient step per 1",
        "DQN, a gradient step per 4",
        "DQN, random batch sizes",
        "PPO",
    ):
        for program in ("Stable-Baselines3", "P = 2"):
            assert re.search(rf"\| {workload}.* \| {program} \|", out)
    assert '"share_of_peak"' in file.read_text()


def test_bench_shows_the_phases(tmp_path, capsys):
    file = tmp_path / "phases.json"
    arguments = ["bench", "--phases", "--tasks", TASK, "--population", "2"]
    assert main([*arguments, "--seconds", "0.01", "--json", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(line for line in lines if line.startswith("| task"))
    row = next(line for line in lines if line.startswith(f"| {TASK} | 2 |"))
    assert "| training | environment | evaluation |" in head
    assert head.count("|") == row.count("|")
    (figures,) = json.loads(file.read_text())["rows"]
    assert f"{figures['shares']['training']:.1%}" in row


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--phases", "--tasks", "dacrl/None-v0"], "valid: dacrl/DQN"),
        (["--phases", "--repeats", "2"], "--repeats"),
        (["--phases", "--populations", "0"], "positive"),
        (["--tasks", TASK], "it can with --phases, --all, --scaling, --fork"),
        (["--scaling", "--threads", "2"], "it can with --all"),
        (["--all", "--phases"], "--phases and --all exclude each other"),
        (["--all", "--threads", "0"], "positive"),
        (["--fork", "--populations", "1"], "at least 2"),
        (["--scaling", "--tasks", TASK, TASK], "takes one task"),
    ],
)
def test_mistakes_of_bench(capsys, arguments, message):
    assert main(["bench", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("steps", ["inf", "nan", "abc", "1.5"])
def test_numbers_of_steps_are_whole(capsys, steps):
    with pytest.raises(SystemExit):
        main(["fit", TASK, "race", "--out", "x", "--budget", steps])
    assert f"{steps} is not a whole number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "dacrl/None-v0", "--policies", "default"], "valid: dacrl/DQN"),
        (["compare", TASK, "--policies", "nobody"], "valid: default"),
        (["compare", TASK, "--policies", "default", "--seeds", "0"], "at least 1"),
        (["compare", TASK, "--policies", "default", "--seeds", "5:5"], "above the"),
        (["compare", TASK, "--policies", "default", "--seeds=-1:5"], "from 0 up"),
        (["compare", TASK, "--policies", "default", "--seeds", ":5"], "first:end"),
        (["compare", TASK, "--policies", "default", "--seeds", "many"], "'many'"),
        (["compare", TASK, "--policies", "default", "--run-budget", "77"], "divide"),
        (
            ["compare", TASK, "--policies", "default", "--reference", "random"],
            "valid: default",
        ),
        (
            ["compare", TASK, "--policies", "default", "--hyperparameters", "lr"],
            "valid: learning_rate",
        ),
        (["compare", TASK, "--policies", "a=default", "a=random"], "must differ"),
        (["compare", TASK, "--policies", "random=default", "random"], "must differ"),
        (["compare", TASK, "--policies", "=default"], "LABEL=POLICY"),
        (["compare", TASK, "--policies", "a=nobody"], "unknown policy 'nobody'"),
        (["compare", TASK, "--policies", "nobody"], "a policy file, or pretrained/"),
        (["compare", TASK, "--policies", "os:getcwd"], "no policy: it has no 'act"),
        (
            ["compare", TASK, "--policies", "freeze-when-good,threshold=a"],
            "threshold must be of type float, got 'a'",
        ),
        (
            ["fit", TASK, "random-search,seeds=two", "--budget", "1e5"],
            "seeds must be of type int, got 'two'",
        ),
        (
            ["compare", TASK, "--policies", "default", "--anytime", "-2"],
            "--anytime must be at least 0, got -2",
        ),
    ],
)
def test_mistakes_are_one_line_and_status_2(tmp_path, capsys, arguments, message):
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("dacrl: ")
    assert message in err
    assert err.count("\n") == 1


QUADRATIC = "dacrl/NoisyQuadratic-v0"
OWN = """
import numpy as np
import dacrl_env

dacrl_env.register_task(
    id="{name}/Own-v0", algorithm="sgd", inner_env=None, budget=50, decisions=50,
    random_return=0.4, reference_return=3.89, floor_return=-6.5,
)

class Mine:
    action_mode = "continuous"

    def reset(self, envs, seed):
        pass

    def act(self, observations, infos):
        return np.full((len(observations), 1), {action})
"""


def run(*arguments, where):
    """``dacrl`` in a directory and a process of its own."""
    code = "import sys; from dacrl_env.cli.commands import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        cwd=where, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.slow
def test_a_policy_and_a_task_of_ones_own(tmp_path):
    scores = []
    for action in (0.0, -1.0):
        (tmp_path / "own.py").write_text(OWN.format(name="own", action=action))
        done = run(
            *("evaluate", "own:own/Own-v0", "own:Mine", "--seeds", "2"),
            *("--num-threads", "1", "--out", "tried"), where=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        scores.append(
            pd.read_csv(shown(tmp_path / "tried", "table.csv"))["report_final_mean"][0]
        )
    # what was kept of the older version is not taken for the newer one's
    assert scores[0] != scores[1]
    done = run(
        "evaluate", "nothing:own/Own-v0", "default", "--out", "a", where=tmp_path
    )
    assert (done.returncode, "cannot import" in done.stderr) == (2, True)


TOY = """
import gymnasium as gym
import numpy as np
import dacrl_env

class Toy(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), float(action), False, False, {}

gym.register("Toy-v0", "toys:Toy", max_episode_steps=5)
dacrl_env.register_task(
    id="own/Toy-v0", algorithm="dqn", inner_env="Toy-v0", budget=2_000, decisions=20,
    random_return=2.5, reference_return=5, floor_return=-1,
)
"""


@pytest.mark.slow
def test_an_inner_environment_of_ones_own_is_known_to_workers(tmp_path):
    (tmp_path / "toys.py").write_text(TOY)
    done = run(
        *("compare", "toys:own/Toy-v0", "--policies", "default", "reduce-on-plateau"),
        *("--seeds", "2", "--num-threads", "2", "--executor", "processes"),
        *("--out", "tried"), where=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(pd.read_csv(shown(tmp_path / "tried", "table.csv"))) == 2
    before = pd.read_csv(shown(tmp_path / "tried", "table.csv"))["report_final_mean"]
    # what was kept of an older version is not taken for the newer one's
    (tmp_path / "toys.py").write_text(TOY.replace("float(action)", "3 * float(action)"))
    run(
        *("evaluate", "toys:own/Toy-v0", "default", "--seeds", "2"),
        *("--num-threads", "1", "--out", "tried"), where=tmp_path,
    )  # fmt: skip
    after = pd.read_csv(shown(tmp_path / "tried", "table.csv"))["report_final_mean"]
    assert after[0] > before[0]


def test_any_option_of_the_environment_can_be_set(tmp_path, capsys):
    arguments = ["evaluate", QUADRATIC, "default", "--seeds", "2", "--num-threads", "1"]
    arguments += ["--out", str(tmp_path), "--set"]
    assert main([*arguments, "decision_interval=5", "fixed={}"]) == 0
    assert main(["report", str(tmp_path)]) == 0
    for wrong, message in (
        ("nothing=1", "valid"),
        ("store=1", "store cannot be given"),
        ("report=True", "report cannot be given"),
        ("action_mode=relative", "not that of the policy"),
        ("learner", "NAME=VALUE"),
    ):
        assert main([*arguments, wrong]) == 2
        assert message in capsys.readouterr().err


def test_a_policy_file_knows_the_runs_that_it_was_made_for(tmp_path, capsys):
    out = ["--out", str(tmp_path)]
    runs = ["--run-budget", "100", "--decision-interval", "5"]
    fit = ["fit", QUADRATIC, "random-search,family='schedule'", "--budget", "500"]
    assert main([*fit, *runs, *out]) == 0
    path = str(tmp_path / "policy.json")
    evaluate = ["evaluate", QUADRATIC, "--seeds", "2", "--num-threads", "1", *out]
    assert main([*evaluate, path]) == 2
    message = capsys.readouterr().err
    assert "with budget 100, not 50" in message
    assert "any_task=True" in message
    assert main([*evaluate, path, *runs]) == 0
    assert main([*evaluate, path, "--run-budget", "100"]) == 2
    assert "decision_interval 5" in capsys.readouterr().err
    other = [*evaluate, f"{path},any_task=True", "--run-budget"]
    assert main([*other, "200", "--eval-interval", "10"]) == 0
    assert main([*other, "50"]) == 2
    assert "20 decisions a run, which do not divide" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_known_before_anything_is_run(
    tmp_path, capsys
):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        arguments = ["evaluate", QUADRATIC, "default", "--out", str(out)]
        assert main(arguments) == 2
        captured = capsys.readouterr().err
        assert str(out) in captured
        assert "steps/s" not in captured


def test_a_report_of_nothing(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "no results" in capsys.readouterr().err


def test_defaults_checks_its_numbers(tmp_path, capsys):
    for name in ("num-threads", "seeds"):
        assert main(["defaults", "--out", str(tmp_path), f"--{name}", "0"]) == 2
        said = {"seeds": "--seeds must be at least 1"}.get(name, "num_threads must be")
        assert said in capsys.readouterr().err


def test_defaults_of_some_tasks(tmp_path, capsys):
    arguments = ["defaults", "--tasks", "dacrl/NoisyQuadratic-v0", "--seeds", "3"]
    assert main([*arguments, "--num-threads", "1", "--out", str(tmp_path)]) == 0
    assert "dacrl/NoisyQuadratic-v0" in capsys.readouterr().out
    assert (tmp_path / "defaults.png").stat().st_size > 1_000
    assert main(["defaults", "--tasks", "nothing", "--out", str(tmp_path)]) == 2


def test_as_a_module():
    result = subprocess.run(
        [sys.executable, "-m", "dacrl_env", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == __import__("dacrl_env").__version__


def test_warm_up_compiles_what_a_task_needs(capsys, monkeypatch):
    import dacrl_env
    from dacrl_env.kernels import compiling

    assert main(["warm-up", "dacrl/DQN-CartPole-v0", "dacrl/NoisyQuadratic-v0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        "dacrl/DQN-CartPole-v0",
        "dacrl/NoisyQuadratic-v0",
    ]
    monkeypatch.delenv(compiling.QUIET)
    dacrl_env.evaluate("dacrl/DQN-CartPole-v0", "default", [0], budget=2_000)
    assert capsys.readouterr().err == ""  # nothing is left to compile
    assert main(["warm-up", "dacrl/DQN-CartPool-v0"]) == 2
    assert "valid: dacrl/DQN-CartPole-v" in capsys.readouterr().err
