"""Reachability questions as text: said in ProsQA's words, and read from the released files."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from latentgym.envs.problems.graphs import GraphProblem, shortest_path


def fact(subject: str, value: str) -> str:
    """An edge as a sentence: "Sally is a gorpus.", "Every gorpus is a lempus."."""
    head = subject if subject[0].isupper() else f"Every {subject}"
    return f"{head} is a {value}." if value.endswith("pus") else f"{head} is {value}."


def question_text(problem: GraphProblem, rng: np.random.Generator) -> str:
    """The ProsQA question: all edges in random order, then the choice in random order."""
    sentences = [
        fact(problem.names[a], problem.names[b]) for a, b in rng.permutation(problem.edges)
    ]
    one, other = rng.permutation([problem.target, problem.neg_target])
    choice = f"{problem.names[one]} or {problem.names[other]}"
    article = "a " if problem.names[one].endswith("pus") else ""
    return " ".join([*sentences, f"Is {problem.names[problem.root]} {article}{choice}?"])


def answer_text(problem: GraphProblem) -> str:
    """The answer as a sentence."""
    return fact(problem.names[problem.root], problem.names[problem.target])


def steps_text(problem: GraphProblem) -> tuple[str, ...]:
    """The reasoning chain in ProsQA's form: the edges of the shortest path, one a step."""
    path = [problem.names[node] for node in shortest_path(problem)]
    return tuple(fact(a, b) for a, b in itertools.pairwise(path))


@dataclass(frozen=True)
class ParsedQuestion:
    """What the text of a question says, in words.

    Attributes:
        facts: (subject, value) of every sentence, in order; a negated property is "not red".
        root: whom the question asks about.
        choices: the two candidate values, the asked one first.
    """

    facts: tuple[tuple[str, str], ...]
    root: str
    choices: tuple[str, str]


_FACT = re.compile(r"(?:Every |Each )?(\w+) (?:is|are) (?:an? )?((?:not )?\w+)$")
_CHOICE = re.compile(r"Is (\w+) (?:an? )?((?:not )?\w+) or ((?:not )?\w+)\?$")
_TRUE_FALSE = re.compile(r"True or false: (\w+) is ((?:not )?\w+)\.$")


def parse_question(text: str) -> ParsedQuestion:
    """Read a question in ProsQA ("Is X a A or B?") or ProntoQA ("True or false: X is A.") form."""
    if match := _CHOICE.search(text):
        root, one, other = match.groups()
    elif match := _TRUE_FALSE.search(text):
        root, one = match.groups()
        other = one.removeprefix("not ") if one.startswith("not ") else f"not {one}"
    else:
        raise ValueError(f"no question at the end of {text[-60:]!r}")
    facts = []
    for sentence in filter(None, re.split(r"\.\s*", text[: match.start()])):
        if not (stated := _FACT.match(sentence)):
            raise ValueError(f"cannot read the sentence {sentence!r}")
        subject, value = stated.groups()
        if subject.lower().endswith(("pus", "puses")):
            subject = _singular(subject.lower())
        facts.append((subject, _singular(value)))
    return ParsedQuestion(tuple(facts), root, (one, other))


def _singular(word: str) -> str:
    return word.removesuffix("es") if word.endswith("puses") else word


def from_row(row: Mapping[str, Any]) -> GraphProblem:
    """The problem of a row of the released files.

    A ProsQA row states its graph. The ``edges`` of a ProntoQA row lack the person and the
    properties that the question is about, so there the graph is read from the text.
    """
    if row["answer"] not in ("True", "False"):
        edges = np.array(row["edges"], dtype=np.int64)
        names = tuple(row["idx_to_symbol"])
        return GraphProblem(edges, row["root"], row["target"], row["neg_target"], len(names), names)
    parsed = parse_question(row["question"])
    names = tuple(dict.fromkeys([parsed.root, *(word for pair in parsed.facts for word in pair)]))
    number = {name: i for i, name in enumerate(names)}
    target, neg_target = parsed.choices if row["answer"] == "True" else parsed.choices[::-1]
    return GraphProblem(
        edges=np.array([(number[a], number[b]) for a, b in parsed.facts]),
        root=number[parsed.root],
        target=number[target],
        neg_target=number[neg_target],
        n_nodes=len(names),
        names=names,
    )
