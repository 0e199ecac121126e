"""Names for invented things, in words or in symbols.

Names in words are made of syllables, so that nobody has heard of them. In symbols every name is a
pair from two short lists, for models that learn to copy symbols they know.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import product

from latentgym.errors import UsageError

MOST_PARTS = 40  # in each of the lists that pairs of symbols are made from

_ONSETS = "b br d dr f g gr h k kl l m n p pl r s sk st t tr v w z".split()
_VOWELS = "a e i o u".split()
_CODAS = "l n r s m nd rn lt sk".split()
_TOWNS = "ford holm wick mere stead bury gate haven".split()
_COUNTRIES = "land mark onia avia estan".split()
_COMPANIES = "Mills Works Foundry Press Shipyard Brewery Glassworks Bank".split()
_QUALITIES = """
Amber Bitter Brazen Broken Copper Crooked Distant Fallen Frozen Gilded Hollow Humble Idle Ivory
Jagged Kindled Lonely Marbled Mellow Nimble Opal Patient Pewter Quiet Rusted Sable Salted Scarlet
Silent Silver Sleeping Slender Stolen Sunken Tangled Thirsty Velvet Wandering Weary Woven
""".split()
_OBJECTS = """
Anchor Anvil Badger Barley Beacon Candle Causeway Cellar Compass Cormorant Cradle Ember Feather
Ferry Garden Gosling Hammer Harvest Heron Juniper Kettle Ladder Lantern Loom Meadow Mirror Nettle
Orchard Otter Oxbow Pebble Quarry Reed Sparrow Thimble Thistle Turnip Walnut Willow Windmill
""".split()
PRONOUNS = ("She", "He", "It")
_THINGS = ("book", "town", "company", "country", "lake")


class _Words:
    """Words that were never heard, none twice."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._taken: set[str] = set()

    def make(self, syllables: int, ending: str = "") -> str:
        """A new word; without an ending it ends in a consonant."""
        choose = self._rng.choice
        while True:
            parts = (choose(_ONSETS) + choose(_VOWELS) for _ in range(syllables))
            word = ("".join(parts) + choose(_CODAS)).capitalize()
            if word not in self._taken:
                self._taken.add(word)
                return word + ending

    def people(self, parts: int) -> tuple[list[str], list[str]]:
        """First names, by turns of women and men, and last names."""
        first = [self.make(1, "ao"[i % 2]) for i in range(parts)]
        return first, [self.make(2) for _ in range(parts)]


# The same in every encyclopedia, as they are a model's vocabulary.
_FIRST, _LAST = _Words(random.Random(0)).people(MOST_PARTS)
SYMBOLS = (*_FIRST, *_LAST, *_QUALITIES, *_OBJECTS)


class Names:
    """Names for every kind of thing, none twice.

    Args:
        rng: what they are drawn with.
        parts: how many first names and how many last names people have; the fewer, the more people
            share one.
        symbols: pairs of symbols instead of words.
    """

    def __init__(self, rng: random.Random, parts: int, symbols: bool) -> None:
        words, choose = _Words(rng), rng.choice
        first, last = (_FIRST[:parts], _LAST[:parts]) if symbols else words.people(parts)
        things = _pairs(rng, _QUALITIES, _OBJECTS)
        self._of = dict.fromkeys(_THINGS, things)
        self._of["person"] = _pairs(rng, first, last)
        if not symbols:
            self._of |= {
                "book": (f"The {name}" for name in things),
                "town": iter(lambda: words.make(2, choose(_TOWNS)), None),
                "company": iter(lambda: f"{words.make(2)} {choose(_COMPANIES)}", None),
                "country": iter(lambda: words.make(2, choose(_COUNTRIES)), None),
                "lake": iter(lambda: f"Lake {words.make(2)}", None),
            }

    def of(self, kind: str) -> str:
        """The next name of a person, book, town, company, country or lake.

        Raises:
            UsageError: there are no more.
        """
        name = next(self._of[kind], None)
        if name is None:
            raise UsageError(f"the names for a {kind} have run out; ask for fewer things.")
        return name


def _pairs(rng: random.Random, first: Sequence[str], last: Sequence[str]) -> Iterator[str]:
    pairs = [" ".join(pair) for pair in product(first, last)]
    rng.shuffle(pairs)
    return iter(pairs)


def pronoun(kind: str, name: str) -> str:
    """He, She or It."""
    if kind != "person":
        return PRONOUNS[2]
    return PRONOUNS[0] if name.partition(" ")[0].endswith("a") else PRONOUNS[1]
