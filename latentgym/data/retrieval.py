"""Question answering over a corpus: the five data sets, their sample and their corpus.

All have the layout of FlashRAG. The sample of each is questions about one small generated
encyclopedia, so that they can be answered offline, from its passages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from latentgym.data.dataset import DatasetSpec
from latentgym.data.encyclopedia import Encyclopedia, EncyclopediaSettings
from latentgym.data.files import Row, find
from latentgym.data.hub import HubSpec
from latentgym.data.question import Question
from latentgym.data.sources import data_root

# How many passages a question takes, as a rule.
HOPS: Mapping[str, int] = {
    "NQ": 1,
    "TriviaQA": 1,
    "HotpotQA": 2,
    "2WikiMultihopQA": 2,
    "Bamboogle": 2,
}
_SAMPLE = EncyclopediaSettings(
    people=108, books=72, towns=48, companies=42, countries=12, lakes=18, parts=24, held_out=3
)
_EXTRA = ("hops", "queries", "passages")


def read_qa(fields: Mapping[str, Any]) -> Question:
    """id, question, golden_answers; perhaps steps, and the hops, queries and passages they take.

    Raises:
        ValueError: there is no gold answer, or one of them is not text or blank.
    """
    # A few gold answers have line breaks, which no answer on one line could have.
    golds = [" ".join(form.split()) for form in fields["golden_answers"] if isinstance(form, str)]
    if not golds or not all(golds) or len(golds) < len(fields["golden_answers"]):
        raise ValueError("golden_answers must hold one answer or more, each a text and none blank")
    gold, *forms = golds
    extra = {"id": fields["id"], "forms": tuple(forms)}
    extra |= {name: fields[name] for name in _EXTRA if name in fields}
    return Question(fields["question"].strip(), gold, tuple(fields.get("steps", ())), extra)


@lru_cache(maxsize=1)
def sample_encyclopedia() -> Encyclopedia:
    """The encyclopedia that the samples of all five data sets ask about."""
    return Encyclopedia(_SAMPLE)


def corpus_path() -> Path | None:
    """The passages for the real data, one in a row with `id` and `contents`, if they are there."""
    root = data_root()
    return find(root / "wiki_passages", "corpus") if root else None


def _sample(hops: int, split: str) -> Iterator[Row]:
    """Rows about the sample's encyclopedia, in the layout of the data sets."""
    questions = sample_encyclopedia().questions(split, hops)
    for number, question in enumerate(questions, start=1):
        golds = [question.gold, *question.extra["forms"]]
        fields = {**question.extra, "question": question.text, "golden_answers": golds}
        yield Row(f"sample[{split}]", number, {**fields, "steps": question.steps})


def _spec(
    name: str,
    splits: tuple[str, ...],
    licence: str,
    url: str,
    stand_ins: Mapping[str, tuple[str, ...]] | None = None,
) -> DatasetSpec:
    folder = name.lower()
    return DatasetSpec(
        name=name,
        folder=folder,
        files={split: (split,) for split in splits},
        read=read_qa,
        fields={"id": str, "question": str, "golden_answers": list},
        licence=licence,
        url=url,
        # What is reported of the two whose test answers are secret is their dev set.
        alias={} if "test" in splits else {"test": "dev"},
        hub=HubSpec(
            "RUC-NLPIR/FlashRAG_datasets", folder, splits={split: split for split in splits}
        ),
        sample=partial(_sample, HOPS[name]),
        stand_ins=stand_ins or {},
    )


# Train questions of HotpotQA and 2WikiMultihopQA together.
_MULTIHOP = ("multihop_train/train",)

NQ = _spec(
    "NQ",
    ("train", "dev", "test"),
    "CC BY-SA 3.0",
    "https://github.com/google-research-datasets/natural-questions",
    {"train": ("nq/train_efficientqa_dev", "nq/train_efficientqa_test")},
)
TRIVIA_QA = _spec(
    "TriviaQA",
    ("train", "dev", "test"),
    "Apache-2.0; question texts belong to the trivia sites",
    "https://nlp.cs.washington.edu/triviaqa/",
    {"dev": ("triviaqa/validation_extra",)},
)
HOTPOT_QA = _spec(
    "HotpotQA", ("train", "dev"), "CC BY-SA 4.0", "https://hotpotqa.github.io", {"train": _MULTIHOP}
)
TWO_WIKI = _spec(
    "2WikiMultihopQA",
    ("train", "dev"),
    "Apache-2.0",
    "https://github.com/Alab-NII/2wikimultihop",
    {"train": _MULTIHOP},
)
BAMBOOGLE = _spec("Bamboogle", ("test",), "MIT", "https://github.com/ofirpress/self-ask")
