"""How results of a folder were made: commands, the order of policies, settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dacrl_env.core.files import read_json, write_text

NAME = "comparison.json"  # in the folder of a comparison
_MOST = 20  # commands that are kept


@dataclass(frozen=True)
class Made:
    """How a comparison was made.

    Attributes:
        policies: names of policies and methods, without labels, in the order in which
            reports show them.
        reference: name of the policy that others are compared with; None: the first.
        commands: as lines for a shell, the oldest first.
        settings: options of the environment that were given; not in the file.
        versions: of this package and of libraries; not in the file.
    """

    policies: Sequence[str] = ()
    reference: str | None = None
    commands: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Made:
        """What is kept in a folder; nothing where there is no file.

        Raises:
            ValueError: the file is damaged.
        """
        path = folder / NAME
        try:
            content = read_json(path.read_bytes())
            made = cls(**content)
            texts = [*made.policies, *made.commands, made.reference or ""]
            lists = (made.policies, made.commands)
            if not all(isinstance(one, list) for one in lists):
                raise ValueError("it has no lists of policies and commands")
            if not all(isinstance(text, str) for text in texts):
                raise ValueError("a name or a command is no text")
        except FileNotFoundError:
            return cls()
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}; it can be deleted") from None
        return made

    def write(self, folder: Path) -> None:
        """Keep it in a folder."""
        content = {
            "policies": list(self.policies),
            "reference": self.reference,
            "commands": list(self.commands),
        }
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / NAME, json.dumps(content, indent=1))

    def again(
        self, policies: Sequence[str], reference: str | None, command: str
    ) -> Made:
        """After another command: its policies come first, and it is the latest.

        One that runs a single policy adds it to those that are there.
        """
        first = reference or policies[0]
        if len(policies) == 1 and self.policies and reference is None:
            order, first = [*self.policies, *policies], self.reference or first
        else:
            order = [*policies, *self.policies]
        commands = [one for one in self.commands if one != command]
        return replace(
            self,
            policies=list(dict.fromkeys(order)),
            reference=first,
            commands=[*commands, command][-_MOST:],
        )
