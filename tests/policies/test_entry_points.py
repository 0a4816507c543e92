"""Policies and methods that other distributions offer by name."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dacrl_env
from dacrl_env.cli.commands import main
from dacrl_env.comparison.results import origin_of
from dacrl_env.policies import entry_points, get_method, get_policy
from dacrl_env.policies.protocol import METHODS, POLICIES

QUADRATIC = "dacrl/NoisyQuadratic-v0"
RULES = '''
from dacrl_env.baselines.random_search import RandomSearch
from dacrl_env.policies.static import Static

class Slow(Static):
    """A small learning rate.

    Args:
        rate: of it.
    """
    def __init__(self, rate: float = 0.01) -> None:
        super().__init__(learning_rate=rate)

class Search(RandomSearch):
    """As random search."""

NOTHING = 3
'''
Fake = Callable[..., Path]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Makes distributions: their entry points by group, and modules by name."""
    monkeypatch.setattr(entry_points, "_TOLD", set())

    def make(
        policies: str = "", methods: str = "", name: str = "rules-of-mine", **files: str
    ) -> Path:
        place = tmp_path / name
        info = place / f"{name.replace('-', '_')}-1.2.dist-info"
        info.mkdir(parents=True)
        text = f"[dacrl.policies]\n{policies}\n[dacrl.methods]\n{methods}\n"
        (info / "entry_points.txt").write_text(text)
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n"
        (info / "METADATA").write_text(about)
        for module, content in files.items():
            (place / f"{module}.py").write_text(content)
            monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.syspath_prepend(place)
        return place

    return make


def test_names_are_those_of_this_package_and_of_others(fake: Fake) -> None:
    fake("my-rule = ep_rules:Slow", "my-search = ep_rules:Search", ep_rules=RULES)
    frame = dacrl_env.compare(
        QUADRATIC, ["default", "my-rule"], 2,
        methods="my-search", tuning_budget=100, runs=1,
    )  # fmt: skip
    assert frame["policy"].unique().tolist() == ["default", "my-rule", "my-search"]
    rates = frame[frame["policy"] == "my-rule"]["hp/learning_rate"].dropna()
    assert set(rates) == {0.01}
    mine = dacrl_env.evaluate(QUADRATIC, "My_Rule,rate=0.02", 1)
    assert set(mine["hp/learning_rate"].dropna()) == {0.02}
    fitted = dacrl_env.fit(QUADRATIC, "my-search,population=2", 100)
    assert 0 < fitted.cost.env_steps <= 100
    with pytest.raises(ValueError, match=r"arguments: rate"):
        get_policy("my-rule,speed=1")


def test_what_is_meant(fake: Fake) -> None:
    fake("my-rule = ep_rules:Slow", "my-search = ep_rules:Search", ep_rules=RULES)
    with pytest.raises(ValueError, match=r"did you mean 'my-rule'\?"):
        get_policy("my-ruel")
    with pytest.raises(ValueError, match=r"did you mean 'my-search'\?.*, my-search, "):
        get_method("mysaerch")
    with pytest.raises(ValueError, match="'my-search' is a method, no policy"):
        get_policy("my-search")


def test_the_command_line(fake: Fake, capsys: Any, tmp_path: Path) -> None:
    fake(
        "my-rule = ep_rules:Slow\nbroken = no_such_module_of_ep:Rule",
        "my-search = ep_rules:Search",
        ep_rules=RULES,
    )
    assert main(["list", "policies", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["my-rule"] == "A small learning rate. (rules-of-mine 1.2)"
    assert "rules-of-mine 1.2 cannot be used: no_such_module_of" in listed["broken"]
    assert set(POLICIES) <= set(listed)
    assert main(["list", "policies", "my_rule"]) == 0
    out = capsys.readouterr().out
    assert "from rules-of-mine 1.2: ep_rules:Slow" in out
    assert "rate (float, default 0.01)" in out
    assert main(["list", "methods", "my-search"]) == 0
    assert main(["tasks"]) == 0
    assert "my-search, or module:Class" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit):
        main(["compare", "my-rule", "--help"])
    assert "A small learning rate." in capsys.readouterr().out
    out = str(tmp_path / "out")
    line = [QUADRATIC, "--policies", "default", "my-rule,rate=0.02", "--seeds", "2"]
    assert main(["compare", *line, "--out", out]) == 0
    assert "my-rule,rate=0.02" in capsys.readouterr().out
    line = ["evaluate", QUADRATIC, "broken", "--seeds", "1", "--out", out]
    assert main(line) != 0
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert "'broken' of the distribution rules-of-mine 1.2" in error[0]


def test_a_name_of_this_package_stays_its_own(fake: Fake) -> None:
    entries = "Default = ep_rules:Slow\ntpe = ep_rules:Slow\nother = ep_rules:Slow"
    fake(entries, ep_rules=RULES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own: Any = get_policy("default")
    assert own.config == {}
    with pytest.warns(UserWarning, match="is not used by this name") as told:
        policy: Any = get_policy("other")
    assert policy.config == {"learning_rate": 0.01}
    get_policy("other")  # it is said once
    texts = [str(w.message) for w in told]
    assert len(texts) == 2
    assert "'Default' of the distribution rules-of-mine 1.2 (ep_rules:Slow)" in texts[0]
    assert "'default' is dacrl_env.policies.static:Static of dacrl-env" in texts[0]
    assert "'tpe'" in texts[1]
    with pytest.raises(ValueError, match="'tpe' is a method, no policy"):
        get_policy("tpe")


def test_a_name_of_two_distributions_is_refused(fake: Fake) -> None:
    fake("my-rule = ep_rules:Slow\nother = ep_rules:Slow", ep_rules=RULES)
    fake("my-rule = ep_more:Slow", name="more", ep_more=RULES)
    with pytest.raises(ValueError, match=r"my-rule.*(more 1.2|rules-of-mine 1.2)") as e:
        get_policy("my-rule")
    for name in ("more 1.2", "rules-of-mine 1.2", "ep_more:Slow", "ep_rules:Slow"):
        assert name in str(e.value)
    assert get_policy("other") is not None
    assert get_policy("ep_more:Slow") is not None


@pytest.mark.parametrize("asked", ["my-rule", "My_Rule", "myrule"])
def test_names_that_are_alike_clash(fake: Fake, asked: str) -> None:
    fake("my-rule = ep_rules:Slow", ep_rules=RULES)
    fake("My_Rule = ep_more:Slow", name="more", ep_more=RULES)
    with pytest.raises(ValueError, match=r"has the same name, written 'my-rule'") as e:
        get_policy(asked)
    for name in ("more 1.2", "rules-of-mine 1.2", "ep_more:Slow", "ep_rules:Slow"):
        assert name in str(e.value)


def test_one_distribution_may_write_a_name_in_two_ways(fake: Fake) -> None:
    fake("my-rule = ep_rules:Slow\nmy_rule = ep_rules:Slow", ep_rules=RULES)
    assert get_policy("my-rule") is not None


@pytest.mark.parametrize(
    ("entry", "content", "message"),
    [
        ("no_such_module_of_ep:Rule", "", "ModuleNotFoundError: No module named"),
        ("ep_bad:Rule", "1 / 0", "ZeroDivisionError: division by zero"),
        ("ep_bad:Rule", "x = (", "SyntaxError"),
        ("ep_bad:Rule", "raise SystemExit(3)", "SystemExit: 3"),
        ("ep_bad:Rule", "Rule = 3", "it is a int, nothing that makes one"),
        ("ep_bad:Missing", "", "AttributeError"),
        ("ep_bad", "", "an entry is module:Class"),
    ],
)
def test_what_cannot_be_used_is_said_when_it_is_asked_for(
    fake: Fake, entry: str, content: str, message: str
) -> None:
    fake(f"bad = {entry}\ngood = ep_rules:Slow", ep_bad=content, ep_rules=RULES)
    with pytest.raises(ValueError, match=message) as error:
        get_policy("bad")
    text = str(error.value)
    assert text.startswith("policy 'bad' of the distribution rules-of-mine 1.2")
    assert "\n" not in text
    assert get_policy("good") is not None
    with pytest.raises(ValueError, match="did you mean"):
        get_policy("defualt")


def test_a_name_that_nobody_could_give(fake: Fake) -> None:
    fake("a,b = ep_rules:Slow\nx.json = ep_rules:Slow", ep_rules=RULES)
    found = entry_points.offered("policy", {})
    assert all("a name has none of" in str(one.fault) for one in found.values())
    assert len(found) == 2


def test_a_damaged_list_harms_no_other(fake: Fake) -> None:
    fake("my-rule = ep_rules:Slow", ep_rules=RULES)
    place = fake(name="damaged")
    (place / "damaged-1.2.dist-info" / "entry_points.txt").write_bytes(b"[a]\n\xff\xfe")
    with pytest.warns(UserWarning, match="the distribution damaged 1.2 cannot") as told:
        assert get_policy("my-rule") is not None
    get_policy("my-rule")  # it is said once
    assert len(told) == 1


def test_a_distribution_that_does_not_say_its_name(fake: Fake) -> None:
    place = fake("my-rule = no_such_module_of_ep:Rule")
    (place / "rules_of_mine-1.2.dist-info" / "METADATA").unlink()
    with pytest.raises(ValueError, match=r"distribution rules_of_mine 1\.2 cannot"):
        get_policy("my-rule")


def test_nothing_is_looked_up_for_names_of_this_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(entry_points, "_points", fails)
    for name in ("default", "random", "Linear_Epsilon"):
        get_policy(name)
    for name in METHODS:
        if name.startswith(("grid", "random", "pbt")):
            get_method(name)
    with pytest.raises(AssertionError):
        get_policy("nobody")


def test_results_are_kept_by_the_source_behind_a_name(fake: Fake) -> None:
    fake("my-rule = ep_kept:Slow\nother = ep_more:Slow", ep_kept=RULES, ep_more="")
    fake(name="more", ep_more=RULES.replace("0.01", "0.02"))

    def origin(name: str) -> Any:
        return origin_of(get_policy(name), name)

    assert origin("my-rule") == origin("ep_kept:Slow")
    assert origin("my-rule")["entry"] != origin("other")["entry"]
    assert origin("my-rule") != origin("my-rule,rate=0.02")
