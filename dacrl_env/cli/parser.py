"""The parser of the command line: jsonargparse, and what was meant.

jsonargparse is argparse with files of configuration: ``--config FILE.yaml`` takes all
that a command takes, checked as the line is, and ``--print-config`` writes it. What is
added here: a file may also say what has its place on the line, a name that is nearly
right gets the one that was meant, and mistakes show how the command is used.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse
import yaml

from dacrl_env.cli import listing
from dacrl_env.cli.arguments import WrongTypeError
from dacrl_env.core import installed
from dacrl_env.core.checks import meant

Command = Callable[[argparse.Namespace], None]
_NUMBER = r"^[-+]?([0-9]+|(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?)$"


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers: 16:32 is a text, and 5e6 a number."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(_NUMBER), list("-+.0123456789")
)


def _load(text: str) -> Any:
    return yaml.load(text, _Loader)  # a SafeLoader


jsonargparse.set_loader("yaml", _load, exceptions=(yaml.YAMLError,))
jsonargparse.set_parsing_settings(add_print_completion_argument=True)


class _Help(argparse.HelpFormatter):
    """Defaults are shown, where the text does not say them."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        plain = isinstance(default, int | float | str) and not isinstance(default, bool)
        if not plain or default == argparse.SUPPRESS or "default" in text:
            return text
        return f"{text} (default: %(default)s)".strip()


def text(value: Any) -> str:
    """An argument as it was written, also where a file has a number."""
    if isinstance(value, dict | list):
        raise WrongTypeError(f"{value} is no single value")
    return str(value)


def _flow(words: list[Any]) -> str:
    """A list as a file of configuration has it, on one line."""
    return str(yaml.safe_dump(words, default_flow_style=True, width=10**6)).strip()


def _named(key: re.Match[str]) -> str:
    return f"--{key[1].replace('_', '-')}: "


def _files_first(line: Sequence[str]) -> list[str]:
    """A line that begins with its command and files, so that the rest goes before."""
    files, rest, words = list[str](), list[str](), iter(line)
    for word in words:
        if word == "--config":
            files += [word, *([path] if (path := next(words, None)) else [])]
        else:
            (files if word.startswith("--config=") else rest).append(word)
    at = next((k for k, word in enumerate(rest) if word[:1] != "-"), len(rest))
    return [*rest[: at + 1], *files, *rest[at + 1 :]]


def _files(line: Iterable[str]) -> list[str]:
    """Paths that ``--config`` gives on a line."""
    words = iter(line)
    found = list[str]()
    for word in words:
        option, equals, path = word.partition("=")
        if option == "--config" and (equals or (path := next(words, ""))):
            found.append(path)
    return found


class Parser(jsonargparse.ArgumentParser):
    """Of the whole line, or of one command."""

    command: Command

    def __init__(self, **about: Any) -> None:
        # `--seed` of another command is not `--seeds`
        super().__init__(
            allow_abbrev=False,
            print_config="--print-%s",
            formatter_class=_Help,
            **about,
        )
        self.places: list[str] = []  # arguments without a name
        self.commands: dict[str, Parser] = {}
        self.line: Sequence[str] = ()  # that is read
        self.above: Parser | None = None  # of the whole line

    def add_argument(self, *names: Any, **about: Any) -> Any:
        """As of argparse; what has no type is a text."""
        if not about.keys() & {"action", "type"}:
            about["type"] = text
        if names[0][:1] != "-":
            self.places.append(names[0])
        return super().add_argument(*names, **about)

    def _let_files_say(self) -> list[str]:
        """Names of what has a place on the line, and may be missing there."""
        places = [a for a in self._actions if a.dest in self.places and a.nargs != "*"]
        needed = [a for a in places if a.required]
        for action in needed:
            action.nargs, action.required = "?", False
        return [action.dest for action in needed]

    def _take_places(self, files: Iterable[str]) -> None:
        """Let what has a place on the line be what files say, where it is not there.

        Also refuses what is no list where several are taken. Files that cannot be read
        are left to the parser, which says so.
        """
        for path in files:
            try:
                said = _load(Path(path).read_text(encoding="utf-8"))
            except (OSError, ValueError, yaml.YAMLError):
                continue
            given = said if isinstance(said, dict) else {}
            for action in (a for a in self._actions if given.get(a.dest) is not None):
                value, several = given[action.dest], action.nargs in ("+", "*")
                if several and not isinstance(value, list):
                    self._refuse_no_list(action, value)
                if action.dest in self.places and (several or isinstance(value, str)):
                    self.set_defaults(**{action.dest: value})

    def _without_files(
        self, line: Sequence[str], found: Mapping[str, Any]
    ) -> list[str]:
        """The same line, with what its files of options say in words.

        Args:
            line: words.
            found: what came of it; where it has ``place_…``, a file has no say.
        """
        said: dict[str, Any] = {}
        for path in _files(line):
            said |= _load(Path(path).read_text(encoding="utf-8")) or {}
        words, options = [], iter(line)
        for word in options:
            if word == "--config":
                next(options)
            elif word.partition("=")[0] != "--config":
                words.append(word)
        given = {word.partition("=")[0] for word in words}
        placed = []
        for action in (a for a in self._actions if said.get(a.dest) is not None):
            if found.get(f"place_{action.dest}") is not None:
                continue
            value = said[action.dest]
            texts = [text(v) for v in (value if isinstance(value, list) else [value])]
            if not action.option_strings:
                used = found.get(action.dest) == value  # the line goes before
                placed += texts if used and set(words).isdisjoint(texts) else []
            elif given.isdisjoint(action.option_strings) and value is not False:
                words += [action.option_strings[0], *([] if value is True else texts)]
        at = words.index(self.prog.rpartition(" ")[2]) + 1  # behind the command
        return [*words[:at], *placed, *words[at:]]

    def _refuse_no_list(self, action: argparse.Action, value: Any) -> NoReturn:
        words = [value]
        if isinstance(value, dict):
            words = [f"{name}={value}" for name, value in value.items()]
        name = self._name(action.dest)
        self.error(f"{name}: a list is taken, as in {action.dest}: {_flow(words)}")

    def set_defaults(self, *arguments: Any, **named: Any) -> None:
        """As of argparse; ``command`` is what obeys."""
        if "command" in named:
            self.command = named.pop("command")
        if arguments or named:
            super().set_defaults(*arguments, **named)

    def read(self, line: Sequence[str] | None) -> argparse.Namespace:
        """Options of the command that is given, and what they come from.

        ``words`` are those of the line, and ``line`` is the same without files of
        options; ``command`` obeys, and ``parser`` has read them.

        Args:
            line: arguments; None: those of this process.

        Raises:
            SystemExit: something is wrong, and is said; or help was asked for.
        """
        self.line = sys.argv[1:] if line is None else line
        if any(word.partition("=")[0] == "--print_completion" for word in self.line):
            installed.require("completion", "completion in shells needs shtab")
        needed = {}
        if any(word.partition("=")[0] == "--config" for word in self.line):
            needed = {k: each._let_files_say() for k, each in self.commands.items()}
        line = _files_first(self.line)
        for parser in (self.commands[word] for word in line if word in self.commands):
            parser._take_places(_files(line))
            break
        found = self.parse_args(line)
        parser = self.commands[found.subcommand]
        given = dict(vars(found[found.subcommand]))
        given.pop("config", None)
        for action in parser._actions:
            flag = action.nargs == 0 and action.dest in given
            if flag and not isinstance(given[action.dest], bool):
                parser.error(
                    f"{action.option_strings[0]}: true or false, got "
                    f"{given[action.dest]}"
                )
        wanted = needed.get(found.subcommand, ())
        missing = [name for name in wanted if given[name] is None]
        if missing:
            parser.line = self.line
            parser.error(f"the following arguments are required: {', '.join(missing)}")
        own = {"command": parser.command, "parser": parser, "words": [*self.line]}
        own["line"] = parser._without_files(self.line, given)
        shared = {k: v for k, v in vars(found).items() if k in given and v}
        return argparse.Namespace(**given | shared | own)

    def dump(self, found: Any, **about: Any) -> str:
        """As of jsonargparse; what has a place, and a name too, has its name."""
        found = found.clone()
        for place in [key for key in vars(found) if key.startswith("place_")]:
            value = found.pop(place)
            if value is not None:  # the line goes before a file
                found[place.removeprefix("place_")] = value
        return super().dump(found, **about)

    def print_help(self, file: Any = None) -> None:
        """Also of the policies and methods that the line names before."""
        super().print_help(file)
        line = (self.above or self).line
        for word in dict.fromkeys(line[1:]):
            text = listing.described_by_name(word)
            if text is not None:
                print(f"\n{text}", file=file)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong, what was meant, and how the command is used."""
        parser = getattr(ex, "subcommand_parser", None) or self
        wrong = re.search(
            r"invalid choice: '?([^' ]*)'? \(choose from (.*)\)", message
        ) or re.search(r"'(.*)' not among choices \((.*)\)", message)
        if wrong is not None:
            message += meant(wrong[1], re.findall(r"[\w-]+", wrong[2]))
        first, _, rest = message.partition("arguments are required: ")
        if rest and "." in rest:  # as a file names them
            keys = [key.partition(".")[::2] for key in rest.split(", ")]
            parser = self.commands[keys[0][0]]
            message = first + "arguments are required: "
            message += ", ".join(parser._name(key) for _, key in keys)
        unread = re.search(r"does not accept option '(.*)'", message)
        if unread is not None:
            parser = self.commands.get(message.split("'")[1], self)
            message = f"unknown in a file: {unread[1]}{meant(unread[1], parser._keys)}"
        if message.startswith("unrecognized arguments: "):
            message += parser._near(message.split()[2:], self._option_string_actions)
        if "arguments are required" in message:
            valid = parser._option_string_actions
            given = [word.partition("=")[0] for word in (self.above or self).line]
            for name in (n for n in given if n[:2] == "--" and n not in valid):
                message += f"; got {name}{meant(name, valid)}"
        message = re.sub(r'^Parser key "(\w+)": ', _named, message)
        message = message.replace("Problems parsing config: ", "--config: ")
        if "was not provided" in message:
            message = "which command? " + ", ".join(self.commands)
        sys.stderr.write(f"{parser.prog}: error: {message}\n")
        sys.stderr.write(f"{parser.prog} --help shows what there is\n")
        sys.exit(2)

    @property
    def _keys(self) -> list[str]:
        return [a.dest for a in self._actions if a.dest not in ("help", "config")]

    def _name(self, key: str) -> str:
        """How the line names what a file calls by a key."""
        (action,) = (a for a in self._actions if a.dest == key)
        return action.option_strings[0] if action.option_strings else key

    def _near(self, rest: list[str], more: Iterable[str]) -> str:
        """What may have been meant by arguments that nothing takes."""
        names = [*self._option_string_actions, *more]
        if rest[0].startswith("-"):
            options = [word.partition("=")[0] for word in rest if word[:1] == "-"]
            return "".join(meant(name, names) for name in options)
        return "; policies are given by --policies" if "--policies" in names else ""


class Commands:
    """Commands of a parser.

    Args:
        parser: of the whole line.
    """

    def __init__(self, parser: Parser) -> None:
        self._parser = parser
        self._added = parser.add_subcommands(required=True, metavar="command")

    def add_parser(self, name: str, **about: Any) -> Parser:
        """The parser of a new command.

        Args:
            name: of the command.
            **about: ``help``, what it does in a line, and more as argparse's parsers
                take it.
        """
        line = about.pop("help")
        made = Parser(description=f"{line[0].upper()}{line[1:]}.", **about)
        self._added.add_subcommand(name, made, help=line)
        made.prog, made.above = f"{self._parser.prog} {name}", self._parser
        made.add_argument(
            "--config",
            action=jsonargparse.ActionConfigFile,
            metavar="FILE.yaml",
            help="options by their names; what the line says goes before",
        )
        printing = made._option_string_actions["--print-config"]
        printing.metavar = "[FLAGS]"
        self._parser.commands[name] = made
        return made
