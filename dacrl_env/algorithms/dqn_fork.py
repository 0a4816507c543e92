"""What a member of DQN would become by further updates; for members that are copies.

The learning of `dqn`, without what needs an environment: no transitions are added, and
the replay's newest ones stay so.
"""

from __future__ import annotations

from dacrl_env.algorithms.dqn import are_due, update
from dacrl_env.algorithms.features import inputs_of, prepare_batch
from dacrl_env.algorithms.replay import draw_evenly, gather
from dacrl_env.kernels.choices import largest
from dacrl_env.kernels.compiling import entry
from dacrl_env.kernels.dense import predict
from dacrl_env.kernels.random_numbers import draw
from dacrl_env.kernels.views import held, matrix, row_of, start_of


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
    prepare_batch(p, B, run, memory)
    x, q = inputs_of(B, memory.inputs, fixed), matrix(memory.outputs, 0, B, fixed.A)
    parameters = start_of(p, state.parameters, fixed.net.row)
    predict(fixed.net, parameters, x, memory.scratch.hidden, q)
    for b in range(B):
        actions[b] = largest(row_of(b, q))


@entry
def learn_on(p, updates, enough, run, memory):
    """Go on with updates of member p as in training, target network and all.

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
    done = 0
    while done < updates and done < enough:
        if are_due(p, run):
            count = min(int(run.values.gradient_steps[p]), updates - done)
            for _ in range(count):
                update(p, run, memory)
            done += count
    return done
