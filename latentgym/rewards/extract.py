"""Finding the answer in a completion, in time linear in its length."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

MARKER = "####"
# Longer than any budget that tasks allow; beyond it nothing is read at all.
MAX_TEXT = 1 << 18
# Looser patterns read only the end of the text, where answers stand.
TAIL = 4096
# An answer stands at the start of its line, after one of the first marks.
MAX_LINE = 256
MAX_MARKS = 8

_BOX_TOKEN = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])\s*(\{)?|\\.|[{}]", re.DOTALL)
_BARE = re.compile(r"[^\s${}\\]{1,64}")
# A sentence ends there; a comma before a word begins another clause.
_CLAUSE_END = re.compile(r"[.!?;](?=\s|$)|,(?= (?!and\b|or\b)[A-Za-z])|\n")
_DIGIT = re.compile("[0-9]")
_ASCII_BLANKS = re.compile(r"[ \t\r\n]+")
_AROUND = ".,;:!?\"'`*_$()[]"
_CUE = re.compile(r"\banswer(?:\s+is\b|\s*[:=])[\s:=*]*", re.IGNORECASE)


def last_box(text: str) -> tuple[str | None, int]:
    r"""The content of the last balanced `\boxed{...}`, `\fbox{...}` or `\boxed x`.

    Args:
        text: any text.

    Returns:
        The content (the outer one of nested boxes), None without a box, and how many
        outermost boxes there are.
    """
    if "box" not in text:
        return None, 0
    content: str | None = None
    count = 0
    # One entry for each open brace: where the box's content starts, or -1 for a plain brace.
    open_braces: list[int] = []
    open_boxes = 0
    for token in _BOX_TOKEN.finditer(text):
        symbol = token.group()
        if symbol == "{":
            open_braces.append(-1)
        elif symbol == "}":
            start = open_braces.pop() if open_braces else -1
            if start >= 0:
                open_boxes -= 1
                content = text[start : token.start()]
                count += open_boxes == 0
        elif token.group(1):
            open_braces.append(token.end())
            open_boxes += 1
        elif len(symbol) > 2 and (bare := _BARE.match(text, token.end())):
            content = bare.group().rstrip(".,;:")
            count += open_boxes == 0
    return content, count


def marked(text: str, marker: str = MARKER) -> Iterator[str]:
    """The rest of the line after each of the first marks, in order.

    From the first on, because a model that runs on into a made-up next question writes more.
    """
    end = 0
    for _ in range(MAX_MARKS):
        start = text.find(marker, end)
        if start < 0:
            return
        end = start + len(marker)
        yield text[end : end + MAX_LINE].partition("\n")[0]


def after_cue(text: str) -> str | None:
    """What follows the last "answer is" or "answer:" near the end of the text, if anything."""
    tail = text[-TAIL:]
    cues = deque(_CUE.finditer(tail), maxlen=1)
    return tail[cues[0].end() :] if cues else None


def clause(text: str) -> str:
    """The first clause of a text: "5 apples, not 6. So" begins with "5 apples"."""
    return _CLAUSE_END.split(text.strip()[:MAX_LINE], maxsplit=1)[0].strip()


def last_figure(text: str) -> str | None:
    """The last word of a text with a digit in it, and so a whole formula without blanks."""
    words = reversed(_ASCII_BLANKS.split(text[-TAIL:]))
    word = next((word for word in words if _DIGIT.search(word)), "")
    return word.strip(_AROUND) or None


def last_dollars(text: str) -> str | None:
    """The content of the last `$...$` or `$$...$$` near the end of the text."""
    parts = text[-TAIL:].replace("\\$", "").replace("$$", "$").split("$")
    # Pairs end at the last dollar, or at the one before it if their number is odd.
    closed = parts[: len(parts) - 1 + len(parts) % 2]
    return closed[-2].strip() if len(closed) > 2 else None


def statement(text: str) -> str:
    """The line that states the answer: after the mark, else as `unmarked` finds it."""
    for line in marked(text):
        return line.strip()
    return unmarked(text)


def unmarked(text: str) -> str:
    """The line that states the answer in a text without a mark: after the phrase, else the last."""
    cued = after_cue(text)
    if cued is not None and cued.strip():
        return cued.strip().partition("\n")[0]
    lines = text[-TAIL:].strip().splitlines()
    return lines[-1].strip() if lines else ""
