"""``python -m dacrl_env``."""

from dacrl_env.cli.commands import program

program()
