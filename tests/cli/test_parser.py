"""Files of options, help of policies and methods, and names that are forgiven."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dacrl_env.cli.commands import _parser, main
from dacrl_env.core.checks import forgiven
from dacrl_env.policies import METHODS, POLICIES, get_method, get_policy
from dacrl_env.tasks.registration import get_task

QUADRATIC = "dacrl/NoisyQuadratic-v0"


def write(path: Path, **options: Any) -> str:
    path.write_text("".join(f"{k}: {v}\n" for k, v in options.items()))
    return str(path)


def usage(capsys: Any, *line: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(line))
    assert caught.value.code == 2
    return str(capsys.readouterr().err)


def seeds(out: Path) -> dict[str, list[int]]:
    (path,) = out.glob("*/summary.csv")
    found = pd.read_csv(path).groupby("policy")["seed"].agg(list)
    return {str(name): each for name, each in found.items()}


def test_a_file_has_a_whole_experiment(tmp_path: Path) -> None:
    policies = "[default, 'static,learning_rate=1e-2']"
    about = {"task": QUADRATIC, "policies": policies, "out": tmp_path / "out"}
    file = write(tmp_path / "x.yaml", **about, seeds="16:18", run_budget="1e2")
    assert main(["compare", "--config", file]) == 0
    assert seeds(tmp_path / "out") == {
        "default": [16, 17],  # no number to the base of 60
        "static,learning_rate=1e-2": [16, 17],
    }


@pytest.mark.parametrize("first", [True, False])
def test_the_line_goes_before_the_file(tmp_path: Path, first: bool) -> None:
    file = write(tmp_path / "x.yaml", task="nothing", policies="[random]", seeds=9)
    line = [QUADRATIC, "--policies", "default", "--seeds", "1"]
    given = [f"--config={file}"]
    out = ["--out", str(tmp_path / "out")]
    assert main(["compare", *(given + line if first else line + given), *out]) == 0
    assert seeds(tmp_path / "out") == {"default": [0]}


def test_the_command_of_a_page_says_what_files_said(tmp_path: Path) -> None:
    file = write(
        tmp_path / "x.yaml",
        task=QUADRATIC, policies=["default", "random"], seeds=2, set=["history=2"],
        quiet=True, total=False, num_threads=1,
    )  # fmt: skip
    first, second = tmp_path / "a", tmp_path / "b"
    line = ["compare", "--config", file, "--seeds", "3", "--out", str(first)]
    assert main(line) == 0
    (made,) = first.glob("*/comparison.json")
    (command,) = json.loads(made.read_text())["commands"]
    assert command == (
        f"dacrl compare {QUADRATIC} --seeds 3 --out {first} --policies default random "
        "--num-threads 1 --set history=2 --quiet"
    )
    again = shlex.split(command.replace(str(first), str(second)))
    assert main(again[1:]) == 0
    tables = [pd.read_csv(next(d.glob("*/table.csv"))) for d in (first, second)]
    table, same = (t.drop(columns=[n for n in t if "wall" in n]) for t in tables)
    pd.testing.assert_frame_equal(table, same)


def test_a_task_on_the_line_is_that_of_the_command(tmp_path: Path) -> None:
    file = write(tmp_path / "x.yaml", task="DQN-CartPole", policies=["default"])
    line = ["compare", QUADRATIC, "--config", file, "--out", "out"]
    assert _parser().read(line).line == [
        "compare", QUADRATIC, "--out", "out", "--policies", "default",
    ]  # fmt: skip


def test_the_places_of_a_fit_go_before_the_file(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    file = write(tmp_path / "x.yaml", task="nothing", method="pbt", budget=500, out=out)
    line = ["fit", QUADRATIC, "random-search", "--dry-run"]
    assert main([*line, "--config", file]) == 0
    assert QUADRATIC in capsys.readouterr().out
    assert main([*line, "--task", "nothing", "--config", file]) == 2
    assert "the task is given twice" in capsys.readouterr().err


def test_what_is_printed_is_a_file(tmp_path: Path, capsys: Any) -> None:
    line = ["compare", QUADRATIC, "--policies", "default", "--seeds", "2"]
    line += ["--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as caught:
        main([*line, "--print-config"])
    assert caught.value.code == 0
    (tmp_path / "x.yaml").write_text(capsys.readouterr().out)
    assert not (tmp_path / "out").exists()
    assert main(["compare", "--config", str(tmp_path / "x.yaml")]) == 0
    assert seeds(tmp_path / "out") == {"default": [0, 1]}


def test_what_a_file_says_is_printed_and_taken_whole(
    tmp_path: Path, capsys: Any
) -> None:
    def printed(*line: str) -> str:
        with pytest.raises(SystemExit):
            main([*line, "--print-config"])
        return str(capsys.readouterr().out)

    first = printed("compare", QUADRATIC, "--policies", "a=default", "--out", "out")
    (tmp_path / "x.yaml").write_text(first)
    file = ["--config", str(tmp_path / "x.yaml")]
    assert printed("compare", *file) == first
    assert printed("compare", "another", *file) == first.replace(QUADRATIC, "another")
    tuned = printed("fit", QUADRATIC, "random-search", "--budget", "9")
    assert tuned.startswith(f"task: {QUADRATIC}\nmethod: random-search\n")
    assert tuned == printed(
        "fit", "--method", "random-search", "--task", QUADRATIC, "--budget", "9"
    )
    (tmp_path / "x.yaml").write_text(tuned)
    assert printed("fit", *file) == tuned
    (tmp_path / "x.yaml").write_text(f"tasks: [{QUADRATIC}]")
    assert main(["warm-up", *file]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policies": "{a: default}"}, "a list is taken, as in policies: [a=def"),
        ({"set": "{eval_episodes: 3}"}, "as in set: [eval_episodes=3]"),
        ({"polices": "[default]"}, "unknown in a file: polices (did you mean 'polic"),
        ({"budget": "many"}, "--budget: many is not a whole number"),
        ({"budget": "2.5"}, "2.5 is not a whole number"),
        ({"total": "perhaps"}, "--total: true or false, got perhaps"),
        ({"seeds": "{a: 1}"}, "is no single value"),
        ({"policies": "default"}, "as in policies: [default]"),
        ({"feedback": "trian"}, "did you mean 'train'?"),
        ({"seeds": "["}, "--config: "),
    ],
)
def test_what_is_wrong_in_a_file(
    tmp_path: Path, capsys: Any, options: dict[str, Any], message: str
) -> None:
    file = write(tmp_path / "x.yaml", task=QUADRATIC, out=tmp_path / "out", **options)
    err = usage(capsys, "compare", "--config", file)
    assert err.startswith("dacrl compare: error: ")
    assert message in err
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there(tmp_path: Path, capsys: Any) -> None:
    err = usage(capsys, "compare", "--config", str(tmp_path / "none.yaml"))
    assert "--config: File does not exist" in err
    assert "required: task, policy" in usage(capsys, "evaluate", "--out", str(tmp_path))


def test_completion_for_shells(capsys: Any) -> None:
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as caught:
        main(["--print_completion", "shtab-bash"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "dacrl" in out
    assert "--run-budget" in out


# -- lists and help --------------------------------------------------------------------


def listed(capsys: Any, *line: str) -> Any:
    assert main(["list", *line, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_everything_is_listed(capsys: Any) -> None:
    assert set(METHODS) == set(listed(capsys, "methods"))
    policies = listed(capsys, "policies")
    assert set(POLICIES) <= set(policies)
    assert "pretrained/dqn-cartpole-switch-0" in policies
    tasks = listed(capsys, "tasks")
    assert tasks[QUADRATIC] == listed(capsys, "tasks", "NoisyQuadratic")
    assert tasks[QUADRATIC]["budget"] == 50
    assert QUADRATIC in listed(capsys, "suites")["all"]


@pytest.mark.parametrize("kind", ["methods", "policies"])
def test_every_argument_of_every_name_has_a_meaning(capsys: Any, kind: str) -> None:
    for name in {"methods": METHODS, "policies": POLICIES}[kind]:
        found = listed(capsys, kind, name)
        assert found["summary"], name
        meant = [found["summary"], *(one["meaning"] for one in found["arguments"])]
        assert not re.search("`[A-Z]", " ".join(meant)), name  # no names of classes
        for argument in found["arguments"]:
            assert argument["meaning"], (name, argument["name"])
            assert argument["type"], (name, argument["name"])


def test_a_task_tells_of_its_instances(capsys: Any) -> None:
    found = listed(capsys, "tasks", "dacrl/PPO-LunarLander-v0")
    assert found["instances"]["test"] == [f"test-{k}" for k in range(20)]
    assert found["instances differ in"] == ["gravity"]
    for task, words in {
        "dacrl/PPO-LunarLander-v0": "20 to train, 20 to test; differ in gravity",
        QUADRATIC: "one, the inner environment as it is",
    }.items():
        assert main(["list", "tasks", task]) == 0
        assert words in capsys.readouterr().out


def test_lines_are_no_wider_than_the_terminal(
    capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    for line in (["tasks"], ["methods"], ["methods", "pbt"], ["tasks", "DQN-CartPole"]):
        assert main(["list", *line]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) > 5
        assert max(map(len, lines)) <= 60


def test_every_option_of_every_command_has_a_meaning() -> None:
    for name, command in _parser().commands.items():
        for action in command._actions:
            assert action.help, (name, action.option_strings or action.dest)


def test_help_tells_of_what_the_line_names(capsys: Any) -> None:
    for line in (
        ["fit", QUADRATIC, "hyperband,eta=4", "--help"],
        ["compare", QUADRATIC, "--policies", "default", "x=freeze_when_good", "--help"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(line)
        assert caught.value.code == 0
        out = capsys.readouterr().out
        assert out.startswith("usage: dacrl ")
        assert ("eta (int, default 3)" in out) == (line[0] == "fit")
        assert ("threshold (float, default 0.6)" in out) == (line[0] == "compare")


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("DQN-CartPole", "dacrl/DQN-CartPole-"),
        ("dqn-cartpole-v0", "dacrl/DQN-CartPole-v0"),
        ("dacrl/noisy_quadratic", QUADRATIC),
        ("NoisyQuadratic-v0", QUADRATIC),
    ],
)
def test_tasks_are_forgiven_case_and_parts(name: str, full: str) -> None:
    assert get_task(name).id.startswith(full)


def test_names_are_forgiven_case_and_hyphens() -> None:
    good = type(get_policy("freeze-when-good"))
    assert type(get_policy("freeze_when_good")) is good
    assert type(get_policy("FreezeWhenGood,threshold=0.5")) is good
    assert type(get_method("Random_Search")) is type(get_method("random-search"))
    assert forgiven("AB", ["a-b", "a_b"]) == "AB"  # which one?
    with pytest.raises(ValueError, match="unknown policy 'freezewhengod'"):
        get_policy("freezewhengod")
    with pytest.raises(ValueError, match="unknown task 'DQN-CartPoll'"):
        get_task("DQN-CartPoll")


# -- how much is said ------------------------------------------------------------------


def test_a_dry_run_says_what_it_would_take(tmp_path: Path, capsys: Any) -> None:
    out = ["--out", str(tmp_path / "out"), "--num-threads", "2", "--dry-run"]
    methods = ["--methods", "race", "--budget", "3e6", "--runs", "3"]
    line = ["--policies", "default", "random", "--seeds", "8", *methods, *out]
    assert main(["compare", "DQN-CartPole-v0", *line]) == 0
    said = capsys.readouterr().out
    assert "9,000,000 training steps of tuning" in said
    assert "40 test runs (2,000,000 training steps); about" in said
    assert "on 2 cores" in said
    two = ["--tasks", "DQN-CartPole-v0", "PPO-CartPole-v0"]
    assert main(["compare", *two, *line]) == 0
    said = capsys.readouterr().out
    assert said.count(" test runs ") == 2
    assert "\nall: about " in said
    assert main(["fit", QUADRATIC, "race", "--budget", "1e3", *out, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["tuning_steps"], found["test_runs"]) == (1_000, 0)
    assert main(["fit", QUADRATIC, "race", "--budget", "1", *out]) == 2
    assert not (tmp_path / "out").exists()


def test_json_is_all_that_is_written(tmp_path: Path, capsys: Any) -> None:
    out = ["--out", str(tmp_path), "--json"]
    line = ["compare", QUADRATIC, "--policies", "default", "random", "--seeds", "3"]
    assert main([*line, *out]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["policy"] for row in found["policies"]] == ["default", "random"]
    assert Path(found["report"]).is_file()
    assert main(["report", str(tmp_path), "--json"]) == 0
    (again,) = json.loads(capsys.readouterr().out).values()
    assert again["policies"] == found["policies"]
    assert main(["fit", QUADRATIC, "race", "--budget", "2e3", *out]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["found"]["arguments"]) == ["learning_rate"]
    assert Path(found["policy"]).is_file()
    both = ["--tasks", QUADRATIC, "--policies", "default", "random", "--seeds", "3"]
    assert main(["compare", *both, *out]) == 0
    assert list(json.loads(capsys.readouterr().out)["tasks"]) == [QUADRATIC]


def test_quiet_commands_say_nothing(tmp_path: Path, capfd: Any) -> None:
    line = ["compare", QUADRATIC, "--policies", "default", "--seeds", "3"]
    assert main([*line, "--out", str(tmp_path), "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")
    assert seeds(tmp_path) == {"default": [0, 1, 2]}
    assert main([*line, "--out", str(tmp_path), "--quiet", "--reference", "x"]) == 2
    assert "unknown reference 'x'" in capfd.readouterr().err
