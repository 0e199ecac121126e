"""Next-item recommendation: titles that a user chose in the prompt, the next title as the answer.

Answers are a closed set, the catalogue, so agents are evaluated by how they rank it (`Choices`).

A model from scratch reads and writes the titles word by word, one symbol each; any other model
reads and writes text.

Legend: S ids in the support of a soft target.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

import numpy as np

from latentgym.data import DATASETS, Question
from latentgym.data.dataset import Dataset
from latentgym.data.items import Catalogue
from latentgym.data.recommendation import THINGS, generated, sequences
from latentgym.data.shop import ShopSettings
from latentgym.envs.arguments import Limit, Source, Split, System
from latentgym.envs.catalogue import GENERATED, Makers
from latentgym.envs.task import Choices, Demonstration, Task, TaskMaker
from latentgym.episodes.protocol import Budget, Protocol
from latentgym.episodes.spaces import Family
from latentgym.errors import UsageError
from latentgym.rewards import Grade, TitleGrader
from latentgym.system.options.keywords import Option, keywords
from latentgym.text.tokenizers import ByteTokenizer, SymbolTokenizer, Tokenizer, breaking
from latentgym.text.trie import Trie

_SPECIALS = ("<pad>", "<bos>", "<eos>")
_AND, _NEXT = "<and>", "<next>"  # between titles, and before the one that is asked for
_GENERATOR = keywords(ShopSettings).keys() - {"history"}


@dataclass(frozen=True)
class _Where:
    """Where the purchases come from."""

    split: Split | None = None
    source: Source | None = None
    limit: Limit | None = None


class RecommendTask(Task):
    """What a user chooses next.

    Args:
        name: of the task.
        family: action family.
        tokenizer: of the model; without one, a symbol for each word of a title.
        data: the purchases; see `latentgym.data.recommendation`.
        catalogue: what can be recommended.
        history: the most titles in a prompt, the newest; where these exceed the prompt's budget,
            the oldest are left out.
        think: thoughts before the answer, neither more nor fewer; default 1, and 0 in words.
        beams: how many answers are searched side by side for a ranking, at least as many as it
            should be long; 0 ranks the whole catalogue by likelihood.
        system: instruction in place of the task's own.

    Raises:
        UsageError: options that cannot work, or titles that the tokenizer cannot tell apart.
    """

    splits = ("train", "valid", "test")
    choices: Choices

    def __init__(
        self,
        name: str,
        family: Family,
        tokenizer: Tokenizer | None,
        data: Dataset,
        catalogue: Catalogue,
        *,
        history: Annotated[int, Option("the most titles in a prompt, the newest", least=1)] = 10,
        think: Annotated[int, Option("thoughts before the answer, exactly; 0 in words", least=0)]
        | None = None,
        beams: Annotated[
            int, Option("answers that a ranking searches side by side; 0 for all titles", least=0)
        ] = 20,
        system: System | None = None,
    ) -> None:
        super().__init__(family, tokenizer or _words_of(catalogue))
        self.name, self.split, self.source = name, data.split, data.source
        self.dataset_hash, self.licence = data.hash, data.licence
        self.data, self.catalogue, self.history = data, catalogue, history
        self._think = Budget((0 if family.tokens else 1) if think is None else think, exact=True)
        self._as_text = not isinstance(self.tokenizer, SymbolTokenizer)
        self._spell = _spelling(self.tokenizer)
        known: Any = self.tokenizer  # each is one object, so that it can be a key
        spelt, trie = _trie(known, catalogue)
        self.choices = Choices(spelt, trie, beams or len(spelt))
        self.grader = TitleGrader(self.choices.entry_of)
        self.system = system or (
            f"You recommend {THINGS.get(name, 'items')}. Given what a user has chosen, oldest "
            "first, answer with the title that the user will choose next, in quotes, and nothing "
            "else."
        )
        if isinstance(self.tokenizer, ByteTokenizer):
            self.prompt_budget *= 4
        self.about = {"catalogue": len(spelt), "beams": self.choices.beams, "history": history}

    def __len__(self) -> int:
        return len(self.data)

    def question(self, index: int) -> Question:
        return self.data[index]

    def entry(self, index: int) -> int:
        return self.catalogue.entry_of_title[self.question(index).gold]

    def prompt(self, index: int) -> list[int]:
        titles = [self._spell(t) for t in self.question(index).extra["titles"][-self.history :]]
        while True:
            ids = self._prompt(titles)
            if len(ids) <= self.prompt_budget or len(titles) == 1:
                return ids
            # A title more than the excess is worth on average, so that this ends soon.
            excess = (len(ids) - self.prompt_budget) * len(titles) // len(ids)
            titles = titles[min(excess + 1, len(titles) - 1) :]

    def _prompt(self, titles: Sequence[str]) -> list[int]:
        if not self._as_text:
            return self.tokenizer.chat("", f"{f' {_AND} '.join(titles)} {_NEXT}")
        chosen = ", ".join(f'"{title}"' for title in titles)
        return self.tokenizer.chat(self.system, f"The user has chosen {chosen}. What is next?")

    def protocol(self) -> Protocol:
        longest = int(self.choices.trie.length_E.max())
        return Protocol(self._think, Budget(longest), eos=self.tokenizer.eos_ids)

    def grade(self, index: int, completion: str, answer: str) -> Grade:
        """Equality with the right title, but for blanks and the quotes around it."""
        return self.grader(answer, self.choices.titles[self.entry(index)])

    def demonstration(self, index: int) -> Demonstration:
        """The title; a mixture of tokens thinks of all of the title's tokens before."""
        answer = self.choices.tokens(self.entry(index))
        shown = Demonstration.of_tokens(answer, 0)
        thoughts = self._think.steps
        if not self.family.mixes or not thoughts:
            return shown
        counts = Counter(answer[:-1])
        ids = np.zeros((thoughts + len(answer), len(counts)), dtype=np.int64)
        weights = np.zeros(ids.shape, dtype=np.float32)
        ids[:thoughts] = list(counts)
        weights[:thoughts] = np.array(list(counts.values())) / counts.total()
        ids[thoughts:, 0], weights[thoughts:, 0] = answer, 1
        return Demonstration(ids, weights, thoughts)

    def completion(self, index: int, answer: str) -> tuple[str, str]:
        return answer, answer

    def gold_completion(self, index: int) -> tuple[str, str]:
        title = self.tokenizer.decode(self.choices.tokens(self.entry(index)))
        return title, title


def _make_recommend(
    name: str, family: Family, tokenizer: Tokenizer | None, options: Mapping[str, Any]
) -> RecommendTask:
    rest = dict(options)
    split, source, limit = (rest.pop(key, None) for key in keywords(_Where))
    shop = {key: rest.pop(key) for key in _GENERATOR & rest.keys()}
    spec = DATASETS[name]
    if source == "generated":
        data, catalogue = generated(spec, split or "train", ShopSettings(**shop), limit)
    elif shop:
        raise UsageError(
            f"only a generated shop has {' and '.join(sorted(shop))}; add source=generated."
        )
    else:
        data, catalogue = sequences(spec, split or "train", source=source, limit=limit)
    return RecommendTask(name, family, tokenizer, data, catalogue, **rest)


def _recommend_takes(name: str, as_text: bool) -> Makers:
    # Of the two that are called `history` the first counts, which is the task's.
    return [("", _Where), ("", RecommendTask), (GENERATED, ShopSettings)]


make_recommend = TaskMaker(_make_recommend, _recommend_takes)
"""Next-item recommendation."""


def _spelling(tokenizer: Tokenizer) -> Callable[[str], str]:
    """How titles are spelt for a model: where symbols are words, none may be one of control."""
    return breaking((*_SPECIALS, _AND, _NEXT) if isinstance(tokenizer, SymbolTokenizer) else ())


@lru_cache(maxsize=8)
def _words_of(catalogue: Catalogue) -> SymbolTokenizer:
    """A symbol for each word of the titles."""
    spell = breaking([*_SPECIALS, _AND, _NEXT])
    words = dict.fromkeys(word for title in catalogue.titles for word in spell(title).split())
    return SymbolTokenizer([*_SPECIALS, _AND, _NEXT, *words])


@lru_cache(maxsize=8)
def _trie(tokenizer: Any, catalogue: Catalogue) -> tuple[tuple[str, ...], Trie]:
    """The titles as they are spelt, and the trie of their tokens."""
    spelt = tuple(map(_spelling(tokenizer), catalogue.titles))
    quote = "" if isinstance(tokenizer, SymbolTokenizer) else '"'
    encode, eos = tokenizer.encode, tokenizer.eos_id
    return spelt, Trie([[*encode(f"{quote}{title}{quote}"), eos] for title in spelt])
