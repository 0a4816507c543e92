"""The Pareto front of a fit with several objectives: one policy a point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dacrl_env.policies.protocol import Policy


@dataclass(frozen=True)
class FrontPoint:
    """A policy that no other candidate of a fit dominates.

    Attributes:
        policy: that goes on.
        values: of the objectives by name, means over its tuning runs, as observed:
            ``final``, ``best`` and ``auc`` are scores, ``cost`` is the floating-point
            operations of a run, evaluation included.
        online: mean score of these runs by the report stream; see `Fitted`. None: not
            known.
    """

    policy: Policy
    values: Mapping[str, float] = field(default_factory=dict)
    online: float | None = None
