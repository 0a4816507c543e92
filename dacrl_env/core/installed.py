"""This package and the libraries that results depend on: their versions."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path

from dacrl_env.core.digests import digest, short
from dacrl_env.core.sources import OWN, NoSource
from dacrl_env.core.version import __version__

_PARTS = ("agents", "baselines")  # of the package, which lie elsewhere in a checkout
_LEFT_OUT = "benchmarks"  # on which no result depends
# tuned policies: results of these are named by what is in them, so that keeping one of
# a task does not make those of all other tasks old
_BY_CONTENT = "*-tuned.json"
_LIBRARIES = (
    "numpy",
    "torch",
    "gymnasium",
    "stable-baselines3",
    "safetensors",
    "box2d",
    "cma",
    "envpool",
    "minigrid",
    "optuna",
    "sb3-contrib",
    "smac",
)


@functools.cache
def version() -> str:
    """The package's version and a digest of all its sources that results depend on.

    The same in a checkout and from a wheel. The files are read once a process.
    """
    return f"{__version__}+{digest(_own_files())[:12]}"


def _own_files() -> Iterator[tuple[str, bytes]]:
    """Names and contents, in the order of names."""
    places = {"": Path(__file__).parents[1]}
    for part in _PARTS:
        spec = importlib.util.find_spec(f"{OWN}.{part}")
        if spec is None or spec.origin is None:
            raise ImportError(f"{OWN}.{part} is missing: install {OWN} again")
        places[part] = Path(spec.origin).parent
    found = {
        (Path(part) / path.relative_to(folder)).as_posix(): path
        for part, folder in places.items()
        for path in folder.rglob("*.py")
    }
    found["tasks/references.json"] = places[""] / "tasks" / "references.json"
    for path in (places["agents"] / "pretrained").iterdir():
        if path.suffix in (".json", ".safetensors") and not path.match(_BY_CONTENT):
            found[f"agents/pretrained/{path.name}"] = path
    for name, path in sorted(found.items()):
        if name.partition("/")[0] != _LEFT_OUT:
            yield name, path.read_bytes()


def libraries() -> dict[str, str]:
    """Versions of Python and of installed libraries that results may depend on."""
    return dict(_installed())


@functools.cache
def _installed() -> Mapping[str, str]:
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def distribution(module: str) -> str:
    """Name and version of what a module was installed with, and its files' digest.

    The digest tells apart what was installed twice under one version.
    """
    top = module.partition(".")[0]
    names = importlib.metadata.packages_distributions().get(top)
    if not names:
        raise NoSource(f"{module} was installed without saying in which version")
    found = importlib.metadata.distribution(min(names))
    lines = (found.read_text("RECORD") or "").splitlines()
    own = [
        n for n in lines if n.startswith((f"{top}/", f"{top}.")) and ".pyc," not in n
    ]
    digest = short("\n".join(sorted(own)).encode())[:12]
    return f"{found.metadata['Name']} {found.version} {digest}"


# -- extras --------------------------------------------------------------------------

# what each extra is installed for: the module that is missing without it
EXTRAS = {
    "box2d": "Box2D",
    "cma": "cma",
    "completion": "shtab",
    "envpool": "envpool",
    "minari": "minari",
    "minigrid": "minigrid",
    "mlflow": "mlflow",
    "optuna": "optuna",
    "ray": "ray",
    "recurrent": "sb3_contrib",
    "slurm": "submitit",
    "smac": "smac",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
}


def has(extra: str) -> bool:
    """Whether an extra is installed, without importing it."""
    return importlib.util.find_spec(EXTRAS[extra]) is not None


def missing(extra: str, said: str) -> ModuleNotFoundError:
    """The error for an extra that is not installed.

    Args:
        extra: see `EXTRAS`.
        said: what needs what, as in "data sets need Minari".
    """
    return ModuleNotFoundError(
        f"{said}: pip install 'dacrl-env[{extra}]'", name=EXTRAS[extra]
    )


def require(extra: str, said: str) -> None:
    """Raise a ModuleNotFoundError that names an extra, if it is not installed.

    Args:
        extra: see `EXTRAS`.
        said: what needs what, as in "data sets need Minari".
    """
    if not has(extra):
        raise missing(extra, said)
