"""Environment objects: closed once, and with random generators that can be seeded."""

from __future__ import annotations

import os
import random
import sys
import types
import weakref
from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np

_MOST = 10_000  # things inside of an object that are looked at for generators
# what has no generator inside, or none that a copy of the object has for itself
_CLOSED = (type | types.ModuleType | types.FunctionType | types.BuiltinFunctionType) | (
    str | bytes | int | float | complex | None | np.ndarray
)
_GENERATORS = (
    np.random.Generator,
    np.random.RandomState,
    random.Random,
)
_BIPEDAL = "gymnasium.envs.box2d.bipedal_walker"


class Owned(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that is closed once: by `close`, or when nobody has it any more.

    So whatever takes the place of an environment object, or drops it, need not close
    it. A copy is closed by itself. In a forked process nothing is closed: what an
    environment holds there belongs to the process that made it.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._end = weakref.finalize(self, _close, env, os.getpid())

    def close(self) -> None:
        """Close it, unless that is done."""
        self._end()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_end"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._end = weakref.finalize(self, _close, self.env, os.getpid())


def _close(env: gym.Env[Any, Any], process: int) -> None:
    if os.getpid() == process:
        env.close()


class NewWorld(gym.Wrapper[Any, Any, Any, Any]):
    """A BipedalWalker whose episodes do not depend on those before.

    It keeps its Box2D world, in which what was destroyed leaves traces. LunarLander,
    which had the same fault, has a new one in every episode since version 3.
    """

    def reset(self, **options: Any) -> Any:
        """Begin an episode in a new world."""
        walker: Any = self.unwrapped
        walker._destroy()
        walker.world = type(walker.world)()
        return super().reset(**options)


def owned(env: gym.Env[Any, Any]) -> Owned:
    """What `gymnasium.make` gave, to be closed by whoever has it."""
    if any(kind.__module__ == _BIPEDAL for kind in type(env.unwrapped).__mro__):
        env = NewWorld(env)
    return Owned(env)


# -- random generators ----------------------------------------------------------------


def reseed(env: gym.Env[Any, Any], seed: int) -> bool:
    """Give every random generator inside of an environment object numbers of its own.

    Those of numpy, Python and torch are found wherever a copy of the object has copies
    of them: in attributes of any layer, and in what they hold. Generators of classes,
    modules and closures, which copies share, are left alone.

    Args:
        env: the object, changed in place.
        seed: of Gymnasium's ``np_random``; the others' follow from it.

    Returns:
        Whether there was one.
    """
    found = _generators(env)
    own = getattr(env.unwrapped, "_np_random", None)
    # Gymnasium's first, which so has the seed itself
    found.sort(key=lambda generator: generator is not own)
    for k, generator in enumerate(found):
        if k == 0 and generator is own:
            _seed(generator, seed)
        else:
            words = np.random.SeedSequence((seed, k)).generate_state(1, np.uint64)
            _seed(generator, int(words[0]))
    return bool(found)


def _is_torch(thing: Any, name: str) -> bool:
    """Whether something is of a class of torch, which need not have been imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(thing, getattr(torch, name))


def _generators(env: Any) -> list[Any]:
    """Generators inside of an object, each once, the outermost first."""
    found: list[Any] = []
    seen: dict[int, Any] = {}  # the things themselves: their ids stay taken
    shared = (np.random.mtrand._rand, getattr(random, "_inst", None))
    todo = deque([env])
    while todo and len(seen) < _MOST:
        thing = todo.popleft()
        if (
            isinstance(thing, _CLOSED)
            or _is_torch(thing, "Tensor")
            or id(thing) in seen
        ):
            continue
        seen[id(thing)] = thing
        if isinstance(thing, _GENERATORS) or _is_torch(thing, "Generator"):
            if not any(thing is one for one in shared):
                found.append(thing)
        elif isinstance(thing, dict):
            todo.extend(thing.values())
        elif isinstance(thing, list | tuple | deque):
            todo.extend(thing)
        else:
            todo.extend(getattr(thing, "__dict__", {}).values())
            for kind in type(thing).__mro__:
                slots = getattr(kind, "__slots__", ())
                for name in (slots,) if isinstance(slots, str) else slots:
                    todo.append(getattr(thing, name, None))
    return found


def _seed(generator: Any, seed: int) -> None:
    """Seed a generator in place: whoever else holds it goes on with the same."""
    if isinstance(generator, random.Random):
        generator.seed(seed)
    elif _is_torch(generator, "Generator"):
        generator.manual_seed(seed)
    elif isinstance(generator, np.random.Generator):
        bits: Any = generator.bit_generator
        bits.state = type(bits)(seed).state
    else:
        fresh = type(generator._bit_generator)(seed).state
        # without the normal number that is left over from the last pair
        generator.set_state({**fresh, "has_gauss": 0, "gauss": 0.0})
