"""A generated encyclopedia of people and things that do not exist, and questions about it.

Nothing that a model has read elsewhere helps: the answers stand in the passages alone.

    Nolta Ruvir was born in Galskford. She is a baker. She works for Osmil Mills.
    In which country is the town where Nolta Ruvir was born?

The same facts can be written in symbols with blanks between them, for models trained from scratch.
Then every name is a pair of symbols, a passage has at most 19 symbols and a question at most 15.

A question has one hop (one passage answers it) or two: what the first passage tells is what the
second hop asks about, or two things are compared. All is a function of the settings. What a
question begins with is asked about in one split only, by its name and whatever the seed; what is
passed on the way may be asked about in another.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, repeat
from typing import Annotated, Any, TypeAlias, overload

from latentgym.data.chains import RESERVED
from latentgym.data.facts import FISH, NO, RELATIONS, TRADES, YES, Asked, Thing, ask, make_world
from latentgym.data.names import MOST_PARTS, PRONOUNS, SYMBOLS, Names, pronoun
from latentgym.data.passage import Passage
from latentgym.data.question import Question
from latentgym.episodes.rng import derive
from latentgym.errors import UsageError, did_you_mean
from latentgym.system.options.keywords import Option

SPLITS = ("train", "dev", "test")
_SPECIALS = ("<pad>", "<bos>", "<eos>", "####")
_MARKS = ("<search>", "</search>", "<information>", "</information>", ",", *map(str, range(10)))
_BEFORE_POINT = re.compile(r" (?=[.?])")
_LAKE = "Lake "


def vocabulary(extra: Iterable[str] = ()) -> tuple[str, ...]:
    """Every symbol of an encyclopedia in symbols, specials first, without repetition.

    Args:
        extra: symbols that an environment says beside.
    """
    words = [word for relation in RELATIONS for text in relation[2:] for word in text.split()]
    said = [word for word in words if word != "{}"]
    known = [*said, *PRONOUNS, YES, NO, *TRADES, *FISH, *SYMBOLS]
    return tuple(dict.fromkeys([*_SPECIALS, *_MARKS, *RESERVED, *known, *extra]))


_Count: TypeAlias = Annotated[int, Option("how many the encyclopedia has", 3, 100_000)]


@dataclass(frozen=True)
class EncyclopediaSettings:
    """How large an encyclopedia is.

    Attributes:
        people, books, towns, companies, countries, lakes: how many of them, each with a passage.
            In symbols there are 1,600 names for people, and as many for all else together.
        parts: how many first and how many last names people have; the fewer, the more share one.
        held_out: of so many things one is asked about in the split dev, and one in test.
        seed: of names and facts.

    Raises:
        UsageError: settings that cannot work.
    """

    people: _Count = 1200
    books: _Count = 800
    towns: _Count = 300
    companies: _Count = 300
    countries: _Count = 30
    lakes: _Count = 60
    parts: Annotated[int, Option("first and last names that people have", 3, MOST_PARTS)] = (
        MOST_PARTS
    )
    held_out: Annotated[
        int, Option("of so many things one is asked about in dev, and one in test", 3, 10_000)
    ] = 20
    seed: Annotated[int, Option("of names and facts", least=0)] = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, int) or (value < 3 and name != "seed"):
                raise UsageError(f"{name} must be a whole number from 3 on, but is {value!r}.")
        if self.people > self.parts**2:
            raise UsageError(
                f"{self.parts} first and last names make {self.parts**2} people, not {self.people};"
                " raise parts."
            )
        if self.towns < 3 * self.countries:
            raise UsageError(
                f"{self.towns} towns are too few for {self.countries} countries; give at least "
                "three for each."
            )

    @property
    def counts(self) -> dict[str, int]:
        """How many things there are of each kind."""
        return {
            "person": self.people,
            "book": self.books,
            "town": self.towns,
            "company": self.companies,
            "country": self.countries,
            "lake": self.lakes,
        }


class GeneratedQuestions(Sequence[Question]):
    """Questions about an encyclopedia.

    Args:
        split: which part of them.
        questions: the questions.
    """

    source = "generated"
    licence = "generated"

    def __init__(self, split: str, questions: Sequence[Question]) -> None:
        self.split = split
        self._questions = questions

    def __len__(self) -> int:
        return len(self._questions)

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> GeneratedQuestions: ...
    def __getitem__(self, index: int | slice) -> Question | GeneratedQuestions:
        if isinstance(index, slice):
            return GeneratedQuestions(self.split, self._questions[index])
        return self._questions[index]

    @cached_property
    def hash(self) -> str:
        """16 hex digits of the SHA-256 of all questions, answers and ids of their passages."""
        return _hash([q.text, q.gold, q.extra["passages"]] for q in self)


class Encyclopedia:
    """Passages about things that do not exist, and questions that they answer.

    Args:
        settings: how large it is, and its seed.
        symbols: whether to write in symbols, see `vocabulary`, or in plain English.

    Attributes:
        passages: one for each thing, grouped by kind; its title is the thing's name. Others name
            the thing too, so an index must hold titles beside texts.

    Raises:
        UsageError: more things than there are names.
    """

    def __init__(self, settings: EncyclopediaSettings | None = None, symbols: bool = False) -> None:
        self.settings = settings or EncyclopediaSettings()
        self.symbols = symbols
        rng = random.Random(self.settings.seed)
        names = Names(rng, self.settings.parts, symbols)
        self._world = make_world(self.settings.counts, names, rng)
        self.passages: Sequence[Passage] = [
            Passage(thing.id, thing.name, self._article(thing))
            for things in self._world.values()
            for thing in things
        ]

    @cached_property
    def hash(self) -> str:
        """16 hex digits of the SHA-256 of all passages."""
        return _hash([passage.id, passage.title, passage.text] for passage in self.passages)

    def questions(self, split: str, hops: int | None = None) -> GeneratedQuestions:
        """All questions of a split, none twice, in random order.

        Of their `extra`, `id` names the question, `forms` are further gold answers, `hops` is how
        many passages it takes, and in that order `queries` find them (they are their titles) and
        `passages` are their ids. Their steps are the facts.

        Args:
            split: `train`, `dev` or `test`.
            hops: 1 or 2; both by default.

        Raises:
            UsageError: no such split or hops, or no question in it.
        """
        if split not in SPLITS:
            raise UsageError(f"no split {split!r}; {did_you_mean(split, SPLITS)}")
        if hops not in (None, 1, 2):
            raise UsageError(f"questions have 1 or 2 hops, not {hops!r}.")
        rng = random.Random(derive(self.settings.seed, SPLITS.index(split)))
        asked = [
            question
            for things in self._world.values()
            for question in ask([t for t in things if self._split(t) == split], rng)
            if hops in (None, len(question.hops))
        ]
        if not asked:
            raise UsageError(f"so small an encyclopedia has no question in {split}; enlarge it.")
        rng.shuffle(asked)
        made = [self._question(f"{split}-{i}", question) for i, question in enumerate(asked)]
        return GeneratedQuestions(split, made)

    def _split(self, thing: Thing) -> str:
        return thing.split(self.settings.held_out)

    def _article(self, thing: Thing) -> str:
        subjects = chain([thing.name], repeat(pronoun(thing.kind, thing.name)))
        return self._written(
            " ".join(
                relation.fact.format(subject, known.name)
                for subject, (relation, known) in zip(subjects, thing.facts.items(), strict=False)
            )
        )

    def _question(self, id: str, asked: Asked) -> Question:
        extra: dict[str, Any] = {
            "id": id,
            # The name of a lake may also be given without the word.
            "forms": (asked.answer.removeprefix(_LAKE),) if asked.answer.startswith(_LAKE) else (),
            "hops": len(asked.hops),
            "queries": tuple(thing.name for thing, _ in asked.hops),
            "passages": tuple(thing.id for thing, _ in asked.hops),
        }
        steps = tuple(
            self._written(relation.fact.format(thing.name, thing.facts[relation].name))
            for thing, relation in asked.hops
        )
        return Question(self._written(asked.text), asked.answer, steps, extra)

    def _written(self, text: str) -> str:
        return text if self.symbols else _BEFORE_POINT.sub("", text)


def _hash(items: Iterable[Sequence[object]]) -> str:
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps(item).encode("ascii"))
    return digest.hexdigest()[:16]
