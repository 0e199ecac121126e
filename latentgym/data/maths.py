"""The mathematical data sets: word problems, competition problems."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from latentgym.data.dataset import DatasetSpec
from latentgym.data.hub import HubSpec
from latentgym.data.question import Question

Fields = Mapping[str, Any]

_NUMBER = (int, float, str)
_CALCULATION = re.compile(r"<<[^<>]*>>")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_TWO_OR_ONE = re.compile(r"[0-9]{1,3},[0-9]{3}")
_LEVEL = re.compile(r"[0-9]+")


def number_text(value: float | str) -> str:
    """A number as people write it: 18.0 is "18"; text stays as it is, without blanks around.

    Raises:
        ValueError: the number is not finite.
    """
    if isinstance(value, str):
        return value.strip()
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a number")
    return str(int(value)) if float(value).is_integer() else repr(value)


def last_boxed(solution: str) -> str:
    r"""The content of the last `\boxed{...}` of a solution, which is its answer.

    Raises:
        ValueError: there is none, or it is not closed.
    """
    boxes = list(_BOX.finditer(solution))
    if boxes:
        start = boxes[-1].end()
        depth = 1
        for brace in _BRACE.finditer(solution, start):
            depth += {"{": 1, "}": -1}.get(brace.group(), 0)
            if depth == 0:
                return solution[start : brace.start()].strip()
    bare = re.findall(r"\\boxed\s*([^\s${}\\]+)", solution)
    if boxes or not bare:
        raise ValueError(r"the solution has no closed \boxed{}")
    return str(bare[-1]).rstrip(".,")


def lines(text: str) -> tuple[str, ...]:
    """The lines of a text that are not blank."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def read_gsm8k(fields: Fields) -> Question:
    """question, answer: worked lines with <<calculations>>, then "#### N"."""
    solution, marker, gold = fields["answer"].rpartition("####")
    if not marker or not gold.strip():
        raise ValueError("the answer does not end in '#### N'")
    steps = lines(_CALCULATION.sub("", solution))
    return Question(fields["question"].strip(), gold.strip(), steps)


def read_gsm8k_aug(fields: Fields) -> Question:
    """question, answer, and a chain of <<calculations>> in a string `cot` or a list `steps`."""
    chain = fields.get("steps")
    steps = _CALCULATION.findall(fields.get("cot") or "") if chain is None else chain
    return Question(fields["question"].strip(), number_text(fields["answer"]), tuple(steps))


def read_gsm_hard(fields: Fields) -> Question:
    """input, target, and the reference program `code`."""
    extra = {"code": fields.get("code", "")}
    return Question(fields["input"].strip(), number_text(fields["target"]), extra=extra)


def read_svamp(fields: Fields) -> Question:
    """Body, Question, Answer, Equation, Type."""
    # Joined as on the hub, although many bodies lack their full stop.
    text = f"{fields['Body'].strip()} {fields['Question'].strip()}"
    # The hub has "145.00" where the authors' file has 145.0.
    gold = number_text(float(fields["Answer"]))
    return Question(text, gold, lines(fields.get("Equation", "")), {"type": fields.get("Type")})


def read_multiarith(fields: Fields) -> Question:
    """question, final_ans, and perhaps equation."""
    gold = number_text(fields["final_ans"])
    return Question(fields["question"].strip(), gold, lines(fields.get("equation", "")))


def read_math(fields: Fields) -> Question:
    """problem, solution, level, and type or subject; the answer by itself in some versions."""
    solution = fields["solution"]
    gold = fields.get("answer") or last_boxed(solution)
    if _TWO_OR_ONE.fullmatch(gold.strip()) and "comma" not in fields["problem"]:
        # One number: as it stands it could be the list of 31 and 250, as "70,110" is elsewhere.
        gold = gold.replace(",", r",\!")
    level = _LEVEL.search(str(fields.get("level", "")))
    extra = {
        "level": int(level.group()) if level else None,
        "type": fields.get("type") or fields.get("subject"),
    }
    return Question(fields["problem"].strip(), gold.strip(), lines(solution), extra)


def read_aime(fields: Fields) -> Question:
    """problem, answer, and perhaps solution and year; answers are whole numbers to 999."""
    extra = {"year": int(fields["year"])} if fields.get("year") else {}
    solution = lines(fields.get("solution") or "")
    return Question(fields["problem"].strip(), str(int(fields["answer"])), solution, extra)


# The hub's revisions are branches, because no commit could be verified; every result records
# the content hash, which tells versions apart.
GSM8K = DatasetSpec(
    name="GSM8K",
    folder="gsm8k",
    files={"train": ("train",), "test": ("test",)},
    read=read_gsm8k,
    fields={"question": str, "answer": str},
    licence="MIT",
    url="https://github.com/openai/grade-school-math",
    hub=HubSpec("openai/gsm8k", "main", splits={"train": "train", "test": "test"}),
    sample="gsm8k.jsonl",
)
GSM8K_AUG = DatasetSpec(
    name="GSM8KAug",
    folder="gsm8k_aug",
    files={"train": ("train",), "valid": ("valid",), "test": ("test",)},
    read=read_gsm8k_aug,
    fields={"question": str, "answer": _NUMBER},
    licence="MIT",
    url="https://github.com/da03/Internalize_CoT_Step_by_Step",
    hub=HubSpec(
        "zen-E/GSM8k-Aug", splits={"train": "train", "valid": "validation", "test": "test"}
    ),
    sample="gsm8k_aug.jsonl",
    stand_ins={"train": ("gsm8k_aug/train_from_gsm8k",)},
)
GSM_HARD = DatasetSpec(
    name="GSMHard",
    folder="gsm_hard",
    files={"test": ("test",)},
    read=read_gsm_hard,
    fields={"input": str, "target": _NUMBER},
    licence="Apache-2.0",
    url="https://github.com/reasoning-machines/pal",
    hub=HubSpec("reasoning-machines/gsm-hard", splits={"test": "train"}),
    sample="gsm_hard.jsonl",
)
SVAMP = DatasetSpec(
    name="SVAMP",
    folder="svamp",
    files={"train": ("train",), "test": ("test",)},
    read=read_svamp,
    fields={"Body": str, "Question": str, "Answer": _NUMBER},
    licence="MIT",
    url="https://github.com/arkilpatel/SVAMP",
    hub=HubSpec("ChilleD/SVAMP", splits={"train": "train", "test": "test"}),
    sample="svamp.jsonl",
)
MULTI_ARITH = DatasetSpec(
    name="MultiArith",
    folder="multiarith",
    files={"train": ("train",), "test": ("test",)},
    read=read_multiarith,
    fields={"question": str, "final_ans": _NUMBER},
    licence="none stated (Roy & Roth 2015)",
    url="https://github.com/kojima-takeshi188/zero_shot_cot",
    hub=HubSpec("ChilleD/MultiArith", splits={"train": "train", "test": "test"}),
    sample="multiarith.jsonl",
)
MATH = DatasetSpec(
    name="MATH",
    folder="math",
    files={"train": ("train",), "test": ("test",)},
    read=read_math,
    fields={"problem": str, "solution": str},
    licence="MIT",
    url="https://github.com/hendrycks/math",
    hub=HubSpec("DigitalLearningGmbH/MATH-lighteval", splits={"train": "train", "test": "test"}),
    sample="math.jsonl",
    stand_ins={"test": ("math/test_minus_math500",)},
)
MATH_500 = DatasetSpec(
    name="MATH500",
    folder="math500",
    files={"test": ("test",)},
    read=read_math,
    fields={"problem": str, "solution": str},
    licence="MIT",
    url="https://huggingface.co/datasets/HuggingFaceH4/MATH-500",
    hub=HubSpec("HuggingFaceH4/MATH-500", splits={"test": "test"}),
    sample="math.jsonl",
)


def _aime(year: int, hub: HubSpec) -> DatasetSpec:
    return DatasetSpec(
        name=f"AIME{year}",
        folder="aime",
        files={"train": ("aime_1983_2023_train",), "test": (f"aime_{year}",)},
        read=read_aime,
        fields={"problem": str, "answer": (int, str)},
        licence="problems are the MAA's; for research",
        url="https://maa.org/maa-invitational-competitions/",
        hub=hub,
        sample="aime.jsonl",
    )


AIME_2024 = _aime(2024, HubSpec("HuggingFaceH4/aime_2024", splits={"test": "train"}))
AIME_2025 = _aime(2025, HubSpec("math-ai/aime25", splits={"test": "test"}))
