"""Replay memory of a population: one ring per member and inner environment.

Allocated once, sized by capacity. A row is one transition; observations keep the
environment's own dtype. How much of a ring is filled follows from the number of
transitions written to it, which the learner counts, so the memory has no state of its
own beside the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dacrl_env.learners import networks, streams

ACTION, REWARD, CONTINUES, DONE = range(4)


class Batch(NamedTuple):
    """Sampled transitions, ``n_step`` rewards folded into one."""

    observations: Tensor  # (P, B, D) float32
    actions: Tensor  # (P, B, 1) int64
    returns: Tensor  # (P, B, 1) sum of discounted rewards
    next_observations: Tensor  # (P, B, D)
    discounts: Tensor  # (P, B, 1) of the bootstrap value; 0 after termination
    weights: Tensor  # (P, B, 1) share in the mean; 0 for padding


@dataclass(frozen=True)
class BatchMemory:
    """Memory for batches of m members at width B; making the views of it takes time."""

    transitions: Tensor  # (m · B, 4)
    pairs: Tensor  # (m · B, 2 · D) observations before and after the step
    columns: tuple[Tensor, ...]  # (m, B, 1), of the transitions
    observations: Tensor  # (m, B, D)
    next_observations: Tensor  # (m, B, D)

    @classmethod
    def take(
        cls, m: int, B: int, features: int, memory: networks.Memory
    ) -> BatchMemory:
        """From ``memory``, which other batches may lie in, too."""
        transitions = memory.take("transitions", m * B, 4)
        pairs = memory.take("pairs", m * B, 2 * features)
        observations, following = pairs.view(m, B, 2 * features).split(features, -1)
        columns = transitions.view(m, B, 4).split(1, -1)
        return cls(transitions, pairs, columns, observations, following)


@dataclass
class Replay:
    """Rings of ``C`` rows; ``(P, N, C, …)``."""

    observations: Tensor  # (P, N, C, 2, D): before and after the step
    transitions: Tensor  # (P, N, C, 4): action, reward, 1 − terminated, done

    @classmethod
    def allocate(
        cls,
        P: int,
        N: int,
        capacity: int,
        features: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Replay:
        """Memory for ``capacity`` transitions a member, over its N environments."""
        rows = capacity // N
        return cls(
            torch.zeros(P, N, rows, 2, features, dtype=dtype, device=device),
            torch.zeros(P, N, rows, 4, device=device, dtype=torch.float32),
        )

    def writer(self) -> Callable[..., None]:
        """A function that writes one transition per member and environment.

        It takes ``(P,)`` how many transitions each ring of the member has seen before,
        observations ``(P, N, 2, D)`` and transitions ``(P, N, 4)``. Views of the memory
        are made once, here: they take as long as writing.
        """
        P, N, C = self.transitions.shape[:3]
        first = np.arange(P * N) * C
        tables = [m.view(P * N * C, -1) for m in (self.observations, self.transitions)]
        device = self.transitions.device
        arrays = [table.numpy() for table in tables] if device.type == "cpu" else None

        def write(written: NDArray[np.int64], *news: NDArray[Any]) -> None:
            rows = first + (written % C).repeat(N)
            flat = [new.reshape(P * N, -1) for new in news]
            if arrays is not None:  # takes a third of the time for few rows
                for array, new in zip(arrays, flat, strict=True):
                    array[rows] = new
                return
            index = torch.from_numpy(rows).to(device)
            for table, new in zip(tables, flat, strict=True):
                table.index_copy_(0, index, torch.from_numpy(new).to(device))

        return write

    def end_episodes(self, written: NDArray[np.int64]) -> None:
        """Close what is under way: the newest rows bootstrap, and returns end there.

        Args:
            written: ``(P,)``, transitions each ring of the member has seen.
        """
        begun = np.flatnonzero(written)
        newest = (written[begun] - 1) % self.transitions.shape[2]
        members = torch.from_numpy(begun), torch.from_numpy(newest)
        self.transitions[members[0], :, members[1], DONE] = 1.0

    def sample(
        self,
        members: NDArray[np.int64],
        written: NDArray[np.int64],
        words: streams.UInts,
        weights: Tensor,
        gamma: Tensor,
        n_step: int,
        window: NDArray[np.int64] | None = None,
        into: BatchMemory | None = None,
    ) -> Batch:
        """Draw minibatches with replacement, each member from its own rings.

        An ``n_step`` return ends early where the episode does, or where the ring's
        newest row is reached, and then bootstraps from there.

        Args:
            members: ``(m,)`` population indices.
            written: ``(m,)`` transitions each ring of the member has seen.
            words: ``(m, B)`` random bits of each member's "replay" stream.
            weights: ``(m, B, 1)`` as :attr:`Batch.weights`.
            gamma: ``(m, 1, 1)`` discount.
            n_step: rewards summed before bootstrapping.
            window: ``(m,)`` newest transitions to draw from, of all environments;
                None: all that are kept.
            into: what the batch may lie in; None: memory of its own.
        """
        _, N, C = self.transitions.shape[:3]
        m, B = weights.shape[:2]
        kept = np.minimum(written, C)
        size = kept if window is None else np.minimum(kept, np.maximum(window // N, 1))
        slot = streams.below(words, size * N)  # (m, B)
        ring = members[:, None] * N
        if N > 1:
            ring = ring + slot // size[:, None]
            slot = slot % size[:, None]
        recent = size < kept
        if np.count_nonzero(recent):
            slot = (slot + np.where(recent, written - size, 0)[:, None]) % C
        device = self.transitions.device
        features = self.observations.shape[-1]
        if into is None:
            into = BatchMemory.take(m, B, features, networks.Memory(device))
        rows = torch.from_numpy((ring * C + slot).reshape(-1)).to(device)
        pairs = self.observations.view(-1, 2 * features)
        table = self.transitions.view(-1, 4)
        torch.index_select(table, 0, rows, out=into.transitions)
        if pairs.dtype == torch.float32:
            torch.index_select(pairs, 0, rows, out=into.pairs)
        else:
            into.pairs.copy_(pairs.index_select(0, rows))
        columns, observations = into.columns, into.observations
        following = into.next_observations
        actions = columns[ACTION].long()
        if n_step == 1:
            returns = columns[REWARD]
            discounts = columns[CONTINUES] * gamma
            return Batch(observations, actions, returns, following, discounts, weights)
        # (m, B, n): rows of the n-step window, and whether step k still belongs to it
        slots = slot[..., None] + np.arange(n_step)
        newest = (written - 1) % C
        behind = (newest[:, None] - slot) % C  # steps from the start to the newest row
        chain = torch.from_numpy(ring[..., None] * C + slots % C).to(device)
        steps = table.index_select(0, chain.view(-1)).view(m, B, n_step, 4)
        open_ = 1 - steps[..., DONE]
        reached = np.arange(n_step)[None, None] < behind[..., None]
        open_ *= torch.from_numpy(reached).to(device)
        inside = torch.cat([torch.ones_like(open_[..., :1]), open_[..., :-1]], -1)
        inside = inside.cumprod(-1)
        powers = gamma ** torch.arange(n_step, device=device)  # (m, 1, n)
        returns = (steps[..., REWARD] * powers * inside).sum(-1, keepdim=True)
        length = inside.sum(-1, keepdim=True)
        last = length.long() - 1
        end = chain.gather(-1, last)
        ends = pairs.index_select(0, end.view(-1)).view(m, B, 2 * features)
        following.copy_(ends[..., features:])
        continues = steps[..., CONTINUES].gather(-1, last)
        return Batch(
            observations,
            actions,
            returns,
            following,
            continues * gamma**length,
            weights,
        )
