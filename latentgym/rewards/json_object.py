r"""Reading JSON as models write it, in time linear in its length.

A model that writes LaTeX into a JSON string often forgets to double its backslashes. Strict JSON
then rejects `"\sqrt{2}"` and reads `"\frac{1}{2}"` as a form feed and "rac{1}{2}".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from latentgym.rewards.extract import MAX_TEXT

_ESCAPE = re.compile(
    r"""
    (?P<unicode>(?:\\u[0-9A-Fa-f]{4})+)
    | \\(?P<control>[bfnrt])
    | (?P<command>\\[A-Za-z])
    | \\(?P<symbol>.)
    """,
    re.VERBOSE | re.DOTALL,
)
# A word that is no command, before a line break or tab between words.
_AFTER_WORD = re.compile(r"(?<![A-Za-z\\])[a-z]{2,31}[.,;:!?]?\Z")
_WORD = 33
# Longer values than any answer stay as they are written.
_MAX_VALUE = 1 << 15
_CONTROL = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
# A string up to its closing quote, which an answer cut short lacks.
_STRING = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)(")?', re.DOTALL)
# What may end a value without quotes: the object, the line, or the next key.
_END = re.compile(r'[{}\n]|,\s*"[^"\n]{0,64}"\s*:')
_FENCED = re.compile(r"```[A-Za-z]*\s(.*)```", re.DOTALL)


def json_value(text: str, key: str) -> str | None:
    """The value behind the last mention of a key, as text.

    It is a string, without its escapes, or else all up to the end of its line or object, as it is
    written. What stands around the object does not matter, nor whether the object is valid.

    Args:
        text: any text.
        key: without quotes.

    Returns:
        The value, without blanks around it; None without the key, or if the text is longer than
        any that is read.
    """
    start = -1
    if len(text) <= MAX_TEXT:
        for found in _mentions(text, key):
            start = found.end()
    if start < 0:
        return None
    quoted = _STRING.match(text, start)
    if quoted is None:
        return _bare(text, start)
    inside = quoted[1] if quoted[2] else quoted[1].partition("\n")[0]
    return (inside if len(inside) > _MAX_VALUE else _unescaped(inside)).strip()


def from_json_key(text: str, key: str) -> str:
    """The text from the first mention of a key on; empty without one."""
    found = next(_mentions(text, key), None)
    return text[found.start() :] if found else ""


def is_json_object(text: str, *keys: str) -> bool:
    """Whether a text, perhaps in a code fence, is one JSON object that has all of the keys."""
    if len(text) > MAX_TEXT:
        return False
    text = text.strip()
    if fenced := _FENCED.fullmatch(text):
        text = fenced[1]
    try:
        # Numbers stay text: to read one of many digits takes long, or is refused.
        found = json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() >= set(keys)


def _mentions(text: str, key: str) -> Iterator[re.Match[str]]:
    return re.finditer(rf'"{re.escape(key)}"\s*:\s*', text)


def _bare(text: str, start: int) -> str:
    """A value without quotes; braces within it, as of LaTeX, do not end it."""
    end, depth = len(text), 0
    for found in _END.finditer(text, start):
        symbol = found.group()
        if symbol == "{":
            depth += 1
        elif symbol == "}" and depth:
            depth -= 1
        elif symbol in "}\n" or not depth:
            end = found.start()
            break
    return text[start:end].strip().rstrip(",")


def _unescaped(inside: str) -> str:
    """What the inside of a JSON string stands for; LaTeX behind one backslash stays LaTeX.

    An escape that a letter follows begins a command: no answer holds a backspace or form feed, and
    line breaks and tabs stand between words or before figures. So it is what JSON says where a word
    stands before it, or where other commands have the two backslashes that JSON wants.
    """
    escapes = list(_ESCAPE.finditer(inside))
    commands = _commands(inside, escapes)
    # Who writes commands with one backslash writes the break of a matrix's row with two.
    single = any(found["command"] or commands.get(found.start()) in ("b", "f") for found in escapes)
    if not single and any(f["symbol"] == "\\" and _is_letter(inside, f.end()) for f in escapes):
        commands = {}

    def meant(found: re.Match[str]) -> str:
        if found["unicode"]:
            # Halves of a character, which no file could hold, are replaced.
            halves = json.loads(f'"{found["unicode"]}"').encode("utf-16", "surrogatepass")
            return str(halves.decode("utf-16", "replace"))
        if control := found["control"]:
            return found.group() if found.start() in commands else _CONTROL[control]
        escaped = found["symbol"] in ('"', "/") or (found["symbol"] == "\\" and not single)
        return found["symbol"] if escaped else found.group()

    return _ESCAPE.sub(meant, inside)


def _commands(inside: str, escapes: Sequence[re.Match[str]]) -> dict[int, str]:
    """Where an escape of a control character is the beginning of a LaTeX command."""
    found, since = {}, 0
    for escape in escapes:
        start, control = escape.start(), escape["control"]
        if not control:
            continue
        after_word = _AFTER_WORD.search(inside[max(since, start - _WORD) : start])
        if _is_letter(inside, escape.end()) and (control in "bf" or not after_word):
            found[start] = control
        else:
            since = escape.end()
    return found


def _is_letter(text: str, at: int) -> bool:
    return text[at : at + 1].isalpha()
