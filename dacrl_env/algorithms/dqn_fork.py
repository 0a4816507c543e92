"""What a member of DQN would become by further updates; for members that are copies.

The learning of `dqn`, without what needs an environment: no transitions are added, and
the replay's newest ones stay so.
"""

from __future__ import annotations

from dacrl_env.algorithms.dqn import update
from dacrl_env.algorithms.replay import draw_evenly, gather
from dacrl_env.kernels.choices import largest
from dacrl_env.kernels.compiling import entry
from dacrl_env.kernels.dense import predict
from dacrl_env.kernels.random_numbers import draw
from dacrl_env.kernels.views import approach, held, matrix, row_of, vector


@entry
def best_of_batch(p, key, B, run, memory, actions):
    """Best actions of member p in states from its replay, all as likely.

    Args:
        p: number of the member.
        key: of the draw, whose number is that of the member's environment steps.
        B: states.
        run: of the population; not changed.
        memory: with room for B transitions.
        actions: (B,), written to.
    """
    run, memory = held(run), held(memory)
    fixed, state = run.fixed, run.state
    draw_evenly(p, draw(key, state.env_steps[p]), B, run, memory)
    gather(p, B, run, memory)
    x, q = matrix(memory.inputs, 0, B, fixed.D), matrix(memory.outputs, 0, B, fixed.A)
    parameters = vector(state.parameters, p * fixed.net.row, fixed.net.row)
    predict(fixed.net, parameters, x, memory.scratch.hidden, q)
    for b in range(B):
        actions[b] = largest(row_of(b, q))


@entry
def learn_on(p, updates, enough, run, memory):
    """Go on with updates of member p as `dqn.learn` makes them, target network and all.

    Args:
        p: number of the member.
        updates: gradient steps, at most.
        enough: of them; the training event in which they are reached is completed.
        run: of the population.
        memory: with room for a batch.

    Returns:
        Gradient steps done.
    """
    run, memory = held(run), held(memory)
    fixed, values, state = run.fixed, run.values, run.state
    N, row, done = fixed.N, fixed.net.row, 0
    while done < updates and done < enough:
        state.since_target[p] += N
        if state.since_target[p] >= values.target_update_interval[p]:
            state.since_target[p] = 0
            target = vector(state.target, p * row, row)
            approach(vector(state.parameters, p * row, row), values.tau[p], target)
        state.since_train[p] += N
        if state.since_train[p] < values.train_freq[p]:
            continue
        state.since_train[p] = 0
        count = min(int(values.gradient_steps[p]), updates - done)
        for _ in range(count):
            update(p, run, memory)
        done += count
    return done
