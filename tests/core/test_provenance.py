"""What results are named by: sources of users' code, and values."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import enum
import functools
import importlib
import json
import linecache
import os
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dacrl_env
from dacrl_env import Instance, Number
from dacrl_env.core import installed, named_files
from dacrl_env.core.provenance import NoSource, described, source
from dacrl_env.policies import get_method, get_policy

PLAIN = """
{imports}
RATE = {rate}
class P:
    action_mode = "continuous"
    def act(self, o, infos): return {value}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder whose modules can be imported, and are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def write(folder: Path, **files: str) -> None:
    """Files of Python, by their names without the ending."""
    for name, text in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def fresh(folder: Path, name: str = "pol") -> Any:
    """A module as another process would see it."""
    for loaded in list(sys.modules):
        file = str(getattr(sys.modules[loaded], "__file__", None))
        if file.startswith(str(folder)):
            del sys.modules[loaded]
    importlib.invalidate_caches()
    return importlib.import_module(name)


# -- what a user's class depends on ----------------------------------------------------


@pytest.mark.parametrize(
    ("files", "edited"),
    [
        ({"pol": "class P:\n    def act(self): return 1\n"}, "pol"),
        ({"pol": "import helper\nclass P: pass\n", "helper": "R = 1\n"}, "helper"),
        (
            {"pol": "from helper import R\nclass P: pass\n", "helper": "R = 1\n"},
            "helper",
        ),
        (
            {
                "pol": "import helper\nclass P: pass\n",
                "helper": "import deeper\n",
                "deeper": "R = 1\n",
            },
            "deeper",
        ),
        (
            {
                "pol": "class P:\n    def act(self):\n        import late\n",
                "late": "R = 1\n",
            },
            "late",
        ),
        (
            {
                "pol": "import importlib\nclass P:\n    def act(self):\n"
                "        importlib.import_module('late')\n",
                "late": "R = 1\n",
            },
            "late",
        ),
        (
            {
                "pol": "from pack.sub import P\n",
                "pack/__init__": "",
                "pack/sub": "from . import other\nclass P: pass\n",
                "pack/other": "R = 1\n",
            },
            "pack/other",
        ),
        (
            {
                "pol": "from pack.sub import P\n",
                "pack/__init__": "R = 1\n",
                "pack/sub": "class P: pass\n",
            },
            "pack/__init__",
        ),
        (
            {
                "pol": "from pack.a.b import P\n",
                "pack/__init__": "",
                "pack/a/__init__": "",
                "pack/a/b": "from ..c import R\nclass P: pass\n",
                "pack/c": "R = 1\n",
            },
            "pack/c",
        ),
        (  # no __init__, and a star
            {
                "pol": "from space.sub import *\n",
                "space/sub": "from space.other import R\nclass P: pass\n",
                "space/other": "R = 1\n",
            },
            "space/other",
        ),
        (  # the base lies elsewhere, and is got at dynamically
            {
                "pol": "import sys, helper\nclass P(sys.modules['helper'].B): pass\n",
                "helper": "from base import B\n",
                "base": "class B: pass\n",
            },
            "base",
        ),
    ],
)
def test_an_edit_of_anything_local_is_another_source(folder, files, edited):
    write(folder, **files)
    first = source(fresh(folder).P)
    assert source(fresh(folder).P) == first
    write(folder, **{edited: files[edited] + "# edited\n"})
    assert source(fresh(folder).P) != first


def test_what_is_beside_it_does_not_count(folder):
    write(folder, pol="import json, numpy, dacrl_env\nclass P: pass\n", other="R = 1\n")
    first = source(fresh(folder).P)
    write(folder, other="R = 2\n")
    assert source(fresh(folder).P) == first


def test_a_base_class_that_is_not_imported_by_name(folder):
    write(folder, base="class B:\n    rate = 1\n")
    made = "class P(base): pass\n"
    write(folder, pol=made.replace("base", "__import__('ba' + 'se').B"))
    first = source(fresh(folder).P)
    write(folder, base="class B:\n    rate = 2\n")
    assert source(fresh(folder).P) != first


@pytest.mark.parametrize(
    "change",
    [
        lambda pol: setattr(pol, "OPTIONS", argparse.Namespace(rate=2)),
        lambda pol: pol.TABLE.update(rate=2),
        lambda pol: setattr(pol.P, "scale", np.arange(3)),
        lambda pol: setattr(pol, "helper", pol.other),
    ],
)
def test_values_that_code_refers_to_are_part_of_it(folder, change):
    text = """
import argparse
OPTIONS = argparse.Namespace(rate=1)
TABLE = {"rate": 1}
def one(): return 1
def two(): return 2
helper, other = one, two
class P:
    scale = [1]
    def act(self):
        return OPTIONS.rate, TABLE, helper()
"""
    write(folder, pol=text)
    first = source(fresh(folder).P)
    pol = fresh(folder)
    assert source(pol.P) == first
    change(pol)
    assert source(pol.P) != first


HELPER = """
RATE = 1
TABLE, LIST = {"rate": 1}, [1]
def rate(): return TABLE["rate"]
def other(): return 2
class Cfg:
    rate, table = 1, {"rate": 1}
    def one(self): return 1
    def two(self): return 2
class Space: pass
space = Space()
space.rate, unread = 1, [1]
"""
CHANGES: list[tuple[str, Any]] = [
    ("RATE", lambda h: setattr(h, "RATE", 2)),
    ("TABLE", lambda h: h.TABLE.update(rate=2)),
    ("LIST", lambda h: h.LIST.append(2)),
    ("rate()", lambda h: setattr(h, "rate", h.other)),
    ("rate()", lambda h: setattr(h, "rate", lambda: 2)),
    ("rate()", lambda h: h.TABLE.update(rate=2)),
    ("Cfg.rate", lambda h: setattr(h.Cfg, "rate", 2)),
    ("Cfg.table", lambda h: h.Cfg.table.update(rate=2)),
    ("Cfg().one()", lambda h: setattr(h.Cfg, "one", h.Cfg.two)),
    ("space.rate", lambda h: setattr(h.space, "rate", 2)),
]


@pytest.mark.parametrize(("read", "change"), CHANGES)
def test_values_of_another_module_are_part_of_it(folder, read, change):
    text = PLAIN.format(imports="import helper", rate=1, value=f"helper.{read}")
    write(folder, pol=text, helper=HELPER)
    first = source(fresh(folder).P)
    pol = fresh(folder)
    pol.helper.unread.append(2)
    assert source(pol.P) == first
    change(pol.helper)
    second = source(pol.P)
    assert second != first
    pol = fresh(folder)  # another process that sets it before anything is asked
    if read != "RATE":  # of which it cannot be told whether the file was edited
        change(pol.helper)
        assert source(pol.P) == second


@pytest.mark.parametrize(
    "text",
    [
        "import lib\nclass P:\n    def act(self): return lib.helper.TABLE",
        "import lib.helper\nclass P:\n    def act(self): return lib.helper.TABLE",
        "from lib import helper as h\nclass P:\n    def act(self): return h.TABLE",
        "from lib import helper\nclass P:\n    def act(self):\n        h = helper\n"
        "        return h.TABLE",
        "from lib import helper\nclass P:\n"
        "    def act(self): return getattr(helper, 'TABLE')",
        "from lib import helper\nclass P:\n    def act(self, h=helper): return h.TABLE",
        "from lib import helper\nclass P:\n    h = helper\n"
        "    def act(self): return self.h.TABLE",
        "from lib import helper\nH = {'h': [helper]}\nclass P:\n"
        "    def act(self): return H['h'][0].TABLE",
        "from lib import helper\nclass P:\n"
        "    def act(self): return [lambda: helper.TABLE for _ in range(2)]",
        "def make(h):\n    class P:\n        def act(self): return h.TABLE\n"
        "    return P\nimport lib.helper\nP = make(lib.helper)",
        "class P:\n    def act(self):\n        import lib.helper\n"
        "        return lib.helper.TABLE",
        "class P:\n    def act(self):\n        import lib.helper as h\n"
        "        return h.TABLE",
        "class P:\n    def act(self):\n        from lib.helper import TABLE as t\n"
        "        return t",
        "import importlib\nclass P:\n    def act(self):\n"
        "        return importlib.import_module('lib.helper').TABLE",
        "import importlib\nh = importlib.import_module('lib.helper')\nclass P:\n"
        "    def act(self): return h.TABLE",
        "from lib import helper\ndef use(): return helper.TABLE\nclass P:\n"
        "    def act(self): return use()",
        "import lib\nclass P:\n    def act(self): return lib.LATE",  # of __getattr__
    ],
)
@pytest.mark.parametrize("in_file", [True, False])
def test_ways_to_values_of_another_module(folder, notebook, text, in_file):
    late = "from . import helper\ndef __getattr__(name): return helper.TABLE\n"
    write(folder, pol=text, **{"lib/__init__": late, "lib/helper": HELPER})

    def made() -> Any:
        pol = fresh(folder)
        helper = importlib.import_module("lib.helper")
        return (pol.P if in_file else cell(text, 60)["P"]), helper

    kind, _ = made()
    first = source(kind)
    kind, helper = made()
    assert source(kind) == first
    helper.TABLE.update(rate=2)
    assert source(kind) != first
    if not in_file:  # its file, too
        write(folder, **{"lib/helper": f"{HELPER}# edited\n"})
        assert source(made()[0]) != first


def test_what_is_read_and_cannot_be_described_has_no_source(folder):
    held = "import threading\nclass Space: pass\nspace = Space()\n"
    held += "space.lock, space.rate, unread = threading.Lock(), 1, threading.Lock()\n"
    for text, helper in (
        (PLAIN.format(imports="import helper", rate=1, value="helper.space"), held),
        (PLAIN.format(imports=held, rate=1, value="space.rate"), ""),
    ):
        write(folder, pol=text, helper=helper)
        with pytest.raises(NoSource, match=r"P.act refers to '.*space': a .*lock"):
            source(fresh(folder).P)


def test_methods_and_bases_that_change_places(folder):
    text = """
class A:
    def rate(self): return 1
class B:
    def rate(self): return 2
class P(A, B):
    def one(self): return 1
    def two(self): return 2
"""
    write(folder, pol=text)
    first = source(fresh(folder).P)
    pol = fresh(folder)
    pol.P.one, pol.P.two = pol.P.two, pol.P.one
    assert source(pol.P) != first
    pol = fresh(folder)
    pol.P.__bases__ = (pol.B, pol.A)
    assert source(pol.P) != first


def test_decorators_that_are_objects_have_a_state(folder):
    text = """
import functools
class Times:
    def __init__(self, f, k):
        functools.update_wrapper(self, f)
        self.k = k
    def __call__(self, *a): return self.k * self.__wrapped__(*a)
def plain(c): return c
class P:
    cached = classmethod(functools.lru_cache(plain))
    still = staticmethod(functools.lru_cache(plain))
"""
    write(folder, pol=text)
    pol = fresh(folder)
    one, again, other = (described(pol.Times(pol.plain, k)) for k in (1, 1, 2))
    assert one == again != other
    assert source(pol.P)


def test_a_file_that_was_edited_after_its_import_has_no_source(folder):
    text = PLAIN.format(imports="", rate=1, value="RATE")
    for edit in (
        text.replace("return RATE", "return 2 * RATE"),
        text.replace("RATE = 1", "RATE = 2"),
        text.replace("continuous", "relative"),
        text.replace("class P", "class Q"),
        "this is no Python",
    ):
        write(folder, pol=text)
        pol = fresh(folder)
        write(folder, pol=edit)
        with pytest.raises(NoSource, match=r"pol\.py"):
            source(pol.P)
    # a comment changes nothing that runs
    write(folder, pol=text)
    pol = fresh(folder)
    write(folder, pol=f"# a comment\n{text}")
    assert source(pol.P)


def test_what_was_read_stands_until_the_module_is_loaded_anew(folder):
    text = PLAIN.format(imports="import helper", rate=1, value="helper.R")
    write(folder, pol=text, helper="R = 1\n")
    pol = fresh(folder)
    first = source(pol.P)
    write(folder, helper="R = 2\n")
    assert source(pol.P) == first  # what runs is what was imported
    importlib.reload(sys.modules["helper"])
    second = source(pol.P)
    assert second != first
    assert source(fresh(folder).P) == second


def test_a_constant_that_was_changed_while_running(folder):
    write(folder, pol=PLAIN.format(imports="", rate=1, value="RATE"))
    pol = fresh(folder)
    pol.RATE = 3
    with pytest.raises(NoSource, match="RATE = 1, in memory it is 3"):
        source(pol.P)


def test_names_that_are_bound_more_than_once_are_no_constants(folder):
    text = """
try:
    import nothing_of_that_name as lib
except ImportError:
    lib = None
FAST = False
if lib is None:
    FAST = True
count = 0
def more():
    global count
    count += 1
more()
class P: pass
"""
    write(folder, pol=text)
    assert source(fresh(folder).P)


def test_a_deleted_file(folder):
    write(folder, pol="class P:\n    def act(self): return 1\n")
    pol = fresh(folder)
    (folder / "pol.py").unlink()
    with pytest.raises(NoSource, match="cannot be read"):
        source(pol.P)


def cell(text: str, number: int, **names: Any) -> dict[str, Any]:
    """Run text as a notebook does: a name of its own, and lines in the cache."""
    name = f"<ipython-input-{number}>"
    lines = text.splitlines(keepends=True)
    linecache.cache[name] = (len(text), None, lines, name)
    space = {"__name__": "notebook_without_file", **names}
    exec(compile(text, name, "exec"), space)
    return space


@pytest.fixture
def notebook(monkeypatch):
    module = types.ModuleType("notebook_without_file")
    monkeypatch.setitem(sys.modules, "notebook_without_file", module)
    return module


CELL = """
class P:
    action_mode = "continuous"
    def act(self): return helper({value}) + RATE
"""


def test_a_cell_of_a_notebook_is_its_text(notebook):
    def helper(x: float) -> float:
        return x

    names: dict[str, Any] = {"helper": helper, "RATE": 1.0}
    first = source(cell(CELL.format(value="1"), 1, **names)["P"])
    assert source(cell(CELL.format(value="1"), 2, **names)["P"]) == first
    for number, (text, change) in enumerate(
        [
            (CELL.format(value="2"), {}),
            (CELL.format(value="1"), {"RATE": 2.0}),
            (CELL.format(value="1"), {"RATE": np.array([1.0])}),
            (CELL.format(value="1"), {"helper": lambda x: 2 * x}),
            (CELL.format(value="1").replace("continuous", "relative"), {}),
        ]
    ):
        assert source(cell(text, 3 + number, **{**names, **change})["P"]) != first


def test_functions_and_decorated_ones_of_cells(notebook):
    text = """
import functools
def twice(f):
    @functools.wraps(f)
    def wrapper(*a): return FACTOR * f(*a)
    return wrapper
@twice
def act(x): return {value}
make = functools.partial(act, {value})
cached = functools.lru_cache(act)
class P:
    act = staticmethod(act)
    @property
    def rate(self): return {value}
"""
    for name in ("act", "make", "P"):
        one, again, other, factor = (
            source(cell(text.format(value=value), k, FACTOR=f)[name])
            for k, (value, f) in enumerate([(1, 1), (1, 1), (2, 1), (1, 2)], 20)
        )
        assert one == again
        assert len({one, other, factor}) == 3


def test_two_functions_of_one_name_in_one_text(folder, notebook):
    text = (
        "fs = [lambda c: c, lambda c: -c]\nfs.append(lambda c: 2 * c)\n"
        "if fs:\n    def f(): return 1\n    fs.append(f)\n"
        "    def f(): return 2\n    fs.append(f)\n"
    )
    write(folder, pol=text)
    for functions in (fresh(folder).fs, cell(text, 50)["fs"]):
        assert len({source(f) for f in functions}) == 5
        assert len({json.dumps(described(f)) for f in functions}) == 5


def test_dataclasses_of_cells(notebook):
    text = """
import dataclasses
@dataclasses.dataclass
class M:
    rate: float = {value}
    names: list = dataclasses.field(default_factory=lambda: [{value}])
    def fit(self): pass
"""
    spaces = [cell(text.format(value=v), k) for k, v in enumerate((1, 1, 2), 30)]
    one, again, other = (source(space["M"]) for space in spaces)
    assert one == again != other


def test_code_without_text_has_no_source(notebook):
    executed: dict[str, Any] = {}
    exec("class P:\n    def act(self): return 1\ndef f(): return 1\n", executed)
    named = {"__name__": "notebook_without_file"}
    exec("import dataclasses\n@dataclasses.dataclass\nclass P:\n"
         "    def act(self): return 1\n", named)  # fmt: skip
    for thing in (executed["P"], executed["f"], executed["P"](), named["P"]):
        with pytest.raises(NoSource, match="no file or cell has its text"):
            source(thing)
    lost = cell(CELL.format(value=1), 40, helper=executed["f"], RATE=1)
    with pytest.raises(NoSource):
        source(lost["P"])
    locked = cell(CELL.format(value=1), 41, helper=len, RATE=threading.Lock())
    with pytest.raises(NoSource, match="refers to 'RATE'"):
        source(locked["P"])


@pytest.mark.parametrize("way", ["-c", "stdin", "script", "extensionless"])
def test_programs(tmp_path, way):
    code = (
        "from dacrl_env.core import provenance\n"
        "class P:\n    def act(self): return 1\n"
        "try:\n    print(provenance.source(P))\n"
        "except provenance.NoSource as error:\n    print('none', error)\n"
    )
    script = tmp_path / ("program.py" if way == "script" else "program")
    script.write_text(code)
    given = {"-c": ["-c", code], "stdin": ["-"]}.get(way, [str(script)])
    done = subprocess.run(
        [sys.executable, *given], input=code, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("none") == (way in ("-c", "stdin"))


def test_what_is_not_local():
    assert source(get_policy("default")) == "dacrl_env"
    assert source(get_method("race")) == "dacrl_env"
    assert source(json.dumps) == source(dict) == "python"
    version = importlib.metadata.version("numpy")
    assert source(np.linalg.norm).startswith(f"numpy {version} ")
    assert source(np.add) == source(np.linalg.norm)


# -- values --------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Record:
    a: int
    b: Any = None

    def twice(self) -> int:
        return 2 * self.a


class Slotted:
    __slots__ = ("a",)

    def __init__(self, a: int) -> None:
        self.a = a


class Mine(dict):
    pass


class Numbers(set):
    pass


def _with(**names: Any) -> Any:
    """An object with attributes."""
    made = Record(1)
    vars(made).update(names)
    return made


EQUAL: list[tuple[Any, Any]] = [
    (2_000, np.int64(2_000)),
    (2_000, np.uint8(200) + np.int64(1_800)),
    (0.5, np.float64(0.5)),
    (0.5, np.float32(0.5)),
    (True, np.bool_(True)),
    ("a", np.str_("a")),
    ([0, 1, 2], (0, 1, 2)),
    ([0, 1, 2], range(3)),
    ({"a": 1, "b": 2}, {"b": np.int32(2), "a": 1}),
    ({"a": 1}, collections.OrderedDict(a=1)),
    ({"x", "y", "z"}, frozenset(["z", "y", "x"])),
    (np.arange(4).reshape(2, 2).T, np.array([[0, 2], [1, 3]])),
    (Number("x", 0, 1, 0.5), Number("x", 0, 1, 0.5)),
    (Instance("far", {"g": np.float64(2.0)}), Instance("far", {"g": 2.0})),
    (Record(1), Record(1)),
    (Slotted(1), Slotted(1)),
    (Mine(a=1), Mine(a=1)),
    (Numbers("ab"), Numbers("ba")),
    (functools.partial(len, 1), functools.partial(len, 1)),
    (torch.arange(3), torch.arange(3)),
    (np.random.default_rng(3), np.random.default_rng(3)),
    (float("nan"), np.float64("nan")),
    (datetime.date(2020, 1, 1), datetime.date(2020, 1, 1)),
]

DIFFERENT: list[Any] = [
    *(None, 1, 1.0, True, "1", b"1", [1], {"1": 1}, {1: 1}, {1.0: 1}, {1}, 1 + 0j),
    *(float("inf"), -float("inf"), "inf", {"!float": "inf"}, 0.0, -0.0),
    *([], {}, set(), "", [[]], {"!set": []}, {"!dict": []}),
    *(np.array([1]), np.array([1.0]), np.array([[1]]), np.array([1], np.int8)),
    *(np.ma.array([1]), np.ma.array([1], mask=[True])),
    *(torch.tensor([1]), torch.tensor([1.0])),
    *(Number("x", 0, 1, 0.5), Number("x", 0, 1, 0.6)),
    *(Number("x", 0.1, 1, 0.5, "log"), Number("y", 0, 1, 0.5)),
    *(Instance("far"), Instance("far", {"g": 1.0}), Instance("near")),
    *(Record(1), Record(1, 2), _with(c=3), Slotted(1), Slotted(2)),
    *(Mine(a=1), Mine(a=2), Numbers("a"), Numbers("b")),
    *(Colour.RED, Colour.BLUE, len, max, int, Record, Slotted),
    *(lambda c: c.score, lambda c: c.score + 1),
    *(functools.partial(len, 1), functools.partial(len, 2), functools.partial(max, 1)),
    *(Record(1).twice, Record(2).twice, "a".upper, "b".upper),
    *(np.random.default_rng(3), np.random.default_rng(4)),
    *(datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)),
    *(Path("some/where"), Path("some/where/else")),
]


@pytest.mark.parametrize(("one", "other"), EQUAL, ids=map(str, range(len(EQUAL))))
def test_equal_values_are_described_alike(one, other):
    assert described(one) == described(other)
    json.dumps(described(one), allow_nan=False)


def test_different_values_are_not():
    texts = [json.dumps(described(value), sort_keys=True) for value in DIFFERENT]
    twice = [
        DIFFERENT[texts.index(t)]
        for t, n in collections.Counter(texts).items()
        if n > 1
    ]
    assert not twice


def test_a_local_entry_point_is_what_it_names(folder):
    write(folder, **{"net": "import layers\nclass N: pass\n", "layers": "SIZE = 8\n"})
    fresh(folder, "net")
    first = described({"features_extractor_class": "net:N"})
    write(folder, layers="SIZE = 16\n")
    fresh(folder, "net")
    assert described({"features_extractor_class": "net:N"}) != first
    for text in ("a:b", "numpy:mean", "dacrl_env:Task", "cuda:0", "json:dumps"):
        assert described(text) == text


def test_a_class_that_names_itself(folder):
    text = "NAME = 'pol:P'\nclass P:\n    def act(self): return NAME\n"
    write(folder, pol=text)
    first = source(fresh(folder).P)
    assert described("pol:P") == {"!entry": "pol:P", "source": first}


def test_a_value_within_itself():
    one: list[Any] = [1]
    one.append(one)
    other = _with()
    other.b = {"of": other}
    assert described(one) != described([1, [1]])
    json.dumps(described(other))


def test_functions_by_what_encloses_them():
    def make(weight: float) -> Any:
        def reward(context: Any) -> Any:
            return weight * context.score

        return reward

    assert described(make(1.0)) == described(make(1.0)) != described(make(2.0))


@pytest.mark.parametrize(
    "value",
    [
        threading.Lock(),
        (x for x in [1]),
        {"deep": [open(os.devnull)]},  # noqa: SIM115
        _with(c=threading.current_thread()),
    ],
    ids=["lock", "generator", "file", "thread"],
)
def test_what_cannot_be_described_says_so(value):
    with pytest.raises(NoSource, match="cannot be described"):
        described(value)


def test_what_was_used_on_an_environment_says_so():
    policy = get_policy("linear-epsilon")
    fresh = described(policy)
    assert fresh == described(get_policy("linear-epsilon"))
    assert fresh != described(get_policy("linear-epsilon,fraction=0.5"))
    policy.reset(dacrl_env.PopulationEnv("dacrl/DQN-CartPole-v0", 1), 0)
    with pytest.raises(NoSource, match="as after a run"):
        described(policy)


def test_a_file_that_is_named_stands_for_what_is_in_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kinds: list[Any] = [
        "table.json",
        Path("table.json"),
        {"k": [str(tmp_path / "table.json")]},
    ]
    absent = [described(kind) for kind in kinds]
    Path("table.json").write_text("1")
    first = [described(kind) for kind in kinds]
    Path("table.json").write_text("2")
    second = [described(kind) for kind in kinds]
    for versions in zip(absent, first, second, strict=True):
        assert len({json.dumps(v) for v in versions}) == 3
    assert described("table") == "table"


OWNER = """
import functools
class P:
    def __init__(self, table=None): self.table = table
def make(table): return P(table)
"""
PLACES = ["{}", "{}.json", "{}/a/rates.txt", "~/{}.txt", "${{TABLES}}/{}",
          "code/{}", "code/{}.json", "code/data/{}", "{}.d/rate"]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_users_code_may_take_any_text_for_a_file(folder, tmp_path, monkeypatch, place):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TABLES", str(tmp_path / "tables"))
    monkeypatch.syspath_prepend(tmp_path / "code")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write(folder, **{"code/owner": OWNER})
    owner = fresh(folder, "owner")
    at = place.format("rates").removeprefix("code/")
    named = at if at[0] in "~$" else "rates"
    file = Path(os.path.expandvars(os.path.expanduser(at)))
    if place.startswith("code/"):
        file = tmp_path / "code" / file

    def kinds() -> list[str]:
        return [
            json.dumps(about, sort_keys=True)
            for about in (
                described({"table": [named]}, owner.P),
                described({"table": named}, "owner:P"),
                described({"table": named}, functools.partial(owner.make)),
                described(owner.P(named)),
                described(owner.P(types.SimpleNamespace(table=(named,)))),
                described(functools.partial(owner.make, named)),
                described(owner.P(Path(named))),
            )
        ]

    seen = [kinds()]
    for text in ("1", "2", "1"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        seen.append(kinds())
    for name in ("rate", "rates2", "ratesx.json"):
        (Path.cwd() / name).write_text("1")
    assert kinds() == seen[1]
    for absent, one, two, again in zip(*seen, strict=True):
        assert one == again
        assert len({absent, one, two}) == 3


def test_texts_of_this_package_are_names_of_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    things = [get_policy("static,learning_rate=0.1"), get_method("race"), "progress"]
    arguments = {"family": "schedule", "objective": "auc"}
    first = [described(thing) for thing in things]
    for name in ("learning_rate", "schedule", "auc.txt", "progress", "schedule.json"):
        Path(name).write_text("1")
    assert [described(thing) for thing in things] == first
    for given_to in (None, type(things[1]), "dacrl_env.baselines.race:Race"):
        assert described(arguments, given_to) == arguments


def test_a_folder_that_is_named_and_cannot_be_read_whole(folder, monkeypatch):
    monkeypatch.chdir(folder)
    write(folder, owner=OWNER, **{f"rates/{k}": str(k) for k in range(3)})
    owner = fresh(folder, "owner")
    first = described("rates", owner.P)
    Path("rates/link.py").symlink_to("nowhere")
    assert described("rates", owner.P) == first
    for most in ("_MOST_FILES", "_MOST_BYTES"):
        with monkeypatch.context() as patch:
            patch.setattr(named_files, most, 2)
            with pytest.raises(NoSource, match=r"rates.* is a folder of more than"):
                described("rates", owner.P)
    for name in ("a\0b", "", ".", "x" * 5000, "*", "[r]ates", "rates/*"):
        described(name, owner.P)
    assert described("[r]ates", owner.P) == "[r]ates"


# -- this package ----------------------------------------------------------------------


def test_the_version_is_of_the_sources(monkeypatch):
    own = dict(installed._own_files())
    for name in ("outer/population.py", "baselines/pbt.py", "agents/training.py"):
        assert name in own
    for name in (
        "tasks/references.json",
        "agents/pretrained/dqn-cartpole-switch-0.json",
    ):
        assert name in own
    assert not any(name.startswith("benchmarks/") for name in own)
    assert installed.version().startswith(f"{dacrl_env.__version__}+")
    for name in ("learners/dqn.py", "tasks/references.json"):
        edited = sorted({**own, name: own[name] + b" "}.items())
        monkeypatch.setattr(installed, "_own_files", lambda edited=edited: edited)
        assert installed.version.__wrapped__() != installed.version()


def test_a_copy_of_the_sources_laid_out_as_in_a_wheel_has_the_same_version(tmp_path):
    root = tmp_path / "site" / "dacrl_env"
    for name, content in installed._own_files():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    code = "from dacrl_env.core import installed as i; print(i.__file__, i.version())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(root.parent)},
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    place, version = done.stdout.split()
    assert Path(place).parents[1] == root
    assert version == installed.version()


def test_libraries_are_named_with_their_versions():
    found = installed.libraries()
    for name in ("python", "numpy", "torch", "gymnasium", "stable-baselines3"):
        assert found[name][0].isdigit()
    assert found["numpy"] == np.__version__
