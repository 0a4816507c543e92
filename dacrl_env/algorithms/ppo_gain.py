"""What PPO makes large: how much better actions become, without moving too far.

Clipping (Schulman et al. 2017), or the drift function that Lu et al. 2022, "Discovered
policy optimisation", found. `gains` is the definition, in torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dacrl_env.kernels.compiling import compiled
from dacrl_env.kernels.functions import exp, tanh

if TYPE_CHECKING:
    from torch import Tensor

CLIP, DPO = range(2)  # options of the drift


@compiled
def objective(p, advantage, log_ratio, B, values):
    """Gain of one of B actions, its slope by the log probability, the KL divergence.

    The divergence of the policy that acted is estimated without bias, and is never
    negative (Schulman 2020, "Approximating KL divergence").
    """
    one, share = np.float32(1.0), np.float32(1.0) / np.float32(B)
    ratio = exp(log_ratio)
    divergence = share * (ratio - one - log_ratio)
    if values.drift[p] == DPO:
        gain, slope = dpo(p, advantage, ratio, log_ratio, values)
        return share * gain, share * slope, divergence
    clip = np.float32(values.clip_range[p])
    advantage *= share
    gain = advantage * ratio
    limited = advantage * min(max(ratio, one - clip), one + clip)
    # the gradient vanishes where clipping makes the objective the smaller one
    slope = gain if gain <= limited else np.float32(0.0)
    # NaN is no smaller than anything, and stays
    least = limited if limited < gain else gain
    return least, slope, divergence


@compiled
def dpo(p, advantage, ratio, log_ratio, values):
    """Gain of an action with the drift of discovered policy optimisation; its slope."""
    zero, gain = np.float32(0.0), ratio * advantage
    if advantage < zero:
        width, moved = np.float32(values.drift_beta[p]), log_ratio * advantage
        by_log_ratio = advantage
    else:
        width, moved = np.float32(values.drift_alpha[p]), gain - advantage
        by_log_ratio = gain
    bent = tanh(moved / width)
    drift = moved - width * bent
    if drift <= zero:
        return gain, gain
    return gain - drift, gain - bent * bent * by_log_ratio


class Options(NamedTuple):
    """What the loss depends on: numbers, or tensors ``(…)`` of each batch's own."""

    clip_range: Tensor | float = 0.2
    ent_coef: Tensor | float = 0.0
    vf_coef: Tensor | float = 0.5
    drift: Tensor | float = CLIP
    drift_alpha: Tensor | float = 2.0
    drift_beta: Tensor | float = 0.6


def gains(log_ratio: Tensor, advantages: Tensor, options: Options) -> Tensor:
    """What is to be made large ``(…, B)``, by the change of log probabilities."""
    import torch

    clip, drift, alpha, beta = (
        torch.as_tensor(x)[..., None]
        for x in (
            options.clip_range,
            options.drift,
            options.drift_alpha,
            options.drift_beta,
        )
    )
    ratio = log_ratio.exp()
    gain = advantages * ratio
    clipped = torch.minimum(torch.maximum(ratio, 1 - clip), 1 + clip)
    rises = (ratio - 1) * advantages
    falls = log_ratio * advantages
    dpo = gain - torch.where(
        advantages >= 0,
        (rises - alpha * (rises / alpha).tanh()).relu(),
        (falls - beta * (falls / beta).tanh()).relu(),
    )
    return torch.where(drift == DPO, dpo, torch.minimum(gain, advantages * clipped))
