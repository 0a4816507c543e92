"""Tasks: what they are made of, and the table of those that there are."""

from dacrl_env.tasks.knobs import (
    LEAST_COMPLEMENT,
    Choice,
    Condition,
    Event,
    Knob,
    Number,
    Option,
    Scale,
)
from dacrl_env.tasks.task import (
    DEFAULT_INSTANCE,
    FINAL_REPORT_EPISODES,
    JUDGED_BY,
    REPORT_EPISODES,
    REPORT_POINTS,
    Instance,
    References,
    Returns,
    Task,
    bounds,
    is_worker,
)

__all__ = [
    "DEFAULT_INSTANCE",
    "FINAL_REPORT_EPISODES",
    "JUDGED_BY",
    "LEAST_COMPLEMENT",
    "REPORT_EPISODES",
    "REPORT_POINTS",
    "Choice",
    "Condition",
    "Event",
    "Instance",
    "Knob",
    "Number",
    "Option",
    "References",
    "Returns",
    "Scale",
    "Task",
    "bounds",
    "is_worker",
]
