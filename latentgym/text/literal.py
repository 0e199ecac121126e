"""Texts that are read as they are written, whatever they spell.

A Hugging Face tokenizer finds the names of its special tokens in any text: a question in which
`<|im_end|>` is written out would end the user's turn. Here nothing in a text is a special token,
and of a prompt's parts only those that a chat template has written may hold some.

A tokenizer with a fast backend is rebuilt with other names for its special tokens, which nobody can
guess. All else about it stays, so other texts have the ids that they always have, across borders of
parts too. Others are asked not to look for special tokens, and where their vocabulary has them as
words, are given the text character by character.

What a vocabulary cannot spell is left out by a BPE model, whose token for it may have a meaning of
its own (`<|endoftext|>`, of SmolLM2), and unknown to others.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Any, Protocol

from latentgym.errors import UsageError


@dataclass(frozen=True)
class Part:
    """Some of a prompt.

    Attributes:
        text: what it says.
        template: whether a chat template has written it, so that it may hold special tokens.
    """

    text: str
    template: bool = False


class Literal(Protocol):
    """Reads texts as they are written."""

    def encode(self, parts: Sequence[Part]) -> list[int]:
        """The ids of some parts, one behind the other.

        Raises:
            UsageError: a part that no template has written cannot be read without special tokens.
        """
        ...


def literal(tokenizer: Any, special: Iterable[int]) -> Literal:
    """What reads texts for a tokenizer as they are written.

    Args:
        tokenizer: a `transformers` tokenizer.
        special: ids of the tokens that only a template may write.
    """
    names = {i: str(tokenizer.convert_ids_to_tokens(i)) for i in special}
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        return _Asked(tokenizer, names.keys() - {tokenizer.unk_token_id})
    return _Renamed(tokenizer.backend_tokenizer, names)


class _Renamed:
    """A fast tokenizer whose special tokens have other names."""

    def __init__(self, backend: Any, names: dict[int, str]) -> None:
        from tokenizers import Tokenizer

        # No text holds it but by guessing 64 bits.
        marker = secrets.token_hex(8)
        self._secret = {name: f"\ufdd0{marker}{i}\ufdd1" for i, name in names.items()}
        state = json.loads(backend.to_str())
        self._rename(state)
        self._tokenizer = Tokenizer.from_str(json.dumps(state))
        # The longest first, as the backend finds them.
        ordered = sorted(map(re.escape, self._secret), key=len, reverse=True)
        self._named = re.compile("|".join(ordered))

    def encode(self, parts: Sequence[Part]) -> list[int]:
        text = "".join(self._marked(part.text) if part.template else part.text for part in parts)
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _marked(self, text: str) -> str:
        return self._named.sub(lambda found: self._secret[found[0]], text)

    def _rename(self, state: dict[str, Any]) -> None:
        """Rename special tokens in all places of a serialised tokenizer where they have a name."""
        new, model = self._secret, state["model"]
        state["post_processor"] = state["truncation"] = state["padding"] = None
        for token in state["added_tokens"]:
            if token["content"] in new:
                # What a normaliser does to text, it must not do to these names.
                token |= {"content": new[token["content"]], "normalized": False}
        if model["type"] == "BPE":
            model["unk_token"] = None
        elif model.get("unk_token") in new:
            model["unk_token"] = new[model["unk_token"]]
        vocab = model["vocab"]
        if isinstance(vocab, dict):
            model["vocab"] = {new.get(name, name): i for name, i in vocab.items()}
        else:  # Unigram: pairs of a piece and its score
            model["vocab"] = [[new.get(name, name), score] for name, score in vocab]
        if "merges" in model:
            pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
            model["merges"] = [[a, b] for a, b in pairs if new.keys().isdisjoint((a, b, a + b))]


class _Asked:
    """A tokenizer without a fast backend."""

    def __init__(self, tokenizer: Any, special: Set[int]) -> None:
        self._tokenizer, self._special = tokenizer, special

    def encode(self, parts: Sequence[Part]) -> list[int]:
        ids: list[int] = []
        for part in parts:
            ids += self._encode(part.text) if not part.template else self._ids(part.text)
        return ids

    def _encode(self, text: str) -> list[int]:
        for pieces in ([text], list(text)):
            ids = [i for piece in pieces for i in self._ids(piece, split_special_tokens=True)]
            if self._special.isdisjoint(ids):
                return ids
        raise UsageError(
            f"the tokenizer {self._tokenizer.name_or_path} reads a special token in {text[:80]!r}; "
            "take it out of the data, or choose another model."
        )

    def _ids(self, text: str, **how: Any) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False, **how))
