"""Budget, decisions and evaluations of a run: what divides what.

All are counted in inner environment steps, and are whole numbers of the least that can
be trained at a time, the *unit*: a rollout, or one step of all inner environments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

_TRIES = 10_000  # values that are looked at for advice, on each side


@dataclass(frozen=True)
class Intervals:
    """Steps of a run, of a decision and between evaluations.

    Args:
        budget: steps of a run.
        decision: between decisions; None: so many that there are ``decisions``.
        evaluation: between evaluations; None: at decisions.
        decisions: of a run.
        unit: least that can be trained.
        unit_name: what that is, for messages.
    """

    budget: int
    decision: int | None
    evaluation: int | None
    decisions: int
    unit: int
    unit_name: str

    def completed(self) -> tuple[int, int, int]:
        """Budget, decision and evaluation interval.

        Raises:
            ValueError: they do not divide; the message has values that do.
        """
        problem = self._problem()
        if problem is not None:
            raise ValueError(f"{problem}; {self._advice()} would do")
        return self._values()

    def least_budget(self, least: int) -> int:
        """The smallest budget from ``least`` on with which all divides."""
        step = self._budget_step()
        start = -(-least // step) * step
        return next(
            (
                b
                for b in range(start, start + _TRIES * step, step)
                if replace(self, budget=b)._problem() is None
            ),
            start,
        )

    def _values(self) -> tuple[int, int, int]:
        decision = self.budget // self.decisions
        decision = decision if self.decision is None else self.decision
        evaluation = decision if self.evaluation is None else self.evaluation
        return self.budget, decision, evaluation

    def _problem(self) -> str | None:
        """What is wrong; None: nothing."""
        unit = f"{self.unit_name} ({self.unit})"
        if self.decision is None and self.budget % (self.decisions * self.unit):
            of = "" if self.unit == 1 else f" of at least {unit} each"
            what = f"{self.decisions} decisions{of}"
            return f"budget {self.budget} does not divide by {what}"
        budget, decision, evaluation = self._values()
        named = (
            ("budget", budget),
            ("decision_interval", decision),
            ("eval_interval", evaluation),
        )
        for name, steps in named:
            if steps % self.unit:
                return f"{name} {steps} does not divide by {unit}"
        for name, steps in named[1:]:
            if budget % steps:
                return f"budget {budget} does not divide by {name} {steps}"
        if max(decision, evaluation) % min(decision, evaluation):
            return (
                f"decision_interval {decision} and eval_interval {evaluation} must "
                "divide one by the other"
            )
        return None

    def _budget_step(self) -> int:
        return self.decisions * self.unit if self.decision is None else self.decision

    def _advice(self) -> str:
        """Options with which all divides: one that is changed, or two."""
        found = []
        for name, option, value, step in (
            ("budget", "budget", self.budget, self._budget_step()),
            ("decision_interval", "decision", self.decision, self.unit),
            ("eval_interval", "evaluation", self.evaluation, self.unit),
        ):
            if value is None and option == "decision":
                value = self.budget // self.decisions
            if value is None:
                continue

            def works(changed: int, option: str = option) -> bool:
                other = replace(self, **{option: changed})  # type: ignore[arg-type]
                return other._problem() is None

            near = _near(value, step, min(_TRIES, self.budget), works)
            if near:
                found.append(f"{name} {' or '.join(map(str, near))}")
        if found:
            return ", or ".join(found)
        decision = self._values()[1]
        decision = max(round(decision / self.unit), 1) * self.unit
        budget = max(round(self.budget / decision), 1) * decision
        return f"budget {budget} with decision_interval {decision}" + (
            "" if self.evaluation is None else " and no eval_interval"
        )


def _near(value: int, step: int, tries: int, works: Callable[[int], bool]) -> list[int]:
    """The next smaller and the next larger multiple of a step that works."""
    below = value // step
    down = (k * step for k in range(below, max(below - tries, 0), -1))
    up = (k * step for k in range(below + 1, below + 1 + tries))
    first = (next(filter(works, side), None) for side in (down, up))
    return [n for n in first if n is not None]
