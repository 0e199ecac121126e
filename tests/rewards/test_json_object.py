"""Reading JSON as models write it: what is recovered, and that nothing breaks it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from latentgym.rewards.extract import MAX_TEXT
from latentgym.rewards.json_object import from_json_key, is_json_object, json_value

# What `"\frac"` stands for in strict JSON is read as the LaTeX that was meant.
LATEX = re.compile(r"[\b\f\n\r\t][^\W\d_]")
PIECES = st.sampled_from(
    ['"', "\\", "{", "}", ":", ",", "\n", "a", "answer", '"a":', "\\u", "d83d", "```", "[", "5"]
)
TEXTS = st.one_of(st.text(), st.lists(PIECES).map("".join))


@given(TEXTS, TEXTS, st.booleans(), st.sampled_from([None, 2]))
def test_what_json_writes_is_read(before: str, text: str, ascii: bool, indent: int | None) -> None:
    assume(not LATEX.search(text))
    said = json.dumps({"b": before, "a": text}, ensure_ascii=ascii, indent=indent)
    assert is_json_object(said, "a", "b")
    for around in ("{}", "Here it is:\n```json\n{}\n```\nDone.", 'so "a": 1 or {}'):
        assert json_value(around.replace("{}", said), "a") == text.strip()


@given(TEXTS)
def test_any_text_behind_a_key_is_read(text: str) -> None:
    for said in (text, f'"a": {text}', f'"a": "{text}', f'{{"a": "{text}"}}'):
        found = json_value(said, "a")
        assert found is None or found == found.strip()
        if found is not None:
            found.encode()  # can be written to a file
        is_json_object(said, "a")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"18"}', "18"),
        ("18}", "18"),
        ("18, ", "18"),
        ("18", "18"),
        ("\n  18\n}", "18"),
        ("true}", "true"),
        ('18, "unit": "cm"}', "18"),
        ('["a", "b"]}', '["a", "b"]'),
        ("", ""),
        ("}", ""),
        ('"18', "18"),
        ('"18\nQuestion: more', "18"),
        ('" 18 "} and {"b": "7"}', "18"),
        (r'"\\frac{1}{2}"', r"\frac{1}{2}"),
        (r'"\frac{1}{2}"', r"\frac{1}{2}"),
        (r"\frac{1}{2}}", r"\frac{1}{2}"),
        (
            r'"\text{no}\neq\theta\beta\to\underline{x}"',
            r"\text{no}\neq\theta\beta\to\underline{x}",
        ),
        (r'"\sqrt{2}\{1\}\%\$"', r"\sqrt{2}\{1\}\%\$"),
        (r'"\tilde{x}"', r"\tilde{x}"),
        (r'"x \nleq 2"', r"x \nleq 2"),
        (r'"\nleq 2"', r"\nleq 2"),
        (r'"\root 3 \of 2"', r"\root 3 \of 2"),
        (r'"2\times 3\neq x\to\infty"', r"2\times 3\neq x\to\infty"),
        (r'"\sin\theta\tan\theta"', r"\sin\theta\tan\theta"),
        (r'"1 2\n3 4\n"', "1 2\n3 4"),
        (r'"yes.\nno, \nleq"', "yes.\nno, " + r"\nleq"),
        (r'"x = \\frac{1}{2}\ny = 3"', "x = \\frac{1}{2}\ny = 3"),
        (r'"\begin{pmatrix}1\\b\end{pmatrix}"', r"\begin{pmatrix}1\\b\end{pmatrix}"),
        (r'"\\begin{pmatrix}1\\\\b\\end{pmatrix}"', r"\begin{pmatrix}1\\b\end{pmatrix}"),
        (r'"one\ntwo\tthree"', "one\ntwo\tthree"),
        (r'"\"quoted\" a\/b"', '"quoted" a/b'),
        (r'"\u03c0 \ud83d\ude00"', "π 😀"),
        (r'"\ud83d"', "�"),
        (r'"ends in a backslash \ ', "ends in a backslash \\"),
    ],
)
def test_values(value: str, expected: str) -> None:
    assert json_value(f'{{"b": "x", "a": {value}', "a") == expected


def test_the_last_mention_counts() -> None:
    assert json_value('"a": 1} no, {"a" : 2}', "a") == "2"
    assert json_value(json.dumps({"b": 'say "a": 3', "c": 4}), "a") is None
    assert json_value("the answer is 5", "a") is None
    assert from_json_key('x", "a": 1, "a": 2', "a") == '"a": 1, "a": 2'
    assert from_json_key("x", "a") == ""


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ('{"a": 1, "b": 2}', True),
        ('\n```json\n{"a": 1, "b": 2}\n```\n', True),
        ('```\n{"b": {}, "a": null, "c": []}```', True),
        ('{"a": 1}', False),
        ('{"a": 1, "b": 2} done', False),
        ('[{"a": 1, "b": 2}]', False),
        ('"a": 1, "b": 2', False),
        ('{"a": "\\sqrt{2}", "b": 2}', False),
        ('{"a": {"b": 2}}', False),
        ("", False),
    ],
)
def test_one_whole_object(text: str, whole: bool) -> None:
    assert is_json_object(text, "a", "b") == whole


HOSTILE = ("[", "{", '{"a":', '"a": "', '"a":', '"', "\\", '\\"', "\\u", "\\ud83d", "9", ", ", " ")


@pytest.mark.parametrize("part", [*HOSTILE, "```", "\n", ', "', "\\\\", "\\frac", '"a": {', "[1,"])
def test_long_texts_are_read_in_time(part: str, in_time: Callable) -> None:
    many = part * (MAX_TEXT // len(part) - 20)
    for text in (many, f'{{"a": {many}', f'{{"a": "{many}', f'{{"a": "{many}", "b": {many}}}'):
        in_time(1.0, partial(json_value, text, "a"))
        in_time(1.0, partial(is_json_object, text, "a", "b"))
    assert json_value(f'"a": 1{" " * MAX_TEXT}', "a") is None
    assert not is_json_object(f'{{"a": 1{" " * MAX_TEXT}}}', "a")


def test_endless_nesting_is_no_object() -> None:
    assert not is_json_object('{"a": ' + "[" * 100_000, "a")
    assert not is_json_object('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "a")
    assert is_json_object('{"a": ' + "9" * 100_000 + "}", "a")
