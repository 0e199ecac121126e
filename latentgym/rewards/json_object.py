r"""Reading JSON as models write it, in time linear in its length.

A model that writes LaTeX into a JSON string often forgets to double its backslashes. Strict JSON
then rejects `"\sqrt{2}"` and reads `"\frac{1}{2}"` as a form feed and "rac{1}{2}".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from latentgym.rewards.extract import MAX_TEXT

# Commands that begin like a control character which an answer may well hold. Backspaces and form
# feeds are in no answer, so every word behind `\b` or `\f` is a command.
_LATEX = """
    nabla ne neg neq nmid not notin nsubseteq nu
    rangle rbrace rceil rfloor rho right rightarrow rm rvert
    tan tanh tau tbinom text textbf textit textnormal textrm tfrac therefore theta times to
    top triangle triangleq
"""
_ESCAPE = re.compile(
    rf"""
    (?P<unicode>(?:\\u[0-9A-Fa-f]{{4}})+)
    | (?P<command>\\(?:[bf][A-Za-z]|(?:{"|".join(_LATEX.split())})(?![A-Za-z])|[ac-eg-mo-qsu-zA-Z]))
    | \\(?P<control>[bfnrt])
    | \\(?P<symbol>.)
    """,
    re.VERBOSE | re.DOTALL,
)
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
    return _unescaped(inside).strip()


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
    """What the inside of a JSON string stands for; LaTeX behind one backslash stays LaTeX."""
    # Who writes commands with one backslash writes the break of a matrix's row with two.
    single = any(found["command"] for found in _ESCAPE.finditer(inside))

    def meant(found: re.Match[str]) -> str:
        if found["unicode"]:
            # Halves of a character, which no file could hold, are replaced.
            halves = json.loads(f'"{found["unicode"]}"').encode("utf-16", "surrogatepass")
            return str(halves.decode("utf-16", "replace"))
        if found["control"]:
            return _CONTROL[found["control"]]
        escaped = found["symbol"] in ('"', "/") or (found["symbol"] == "\\" and not single)
        return found["symbol"] if escaped else found.group()

    return _ESCAPE.sub(meant, inside)
