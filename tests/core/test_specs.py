"""Texts that name policies, methods and values: labels, quotation marks, paths."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from cases import slow

import dacrl_env
from dacrl_env.cli.commands import main
from dacrl_env.core.specs import read_spec, take_label
from dacrl_env.policies import Cost, Fitted, get_method, get_policy, save_fitted
from dacrl_env.policies.static import Static

QUADRATIC = "dacrl/NoisyQuadratic-v0"
FOLDERS = (
    "seed=3",
    "lr=0.1,seed=3",
    "a,b",
    "v1.2/x=[1",
    "o'brien",
    "a b",
    "'q'",
    "ü=ß",
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(path: str | Path, rate: float = 0.02) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    fitted = Fitted(Static(learning_rate=rate), Cost(), task=QUADRATIC)
    save_fitted(fitted, path, {})
    return str(path)


@pytest.mark.parametrize("folder", FOLDERS)
def test_paths_may_have_any_character(here: Path, folder: str) -> None:
    path = put(f"{folder}/policy.json")
    for spec in (path, f"{path},any_task=True", str(here / path)):
        assert get_policy(spec).policy.config == {"learning_rate": 0.02}
        assert take_label(spec) == (None, spec)
        assert take_label(f"mine={spec}") == ("mine", spec)
    assert get_policy(f"{path},any_task=True").task is None


@pytest.mark.parametrize("folder", [slow("lr=0.1,seed=3"), "it's, a=b"])
def test_commands_take_paths_of_any_character(here: Path, folder: str) -> None:
    path = put(f"{folder}/policy.json")
    out = ["--seeds", "1", "--num-threads", "1", "--out", f"{folder}/out"]
    assert main(["evaluate", QUADRATIC, path, *out]) == 0
    assert main(["compare", QUADRATIC, "--policies", path, "m=default", *out]) == 0
    (table,) = map(pd.read_csv, (here / folder / "out").glob("*/table.csv"))
    assert table["policy"].tolist() == [path, "m"]


def test_the_longest_path_wins(here: Path) -> None:
    put("a.json", 0.01)
    put("a.json,any_task=True.json", 0.03)
    assert get_policy("a.json").policy.config["learning_rate"] == 0.01
    longer = get_policy("a.json,any_task=True.json")
    assert longer.policy.config["learning_rate"] == 0.03
    assert get_policy("a.json,any_task=True").task is None


def test_quotation_marks_hold_together(here: Path) -> None:
    put("a,b=c.json")
    for quote in "'\"":
        spec = f"{quote}a,b=c.json{quote},any_task=True"
        assert get_policy(spec).policy.config == {"learning_rate": 0.02}
    name, arguments = read_spec("own:Mine,path='x,y/z=1.json',n=2", "policy")
    assert (name, arguments) == ("own:Mine", {"path": "x,y/z=1.json", "n": 2})
    _, arguments = read_spec("m,space={'a,(b': (1, 2)},word=it's", "method")
    assert arguments == {"space": {"a,(b": (1, 2)}, "word": "it's"}


@pytest.mark.parametrize(
    ("text", "label", "rest"),
    [
        ("default", None, "default"),
        ("a=default", "a", "default"),
        ("v1.2=default", "v1.2", "default"),
        ("two words=own:Mine,depth=2", "two words", "own:Mine,depth=2"),
        ("'lr=0.1, a/b: c'=default", "lr=0.1, a/b: c", "default"),
        ('"x"=static,learning_rate=1', "x", "static,learning_rate=1"),
        ("static,learning_rate=1", None, "static,learning_rate=1"),
        ("own:Mine,depth=2", None, "own:Mine,depth=2"),
        ("sub/x.json,any_task=True", None, "sub/x.json,any_task=True"),
        ("'a,b.json',any_task=True", None, "'a,b.json',any_task=True"),
        ("a=b=c", "a", "b=c"),
    ],
)
def test_labels(text: str, label: str | None, rest: str) -> None:
    assert take_label(text) == (label, rest)


@pytest.mark.parametrize("text", ["=default", "a=", "' '=default", "''=default"])
def test_labels_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="should read LABEL=POLICY"):
        take_label(text)


def test_labels_of_any_kind_are_shown(tmp_path: Path) -> None:
    labels = ["v1.2", "lr=0.1, a/b: c", "ü"]
    given = [f"{labels[0]}=default", f"'{labels[1]}'=random", f"{labels[2]}=static"]
    arguments = ["compare", QUADRATIC, "--policies", *given, "--seeds", "2"]
    arguments += [
        "--num-threads",
        "1",
        "--out",
        str(tmp_path),
        "--reference",
        labels[1],
    ]
    assert main(arguments) == 0
    (path,) = tmp_path.glob("*/table.csv")
    assert pd.read_csv(path)["policy"].tolist() == labels


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("static,learning_rate=1,learning_rate=2", "learning_rate is given twice"),
        ("linear-epsilon,fraction=0.5, fraction=0.5", "fraction is given twice"),
        ("random,=3", "cannot read '=3'"),
        ("random,3", "cannot read '3'.*in quotation marks"),
        ("'a,b.json", "a quotation mark is not closed"),
        ("own:Mine,path='x", "a quotation mark is not closed"),
        ("no/such.json", "no policy file no/such"),
    ],
)
def test_texts_that_cannot_be_read(spec: str, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        get_policy(spec)


def test_a_repeated_argument_of_a_method_is_one_line(tmp_path: Path, capsys) -> None:
    line = ["fit", QUADRATIC, "random-search,seeds=1,seeds=2", "--budget", "1e3"]
    assert main([*line, "--out", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "'random-search,seeds=1,seeds=2': seeds is given twice" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("make", "spec", "name", "value"),
    [
        (get_method, "random-search,seeds=2e0", "seeds", 2),
        (get_method, "pbt,population=1e2", "population", 100),
        (get_method, "cma-es,generation=1.2e1", "generation", 12),
        (get_policy, "linear-epsilon,decisions=5e1", "decisions", 50),
    ],
)
def test_whole_numbers_are_written_in_either_way(make, spec, name, value) -> None:
    found = getattr(make(spec), name)
    assert (found, type(found)) == (value, int)


def test_numbers_that_are_not_whole_stay_as_they_are() -> None:
    with pytest.raises(ValueError, match=r"seeds must be of type int, got 2\.5"):
        get_method("random-search,seeds=25e-1")
    assert get_policy("linear-epsilon,start=1e0").curve.start == 1.0


def test_a_fit_s_place_and_values_may_have_any_character(tmp_path: Path) -> None:
    out = tmp_path / "lr=0.1,seed=3"
    line = ["fit", QUADRATIC, "random-search,space={'learning_rate': (1e-3, 1e-1)}"]
    options = ["--set", "fixed={}", "eval_episodes=1e0"]
    assert main([*line, "--budget", "200", "--out", str(out), *options]) == 0
    again = get_policy(f"{out}/policy.json,any_task=True")
    assert not dacrl_env.evaluate(QUADRATIC, again, 1).empty
