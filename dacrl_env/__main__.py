"""``python -m dacrl_env``."""

from dacrl_env.cli import program

program()
