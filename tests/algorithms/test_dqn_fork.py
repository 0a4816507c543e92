"""Networks of a fork of DQN against torch: updates, and the clock they go by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import dacrl_env
from dacrl_env.algorithms import dqn
from dacrl_env.learners import dqn as learners
from dacrl_env.policies import probe

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # between keys whose draws are one number apart
FIXED: dict[str, Any] = {
    "learning_rate": 1e-2, "gradient_steps": 2, "train_freq": 3, "batch_size": 16,
    "target_update_interval": 5, "tau": 0.5,
}  # fmt: skip
UPDATES = 21  # an odd number: the last training event is cut


def optimiser(row: torch.Tensor, state: Any, p: int) -> torch.optim.Adam:
    """Torch's, with the moments of member p."""
    made = torch.optim.Adam([row], lr=FIXED["learning_rate"], eps=dqn.ADAM_EPSILON)
    made.state[row] = {
        "step": torch.tensor(float(state.part_steps[p, 0])),
        "exp_avg": torch.from_numpy(state.mean[p].copy()),
        "exp_avg_sq": torch.from_numpy(state.square[p].copy()),
    }
    return made


@pytest.mark.parametrize("piece", [64, 1])
def test_networks_are_those_of_torch(
    piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    envs = dacrl_env.PopulationEnv(
        "dacrl/DQN-CartPole-v0", 2, action_mode="values", budget=2_000,
        decision_interval=200, eval_episodes=1, learning_starts=300,
        hidden_sizes=(16,), hyperparameters=["epsilon"], fixed=FIXED,
    )  # fmt: skip
    envs.reset(seed=0)
    for _ in range(3):
        envs.step(envs.to_actions({}))
    learner: Any = envs.population.learner
    state, values = envs.population.state.learner, probe.applied(envs)
    forks, original = [], learners._forked

    def kept(state: Any) -> Any:
        forks.append(original(state))
        return forks[-1]

    monkeypatch.setattr(learners, "_forked", kept)
    monkeypatch.setattr(learners, "_PIECE", piece)
    keys = probe.words(envs, 2)
    probe.greedy_changes(envs, np.ones(2, bool), 16, UPDATES)
    (fork,) = forks
    for p in range(2):
        row = torch.from_numpy(state.parameters[p].copy()).requires_grad_()
        target = torch.from_numpy(state.target[p].copy())
        adam = optimiser(row, state, p)
        trained, renewed = int(state.since_train[p]), int(state.since_target[p])
        done = 0
        while done < UPDATES:
            trained, renewed = trained + 1, renewed + 1
            if renewed == FIXED["target_update_interval"]:
                renewed = 0
                target = target + FIXED["tau"] * (row.detach() - target)
            if trained < FIXED["train_freq"]:
                continue
            trained = 0
            for _ in range(min(FIXED["gradient_steps"], UPDATES - done)):
                ahead = (state.gradient_steps + done - state.env_steps).astype(
                    np.uint64
                )
                drawn = learner.probe(
                    state, values, keys[:, 1] + ahead * GOLDEN, FIXED["batch_size"]
                )
                batch = dqn.Batch(*(torch.from_numpy(x[p]) for x in drawn))
                adam.zero_grad()
                loss = dqn.loss(learner.fixed.net, row, target, batch, dqn.Options())
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_([row], float(values["max_grad_norm"][p]))
                adam.step()
                done += 1
        learned = row.detach().numpy()
        moved = np.abs(learned - state.parameters[p]).max()
        np.testing.assert_allclose(fork.parameters[p], learned, atol=1e-3 * moved)
        np.testing.assert_allclose(fork.target[p], target, atol=1e-3 * moved)
        # by the clock of training, and far enough for the tolerance to mean something
        assert np.abs(fork.target[p] - state.target[p]).max() > 0.1 * moved
        assert fork.gradient_steps[p] - state.gradient_steps[p] == UPDATES
        assert fork.since_train[p] == trained
        assert fork.since_target[p] == renewed
