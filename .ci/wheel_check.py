"""One episode from the installed wheel, outside of the checkout."""

import sys
from pathlib import Path

import gymnasium as gym

import dacrl_env
from dacrl_env.policies import pretrained

checkout = Path(sys.argv[1]).resolve()
installed = Path(dacrl_env.__file__).resolve()
if checkout in installed.parents:
    sys.exit(f"tested the checkout, not the wheel: {installed}")
if not (installed.parent / "py.typed").is_file():
    sys.exit("py.typed is not in the wheel")
if not (installed.parent / "tasks" / "bases.json").is_file():
    sys.exit("the bases of tasks are not in the wheel")
page = installed.parent / "comparison" / "html"
for name in ("page.html", "page.js", "vendored/plotly-basic.min.js"):
    if not (page / name).is_file():
        sys.exit(f"{name}, a part of pages, is not in the wheel")
kinds = {path.suffix for path in pretrained().values()}
if kinds != {".json", ".safetensors"}:
    sys.exit(
        f"trained controllers are missing in the wheel; there are {kinds or 'none'}"
    )

env = gym.make("dacrl/DQN-CartPole-v0", budget=2_000)
observation, info = env.reset(seed=0)
total, over = 0.0, False
initial = info["score"]
while not over:
    observation, reward, over, _, info = env.step(env.action_space.sample())
    total += reward
if info["env_steps"] != 2_000 or abs(total - (info["score"] - initial)) > 1e-9:
    sys.exit(f"the episode does not add up: {info}, return {total}")
print(f"one episode from {installed.parent.name}: {info['env_steps']} inner steps")
