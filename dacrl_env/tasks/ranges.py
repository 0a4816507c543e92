"""Ranges that tasks of one algorithm share: what actions mean, and what is searched."""

from __future__ import annotations

DQN_RANGES = {
    "batch_size": (4, 256),
    "gamma": (0.8, 0.9999),
    "train_freq": (1, 256),
    "gradient_steps": (1, 256),
}
PPO_RANGES = {
    "clip_range": (0.01, 0.5),
    "batch_size": (16, 512),
    "gamma": (0.8, 0.9999),
    "gae_lambda": (0.8, 0.9999),
    "n_epochs": (1, 20),
    "ent_coef": (0.0, 0.1),
}
