"""Configuring a reinforcement-learning run while it trains, as an environment."""

from dacrl_env.version import __version__

__all__ = ["__version__"]
