"""Tokenizers that need no download and no torch, and a thin wrapper around Hugging Face's.

An environment made without a model uses one of the two small ones: bytes for text, or the
symbols of a synthetic task. All three offer the same few things, see `Tokenizer`. Texts come from
data, and from the output of models: with none of the three can they spell a special token.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from latentgym.errors import UsageError, did_you_mean
from latentgym.text.chat_template import render
from latentgym.text.literal import Literal, Part, literal

_ANSWER = "An answer."
_HOLE = "Qh7e2Z"  # stands in a conversation for the text to come


class Tokenizer(Protocol):
    """What environments and the rollout engine need of a tokenizer.

    Attributes:
        eos_id: ends an answer that is written for the model to learn.
        eos_ids: any of them ends an answer of the model's: chat models often have several.
    """

    name: str
    pad_id: int
    eos_id: int
    eos_ids: tuple[int, ...]

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        ...

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without special tokens in it or around it, whatever it spells."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special tokens are left out."""
        ...

    def pieces(self) -> list[str]:
        """The text of each id on its own, length `vocab_size`; special tokens are empty."""
        ...

    def chat(self, system: str, user: str) -> list[int]:
        """The ids of a prompt that asks for an answer to `user`, in the model's own format.

        What the two say is text, whatever it spells.
        """
        ...

    def follow_up(self, user: str) -> list[int]:
        """The ids behind an answer, its end-of-sequence left out, that ask the model once more."""
        ...


class ByteTokenizer:
    """UTF-8 bytes, and three special ids behind them: pad, begin and end of sequence."""

    name = "bytes"
    pad_id = 256
    bos_id = 257
    eos_id = 258
    eos_ids: tuple[int, ...] = (eos_id,)

    @property
    def vocab_size(self) -> int:
        return 259

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8", errors="replace"))

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if 0 <= i < 256).decode("utf-8", errors="replace")

    def pieces(self) -> list[str]:
        return [bytes([i]).decode("latin-1") if i < 128 else "\ufffd" for i in range(256)] + [
            ""
        ] * 3

    def chat(self, system: str, user: str) -> list[int]:
        return [self.bos_id, *self.encode(plain_chat(system, user))]

    def follow_up(self, user: str) -> list[int]:
        return self.encode(f"\n\n{plain_chat('', user)}")


class SymbolTokenizer:
    """One id per whitespace-separated symbol of a synthetic task.

    Args:
        symbols: the vocabulary in id order. It must hold `<pad>`, `<bos>` and `<eos>`.
    """

    name = "symbols"

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = tuple(symbols)
        self._id = {symbol: i for i, symbol in enumerate(self.symbols)}
        self.pad_id, self.bos_id, self.eos_id = (self._id[s] for s in ("<pad>", "<bos>", "<eos>"))
        self.eos_ids: tuple[int, ...] = (self.eos_id,)
        self._special = {self.pad_id, self.bos_id, self.eos_id}

    @property
    def vocab_size(self) -> int:
        return len(self.symbols)

    def encode(self, text: str) -> list[int]:
        """The ids of a text.

        Raises:
            UsageError: it holds something else than symbols of the task, or a special one.
        """
        try:
            ids = [self._id[symbol] for symbol in text.split()]
        except KeyError as error:
            symbol = error.args[0]
            raise UsageError(
                f"{symbol!r} is not a symbol of this task; {did_you_mean(symbol, self.symbols)}"
            ) from None
        for i in self._special.intersection(ids):
            raise UsageError(f"{self.symbols[i]!r} has a meaning of its own; take it out of texts.")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self.symbols[i] for i in ids if i not in self._special)

    def pieces(self) -> list[str]:
        return ["" if i in self._special else s for i, s in enumerate(self.symbols)]

    def chat(self, system: str, user: str) -> list[int]:
        return [self.bos_id, *self.encode(user)]

    def follow_up(self, user: str) -> list[int]:
        return self.encode(user)


def require_words(tokenizer: Tokenizer, who: str, instead: str) -> None:
    """Whether any text can be given to a model with this tokenizer.

    Args:
        tokenizer: of the model.
        who: would speak to it, for the message.
        instead: what to do where that is impossible.

    Raises:
        UsageError: it knows the symbols of a task only.
    """
    if isinstance(tokenizer, SymbolTokenizer):
        raise UsageError(
            f"{who} asks the model in words, but this one knows the task's symbols only; {instead}."
        )


class HFTokenizer:
    """A Hugging Face tokenizer behind the same interface.

    Args:
        tokenizer: a `transformers` tokenizer.
        vocab_size: the model's vocabulary, which may be padded beyond the tokenizer's.
        eos_ids: the model's end-of-sequence ids, if they are not the tokenizer's alone.

    Raises:
        UsageError: there is no end-of-sequence, or the model's vocabulary does not hold it.
    """

    def __init__(self, tokenizer: Any, vocab_size: int, eos_ids: Sequence[int] = ()) -> None:
        self.hf = tokenizer
        self.name = str(tokenizer.name_or_path)
        self._vocab_size = vocab_size
        own = tokenizer.eos_token_id
        known = [own] if not eos_ids and own is not None else eos_ids
        self.eos_ids = tuple(dict.fromkeys(int(i) for i in known if 0 <= int(i) < vocab_size))
        if not self.eos_ids:
            raise UsageError(
                f"the model {self.name} has no end-of-sequence token "
                f"{f'within its vocabulary of {vocab_size} ' if known else ''}by which an "
                "answer could end; set eos_token_id in its config.json, or choose another model."
            )
        self.eos_id = self.eos_ids[0]
        if len(self.eos_ids) > 1:
            self.eos_id = self._end_of_turn(own)
        pad_id = tokenizer.pad_token_id
        # A token for padding may have been added behind the model's vocabulary.
        self.pad_id = self.eos_id if pad_id is None or pad_id >= vocab_size else int(pad_id)
        self._own: dict[tuple[tuple[str, ...], bool], list[int]] = {}

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    def encode(self, text: str) -> list[int]:
        ids = self._read(text)
        return ids if self._special.isdisjoint(ids) else self._literal.encode([Part(text)])

    def decode(self, ids: Sequence[int]) -> str:
        text = self.hf.decode([i for i in ids if i < self._known], skip_special_tokens=True)
        return str(text)

    def pieces(self) -> list[str]:
        return list(_hf_pieces(self))

    def chat(self, system: str, user: str) -> list[int]:
        if not self.hf.chat_template:
            bos = [] if self.hf.bos_token_id is None else [int(self.hf.bos_token_id)]
            return [*bos, *self.encode(plain_chat(system, user))]
        if not system:
            return self._conversation({"user": user})
        if not self._takes_system:
            return self._conversation({"user": f"{system}\n\n{user}"})
        return self._conversation({"system": system, "user": user})

    def follow_up(self, user: str) -> list[int]:
        if not self.hf.chat_template:
            return self.encode(f"\n\n{plain_chat('', user)}")
        return self._conversation({"user": user}, continued=True)

    def _read(self, text: str) -> list[int]:
        """The ids of a text in which names of special tokens are special tokens."""
        return list(self.hf.encode(text, add_special_tokens=False))

    def _end_of_turn(self, own: int | None) -> int:
        """Of several, the one that the chat template puts behind an answer.

        Without a template it is the tokenizer's own, or the model's first.
        """
        behind = self._read(self._rendered({"user": "A question."}, continued=True))
        first = next((i for i in behind if i in self.eos_ids), None)
        if first is not None:
            return first
        return own if own in self.eos_ids else self.eos_ids[0]

    @functools.cached_property
    def _known(self) -> int:
        """How many tokens it has; counting them takes longer than decoding a page."""
        return len(self.hf)

    @functools.cached_property
    def _special(self) -> frozenset[int]:
        """The tokens that only the chat template may write.

        All that count as special, and of the other added ones those that the template writes
        itself (some tokenizers mark turns with such): the rest is vocabulary, such as `<table>`.
        """
        written = str(self.hf.chat_template or "") + self._rendered({"user": _HOLE})
        added = self.hf.added_tokens_decoder.items()
        markers = (i for i, t in added if t.special or (t.content.strip() and t.content in written))
        return frozenset(map(int, (*self.hf.all_special_ids, *markers)))

    @functools.cached_property
    def _literal(self) -> Literal:
        return literal(self.hf, self._special)

    @functools.cached_property
    def _takes_system(self) -> bool:
        """Whether the chat template knows instructions; else they stand before the question."""
        try:
            return _HOLE in self._rendered({"system": _HOLE, "user": "A question."})
        except UsageError:
            return False

    def _conversation(self, contents: Mapping[str, str], *, continued: bool = False) -> list[int]:
        """The ids of a conversation in the chat template's format.

        Args:
            contents: the text of each role.
            continued: whether it goes on behind an answer; only what stands behind that is told.
        """
        ids = self._read(self._rendered(contents, continued=continued))
        if [i for i in ids if i in self._special] == self._own_special((*contents,), continued):
            return ids
        # The text spells a special token: it takes its place when the template is done.
        holes = {role: f"{_HOLE}{role}{_HOLE}" for role in contents}
        pieces = re.split(rf"{_HOLE}(\w+?){_HOLE}", self._rendered(holes, continued=continued))
        if set(pieces[1::2]) != set(contents):
            raise UsageError(
                f"the chat template of {self.name} changes the text of its messages, so a special "
                "token that is spelt out there cannot be told from its own; take it out of the "
                "data, or choose another model."
            )
        return self._literal.encode(
            [Part(contents[p]) if i % 2 else Part(p, template=True) for i, p in enumerate(pieces)]
        )

    def _own_special(self, roles: tuple[str, ...], continued: bool) -> list[int]:
        """The special tokens that the chat template writes itself."""
        key = (roles, continued)
        if key not in self._own:
            ids = self._read(self._rendered(dict.fromkeys(roles, "Two."), continued=continued))
            self._own[key] = [i for i in ids if i in self._special]
        return self._own[key]

    def _rendered(self, contents: Mapping[str, str], *, continued: bool = False) -> str:
        """A conversation as the chat template writes it."""
        if not self.hf.chat_template:
            return ""
        past = {"user": "A question.", "assistant": _ANSWER} if continued else {}
        turns = [*past.items(), *contents.items()]
        messages = [{"role": role, "content": content} for role, content in turns]
        template = self.hf.get_chat_template()
        text = render(template, messages, self.hf.special_tokens_map, self.name)
        return text.partition(_ANSWER)[2] if continued else text


@functools.lru_cache(maxsize=4)
def _hf_pieces(tokenizer: HFTokenizer) -> tuple[str, ...]:
    known = min(len(tokenizer.hf), tokenizer.vocab_size)
    special = set(tokenizer.hf.all_special_ids)
    texts = tokenizer.hf.batch_decode([[i] for i in range(known)])
    pieces = ["" if i in special else text for i, text in enumerate(texts)]
    return (*pieces, *[""] * (tokenizer.vocab_size - known))


def one_line(text: str) -> str:
    """Text in one line with single blanks, without control and other invisible characters."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split())


def breaking(markers: Iterable[str]) -> Callable[[str], str]:
    """What puts a blank into every one of some marks in a text, so that none is read as such.

    A marker is broken behind its first character wherever it begins, overlaps included; one of a
    single character cannot be broken.
    """
    broken = sorted({marker for marker in markers if len(marker) > 1})
    if not broken:
        return str
    begins = re.compile("|".join(f"{re.escape(m[0])}(?={re.escape(m[1:])})" for m in broken))
    return lambda text: begins.sub(r"\g<0> ", text)


def plain_chat(system: str, user: str) -> str:
    """The prompt for models without a chat format."""
    head = f"{system}\n\n" if system else ""
    return f"{head}Question: {user}\nAnswer:"
