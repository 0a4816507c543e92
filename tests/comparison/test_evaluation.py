"""evaluate and compare: what is run, what is recorded, what is kept."""

import numpy as np
import pandas as pd
import pytest

import dacrl_env
from dacrl_env import Task
from dacrl_env.comparison.evaluation import batches
from dacrl_env.comparison.report import summarize
from dacrl_env.comparison.results import stored, unit_key
from dacrl_env.core.store import Store, StoreError

TASK = "dacrl/DQN-CartPole-v0"
SMALL = {"budget": 2_000, "eval_episodes": 2}
POLICIES = ["default", "random"]
COLUMNS = [
    "task",
    "policy",
    "run",
    "seed",
    "split",
    "instance",
    "member",
    "parent",
    "step",
    "env_steps",
    "eval_steps",
    "gradient_steps",
    "reward",
    "score",
    "report_score",
    "eval_return",
    "train_return",
    "diverged",
    "flops",
    "wall_seconds",
    "tuning_env_steps",
    "tuning_eval_steps",
    "tuning_gradient_steps",
    "tuning_flops",
    "report_online",
    "hp/learning_rate",
    "hp/epsilon",
    "hp/batch_size",
]


def untimed(frame):
    return frame.drop(columns="wall_seconds").reset_index(drop=True)


class Diverging:
    """Poisons the parameters of one member at its third decision."""

    action_mode = "continuous"

    def reset(self, envs, seed):
        self.envs, self.calls = envs, 0

    def act(self, observations, infos):
        self.calls += 1
        if self.calls == 3:
            self.envs.population.state.learner.parameters[1] = float("nan")
        return np.zeros(self.envs.action_space.shape)


def test_a_frame_has_a_row_per_decision_and_the_right_columns():
    frame = dacrl_env.evaluate(TASK, "default", seeds=[3, 5], **SMALL)
    assert list(frame.columns) == COLUMNS
    assert frame.groupby("seed")["step"].apply(list).tolist() == [list(range(21))] * 2
    last = frame[frame["step"] == 20]
    assert (last["env_steps"] == 2_000).all()
    assert (last["gradient_steps"] == 250).all()
    assert frame["report_score"].notna().all()
    assert set(frame["split"]) == {"test"}
    first = frame[frame["step"] == 0]
    assert first["hp/epsilon"].isna().all()
    total = frame.groupby("seed")["reward"].sum().to_numpy()
    gain = last["score"].to_numpy() - first["score"].to_numpy()
    np.testing.assert_allclose(total, gain, atol=1e-12)


def test_the_frame_agrees_with_the_environment_stepped_by_hand():
    frame = dacrl_env.evaluate(TASK, "random", seeds=[4], **SMALL)
    envs = dacrl_env.PopulationEnv(TASK, 1, split="test", **SMALL)
    policy = dacrl_env.get_policy("random")
    observations, infos = envs.reset(seed=[4])
    policy.reset(envs, 4)
    for k in range(1, 21):
        observations, rewards, ended, _, infos = envs.step(
            policy.act(observations, infos)
        )
        now = infos["final_info"] if ended[0] else infos
        row = frame[frame["step"] == k].iloc[0]
        assert row["reward"] == rewards[0]
        assert row["eval_return"] == now["eval_return"][0]
        assert row["eval_steps"] == now["eval_steps"][0]
        rate = now["hyperparameters"]["learning_rate"][0]
        assert row["hp/learning_rate"] == rate


def test_the_report_is_not_what_the_policy_sees_and_changes_nothing():
    frame = dacrl_env.evaluate(TASK, "default", seeds=[0, 1], **SMALL)
    after = frame[frame["step"] > 0]
    assert not np.isclose(after["report_score"], after["score"]).all()
    envs = dacrl_env.PopulationEnv(TASK, 2, split="test", **SMALL)
    envs.reset(seed=[0, 1])
    scores = []
    for _ in range(19):
        _, _, _, _, infos = envs.step(np.zeros((2, 3)))
        scores.append(infos["score"])
    without = np.stack(scores, 1)
    with_report = frame[frame["step"].between(1, 19)].pivot(
        index="seed", columns="step", values="score"
    )
    np.testing.assert_array_equal(without, with_report.to_numpy())


@pytest.mark.parametrize("decisions", [4, 100])
def test_twenty_reports_whatever_the_number_of_decisions(decisions):
    interval = SMALL["budget"] // decisions
    frame = dacrl_env.evaluate(
        TASK, "default", seeds=[0], decision_interval=interval, **SMALL
    )
    points = frame.loc[frame["report_score"].notna() & (frame["env_steps"] > 0)]
    assert points["env_steps"].tolist() == list(range(100, 2_001, 100))
    assert frame["step"].max() == decisions
    assert summarize(frame)["env_steps"].tolist() == [2_000]


def test_a_schedule_gets_its_decisions_and_is_charged_the_usual_feedback():
    schedule = dacrl_env.evaluate(TASK, "linear-epsilon", seeds=[0], **SMALL)
    default = dacrl_env.evaluate(TASK, "default", seeds=[0], **SMALL)
    assert schedule["step"].max() == 100
    assert default["step"].max() == 20
    assert schedule["hp/epsilon"].nunique() == 20 + 1
    evaluated = schedule["eval_steps"].diff().gt(0)
    assert schedule.loc[evaluated, "env_steps"].tolist() == list(range(100, 2_001, 100))


def test_policies_are_paired_by_seed():
    frames = [
        dacrl_env.evaluate(TASK, p, seeds=[7, 8], **SMALL)
        for p in ("default", "random")
    ]
    starts = [f.loc[f["step"] == 0, "report_score"].tolist() for f in frames]
    assert starts[0] == starts[1]


def test_the_splits_give_different_runs():
    test = dacrl_env.evaluate(TASK, "default", seeds=[0], **SMALL)
    tuning = dacrl_env.evaluate(TASK, "default", seeds=[0], split="tuning", **SMALL)
    assert not np.allclose(test["report_score"], tuning["report_score"])


def test_a_diverged_run_ends_at_the_floor_and_the_others_go_on():
    task = dacrl_env.get_task(TASK)
    frame = dacrl_env.evaluate(TASK, Diverging(), seeds=[0, 1, 2], **SMALL)
    steps = frame.groupby("seed")["step"].max().to_dict()
    assert steps == {0: 20, 1: 3, 2: 20}
    last = frame[(frame["seed"] == 1) & (frame["step"] == 3)].iloc[0]
    assert last["diverged"]
    assert last["report_score"] == last["score"] == task.floor_score
    assert not frame.loc[frame["seed"] != 1, "diverged"].any()
    calm = dacrl_env.evaluate(TASK, "default", seeds=[0, 1, 2], **SMALL)
    for seed in (0, 2):
        pd.testing.assert_frame_equal(
            untimed(frame[frame["seed"] == seed]).drop(columns="policy"),
            untimed(calm[calm["seed"] == seed]).drop(columns="policy"),
        )
    row = summarize(frame).set_index("seed").loc[1]
    before = frame[(frame["seed"] == 1) & frame["step"].between(1, 2)]["report_score"]
    assert row["report_auc"] == pytest.approx(
        (before.sum() + 18 * task.floor_score) / 20
    )
    assert row["failure"]


def test_compare_keeps_and_finds_finished_work(tmp_path):
    kwargs = {"seeds": [0, 1], "store": tmp_path, **SMALL}
    first = dacrl_env.compare(TASK, POLICIES, **kwargs)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")}
    assert len(files) == 2
    again = dacrl_env.compare(TASK, POLICIES, **kwargs)
    pd.testing.assert_frame_equal(first, again)  # the timings, too: nothing was run
    assert files == {path: path.stat().st_mtime_ns for path in files}
    more = dacrl_env.compare(TASK, [*POLICIES, "linear-epsilon"], **kwargs)
    assert len(list(tmp_path.glob("*.parquet"))) == 3
    assert more["policy"].unique().tolist() == [*POLICIES, "linear-epsilon"]


def test_what_changes_a_result_changes_its_key():
    task = dacrl_env.get_task(TASK)
    other = Task(
        id=TASK,
        inner_env="CartPole-v1",
        algorithm="dqn",
        budget=50_000,
        random_return=20.0,
        reference_return=500.0,
        floor_return=0.0,
    )
    keys = [
        unit_key(task, "default", [0], "test", {}),
        unit_key(task, "default", [0], "tuning", {}),
        unit_key(task, "default", [1], "test", {}),
        unit_key(task, "random", [0], "test", {}),
        unit_key(task, "default", [0], "test", {"budget": 2_000}),
        unit_key(other, "default", [0], "test", {}),
    ]
    assert len({Store("unused").path(key) for key in keys}) == len(keys)


@pytest.mark.slow
def test_workers_give_the_same_table(tmp_path):
    alone = dacrl_env.compare(TASK, POLICIES, seeds=[0, 1], **SMALL)
    shared = dacrl_env.compare(
        TASK,
        POLICIES,
        seeds=[0, 1],
        num_threads=2,
        executor="processes",
        store=tmp_path,
        **SMALL,
    )
    pd.testing.assert_frame_equal(untimed(alone), untimed(shared))


def test_a_damaged_file_is_reported_and_nothing_is_lost(tmp_path):
    kwargs = {"seeds": [0], "store": tmp_path, **SMALL}
    dacrl_env.compare(TASK, POLICIES, **kwargs)
    damaged, sound = sorted(tmp_path.glob("*.parquet"))
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    before = sound.read_bytes()
    with pytest.raises(StoreError, match=damaged.name):
        dacrl_env.compare(TASK, POLICIES, **kwargs)
    assert sound.read_bytes() == before
    assert damaged.read_bytes() == content[: len(content) // 2]


def test_stored_groups_by_settings_and_counts_a_run_once(tmp_path):
    for seeds, options in (([0], SMALL), ([0, 1], SMALL), ([0], {"budget": 4_000})):
        dacrl_env.compare(TASK, ["default"], seeds=seeds, store=tmp_path, **options)
    frames = sorted((kept.frame for kept in stored(tmp_path).values()), key=len)
    assert [len(f) for f in frames] == [21, 42]
    assert not frames[1].duplicated(["seed", "step"]).any()
    with pytest.raises(FileNotFoundError, match="no results"):
        stored(tmp_path / "nothing")


@pytest.mark.slow
def test_fits_of_one_method_at_two_budgets_are_two_rows(tmp_path):
    task, method = "dacrl/NoisyQuadratic-v0", "random-search"
    for budget, seeds in ((100, range(8)), (500, range(4))):
        dacrl_env.compare(
            task, methods=[method], seeds=seeds, tuning_budget=budget, store=tmp_path
        )
    (kept,) = stored(tmp_path).values()
    runs = kept.frame.groupby("policy")["seed"].nunique().to_dict()
    assert runs == {f"{method} [budget 100]": 8, f"{method} [budget 500]": 4}
    assert kept.notes == []


def test_no_run_is_left_alone():
    parts = {n: list(batches(list(range(n)), 4)) for n in (1, 4, 5, 6, 9)}
    assert {n: [len(part) for part in parts[n]] for n in parts} == {
        1: [1], 4: [4], 5: [5], 6: [4, 2], 9: [4, 5],
    }  # fmt: skip
    assert all(np.concatenate(parts[n]).tolist() == list(range(n)) for n in parts)
    assert list(batches([3, 5], 1)) == [[3], [5]]


def test_shuffled_policies_need_others_and_say_so_before_anything_is_run(tmp_path):
    options = {
        "methods": ["random-search,family='switch'"],
        "tuning_budget": 500,
        "runs": 1,
        "shuffled": True,
        "store": tmp_path,
    }
    for seeds, batch in (([0], 32), ([0, 1], 1)):
        with pytest.raises(ValueError, match=f"got {len(seeds)} and {batch}"):
            dacrl_env.compare(
                "dacrl/NoisyQuadratic-v0", seeds=seeds, batch=batch, **options
            )
        assert not list(tmp_path.iterdir())
    frame = dacrl_env.compare(
        "dacrl/NoisyQuadratic-v0", seeds=[0, 1, 2], batch=2, **options
    )
    assert frame["policy"].nunique() == 2


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"policies": ["nobody"]}, "unknown policy 'nobody'; valid: default"),
        ({"policies": []}, "must be given"),
        ({"policies": ["default", "default"]}, "once each"),
        ({"seeds": []}, "no seeds"),
        ({"seeds": [1, 1]}, "twice"),
        ({"num_threads": 0}, "num_threads"),
        ({"executor": "dask"}, "unknown executor 'dask'; valid: threads, processes"),
        ({"workers": 2}, "unknown"),
        ({"budgte": 3}, "unknown option 'budgte'"),
        ({"budget": 2_001}, "does not divide"),
        ({"split": "validation"}, "valid: tuning, test"),
        ({"task": "dacrl/Nothing-v0"}, "unknown task .* valid: dacrl/DQN-CartPole-v"),
    ],
)
def test_bad_input_is_named_before_anything_runs(tmp_path, kwargs, message):
    given = {"task": TASK, "policies": ["default"], "seeds": [0], **SMALL, **kwargs}
    with pytest.raises(ValueError, match=message):
        dacrl_env.compare(store=tmp_path, **given)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["report", "num_envs"])
def test_what_is_run_decides_some_options(name):
    with pytest.raises(ValueError, match=f"{name} cannot be given"):
        dacrl_env.evaluate("dacrl/DQN-CartPole-v0", "default", [0], **{name: 1})
