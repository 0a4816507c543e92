"""Files that are damaged or say what cannot be: one clear error, nothing believed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dacrl_env.agents import checkpoints

import dacrl_env
from dacrl_env.cli.commands import main
from dacrl_env.core.store import Store, StoreError
from dacrl_env.methods import trials
from dacrl_env.policies import (
    Cost,
    Fitted,
    from_json,
    get_method,
    get_policy,
    load_fitted,
    pretrained,
    protocol,
    save_fitted,
    to_json,
)

QUADRATIC = "dacrl/NoisyQuadratic-v0"


def flips(path: Path, count: int, check: Callable[[], Any]) -> None:
    """One bit at a time, at random places."""
    data = path.read_bytes()
    generator = random.Random(0)
    for bit in generator.sample(range(8 * len(data)), min(count, 8 * len(data))):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        check()
    path.write_bytes(data)
    check()


def refused(read: Callable[[], Any], expected: Any, errors: Any, where: Path) -> bool:
    """Whether reading names the file that is damaged; else it gives what was there."""
    try:
        found = read()
    except errors as error:
        message = str(error)
    else:
        assert found == expected
        return False
    assert str(where) in message
    return True


def seen(fitted: Fitted) -> Any:
    about = fitted.task, fitted.settings, fitted.about, fitted.online
    return to_json(fitted.policy), fitted.cost, *about


def fitted_policy() -> Fitted:
    policy = from_json({"kind": "static", "arguments": {"learning_rate": 0.01}})
    return Fitted(policy, Cost(10, 20, 5, 1e9), online=0.5, task=QUADRATIC)


@pytest.mark.parametrize("kind", ["json", "safetensors"])
def test_a_flipped_bit_in_a_policy_file(tmp_path, kind):
    if kind == "json":
        fitted = fitted_policy()
    else:
        fitted = load_fitted(pretrained()["pretrained/dqn-cartpoleshift-gate-0"])
    path = tmp_path / f"policy.{kind}"
    save_fitted(fitted, path, {"method": "by hand"})
    expected = seen(load_fitted(path))
    count = []

    def check() -> None:
        read = lambda: seen(load_fitted(path))  # noqa: E731
        count.append(refused(read, expected, ValueError, path))

    flips(path, 400, check)
    assert sum(count) > 350


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        '{"a":' * 100_000,
        "",
        "null",
        '"policy"',
        "{",
        '{"format": 1, "format": 1}',
        '{"format": 1, "online": NaN}',
        '{"format": true}',
        '{"format": "2"}',
    ],
    ids=lambda text: text[:12],
)
def test_a_policy_file_that_is_something_else(tmp_path, text, capsys):
    path = tmp_path / "policy.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="is no policy file"):
        load_fitted(path)
    out = tmp_path / "out"
    arguments = ["evaluate", QUADRATIC, str(path), "--seeds", "1", "--out", str(out)]
    assert main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(out.rglob("*.parquet"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(policy="x"), "policy must be dict, got 'x'"),
        (lambda c: c.update(policy={"kind": ["static"]}), "unknown policy"),
        (lambda c: c["policy"].update(arguments="x"), "must be a dict"),
        (
            lambda c: c["policy"]["arguments"].update(learning_rate=[1]),
            "of type str",
        ),
        (lambda c: c["cost"].update(env_steps="5"), "env_steps of a cost"),
        (lambda c: c["cost"].update(env_steps=-1e9), "env_steps of a cost"),
        (lambda c: c["cost"].update(eval_steps=-1), "eval_steps of a cost"),
        (lambda c: c["cost"].update(gradient_steps=True), "gradient_steps of a cost"),
        (lambda c: c["cost"].update(flops=None), "flops of a cost"),
        (lambda c: c["cost"].update(more=1), "a cost has env_steps"),
        (lambda c: c.update(cost=[]), "cost must be dict"),
        (lambda c: c.update(online="0.5"), "online must be"),
        (lambda c: c.update(task=5), "task must be"),
        (lambda c: c.update(settings=[]), "settings must be"),
        (lambda c: c.pop("task"), "'task' is missing"),
        (lambda c: c.update(about="me"), "about must be"),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_what_a_policy_file_says_is_checked(tmp_path, change, message, version):
    path = tmp_path / "policy.json"
    save_fitted(fitted_policy(), path, {})
    content = json.loads(path.read_text())
    content["format"] = version
    change(content)
    content["checksum"] = protocol._checksum(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        load_fitted(path)


def test_a_policy_file_with_no_option_ends_before_training(tmp_path):
    path = tmp_path / "policy.json"
    save_fitted(fitted_policy(), path, {})
    content = json.loads(path.read_text())
    content["policy"]["arguments"]["learning_rate"] = "x"
    content["checksum"] = protocol._checksum(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="learning_rate must be real numbers"):
        dacrl_env.evaluate("dacrl/NoisyQuadratic-v0", str(path), 1)


def test_a_policy_file_of_the_first_format_is_read(tmp_path):
    path = tmp_path / "policy.json"
    save_fitted(fitted_policy(), path, {"method": "m"})
    expected = seen(load_fitted(path))
    content = json.loads(path.read_text())
    del content["checksum"]
    path.write_text(json.dumps({**content, "format": 1}))
    assert seen(load_fitted(path)) == expected
    # without a checksum the second is not
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="checksum"):
        load_fitted(path)


def test_options_that_are_objects_can_be_written(tmp_path):
    rate = dacrl_env.Number("learning_rate", 1e-3, 0.1, 0.01, "log")
    fitted = dacrl_env.fit(
        *(QUADRATIC, "random-search", 200, 0),
        hyperparameters=[rate], reward=lambda c: c.score, budget=np.int64(100),
    )  # fmt: skip
    path = tmp_path / "policy.json"
    save_fitted(fitted, path, {})
    frame = dacrl_env.evaluate(QUADRATIC, str(path), [0, 1], budget=100)
    assert not frame.empty


@pytest.mark.parametrize(("name", "value"), [("history", 10**8), ("decisions", "20")])
def test_a_controller_says_what_can_be(tmp_path, name, value):
    fitted = load_fitted(pretrained()["pretrained/dqn-cartpoleshift-gate-0"])
    content = to_json(fitted.policy)
    content["arguments"]["about"][name] = value
    with pytest.raises(ValueError, match=f"{name} of a controller"):
        from_json(content)


def test_the_shipped_policies_are_of_the_present_format():
    for path in pretrained().values():
        if path.suffix == ".json":
            content = json.loads(path.read_text())
        else:
            content = protocol._read_weights(path)
        assert content["format"] == protocol.FORMAT
        assert get_policy(str(path)).task is not None


# -- the store -------------------------------------------------------------------------


@pytest.mark.slow
def test_a_flipped_bit_in_a_result(tmp_path):
    store, key = Store(tmp_path), {"policy": "pbt", "seeds": [0, 1], "x": {"b": 0.5}}
    frame = pd.DataFrame(
        {
            "policy": ["pbt", "pbt", None],
            "seed": [0, 1, 2],
            "diverged": [False, True, False],
            "score": [0.25, np.nan, -0.0],
        }
    )
    path = store.write(key, frame)
    (entry,) = store.entries()
    count = []

    def read() -> Any:
        found = store.read(key)
        pd.testing.assert_frame_equal(found, frame)
        return store.entries()

    def check() -> None:
        count.append(refused(read, [entry], StoreError, path))

    flips(path, 1_500, check)
    assert sum(count) > 700


def test_equal_looking_tables_have_other_digests(tmp_path):
    store = Store(tmp_path)
    tables = [
        pd.DataFrame({"a": [1, 2], "b": [3, 4]}),
        pd.DataFrame({"b": [1, 2], "a": [3, 4]}),
        pd.DataFrame({"a": [1, 2], "c": [3, 4]}),
        pd.DataFrame({"a": [1, 2], "b": [3.0, 4.0]}),
        pd.DataFrame({"a": [2, 1], "b": [3, 4]}),
        pd.DataFrame({"a": ["1", "2"], "b": [3, 4]}),
        pd.DataFrame({"a": ["12", ""], "b": [3, 4]}),
        pd.DataFrame({"a": ["12", None], "b": [3, 4]}),
        pd.DataFrame({"a": [0.0, 1.0]}),
        pd.DataFrame({"a": [-0.0, 1.0]}),
        pd.DataFrame({"a": [np.nan, 1.0]}),
    ]
    import pyarrow.parquet as pq

    digests = {
        pq.read_schema(store.write({"n": n}, table)).metadata[b"dacrl_env.rows"]
        for n, table in enumerate(tables)
    }
    assert len(digests) == len(tables)


def test_results_of_the_first_format_are_left_out(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    store = Store(tmp_path)
    store.write({"n": 1}, pd.DataFrame({"a": [1]}))
    metadata = {b"dacrl_env.key": b'{"n":2}', b"dacrl_env.format": b"1"}
    old = pa.table({"a": [1]}).replace_schema_metadata(metadata)
    pq.write_table(old, tmp_path / "old-0123456789abcdef.parquet")
    with pytest.warns(UserWarning, match="1 results in .* older dacrl-env"):
        assert store.keys() == [{"n": 1}]


# -- what goes on after an interruption ----------------------------------------------


def test_a_flipped_bit_in_a_journal(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "CHECKPOINT_SECONDS", 0.0)
    method = get_method("random-search,population=2")
    expected = seen(method.fit(QUADRATIC, 200, 0, Store(tmp_path)))
    (path,) = tmp_path.rglob("journal.json")
    (folder,) = {path.parent}
    files = {p: p.read_bytes() for p in folder.iterdir()}
    count = []

    def check() -> None:
        read = lambda: seen(method.fit(QUADRATIC, 200, 0, Store(tmp_path)))  # noqa: E731
        count.append(refused(read, expected, StoreError, path))
        for file, content in files.items():
            if file != path:
                file.write_bytes(content)

    flips(path, 60, check)
    assert sum(count) >= 58


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["records"][0]["cost"].update(env_steps=-5), "env_steps"),
        (lambda c: c["records"][0].pop("result"), "result"),
        (lambda c: c["records"][0].update(digest=3), "name and digest"),
        (lambda c: c.update(state="../policy.json"), "no file of runs"),
        (lambda c: c.update(format=1), "format is 1"),
        (lambda c: c.update(key={"kind": "fit"}), "another fit"),
        (lambda c: c.update(records="x"), "damaged"),
    ],
)
def test_what_a_journal_says_is_checked(tmp_path, monkeypatch, change, message):
    monkeypatch.setattr(trials, "CHECKPOINT_SECONDS", 0.0)
    method = get_method("random-search,population=2")
    method.fit(QUADRATIC, 200, 0, Store(tmp_path))
    (path,) = tmp_path.rglob("journal.json")
    content = json.loads(path.read_text())
    change(content)
    content["checksum"] = trials._checksum(content)
    path.write_text(json.dumps(content))
    with pytest.raises(StoreError, match=message):
        method.fit(QUADRATIC, 200, 0, Store(tmp_path))
    path.write_text("[" * 200_000)
    with pytest.raises(StoreError, match="nested too deeply"):
        method.fit(QUADRATIC, 200, 0, Store(tmp_path))


CONTROLLER = "controller-ppo,population=4,trial_runs=4,trials=1,hidden_sizes=(4,)"


@pytest.mark.parametrize("file", ["model-*", "population-*", "checkpoint.json"])
def test_a_flipped_bit_in_a_checkpoint(tmp_path, monkeypatch, file):
    from dacrl_env.agents import training

    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    method, budget = get_method(CONTROLLER), 3 * 200

    def fit() -> Any:
        return seen(method.fit(QUADRATIC, budget, 0, Store(tmp_path)))

    expected = fit()
    (path,) = tmp_path.rglob(file)
    assert fit() == expected  # from the checkpoint
    count = []

    def check() -> None:
        count.append(refused(fit, expected, StoreError, path.parent))

    flips(path, 8, check)
    assert sum(count) >= 7


def test_population_and_model_belong_together(tmp_path, monkeypatch):
    from dacrl_env.agents import training

    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    method = get_method(CONTROLLER)
    for seed in (0, 1):
        method.fit(QUADRATIC, 600, seed, Store(tmp_path / str(seed)))
    for kind in ("population-*", "model-*"):
        (mine,), (other,) = (list((tmp_path / s).rglob(kind)) for s in "01")
        before = mine.read_bytes()
        mine.write_bytes(other.read_bytes())  # whole, and of another training
        with pytest.raises(StoreError, match="is not the file that was written"):
            method.fit(QUADRATIC, 600, 0, Store(tmp_path / "0"))
        mine.write_bytes(before)
    assert checkpoints.exist(mine.parent)
