"""The five games of MinAtar, one compiled file each.

K. Young and T. Tian 2019, "MinAtar: An Atari-Inspired Testbed for Thorough and
Reproducible Reinforcement Learning Experiments" (arXiv:1903.03176). The rules are those
of version 1 in the package ``minatar`` 1.0.15: minimal action sets, sticky actions, and
games that get harder where the original's do.

Observations ``(10, 10, channels)`` are true or false: row, column, and what is there.
Two things differ. The original goes on until a game is lost, which good players may put
off for ever; here episodes are cut, see `common.MAX_EPISODE_STEPS`. And the original
may repeat, in the first step of an episode, the last action of the episode before; here
an episode follows from its own random numbers alone, and what may be repeated in its
first step is no action.

Times between events need not be whole numbers: a timer that runs out is set forward by
its interval, so that an event comes as often as the interval says, on average.
"""
