"""Parameters of Stable-Baselines3's networks as rows of ours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from populations import layers_of, linear_of

from dacrl_env.algorithms import sac, soft
from dacrl_env.kernels.dense import Network

Layers = list[tuple[NDArray[Any], NDArray[Any]]]


def dqn_row(model: Any, net: Network, which: str = "q_net") -> NDArray[np.float32]:
    """Of a DQN's network, or of its target network, ``(row,)``."""
    row = np.zeros(net.row, np.float32)
    network = getattr(model, which)
    linears = _linears(network.q_net)
    if len(net.weights) > len(linears):
        linears.insert(0, network.features_extractor.convolution)
    for (weight, bias), linear in zip(layers_of(net, row), linears, strict=True):
        weight[...], bias[...] = linear_of(linear)
    return row


def sac_row(model: Any, fixed: sac.Fixed, which: str = "critic") -> NDArray[np.float32]:
    """Of a SAC's actor, critics, or their targets, and log temperature, ``(row,)``."""
    row, critics = np.zeros(fixed.row, np.float32), getattr(model, which)
    actor, *values = sac_layers(fixed, row)
    hidden, (weight, bias) = _linears(model.actor.latent_pi), actor[-1]
    for (w, b), linear in zip(actor[:-1], hidden, strict=True):
        w[...], b[...] = linear_of(linear)
    # of the last layer it has two
    last = [linear_of(layer) for layer in (model.actor.mu, model.actor.log_std)]
    weight[...], bias[...] = (np.hstack(both) for both in zip(*last, strict=True))
    for layers, network in zip(values, critics.q_networks, strict=True):
        for (w, b), linear in zip(layers, _linears(network), strict=True):
            w[...], b[...] = linear_of(linear)
    if model.log_ent_coef is not None:
        row[-soft.REST] = float(model.log_ent_coef.detach())
    return row


def sac_layers(fixed: sac.Fixed, row: NDArray[np.float32]) -> list[Layers]:
    """Layers of the actor and of both critics in a row: views."""
    first, length = fixed.actor.row, fixed.critic.row
    critics = (row[first + k * length : first + (k + 1) * length] for k in range(2))
    actor = layers_of(fixed.actor, row[:first])
    return [actor, *(layers_of(fixed.critic, part) for part in critics)]


def _linears(modules: Any) -> list[Any]:
    return [module for module in modules if hasattr(module, "weight")]
