"""What is particular to Stable-Baselines3's SAC as a learner."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from cases import slow
from sb3_runs import Runs, inner_of, make

from dacrl_env.algorithms.sb3.members import hyperparameters_of
from dacrl_env.algorithms.soft import AUTO, SET
from dacrl_env.inner_envs.env import ENVS
from dacrl_env.learners.sac import SAC

CRITICS, ACTOR, TEMPERATURE = range(3)  # optimisers


def temperatures(runs: Runs) -> list[float]:
    """What the learned temperature of each member is, or goes on from."""
    found: list[float] = runs.state.parameters[:, -1].exp().tolist()
    return found


def means_of(runs: Runs, i: int = 0) -> dict[str, float]:
    """Of the interval, over gradient steps."""
    means = runs.interval.means(SAC.sums)
    return {name: float(column[i]) for name, column in means.items()}


def begin_interval(runs: Runs) -> None:
    runs.interval = runs.learner.begin_interval(runs.state)


# -- the temperature -------------------------------------------------------------------


def test_a_learned_temperature_goes_on_from_the_one_that_was_set() -> None:
    runs = make("sac", [0, 1], ent_rule="set", alpha=0.3)
    runs.values["ent_rule"][1] = AUTO
    runs.train(40)
    assert runs.interval.updates.tolist() == [5, 5]
    assert temperatures(runs)[0] == pytest.approx(0.3)
    assert temperatures(runs)[1] != pytest.approx(1.0, abs=1e-3)
    # what is set is not learned; the optimiser of the others is none of its business
    assert runs.state.optimizer.started.tolist() == [[True, True, False], [True] * 3]
    assert means_of(runs)["temperature"] == pytest.approx(0.3)
    begin_interval(runs)
    runs.values["ent_rule"][:] = [AUTO, SET]
    moments = runs.state.optimizer.moments[1, -2:].clone()
    assert moments.any()
    runs.train(4)
    assert means_of(runs, 0)["temperature"] == pytest.approx(0.3)
    assert means_of(runs, 1)["temperature"] == pytest.approx(0.3)
    assert runs.state.optimizer.started.all()
    # a first step of Adam is as long as the rate
    assert math.log(temperatures(runs)[0] / 0.3) == pytest.approx(-1e-2, rel=1e-3)
    assert temperatures(runs)[1] == pytest.approx(0.3)
    assert torch.equal(runs.state.optimizer.moments[1, -2:], moments)


def test_the_wanted_entropy_is_that_of_a_component() -> None:
    """The temperature rises where there is too little entropy."""
    for wanted, rising in ((-5.0, False), (0.5, True)):
        runs = make("sac", target_entropy=wanted)
        runs.train(80)
        assert (temperatures(runs)[0] > 1.0) == rising
        assert runs.learner.model.target_entropy == wanted
    env = ENVS["Pendulum-v1"]()
    env.action_low, env.action_high = np.full(3, -2.0), np.full(3, 2.0)
    runs = make("sac", env=env, target_entropy=-0.5)
    with runs.learner.off_policy.loaded(runs.state, 0) as model:
        runs.learner._apply(hyperparameters_of(runs.values, 0))
        assert model.target_entropy == -1.5


# -- what an interval tells ------------------------------------------------------------


@pytest.mark.parametrize("rule", ["auto", "set"])
def test_sums_are_those_of_the_updates(rule: str) -> None:
    """Two gradient steps, one after the other, done here by hand."""
    runs = make("sac", ent_rule=rule, alpha=0.3, batch_size=16, gradient_steps=2)
    runs.train(40)
    row = hyperparameters_of(runs.values, 0)
    expected = by_hand(runs, row)
    begin_interval(runs)
    with runs.learner.off_policy.loaded(runs.state, 0):
        runs.learner._apply(row)
        runs.learner._update(runs.state, 0, row, runs.interval)
    assert runs.interval.updates.tolist() == [2]
    assert runs.interval.samples.tolist() == [32]
    means = means_of(runs)
    assert means == {name: pytest.approx(v, rel=1e-5) for name, v in expected.items()}


def by_hand(runs: Runs, row: dict[str, float]) -> dict[str, float]:
    """Means over two updates of a copy of the model, with the same draws."""
    with runs.learner.off_policy.loaded(runs.state, 0) as loaded:
        runs.learner._apply(row)
        parts = loaded.actor, loaded.critic, loaded.critic_target
        actor, critic, target = (copy.deepcopy(part) for part in parts)
        del actor.action_log_prob  # the class's own
        log_heat = loaded.log_ent_coef.detach().clone().requires_grad_()
        rate, found = row["learning_rate"], []
        optimizers = [_as(loaded.critic, critic), _as(loaded.actor, actor)]
        temperature = torch.optim.Adam([log_heat], lr=rate)
        temperature.load_state_dict(loaded.ent_coef_optimizer.state_dict())
        for _ in range(2):
            batch = loaded.replay_buffer.sample(int(row["batch_size"]))
            actions, log_probs = actor.action_log_prob(batch.observations)
            heat = float(log_heat.detach().exp())
            if row["ent_rule"] == SET:
                heat = row["alpha"]
            entropy = -float(log_probs.detach().mean())
            if row["ent_rule"] == AUTO:
                temperature.zero_grad()
                wanted = row["target_entropy"]
                (log_heat * (entropy - wanted)).sum().backward()
                temperature.step()
            with torch.no_grad():
                chosen, chosen_probs = actor.action_log_prob(batch.next_observations)
                value = torch.minimum(*target(batch.next_observations, chosen))
                value = value - heat * chosen_probs[:, None]
                goal = batch.rewards + (1 - batch.dones) * row["gamma"] * value
            values = critic(batch.observations, batch.actions)
            loss = sum(0.5 * (v - goal).square().mean() for v in values)
            parameters = [*critic.parameters()]
            gradients = torch.autograd.grad(loss, parameters)
            norm = torch.cat([g.flatten() for g in gradients]).norm()
            for p, g in zip(parameters, gradients, strict=True):
                p.grad = g
            optimizers[0].step()
            least = torch.minimum(*critic(batch.observations, actions))
            actor_loss = (heat * log_probs[:, None] - least).mean()
            parameters = [*actor.parameters()]
            gradients = torch.autograd.grad(actor_loss, parameters)
            for p, g in zip(parameters, gradients, strict=True):
                p.grad = g
            optimizers[1].step()
            with torch.no_grad():
                for p, t in zip(critic.parameters(), target.parameters(), strict=True):
                    t.lerp_(p, row["tau"])
            found.append(
                {
                    "loss": float(loss.detach()),
                    "actor_loss": float(actor_loss.detach()),
                    "grad_norm": float(norm),
                    "entropy": entropy,
                    "temperature": heat,
                }
            )
    return {name: (found[0][name] + found[1][name]) / 2 for name in found[0]}


def _as(theirs: Any, mine: Any) -> torch.optim.Optimizer:
    """An optimiser of a copy, in the state of the original's."""
    optimizer = torch.optim.Adam(mine.parameters())
    optimizer.load_state_dict(theirs.optimizer.state_dict())
    return optimizer


@pytest.mark.slow
def test_signals_are_of_the_first_critic_and_the_whole_replay() -> None:
    runs = make("sac", [0, 1], budget=400, train_freq=1)
    runs.train(300)
    signals = runs.learner.signals(runs.state, runs.values, runs.interval)
    row = hyperparameters_of(runs.values, 1)
    with runs.learner.off_policy.loaded(runs.state, 1) as model, torch.no_grad():
        runs.learner._apply(row)
        batch = model.replay_buffer.sample(20_000)
        actions, log_probs = model.actor.action_log_prob(batch.next_observations)
        value = torch.minimum(*model.critic_target(batch.next_observations, actions))
        value = value - temperatures(runs)[1] * log_probs[:, None]
        goal = batch.rewards + (1 - batch.dones) * row["gamma"] * value
        taken, _ = model.critic(batch.observations, batch.actions)
    spread = float(taken.std())
    assert signals["value_mean"][1] == pytest.approx(
        float(taken.mean()), abs=6 * spread / 16
    )
    assert signals["value_std"][1] == pytest.approx(spread, rel=0.4)
    errors = (taken - goal).abs()
    assert signals["td_error"][1] == pytest.approx(
        float(errors.mean()), abs=6 * float(errors.std()) / 16
    )
    assert signals["td_error"][0] != signals["td_error"][1]


# -- actions ---------------------------------------------------------------------------


def test_actions_are_kept_within_one_and_taken_within_the_bounds() -> None:
    env = inner_of("sac")
    seen: list[np.ndarray[Any, Any]] = []
    step = env.step
    env.step = lambda state, actions: (  # type: ignore[method-assign]
        seen.append(actions.copy()) or step(state, actions)
    )
    runs = make("sac", env=env, num_inner_envs=2)
    runs.train(60)
    taken = np.stack(seen)[:, 0]  # (steps, N, A)
    kept = runs.state.replay.actions[0, :30]
    np.testing.assert_allclose(taken, 2 * kept, rtol=1e-6)
    assert np.abs(kept).max() <= 1
    assert np.ptp(taken[:10]) > 2  # any action, before learning starts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_actions": 2}, "SAC needs continuous actions; valid: dqn, ppo"),
        ({"action_high": np.array([np.inf])}, r"finite bounds, got low \[-2.0\], high"),
    ],
)
def test_actions_that_sac_cannot_have(change: dict[str, Any], message: str) -> None:
    env = inner_of("sac")
    for name, value in change.items():
        setattr(env, name, value)
    with pytest.raises(ValueError, match=message):
        make("sac", env=env)


def test_actions_are_not_held() -> None:
    with pytest.raises(ValueError, match="does not hold actions; set held_starts to 1"):
        make("sac", held_starts=2)


# -- a user's policies -----------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"use_sde": True},
        slow({"policy_kwargs": {"share_features_extractor": True}}),
        slow({"policy_kwargs": {"n_critics": 3}}),
        {"target_update_interval": 2},
    ],
)
def test_other_policies(given: dict[str, Any]) -> None:
    """Members do not touch each other, in signals neither."""

    def trained(members: list[int]) -> tuple[Runs, dict[str, Any]]:
        runs = make("sac", members, sb3_kwargs=given)
        runs.train(60)
        return runs, runs.learner.signals(runs.state, runs.values, runs.interval)

    together, signals = trained([0, 1])
    assert together.interval.updates.tolist() == [10, 10]
    assert all(np.isfinite(v).all() for v in signals.values())
    for i in range(2):
        alone, own = trained([i])
        assert together.differences(alone, i, 0) == []
        assert {name: v[i] for name, v in signals.items()} == {
            name: v[0] for name, v in own.items()
        }
    parameters = together.state.parameters
    assert not torch.equal(parameters[0], parameters[1])


def test_features_that_are_shared_are_kept_once() -> None:
    kwargs = {
        "share_features_extractor": True,
        "features_extractor_class": "test_sb3_sac:Doubled",
    }
    runs = make("sac", [0, 1], sb3_kwargs={"policy_kwargs": kwargs})
    model = runs.learner.model
    own = model.actor.features_extractor
    assert model.critic.features_extractor is own
    parts = [*model.actor.parameters(), *model.critic.parameters()]
    kept = sum(p.numel() for p in {id(p): p for p in parts}.values()) + 1
    assert runs.state.parameters.shape[1] == kept
    assert kept < sum(p.numel() for p in parts) + 1
    cut = make("sac", [0, 1], sb3_kwargs={"policy_kwargs": kwargs})
    runs.train(60)
    for steps in (25, 35):
        cut.train(steps)
    assert runs.differences(cut, 0) == runs.differences(cut, 1) == []


def __getattr__(name: str) -> Any:
    """A features extractor that learns, made when it is asked for."""
    if name != "Doubled":
        raise AttributeError(name)
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

    class Doubled(BaseFeaturesExtractor):
        def __init__(self, space: Any) -> None:
            super().__init__(space, 6)
            self.layer = torch.nn.Linear(3, 6)

        def forward(self, observations: torch.Tensor) -> torch.Tensor:
            return self.layer(observations)

    return Doubled
