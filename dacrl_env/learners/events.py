"""What may happen to the networks of a member at a decision; nothing of it stays set.

``checkpoint`` saves networks and optimiser to the member's register, or takes them from
it: what OpenAI et al. 2019 ("Dota 2 with large scale deep reinforcement learning") did
by hand. ``swap`` lets both change places. The first time there is nothing to take, and
what goes on learning are fresh networks, or a copy of those that were put aside, by the
option. So a run whose environment goes back and forth can have networks for either
state, as in control by multiple models (Narendra and Balakrishnan 1997, "Adaptive
control using multiple models"). ``reset_head`` and ``reset_all`` begin the last layers,
or all, anew (Nikishin et al. 2022, "The primacy bias in deep reinforcement learning").
``shrink_perturb`` goes ``perturb_strength`` of the way to fresh networks (Ash and Adams
2020, "On warm-starting neural network training"). The optimiser begins anew with
whatever is reset. Replay and inner environments go on.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dacrl_env.tasks import Event, Knob, Number, Option

SAVE, RESTORE = 1, 2
FIRST = ("fresh", "copy")  # what goes on after the first swap
FRESH = 1 + FIRST.index("fresh")
EVENTS: tuple[Knob, ...] = (
    Event("checkpoint", ("none", "save", "restore")),
    Event("swap", ("none", *FIRST)),
    Event("reset_head"),
    Event("reset_all"),
    Event("shrink_perturb"),
    Number("perturb_strength", 0.0, 1.0, 0.5),
)
_OF_REGISTER = ("checkpoint", "swap")
OF_EVENTS = ("perturb_strength",)  # numbers that mean something at an event alone
CLEAR_REPLAY = Event("clear_replay")
# of implementations that have none
NONE: dict[str, Option] = {
    h.name: h.options[0] for h in (*EVENTS, CLEAR_REPLAY) if isinstance(h, Event)
}
_NETWORKS = ("parameters", "target")  # of a state
_MOMENTS = ("mean", "square")  # … of its optimiser

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def rows_of(state: Any) -> list[NDArray[np.float32]]:
    """Networks and optimiser of a state, ``(P, row)`` each."""
    names = (*_NETWORKS, *_MOMENTS)
    return [getattr(state, name) for name in names if hasattr(state, name)]


def need_register(steady: Container[str]) -> bool:
    """Whether actions may save networks.

    Args:
        steady: names of the hyperparameters that keep their value throughout.
    """
    return not all(name in steady for name in _OF_REGISTER)


def happen(
    state: Any,
    values: Mapping[str, Floats],
    parts: Ints,
    head: Sequence[int],
    fresh: Callable[[Ints], NDArray[np.float32]],
) -> dict[str, NDArray[np.bool_]]:
    """Let the events of this decision happen: first a save, a restore and a swap.

    Args:
        state: of the population, changed in place: its networks and their optimiser;
            ``part_steps`` ``(P, G)`` of the optimiser with each part; the register.
        values: of the members, by name.
        parts: ``(G + 1,)`` where the parts of a row begin, and its end.
        head: which parts are last layers.
        fresh: fresh networks ``(m, row)`` for members ``(m,)``.

    Returns:
        By name of the event members ``(P,)`` with which it could not happen.
    """
    asked, swap = values["checkpoint"], values["swap"] > 0
    first = ~state.register.is_saved
    could_not = (asked == RESTORE) & first
    _save(state, np.flatnonzero(asked == SAVE))
    _restore(state, np.flatnonzero((asked == RESTORE) & state.register.is_saved))
    every = range(len(parts) - 1)
    _swap(state, np.flatnonzero(swap & ~first))
    _save(state, np.flatnonzero(swap & first))
    members = np.flatnonzero((values["swap"] == FRESH) & first)
    if len(members):
        share = np.ones(len(members))
        _begin_anew(state, members, parts, every, fresh(members), share)
    for name, which in (
        ("shrink_perturb", every), ("reset_head", head), ("reset_all", every)
    ):  # fmt: skip
        members = np.flatnonzero(values[name])
        if len(members):
            share = np.ones(len(members))
            if name == "shrink_perturb":
                share = values["perturb_strength"][members]
            _begin_anew(state, members, parts, which, fresh(members), share)
    return {"checkpoint": could_not}


def _save(state: Any, members: Ints) -> None:
    for k, row in enumerate(rows_of(state)):
        if len(members):
            state.register.rows[members, k] = row[members]
    state.register.steps[members] = state.part_steps[members]
    state.register.is_saved[members] = True


def _restore(state: Any, members: Ints) -> None:
    for k, row in enumerate(rows_of(state)):
        if len(members):
            row[members] = state.register.rows[members, k]
    state.part_steps[members] = state.register.steps[members]


def _swap(state: Any, members: Ints) -> None:
    for k, row in enumerate(rows_of(state)):
        if len(members):
            saved = state.register.rows[members, k]
            state.register.rows[members, k] = row[members]
            row[members] = saved
    saved_steps = state.register.steps[members]
    state.register.steps[members] = state.part_steps[members]
    state.part_steps[members] = saved_steps


def _begin_anew(
    state: Any,
    members: Ints,
    parts: Ints,
    which: Sequence[int],
    fresh: NDArray[np.float32],
    share: Floats,
) -> None:
    """Move parts of networks a share ``(m,)`` of the way to fresh ones."""
    new = share.astype(np.float32)[:, None]
    old = np.float32(1.0) - new
    for part in which:
        place = slice(parts[part], parts[part + 1])
        for name in _NETWORKS:
            if hasattr(state, name):
                row = getattr(state, name)
                row[members, place] = old * row[members, place] + new * fresh[:, place]
        for name in _MOMENTS:
            getattr(state, name)[members, place] = 0.0
        state.part_steps[members, part] = 0
