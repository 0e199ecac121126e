"""A world of things that do not exist: what can be said of them, and what can be asked."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from latentgym.data.names import Names

TRADES = tuple(
    "baker carpenter clockmaker dyer farmer glazier mason potter saddler tailor weaver".split()
)
FISH = tuple("bream carp eel perch pike roach tench trout".split())
YES, NO = "yes", "no"


class Relation(NamedTuple):
    """What can be said of every thing of one kind, and asked.

    Attributes:
        subject, object: kinds of things.
        fact, question: a sentence about subject and object, and one that asks for the object.
        phrase: names the object by the subject; empty if nothing can be asked about the object.
        comparison: asks whether two subjects have the same object; empty if they never do.
    """

    subject: str
    object: str
    fact: str
    question: str
    phrase: str = ""
    comparison: str = ""


# fmt: off
COUNTRY = Relation("town", "country", "{} is a town in {} .", "In which country is {} ?",
                   "the country in which {} lies", "Are {} and {} in the same country ?")
CAPITAL = Relation("country", "town", "{} has its capital in {} .", "What is the capital of {} ?",
                   "the capital of {}")
RELATIONS = (
    Relation("person", "town", "{} was born in {} .", "Where was {} born ?",
             "the town where {} was born", "Were {} and {} born in the same town ?"),
    Relation("person", "trade", "{} is a {} .", "What is the trade of {} ?",
             comparison="Do {} and {} have the same trade ?"),
    Relation("person", "company", "{} works for {} .", "For which company does {} work ?",
             "the company that {} works for", "Do {} and {} work for the same company ?"),
    Relation("book", "person", "{} was written by {} .", "Who wrote {} ?",
             "the author of {}", "Were {} and {} written by the same author ?"),
    Relation("book", "town", "{} is set in {} .", "In which town is {} set ?",
             "the town where {} is set", "Are {} and {} set in the same town ?"),
    COUNTRY,
    Relation("town", "lake", "{} lies on {} .", "On which lake does {} lie ?",
             "the lake on which {} lies", "Do {} and {} lie on the same lake ?"),
    Relation("company", "person", "{} was founded by {} .", "Who founded {} ?",
             "the founder of {}", "Were {} and {} founded by the same person ?"),
    Relation("company", "town", "{} has its seat in {} .", "In which town is the seat of {} ?",
             "the town where {} has its seat", "Do {} and {} have their seats in the same town ?"),
    CAPITAL,
    Relation("country", "person", "{} is ruled by {} .", "Who rules {} ?",
             "the ruler of {}"),
    Relation("lake", "person", "{} was first mapped by {} .", "Who first mapped {} ?",
             "the person who first mapped {}", "Were {} and {} first mapped by the same person ?"),
    Relation("lake", "fish", "{} is known for its {} .", "For which fish is {} known ?",
             comparison="Are {} and {} known for the same fish ?"),
)
# fmt: on


@dataclass(eq=False)
class Thing:
    """A person, a town, a trade or whatever else there is, and what is known of it."""

    kind: str
    name: str
    id: str
    facts: dict[Relation, Thing] = field(default_factory=dict)

    def split(self, held_out: int) -> str:
        """Where it is asked about; of so many things one belongs to dev and one to test."""
        digest = hashlib.sha256(self.name.encode()).digest()
        return {0: "dev", 1: "test"}.get(int.from_bytes(digest[:4], "big") % held_out, "train")


class Asked(NamedTuple):
    """A question, its answer, and which facts of which things it takes, in order."""

    text: str
    answer: str
    hops: tuple[tuple[Thing, Relation], ...]


def make_world(
    counts: Mapping[str, int], names: Names, rng: random.Random
) -> dict[str, list[Thing]]:
    """Things by kind, with all their facts.

    Args:
        counts: how many of each kind.
        names: to call them by.
        rng: what facts are drawn with.
    """
    world = {
        kind: [Thing(kind, names.of(kind), f"{kind}-{i}") for i in range(count)]
        for kind, count in counts.items()
    }
    values = {
        kind: [Thing(kind, name, name) for name in known]
        for kind, known in (("trade", TRADES), ("fish", FISH))
    }
    for relation in RELATIONS:
        subjects, objects = world[relation.subject], {**world, **values}[relation.object]
        # So few objects that several subjects share one, and each about as often as another.
        few = rng.sample(objects, min(len(objects), len(subjects) // 3))
        shared = [few[i % len(few)] for i in range(len(subjects))]
        rng.shuffle(shared)
        for subject, known in zip(subjects, shared, strict=True):
            subject.facts[relation] = known
    # A capital lies in its country, and its country has a town to choose.
    for country in world["country"]:
        towns = [town for town in world["town"] if town.facts[COUNTRY] is country]
        country.facts[CAPITAL] = rng.choice(towns)
    return world


def ask(subjects: Sequence[Thing], rng: random.Random) -> Iterator[Asked]:
    """All questions of one and two hops about things of one kind, and a comparison for each."""
    for subject in subjects:
        told = {subject, *subject.facts.values()}
        for first, bridge in subject.facts.items():
            hop = (subject, first)
            yield Asked(first.question.format(subject.name), bridge.name, (hop,))
            phrase = first.phrase.format(subject.name)
            for second, known in bridge.facts.items():
                # What the first passage tells needs no second one.
                if known not in told:
                    text = second.question.format(phrase)
                    yield Asked(text, known.name, (hop, (bridge, second)))
    yield from _compare(subjects, rng)


def _compare(subjects: Sequence[Thing], rng: random.Random) -> Iterator[Asked]:
    """Each subject that has something in common with another, beside that one or one without."""
    alike: dict[tuple[Relation, Thing], list[Thing]] = defaultdict(list)
    for subject in subjects:
        for relation, known in subject.facts.items():
            if relation.comparison:
                alike[relation, known].append(subject)
    for subject in subjects:
        # Without company a subject would always be answered with no.
        fit = [
            (relation, group)
            for relation, known in subject.facts.items()
            if 1 < len(group := alike.get((relation, known), ())) < len(subjects)
        ]
        if not fit:
            continue
        relation, group = rng.choice(fit)
        same = rng.random() < 0.5
        among = group if same else subjects
        while (other := rng.choice(among)) is subject or (other in group) != same:
            pass
        yield Asked(
            relation.comparison.format(subject.name, other.name),
            YES if same else NO,
            ((subject, relation), (other, relation)),
        )
