"""Training states of Stable-Baselines3 models in files, without pickle.

A checkpoint is a directory with a snapshot of the population, a safetensors file of
the model, and ``checkpoint.json``, which counts once it is in place: it names both by
digests of all that is in them, so that they belong together and are as they were.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from dacrl_env.core import random_state
from dacrl_env.core.files import read_json, write_whole
from dacrl_env.core.snapshot import Snapshot, SnapshotError, SnapshotNotSupported
from dacrl_env.core.store import StoreError
from dacrl_env.outer.vector_env import PopulationEnv

FORMAT = 2
_INDEX = "checkpoint.json"
_HEADER = "dacrl_env.training"
_NUMBERS = (
    "num_timesteps",
    "_n_updates",
    "_n_calls",
    "_episode_num",
    "exploration_rate",
)
_LAST = ("_last_obs", "_last_original_obs", "_last_episode_starts")
_BUFFER = ("observations", "next_observations", "actions", "rewards", "dones")
_GENERATORS = ("python", "numpy", "torch", "actions")


def read(model: Any, venv: VecNormalize, monitor: VecMonitor) -> dict[str, Any]:
    """All that the coming rounds depend on, as nested dicts, lists and arrays.

    Args:
        model: of Stable-Baselines3, between two rounds.
        venv: its environments.
        monitor: below them.
    """
    generators = random_state.Generators.allocate(1)
    random_state.read(model.action_space, generators, 0, np.uint64(0))
    _, variables = model._get_torch_save_params()
    tree: dict[str, Any] = {
        "parameters": model.get_parameters(),
        "variables": {name: getattr(model, name) for name in variables},
        "numbers": {k: getattr(model, k) for k in _NUMBERS if hasattr(model, k)},
        "last": {k: getattr(model, k) for k in _LAST if getattr(model, k) is not None},
        "episodes": [[float(e["r"]), int(e["l"])] for e in model.ep_info_buffer],
        "moments": {
            name: {k: np.asarray(getattr(m, k)) for k in ("mean", "var", "count")}
            for name, m in (("obs", venv.obs_rms), ("ret", venv.ret_rms))
        },
        "returns": venv.returns,
        "old_obs": venv.old_obs,
        "monitor": {
            "returns": monitor.episode_returns,
            "lengths": monitor.episode_lengths,
            "count": monitor.episode_count,
        },
        "random": {k: getattr(generators, k)[0] for k in _GENERATORS},
    }
    buffer = getattr(model, "replay_buffer", None)
    if buffer is not None:
        # what is not filled yet is left out
        end = buffer.buffer_size if buffer.full else buffer.pos
        tree["buffer"] = {k: getattr(buffer, k)[:end] for k in _BUFFER}
        tree["buffer_at"] = [int(buffer.pos), bool(buffer.full)]
    recurrent = getattr(model, "_last_lstm_states", None)
    if recurrent is not None:
        tree["recurrent"] = [list(recurrent.pi), list(recurrent.vf)]
    return tree


def write(
    model: Any, venv: VecNormalize, monitor: VecMonitor, tree: dict[str, Any]
) -> None:
    """Put a fresh model into the state that `read` gave."""
    model.set_parameters(tree["parameters"], exact_match=True)
    with torch.no_grad():
        for name, value in tree["variables"].items():
            getattr(model, name).copy_(value)
    for name, value in {**tree["numbers"], **tree["last"]}.items():
        setattr(model, name, value)
    window = model._stats_window_size
    episodes = [{"r": total, "l": length} for total, length in tree["episodes"]]
    model.ep_info_buffer = deque(episodes, maxlen=window)
    model.ep_success_buffer = deque(maxlen=window)
    for name, moments in (("obs", venv.obs_rms), ("ret", venv.ret_rms)):
        for key, value in tree["moments"][name].items():
            setattr(moments, key, value if value.ndim else value.item())
    venv.returns, venv.old_obs = tree["returns"], tree["old_obs"]
    monitor.episode_returns = tree["monitor"]["returns"]
    monitor.episode_lengths = tree["monitor"]["lengths"]
    monitor.episode_count = tree["monitor"]["count"]
    generators = random_state.Generators.allocate(1)
    for name, row in tree["random"].items():
        getattr(generators, name)[0] = row
    random_state.write(model.action_space, generators, 0, np.uint64(0))
    if "buffer" in tree:
        buffer = model.replay_buffer
        for name, rows in tree["buffer"].items():
            getattr(buffer, name)[: len(rows)] = rows
        buffer.pos, buffer.full = tree["buffer_at"]
    if "recurrent" in tree:
        states = type(model._last_lstm_states)
        model._last_lstm_states = states(*(tuple(part) for part in tree["recurrent"]))


def save(
    path: Path, envs: PopulationEnv, trained: dict[str, Any], about: dict[str, Any]
) -> None:
    """Write a checkpoint; the one before counts until this one is complete.

    Args:
        path: directory.
        envs: between two runs or within them.
        trained: of `read`.
        about: JSON values.
    """
    path.mkdir(parents=True, exist_ok=True)
    before = _index(path)
    number = 1 if before is None else before["number"] + 1
    population, model = _population(path, number), _model(path, number)
    try:
        snap = envs.snapshot()
        snap.save(population)
    except SnapshotNotSupported:  # inner episodes then begin anew
        envs.snapshot(exact=False).save(population)
    arrays: dict[str, NDArray[Any]] = {}
    skeleton = json.dumps({"about": about, "trained": _flat(trained, arrays)})
    data = to_bytes(arrays, {_HEADER: skeleton})
    write_whole(model, data)
    index: dict[str, Any] = {"format": FORMAT, "number": number}
    index["population"] = _digest(population.read_bytes())
    index["model"] = _digest(data)
    index["checksum"] = _checksum(index)
    write_whole(path / _INDEX, json.dumps(index).encode())
    if before is not None:
        for old in (_population(path, number - 1), _model(path, number - 1)):
            old.unlink(missing_ok=True)


def exist(path: Path) -> bool:
    """Whether there is a checkpoint in a directory.

    Raises:
        StoreError: a damaged one.
    """
    return _index(path) is not None


def load(path: Path, envs: PopulationEnv) -> tuple[dict[str, Any], dict[str, Any]]:
    """Set a population as the checkpoint left it; `read`'s values and ``about``.

    Raises:
        StoreError: a damaged checkpoint, or one of other environments.
    """
    index = _index(path)
    assert index is not None
    number = index["number"]
    try:
        for name, file_path in (
            ("population", _population(path, number)),
            ("model", _model(path, number)),
        ):
            if _digest(file_path.read_bytes()) != index[name]:
                raise ValueError(f"{file_path.name} is not the file that was written")
        with safe_open(_model(path, number), framework="numpy") as file:
            content = json.loads((file.metadata() or {})[_HEADER])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        trained = _deep(content["trained"], arrays)
        envs.restore(Snapshot.load(_population(path, number)))
    except (SafetensorError, SnapshotError, OSError, ValueError, KeyError) as error:
        raise StoreError(
            f"the checkpoint in {path} cannot be used ({error}); delete that directory "
            "to train anew"
        ) from error
    return trained, content["about"]


def _index(path: Path) -> dict[str, Any] | None:
    file = path / _INDEX
    if not file.exists():
        return None
    try:
        index = read_json(file.read_bytes())
        if index.get("format") != FORMAT:
            raise ValueError(f"its format is {index.get('format')!r}, not {FORMAT}")
        if index.get("checksum") != _checksum(index):
            raise ValueError("its checksum does not match")
    except ValueError as error:
        raise StoreError(
            f"{file} is damaged ({error}); delete its directory to train anew"
        ) from error
    return index


def _checksum(index: dict[str, Any]) -> str:
    rest = {name: value for name, value in index.items() if name != "checksum"}
    return _digest(json.dumps(rest, sort_keys=True).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _population(path: Path, number: int) -> Path:
    return path / f"population-{number}.safetensors"


def _model(path: Path, number: int) -> Path:
    return path / f"model-{number}.safetensors"


def _flat(tree: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """JSON values for nested dicts and lists; arrays and tensors are put aside.

    Dictionaries become lists of pairs, since their keys may be numbers.
    """
    if isinstance(tree, torch.Tensor | np.ndarray):
        kind, array = "array", tree
        if isinstance(tree, torch.Tensor):
            kind, array = "tensor", tree.detach().numpy()
        name = f"{len(arrays)}"
        arrays[name] = np.ascontiguousarray(array).reshape(array.shape)
        return {kind: name}
    if isinstance(tree, dict):
        return {"dict": [[key, _flat(value, arrays)] for key, value in tree.items()]}
    if isinstance(tree, list | tuple):
        return [_flat(value, arrays) for value in tree]
    return tree


def _deep(flat: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """The inverse of `_flat`; tuples have become lists."""
    if isinstance(flat, list):
        return [_deep(value, arrays) for value in flat]
    if isinstance(flat, dict):
        ((kind, content),) = flat.items()
        if kind == "dict":
            return {key: _deep(value, arrays) for key, value in content}
        array = arrays[content].copy()
        # in memory of torch's own, whose alignment decides last bits
        return torch.from_numpy(array).clone() if kind == "tensor" else array
    return flat
