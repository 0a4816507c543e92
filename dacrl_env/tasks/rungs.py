"""Rungs of the ladder that policies are tuned on, task by task.

The names stand for policies that come with the package, see
`dacrl_env.policies.tuned`.
"""

STATIC, SCHEDULE = "static-tuned", "open-loop-tuned"
RULES = {
    "freeze-tuned": "freeze",
    "frozen-schedule-tuned": "frozen-schedule",
    "checkpoint-tuned": "checkpoint",
    "restart-tuned": "restart",
    "swap-tuned": "swap",
    "switch-tuned": "switch",
}
"""Closed loops, and their family of `SearchSpace`."""

RUNGS = (STATIC, SCHEDULE, *RULES)
BEST_RULE = "rule-tuned"
"""The better one of a task's rules, see `dacrl_env.tasks.headroom.better_rule`."""

NAMES = (*RUNGS, BEST_RULE)
COMMANDS = {
    STATIC: "dacrl tune-static {task} --out DIR",
    **{rung: "dacrl headroom {task} --out DIR" for rung in NAMES if rung != STATIC},
}
"""What tunes each of them."""
