"""Stable-Baselines3's own DQN, PPO and SAC behind the interface of a learner.

Raffin et al. 2021, "Stable-Baselines3: Reliable reinforcement learning
implementations" (JMLR 22). `dqn`, `ppo` and `sac` are the learners. Members run one by
one through a single model object: what a member consists of lies in arrays, population
axis first; before a member is trained its rows are loaded into the model, and stored
from it afterwards (`members`; with a replay, `off_policy`). The model itself keeps
nothing.

What Stable-Baselines3 does differently from this package's own learners stays so: one
draw of epsilon decides for all of a member's environments, target networks are set
where the number of steps divides by the interval, random numbers come from generators.

Letters: P members, N inner environments a member, C rows of the replay, T steps of a
rollout.
"""
