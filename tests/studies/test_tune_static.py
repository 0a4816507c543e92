"""The strongest static configuration of a task."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bases_files import entry, own_bases, own_policies

import dacrl_env
from dacrl_env.cli.commands import main
from dacrl_env.comparison import work
from dacrl_env.comparison.report import summarize
from dacrl_env.core.store import Store
from dacrl_env.methods.trials import Trials
from dacrl_env.policies import Cost, Fitted, load_fitted, save_fitted
from dacrl_env.policies.static import Static
from dacrl_env.policies.tuned import place, tuned
from dacrl_env.studies import keeping, menus
from dacrl_env.studies import tune_static as study
from dacrl_env.studies.finalists import measured, reduced
from dacrl_env.studies.headroom import CHOICE, headroom, wide
from dacrl_env.studies.importance import LEAST, importance
from dacrl_env.tasks import bases
from dacrl_env.tasks.registration import (
    ALGORITHMS,
    configured,
    get_task,
    listed,
    load,
)

CARTPOLE, QUADRATIC = "dacrl/DQN-CartPole-v0", "dacrl/NoisyQuadratic-v0"
SHORT: dict[str, Any] = {
    "budget": 600, "decision_interval": 150, "eval_episodes": 1,
    "learning_starts": 100,
}  # fmt: skip
QUICK: dict[str, Any] = {"runs": 12, "fits": 2, "seeds": 6, "num_threads": 1}


@pytest.fixture(scope="module")
def quadratic(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A result, with its store."""
    store = Store(tmp_path_factory.mktemp("store"))
    return study.tune_static(QUADRATIC, store=store, **QUICK), store


# -- choice and estimate -------------------------------------------------------------


def test_menus_are_of_every_algorithm_and_of_fields_that_it_has() -> None:
    assert menus.MENUS.keys() == ALGORITHMS.keys()
    for algorithm, menu in menus.MENUS.items():
        config_class = load(ALGORITHMS[algorithm]).config_class
        for name, options in menu.items():
            for option in options:
                configured(algorithm, config_class, {name: option})


def test_the_best_of_the_final_is_chosen_and_estimated_on_other_seeds(quadratic):
    result, _ = quadratic
    names = [f.name for f in result.finalists]
    assert names[0] == "default"
    assert 1 < len(names) <= 3  # a search may end where it began
    runs = result.tested
    final, again = (runs[runs["part"] == part] for part in ("final", "estimate"))
    means = final.groupby("policy")["report_auc"].mean()
    assert result.chosen.name == means.idxmax()
    assert result.chosen.score.value == pytest.approx(means.max())
    assert set(again["policy"]) == {"default", result.chosen.name}
    own = again[again["policy"] == result.chosen.name].set_index("seed")
    default = again[again["policy"] == "default"].set_index("seed")
    assert result.score.value == pytest.approx(own["report_auc"].mean())
    gain = (own["report_auc"] - default["report_auc"]).mean()
    assert result.gain.value == pytest.approx(gain)
    assert result.score.low < result.score.value < result.score.high


def test_no_seed_is_used_twice_and_none_is_of_the_test_split(quadratic):
    result, store = quadratic
    runs = result.tested
    final, again = (
        set(runs[runs["part"] == part]["seed"]) for part in ("final", "estimate")
    )
    assert len(final) == len(again) == QUICK["seeds"]
    searched = set()
    for seed in (study.FIRST, study.FIRST + 1):
        trials = Trials(QUADRATIC, 5_000, seed, Static())
        searched |= set(trials.tuning_seeds(100))
    assert not final & again
    assert not (final | again) & searched
    splits = {key["split"] for key in store if "split" in key}
    assert splits == {"tuning"}


def test_another_final_has_other_seeds():
    task = get_task(QUADRATIC)
    first = [study.Finalist("default", Static(), "", 1.0)]
    more = [*first, study.Finalist("fit 0", Static(learning_rate=0.2), "", 1.0)]
    other = replace(task, defaults={"learning_rate": 0.2})
    found = [
        study._fresh_seeds(*given, 4) for given in ((task, first), (task, more),
                                                    (other, first), (task, first))
    ]  # fmt: skip
    assert found[0] == found[3]
    drawn = [seed for final, again in found[:3] for seed in final + again]
    assert len(set(drawn)) == 24


def test_everything_is_charged(quadratic):
    result, _ = quadratic
    searched = len(result.trials)
    assert result.runs == searched + len(result.finalists) * QUICK["seeds"]
    # runs that diverge end early
    assert 0.5 < result.cost.env_steps / (50 * result.runs) <= 1
    tested = result.tested[result.tested["part"] == "final"]
    assert result.cost.env_steps > tested["env_steps"].sum()
    assert searched <= QUICK["fits"] * QUICK["runs"]
    assert set(result.trials) == {
        "fit", "start", "member", "hp/learning_rate", "final", "auc",
    }  # fmt: skip


def test_finished_work_is_found_in_the_store(quadratic, monkeypatch):
    result, store = quadratic

    def trained(*_: Any) -> None:
        raise AssertionError("it trains again")

    monkeypatch.setattr(Trials, "_advance", trained)
    monkeypatch.setattr(work, "run_policy", trained)
    again = study.tune_static(QUADRATIC, store=store, **QUICK)
    assert again.content() == result.content()


def test_static_configuration_is_searched_where_it_is_asked_for(tmp_path):
    result = study.tune_static(
        CARTPOLE, store=tmp_path, configurations="all", generations=1,
        hyperparameters=["learning_rate", "epsilon", "batch_size"],
        **(QUICK | {"seeds": 2, "runs": 24, "fits": 1}), **SHORT,
    )  # fmt: skip
    fields = {"hidden_sizes", "activation", "normalize_observations"}
    fields |= {"fourier_features"}
    assert set(result.settings["configurations"]) == fields
    assert {f"configuration/{name}" for name in fields} < set(result.trials)
    assert result.trials["configuration/hidden_sizes"].nunique() > 1
    names = [f.name for f in result.finalists]
    assert names == ["default", "fit 0"]
    assert "not searched" in result.left_out["public"]
    path = study.write(result, tmp_path / "out")
    content = json.loads(path.read_text())
    assert content["chosen"]["name"] in names
    # the file runs as it was chosen
    fitted = load_fitted(path.parent / "static-tuned.json")
    frame = dacrl_env.evaluate(CARTPOLE, fitted, 2, split="tuning", **SHORT)
    assert set(frame["task"]) == {CARTPOLE}
    assert fitted.policy.arguments() == result.chosen.policy.arguments()
    assert "final, by score" in study.render(result)


@pytest.mark.parametrize(
    ("task", "without"),
    [
        (CARTPOLE, {}),
        ("dacrl/PPO-CartPole-v0", {}),
        ("dacrl/SAC-Pendulum-v0", {}),
        # an image is no place for Fourier features
        ("dacrl/DQN-MinAtar-Breakout-v0", {"fourier_features"}),
        (QUADRATIC, {}),
    ],
)
def test_menus_have_what_runs_of_a_task_can_have(task, without):
    known = get_task(task)
    trials = Trials(known, known.budget, 0, Static())
    menu = menus.usable(trials, {"activation": "relu"})
    whole = set(menus.MENUS[known.algorithm]) - {"activation"}
    searched = {name for name, options in menu.items() if len(options) > 1}
    assert searched == whole - set(without)


# -- what is written -----------------------------------------------------------------


def test_what_differs_from_the_default_is_set_alone():
    acrobot = get_task("dacrl/DQN-Acrobot-v0")
    config = {
        "double_q": True, "n_step": 1, "batch_size": 32.0, "hold_exponent": 3.0,
    }  # fmt: skip
    configuration = {"hidden_sizes": [64, 64], "activation": "tanh"}
    found = reduced(acrobot, config, configuration, {})
    assert found.config == {"n_step": 1, "batch_size": 32}
    assert isinstance(found.config["batch_size"], int)
    assert found.configuration == {"activation": "tanh"}
    # what is held has a meaning with exploration by held actions alone
    held = reduced(acrobot, {**config, "exploration": "ez-greedy"}, {}, {})
    assert held.config["hold_exponent"] == 3.0


def test_a_result_becomes_a_base_and_a_policy(quadratic, tmp_path, monkeypatch):
    result, _ = quadratic
    better = study.Finalist("fit 1", Static(learning_rate=0.25), "a search", 1.0)
    folder = own_policies(tmp_path, monkeypatch)
    with own_bases(tmp_path) as base:
        base({})
        chosen = replace(result, chosen=better)
        new, written = keeping.keep_static(chosen)
        assert new == "dacrl/NoisyQuadratic-v1"
        assert len(written) == len(list(folder.iterdir())) == 2
        assert get_task(new).defaults["learning_rate"] == 0.25
        assert new in [task.id for task in listed()]
        entry = bases.stored()[QUADRATIC]
        assert entry["score"] == list(result.score)
        assert entry["settings"]["runs"] == QUICK["runs"]
        for task in (QUADRATIC, new):
            frame = dacrl_env.evaluate(task, "static-tuned", 2)
            if task == QUADRATIC:
                assert set(frame["hp/learning_rate"].dropna()) == {0.25}
            before = dacrl_env.evaluate(new, "default", 2)
            assert frame["report_score"].equals(before["report_score"])
        # of the newer version, from which another search went on
        at_base = replace(chosen, task=get_task(new), chosen=replace(
            better, policy=Static(learning_rate=0.125)))  # fmt: skip
        assert keeping.keep_static(at_base, ["learning_rate"])[0] == new
        assert get_task(new).defaults["learning_rate"] == 0.125
        assert get_task(new).controlled == ("learning_rate",)
        assert load_fitted(place(QUADRATIC, "static-tuned")).policy.config == {
            "learning_rate": 0.125
        }
        # the default won: nothing to begin anew
        default = replace(chosen, chosen=result.finalists[0], task=get_task(new))
        assert keeping.keep_static(default)[0] is None
        assert get_task(new).defaults["learning_rate"] == 0.125


def test_what_cannot_be_kept_is_said_first(tmp_path, capsys):
    line = ["headroom", CARTPOLE, "--keep", "--out", str(tmp_path / "out")]
    assert main([*line, "--hyperparameters", "epsilon"]) == 2
    assert "of all numbers and choices; leave --keep out" in capsys.readouterr().err
    line = ["tune-static", CARTPOLE, "--keep", "--out", str(tmp_path / "out")]
    for more, message in (
        (["--run-budget", "2000"], "of runs as the task has them"),
        (["--controlled", "epsilom"], "unknown hyperparameter 'epsilom'"),
    ):
        assert main([*line, *more]) == 2
        assert message in capsys.readouterr().err
    line.remove("--keep")
    assert main([*line, "--controlled", "epsilon"]) == 2
    assert "--controlled is for --keep" in capsys.readouterr().err
    assert not (tmp_path / "out" / "results").exists()


def test_importance_is_of_candidates_that_are_drawn_for_it(tmp_path, monkeypatch):
    small = {**SHORT, "num_threads": 1, "seeds": 2, "fits": 0}
    names = ["learning_rate", "gradient_steps"]
    given = small | {"hyperparameters": names, "most_work": 2.0}
    store = Store(tmp_path / "store")
    none = study.tune_static(CARTPOLE, store=store, **given)
    result = study.tune_static(CARTPOLE, store=store, probes=LEAST, **given)
    assert (none.importance, none.rests_on) == ({}, 0)
    assert set(result.importance) == {*names}
    assert sum(result.importance.values()) == pytest.approx(1, abs=1e-3)
    assert result.rests_on == LEAST
    assert result.runs == none.runs + LEAST
    assert result.cost.env_steps > none.cost.env_steps
    assert result.settings["probes"] == LEAST
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match="importance needs Optuna"):
        study.tune_static(CARTPOLE, store=store, probes=LEAST, **given)


def test_what_matters_is_what_actions_set(quadratic, tmp_path, monkeypatch):
    task = replace(get_task(CARTPOLE), controlled=("epsilon", "checkpoint"))
    shares = {"tau": 0.5, "gamma": 0.25, "epsilon": 0.15, "n_step": 0.1}
    assert keeping.mattering(task, shares) == ["tau", "gamma", "epsilon", "checkpoint"]
    result, _ = quadratic
    better = study.Finalist("fit 1", Static(learning_rate=0.25), "a search", 1.0)
    told = {"importance": {"learning_rate": 1.0}}
    probed = replace(
        result, chosen=better, settings=result.settings | {"probes": 9}, **told
    )
    own_policies(tmp_path, monkeypatch)
    with own_bases(tmp_path) as base:
        base({})
        new, _ = keeping.keep_static(probed)
        expected = {"controlled": ["learning_rate"], **told}
        kept = bases.stored()[QUADRATIC]
        assert {name: kept[name] for name in expected} == expected
        assert bases.shown_importance(new) == "learning_rate 1.00"
        # the base has won again, and what matters is told anew
        base({QUADRATIC: {k: v for k, v in kept.items() if k not in expected}})
        again = replace(probed, chosen=replace(better, name="base"))
        assert bases.shown_importance(new) == "–"
        assert keeping.keep_static(again) == (None, [])
        assert bases.stored()[QUADRATIC] == kept


def test_headroom_keeps_the_fit_with_the_best_score_on_the_tuning_split(
    tmp_path, monkeypatch
):
    folder = own_policies(tmp_path, monkeypatch)
    monkeypatch.setattr(keeping.headroom, "keep", lambda *_: None)
    result = headroom(
        CARTPOLE, store=tmp_path / "store", runs=6, fits=2, seeds=2, objective="auc",
        generations=1, rungs=("static-tuned", "freeze-tuned"), num_threads=1, **SHORT,
    )  # fmt: skip
    with pytest.raises(ValueError, match="of runs as the task has them"):
        keeping.keep_headroom(result)
    whole = replace(result, settings=result.settings | {"options": {}})
    some = whole.settings | {"hyperparameters": ["learning_rate", "tau"]}
    with pytest.raises(ValueError, match=r"of all numbers and choices; .*epsilon"):
        keeping.keep_headroom(replace(whole, settings=some))
    written = keeping.keep_headroom(whole)
    assert tuned(CARTPOLE) == ["static-tuned", "freeze-tuned"]
    for rung, path in written.items():
        kept = load_fitted(path)
        k = int(np.argmax(result.chosen_by[rung]))
        assert kept.about["fit"] == k == result.kept[rung]
        chosen = result.policies[rung][k].policy
        assert kept.policy.arguments() == chosen.arguments()
        # the mean of its runs on seeds of the tuning split that no search has used
        again = dacrl_env.evaluate(CARTPOLE, chosen, [CHOICE], split="tuning", **SHORT)
        (score,) = summarize(again)["report_auc"]
        assert score == result.chosen_by[rung][k]
    # one that was chosen on more stays, unless what was found is surely stronger
    before = Static(learning_rate=1e-3)
    fitted = dacrl_env.policies.Fitted(before, whole.policies["static-tuned"][0].cost)
    path = folder / "dqn-cartpole-v0-static-tuned.json"
    found = max(whole.chosen_by["static-tuned"])
    for objective, highest, stays in (
        ("auc", found + 0.01, True),
        ("auc", found - 0.01, False),
        ("final", found - 0.01, True),
    ):
        about = {"study": "tune-static", "objective": objective}
        about |= {"score": [found - 0.1, found - 0.2, highest]}
        dacrl_env.policies.save_fitted(fitted, place(CARTPOLE, "static-tuned"), about)
        left_out = {"static-tuned"} if stays else set()
        assert {*keeping.keep_headroom(whole)} == {*whole.kept} - left_out
        config = load_fitted(path).policy.config
        assert (config == {"learning_rate": 1e-3}) == stays


def test_what_headroom_has_kept_is_in_the_final(tmp_path, monkeypatch, no_bases):
    own_policies(tmp_path, monkeypatch)
    about = {"study": "headroom", "rung": "static-tuned", "fit": 2, "runs": 1_000}
    kept = Fitted(Static(learning_rate=0.25), Cost(), task=QUADRATIC)
    path = place(QUADRATIC, "static-tuned")
    for more, source in (
        ({}, "1,000 runs of dacrl headroom, fit 2"),
        ({"static_twice": True}, "2,000 runs of dacrl headroom, fit 2"),
    ):
        save_fitted(kept, path, about | more)
        store = Store(tmp_path / "store")
        given = QUICK | {"fits": 0}
        result = study.tune_static(QUADRATIC, store=store, **given)
        assert [f.name for f in result.finalists] == ["default", "headroom"]
        finalist = result.finalists[1]
        assert (finalist.source, finalist.policy.config) == (
            source,
            {"learning_rate": 0.25},
        )
        # nothing was searched
        assert result.runs == len(result.finalists) * QUICK["seeds"]
        assert (result.importance, len(result.trials)) == ({}, 0)
        study.write(result, tmp_path / "out")
    # what this study has kept is the task's default, or lost to it
    save_fitted(kept, path, about | {"study": "tune-static"})
    result = study.tune_static(QUADRATIC, store=store, **given)
    assert [f.name for f in result.finalists] == ["default"]


def test_a_base_is_in_the_final_of_its_task(tmp_path, monkeypatch):
    own_policies(tmp_path, monkeypatch)
    with own_bases(tmp_path) as base:
        known = entry(defaults={"learning_rate": 0.25}, settings={"seeds": 6})
        base({QUADRATIC: known})
        given = QUICK | {"fits": 0}
        result = study.tune_static(QUADRATIC, store=tmp_path / "store", **given)
        assert [f.name for f in result.finalists] == ["default", "base"]
        finalist = result.finalists[1]
        assert finalist.policy.config == {"learning_rate": 0.25}
        assert finalist.source == "the base of dacrl/NoisyQuadratic-v1"
        # it has won again: nothing is found, and its entry says where it is from
        again = replace(result, chosen=finalist)
        assert keeping.keep_static(again) == (None, [])
        assert bases.stored() == {QUADRATIC: known}
        # it is the default of the task that starts there
        newer = study.tune_static(
            "dacrl/NoisyQuadratic-v1", store=tmp_path / "store", **given
        )
        assert [f.name for f in newer.finalists] == ["default"]


def test_what_is_kept_is_not_replaced_by_what_was_chosen_on_less(
    tmp_path, monkeypatch, capsys
):
    own_policies(tmp_path, monkeypatch)
    line = ["tune-static", QUADRATIC, "--keep", "--fits", "0", "--seeds", "5"]
    line += ["--out", str(tmp_path / "out")]
    with own_bases(tmp_path) as base:
        known = entry(defaults={"learning_rate": 0.25}, settings={"seeds": 6})
        base({QUADRATIC: known})
        for task in (QUADRATIC, "dacrl/NoisyQuadratic-v1"):
            line[1] = task
            assert main(line) == 2
            assert "chosen on 6 seeds" in capsys.readouterr().err
        assert main([*line, "--seeds", "6", "--objective", "final"]) == 2
        assert "chosen by auc, not by final" in capsys.readouterr().err
        base({})
        about = {"study": "headroom", "fit": 0, "runs": 9, "seeds": [0, 11]}
        kept = Fitted(Static(learning_rate=0.0625), Cost(), task=QUADRATIC)
        save_fitted(kept, place(QUADRATIC, "static-tuned"), about)
        line[1] = QUADRATIC
        assert main(line) == 2
        assert "chosen on 6 seeds" in capsys.readouterr().err
        assert not (tmp_path / "out" / "results").exists()


@pytest.mark.parametrize(
    ("less", "message"),
    [
        ({"runs": 999}, "runs 999, and has 1000"),
        ({"fits": 2}, "fits 2, and has 3"),
        ({"seeds": [0, 126]}, "seeds 127, and has 128"),
        ({"rungs": ["static-tuned", "switch-tuned"]}, "freeze-tuned not, and has it"),
    ],
)
def test_measured_headroom_is_not_replaced_by_less(monkeypatch, less, message):
    before = {"runs": 1_000, "fits": 3, "seeds": [0, 127]}
    before["rungs"] = ["static-tuned", "freeze-tuned"]
    monkeypatch.setattr(
        keeping.headroom, "measured", lambda: {QUADRATIC: {"settings": before}}
    )
    task, names = get_task(QUADRATIC), {}
    keeping.check_keep_headroom(task, names, before)
    more = {"runs": 2_000, "rungs": [*before["rungs"], "switch-tuned"]}
    keeping.check_keep_headroom(task, names, before | more)
    with pytest.raises(ValueError, match=message):
        keeping.check_keep_headroom(task, names, before | less)


def test_what_headroom_has_kept_may_set_what_is_not_searched(
    tmp_path, monkeypatch, no_bases
):
    own_policies(tmp_path, monkeypatch)
    about = {"study": "headroom", "fit": 0, "runs": 9}
    kept = Fitted(Static(learning_rate=0.0625, epsilon=0.3), Cost(), task=CARTPOLE)
    save_fitted(kept, place(CARTPOLE, "static-tuned"), about)
    found, left_out = measured(get_task(CARTPOLE), ["learning_rate"], {})
    assert not found
    assert left_out == {"headroom": "it sets epsilon, not searched here"}


# -- importance ----------------------------------------------------------------------


def made_up(n: int, fields: bool = True) -> pd.DataFrame:
    """Candidates whose score follows from the learning rate and the activation."""
    generator = np.random.default_rng(0)
    places = generator.random((n, 2))
    activation = generator.integers(2, size=n)
    table = pd.DataFrame(
        {
            "fit": 0,
            "hp/learning_rate": 10.0 ** (5 * places[:, 0] - 6),  # from 1e-6 to 1e-1
            "hp/epsilon": places[:, 1],
            "auc": -((places[:, 0] - 0.6) ** 2) + 0.002 * activation,
        }
    )
    if fields:
        table["configuration/activation"] = np.array(["relu", "tanh"])[activation]
    return table


def test_what_the_score_depends_on_is_important():
    knobs = wide(get_task(CARTPOLE), ["learning_rate", "epsilon"])
    found = importance(made_up(300), knobs, "auc")
    assert next(iter(found)) == "learning_rate"
    assert found["learning_rate"] > 2 * found["epsilon"]
    assert found["configuration/activation"] > found["epsilon"]
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-3)
    assert importance(made_up(LEAST - 1), knobs, "auc") == {}
    same = made_up(40, fields=False).assign(**{"hp/learning_rate": 0.1})
    assert set(importance(same, knobs, "auc")) <= {"epsilon"}


def test_runs_of_one_candidate_are_one():
    knobs = wide(get_task(CARTPOLE), ["learning_rate", "epsilon"])
    once = made_up(60, fields=False)
    noise = np.linspace(-1, 1, 60)
    twice = pd.concat([once.assign(auc=once["auc"] + s * noise) for s in (-1, 1)])
    assert importance(twice, knobs, "auc") == importance(once, knobs, "auc")


# -- bad input, and the command ------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"objective": "best"}, "unknown objective 'best'"),
        ({"configurations": "some"}, "unknown configurations 'some'.*none, all"),
        ({"runs": 0}, "runs must be a whole number of at least 1"),
        ({"runs": 2}, "below 1 rounds of 2 runs, 3 times"),
        ({"fits": -1}, "fits must be a whole number of at least 0"),
        ({"seeds": 1}, "seeds must be a whole number of at least 2"),
        ({"first": -1}, "seeds must be whole numbers"),
        ({"generations": 0}, "generations must be"),
        ({"most_work": -1.0}, "most_work must be positive"),
        ({"hyperparameters": ["epsilonn"]}, "unknown number or choice 'epsilonn'"),
        ({"budgett": 3}, "unknown option 'budgett'"),
    ],
)
def test_what_cannot_be_tuned_is_refused(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        study.tune_static(CARTPOLE, store=tmp_path, **(QUICK | wrong))
    assert not list(tmp_path.rglob("*.parquet"))


def test_the_command_writes_what_it_found(tmp_path, monkeypatch, capsys):
    own_policies(tmp_path, monkeypatch)
    out = tmp_path / "out"
    line = ["tune-static", QUADRATIC, "--runs", "12", "--fits", "1", "--seeds", "4"]
    line += ["--objective", "final", "--num-threads", "1", "--out", str(out), "--keep"]
    with own_bases(tmp_path) as base:
        base({})
        assert main(line) == 0
        said = capsys.readouterr().out
        content = json.loads((out / "tune-static.json").read_text())
        assert "static-tuned" in tuned(QUADRATIC)
        made = content["chosen"]["name"] != "default"
        assert made == ("dacrl/NoisyQuadratic-v1 starts at it" in said)
    assert content["objective"] == "final"
    assert content["settings"]["runs"] == 12
    n = len(content["finalists"])
    assert len(pd.read_csv(out / "trials.csv")) == content["cost"]["runs"] - 4 * n == 12
    assert len(pd.read_csv(out / "runs.csv")) == 4 * n + (8 if made else 4)
