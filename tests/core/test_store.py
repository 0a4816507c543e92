import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dacrl_env.core.store import Store, StoreError, canonical

KEY = {
    "task": "dacrl/DQN-CartPole-v0",
    "policy": "pbt",
    "seeds": [0, 1],
    "x": {"b": 0.5},
}


@pytest.fixture
def frame():
    return pd.DataFrame(
        {
            "policy": ["pbt", "pbt"],
            "seed": [0, 1],
            "diverged": [False, True],
            "report_score": [0.25, np.nan],
        }
    )


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_round_trip(store, frame):
    assert KEY not in store
    assert store.keys() == []
    assert store.read_all().empty
    path = store.write(KEY, frame)
    assert path.name.startswith("pbt-dacrl-DQN-CartPole-v0-")
    assert KEY in store
    assert store.keys() == [KEY]
    pd.testing.assert_frame_equal(store.read(KEY), frame)
    pd.testing.assert_frame_equal(store.read_all(), frame)
    assert os.listdir(store.directory) == [path.name]


def test_a_missing_unit_is_a_key_error(store, frame):
    with pytest.raises(KeyError, match="not in the store"):
        store.read(KEY)
    store.write(KEY, frame)
    with pytest.raises(KeyError, match="not in the store"):
        store.read_all([KEY, KEY | {"x": 1}])


def test_equal_keys_share_a_file_and_different_ones_do_not(store):
    assert store.path(KEY) == store.path(dict(reversed(KEY.items())))
    assert store.path(KEY) == store.path(KEY | {"seeds": (0, 1)})
    assert store.path(KEY) == store.path(KEY | {"x": {"b": np.float64(0.5)}})
    others = [
        {},
        {"a": 1},
        {"a": 1.0},
        {"a": True},
        {"a": "1"},
        {"a": None},
        {"a": [1]},
        {"a": {"1": 1}},
        {"a": "x" * 300},
        {"a": "x" * 301},
        {"a": "é/../\n"},
        {"a": "\ud800"},
        {"a": "b", "b": "a"},
    ]
    paths = {store.path(key) for key in others}
    assert len(paths) == len(others)
    assert all(path.parent == store.directory for path in paths)
    assert max(len(path.name) for path in paths) < 120


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ({"a": float("nan")}, r"key\['a'\] is nan"),
        ({"a": [1, {"b": float("inf")}]}, r"key\['a'\]\[1\]\['b'\] is inf"),
        ({"a": {1: 2}}, "1, not a string"),
        ({"a": {1}}, r"builtins\.set"),
        ({"a": np.int64(1)}, r"numpy\.int64"),
        ({"a": b"1"}, "bytes"),
        ([1], "must be a dict"),
    ],
)
def test_keys_that_json_cannot_hold_are_refused(store, key, words):
    with pytest.raises(ValueError, match=words):
        canonical(key)
    with pytest.raises(ValueError, match=words):
        store.path(key)


def test_read_all_has_one_order_and_the_union_of_columns(tmp_path, frame):
    keys = [{"policy": name, "seeds": [0]} for name in "bca"]
    wide = frame.assign(**{"hp/epsilon": [0.1, 0.2], "report_score": np.nan})
    orders = []
    for directory, order in (("one", keys), ("two", keys[::-1])):
        store = Store(tmp_path / directory)
        for key in order:
            store.write(key, wide if key["policy"] == "b" else frame)
        orders.append(store.read_all())
        assert [key["policy"] for key in store] == ["a", "b", "c"]
    pd.testing.assert_frame_equal(*orders)
    assert (
        orders[0]["hp/epsilon"].isna().tolist() == [True] * 2 + [False] * 2 + [True] * 2
    )
    assert orders[0].index.tolist() == list(range(6))
    chosen = store.read_all([keys[0], keys[2]])
    assert chosen["report_score"].isna().tolist() == [True, True, False, True]


def test_a_kill_before_the_rename_leaves_nothing_that_counts(store, frame, monkeypatch):
    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", kill)
        with pytest.raises(KeyboardInterrupt):
            store.write(KEY, frame)
    assert os.listdir(store.directory) == []  # an interrupt still cleans up …

    half = store.path(KEY).with_name(store.path(KEY).name + ".tmp-1f")
    half.write_bytes(b"PAR1half")  # … a kill or a power cut cannot
    assert KEY not in store
    assert store.keys() == []
    store.write(KEY, frame)
    pd.testing.assert_frame_equal(store.read_all(), frame)
    assert half.exists()


def test_a_failing_column_leaves_no_file(store):
    with pytest.raises(ValueError, match="mixed"):
        store.write(KEY, pd.DataFrame({"mixed": [1, "a"]}))
    assert KEY not in store


def foreign_parquet(path):
    pq.write_table(pa.table({"a": [1]}), path)


def newer_format(path):
    table = pq.read_table(path)
    metadata = {**table.schema.metadata, b"dacrl_env.format": b"3"}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def another_key(path):
    table = pq.read_table(path)
    metadata = {**table.schema.metadata, b"dacrl_env.key": b'{"task":"other"}'}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def broken_key(path):
    table = pq.read_table(path)
    metadata = {**table.schema.metadata, b"dacrl_env.key": b"\xff{"}
    pq.write_table(table.replace_schema_metadata(metadata), path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(b""), "damaged or cut short"),
        (lambda path: path.write_bytes(b"not parquet at all"), "damaged or cut short"),
        (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "damaged or cut short"),
        (
            lambda path: os.truncate(path, path.stat().st_size - 1),
            "damaged or cut short",
        ),
        (lambda path: os.truncate(path, path.stat().st_size // 2), "damaged"),
        (foreign_parquet, "not written by dacrl-env"),
        (newer_format, "has format 3, but this dacrl-env reads format 2"),
        (another_key, "its key cannot be read"),
        (broken_key, "its key cannot be read"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_named_and_left_alone(
    store, frame, damage, words
):
    path = store.write(KEY, frame)
    store.write({"task": "sound"}, frame)
    damage(path)
    before = contents(store.directory)
    attempts = [
        lambda: KEY in store,
        lambda: store.read(KEY),
        lambda: store.write(KEY, frame),
        store.keys,
        store.read_all,
    ]
    for attempt in attempts:
        with pytest.raises(StoreError, match=words) as caught:
            attempt()
        assert str(path) in str(caught.value)
        assert "elete that file" in str(caught.value)
    assert contents(store.directory) == before
    assert {"task": "sound"} in store

    path.unlink()  # what the message asks for makes the store whole again
    assert KEY not in store
    store.write(KEY, frame)
    assert len(store.read_all()) == 4


def test_a_flipped_bit_in_the_data_is_noticed(store):
    frame = pd.DataFrame({"score": np.random.default_rng(0).normal(size=1000)})
    path = store.write(KEY, frame)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"damaged.*CRC"):
        store.read(KEY)


def test_a_copy_under_another_name_does_not_count_twice(store, frame):
    path = store.write(KEY, frame)
    (store.directory / "copy.parquet").write_bytes(path.read_bytes())
    with pytest.raises(StoreError, match=r"copy\.parquet.*does not match"):
        store.read_all()


def test_other_files_are_none_of_its_business(store, frame):
    store.write(KEY, frame)
    (store.directory / "report.md").write_text("hello")
    assert store.keys() == [KEY]


def test_concurrent_writers_of_one_key(store, frame):
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: store.write(KEY, frame), range(20)))
    assert len(set(paths)) == 1
    assert os.listdir(store.directory) == [paths[0].name]
    pd.testing.assert_frame_equal(store.read(KEY), frame)


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file"):
        Store(tmp_path / "file")
