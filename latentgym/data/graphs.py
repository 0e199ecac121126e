"""The logical data sets: chains of "every A is a B" over made-up words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latentgym.data.dataset import DatasetSpec
from latentgym.data.hub import HubSpec
from latentgym.data.question import Question

Fields = Mapping[str, Any]

_GRAPH = ("idx_to_symbol", "edges", "root", "target", "neg_target")


def read_graph(fields: Fields) -> Question:
    """Coconut's layout: question, answer, steps, and the graph behind them."""
    extra = {name: fields[name] for name in _GRAPH if name in fields}
    steps = tuple(str(step) for step in fields.get("steps", ()))
    return Question(fields["question"].strip(), fields["answer"].strip(), steps, extra)


def read_options(fields: Fields) -> Question:
    """Logic-LM's layout: context, question, options "A) True", the answer's letter."""
    letters = dict(option.split(") ", 1) for option in fields["options"])
    text = f"{fields['context'].strip()} {fields['question'].strip()}"
    steps = tuple(str(step) for step in fields.get("explanation", ()))
    return Question(text, letters[fields["answer"].strip()], steps)


def read_prontoqa(fields: Fields) -> Question:
    """Either layout of ProntoQA; the answer is "True" or "False"."""
    return read_options(fields) if "options" in fields else read_graph(fields)


PROSQA = DatasetSpec(
    name="ProsQA",
    folder="prosqa",
    files={"train": ("train",), "valid": ("valid",), "test": ("test",)},
    read=read_graph,
    fields={"question": str, "answer": str, "steps": list, "idx_to_symbol": list, "edges": list},
    licence="MIT",
    url="https://github.com/facebookresearch/coconut",
)
PRONTOQA = DatasetSpec(
    name="ProntoQA",
    folder="prontoqa",
    files={
        "train": ("coconut_train",),
        "valid": ("coconut_valid",),
        "test": ("coconut_test",),
        "logiclm": ("validation",),
    },
    read=read_prontoqa,
    fields={"question": str, "answer": str},
    licence="Apache-2.0",
    url="https://github.com/asaparov/prontoqa",
    hub=HubSpec("renma/ProntoQA", splits={"logiclm": "validation"}),
)
