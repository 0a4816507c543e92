"""Policies, methods and values as texts: labels, names, arguments, quotation marks.

``name,key=value,key=value``, with a label before an equals sign: ``label=name,…``. What
lies in brackets or quotation marks belongs together. Where a text begins with the path
of an existing file, that path is its name, whatever characters it has: folders are
called ``lr=0.1,seed=3``, too.
"""

from __future__ import annotations

import ast
import os
from typing import Any

POLICY_SUFFIXES = (".json", ".safetensors")  # of files that hold a policy
_QUOTES = "'\""
NOT_IN_LABELS = ",:/\\"  # unless they are quoted


def literal(text: str) -> Any:
    """The Python value that a text is, or the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def existing(text: str) -> str | None:
    """The longest path of a policy file with which a text begins; None: there is none.

    It ends with the text, or where a comma is.
    """
    commas = [k for k, letter in enumerate(text) if letter == ","]
    for end in (len(text), *reversed(commas)):
        path = text[:end]
        if path.endswith(POLICY_SUFFIXES) and os.path.isfile(path):
            return path
    return None


def take_label(text: str) -> tuple[str | None, str]:
    """Label and the rest; None: there is no label.

    A label in quotation marks may have any character; one without has no comma, colon
    or slash.

    Raises:
        ValueError: an empty label, or nothing behind it.
    """
    if existing(text) is not None:
        return None, text
    if text[:1] and text[0] in _QUOTES:
        end = text.find(text[0], 1)
        if end < 0 or text[end + 1 : end + 2] != "=":
            return None, text
        label, rest = text[1:end], text[end + 2 :]
    else:
        label, equals, rest = text.partition("=")
        # the equals signs of arguments come after a comma, those of files after a name
        if not equals or set(label) & set(NOT_IN_LABELS):
            return None, text
    if not label.strip() or not rest:
        raise ValueError(f"{text!r} should read LABEL=POLICY")
    return label, rest


def read_spec(spec: str, what: str) -> tuple[str, dict[str, Any]]:
    """Name and arguments.

    Args:
        spec: the text.
        what: that it names, for messages.

    Raises:
        ValueError: arguments that cannot be read, or one that is given twice.
    """
    file = existing(spec)
    if file is not None:
        name, rest = file, _parts(spec[len(file) + 1 :])
        rest = [] if rest == [""] else rest
    else:
        name, *rest = _parts(spec)
        name = _unquoted(name)
    kwargs: dict[str, Any] = {}
    for part in rest:
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ValueError(
                f"cannot read {part!r} in {what} {spec!r}; arguments look like "
                "name,key=value,key=value; a path with commas is in quotation marks"
            )
        if key in kwargs:
            raise ValueError(f"{what} {spec!r}: {key} is given twice")
        kwargs[key] = literal(value.strip())
    return name, kwargs


def _unquoted(name: str) -> str:
    quoted = len(name) > 1 and name[0] in _QUOTES and name[-1] == name[0]
    return name[1:-1] if quoted else name


def _parts(spec: str) -> list[str]:
    """What commas separate, those inside brackets and quotation marks aside."""
    parts, depth, quote, before = [""], 0, "", ","
    for letter in spec:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in _QUOTES and before in "=,([{:":  # not an apostrophe
            quote = letter
        else:
            depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += letter
        before = before if letter == " " else letter
    if quote:
        raise ValueError(f"a quotation mark is not closed in {spec!r}")
    return [part.strip() for part in parts]
