"""The three tokenizers do the same things."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentgym.errors import UsageError
from latentgym.text.tokenizers import ByteTokenizer, HFTokenizer, SymbolTokenizer, breaking

SYMBOLS = ("<pad>", "<bos>", "<eos>", "->", "N0", "N1", "N10")


@pytest.fixture(scope="module")
def words() -> HFTokenizer:
    """A Hugging Face tokenizer of six words, for a model whose table is padded to ten rows."""
    return HFTokenizer(_hugging_face(), vocab_size=10)


def _hugging_face() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, "one": 3, "two": 4, "three": 5}
    raw = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@given(st.text())
def test_bytes_survive_a_round_trip(text: str) -> None:
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode(text)
    assert all(0 <= i < 256 for i in ids)
    expected = text.encode("utf-8", errors="replace").decode("utf-8")
    assert tokenizer.decode([tokenizer.bos_id, *ids, tokenizer.eos_id]) == expected


@given(st.lists(st.integers(0, 258)))
def test_any_ids_of_bytes_decode(ids: list[int]) -> None:
    assert isinstance(ByteTokenizer().decode(ids), str)


@given(st.lists(st.sampled_from(SYMBOLS[3:])))
def test_symbols_survive_a_round_trip(symbols: list[str]) -> None:
    tokenizer = SymbolTokenizer(SYMBOLS)
    text = " ".join(symbols)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_an_unknown_symbol_suggests_one() -> None:
    with pytest.raises(UsageError, match="'N11' is not a symbol of this task; did you mean 'N1"):
        SymbolTokenizer(SYMBOLS).encode("N0 N11")


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), SymbolTokenizer(SYMBOLS)])
def test_small_tokenizers_have_a_piece_per_id(tokenizer: Any) -> None:
    pieces = tokenizer.pieces()
    assert len(pieces) == tokenizer.vocab_size
    for special in (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id):
        assert pieces[special] == "" and tokenizer.decode([special]) == ""
    plain = [i for i, piece in enumerate(pieces) if piece.isascii() and piece]
    assert all(tokenizer.decode([i]) == pieces[i] for i in plain)


def test_chats_end_where_the_answer_begins() -> None:
    bytes_ = ByteTokenizer()
    ids = bytes_.chat("Be brief.", "1 + 1?")
    assert ids[0] == bytes_.bos_id
    assert bytes_.decode(ids) == "Be brief.\n\nQuestion: 1 + 1?\nAnswer:"
    assert bytes_.decode(bytes_.chat("", "1 + 1?")) == "Question: 1 + 1?\nAnswer:"
    assert SymbolTokenizer(SYMBOLS).chat("unused", "N0 ->") == [1, 4, 3]


def test_a_models_tokenizer_covers_its_padded_vocabulary(words: HFTokenizer) -> None:
    assert words.vocab_size == 10
    assert words.pieces() == ["", "", "", "one", "two", "three", "", "", "", ""]
    assert words.encode("two one") == [4, 3]
    assert words.decode([2, 4, 9, 3]) == "two one"  # special and padding ids say nothing


def test_a_models_tokenizer_without_padding_pads_with_the_end(words: HFTokenizer) -> None:
    assert (words.eos_id, words.pad_id) == (2, 2)
    other = HFTokenizer(_hugging_face(), vocab_size=6, eos_ids=[5])
    assert (other.eos_id, other.pad_id) == (5, 5)


def test_chat_models_have_several_ends() -> None:
    """As Llama 3 and Gemma: one ends a turn, one a text; a model's answer ends with any."""
    chatty = _hugging_face()
    chatty.chat_template = (
        "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}three{% endif %} "
        "{% endfor %}"
    )
    ends = HFTokenizer(chatty, vocab_size=6, eos_ids=[2, 5, 99])
    assert ends.eos_ids == (2, 5)  # there is no 99
    assert ends.eos_id == 5  # which the template puts behind an answer: so is it learnt
    plain = HFTokenizer(_hugging_face(), vocab_size=6, eos_ids=[5, 2])
    assert (plain.eos_ids, plain.eos_id) == ((5, 2), 2)  # its own, without a template
    with pytest.raises(UsageError, match="within its vocabulary of 6"):
        HFTokenizer(_hugging_face(), vocab_size=6, eos_ids=[99])


def test_a_chat_template_is_used_where_there_is_one(words: HFTokenizer) -> None:
    assert words.chat("", "one")[0] == 1  # begin of sequence, then plain text
    chatty = HFTokenizer(_hugging_face(), vocab_size=6)
    chatty.hf.chat_template = (
        "{% for m in messages %}{{ m.content }} {% endfor %}"
        "{% if add_generation_prompt %}three{% endif %}"
    )
    assert chatty.chat("two", "one") == [4, 3, 5]
    assert chatty.chat("", "one") == [3, 5]


def test_a_conversation_goes_on() -> None:
    bytes_ = ByteTokenizer()
    follow_up = bytes_.follow_up("Sure?")
    assert bytes_.decode(follow_up) == "\n\nQuestion: Sure?\nAnswer:"
    assert bytes_.bos_id not in follow_up
    assert SymbolTokenizer(SYMBOLS).follow_up("N0 ->") == [4, 3]


def test_a_conversation_goes_on_in_the_models_own_format(words: HFTokenizer) -> None:
    assert words.follow_up("one") == words.encode("Question: one Answer:")  # no second beginning
    chatty = HFTokenizer(_hugging_face(), vocab_size=6)
    chatty.hf.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}one {{ m.content }}{% else %}two "
        "{{ m.content }} </s>{% endif %} {% endfor %}{% if add_generation_prompt %}two{% endif %}"
    )
    # What closes the answer, the user's turn, and what opens the next answer.
    assert chatty.follow_up("three") == [2, 3, 5, 4]


@given(st.text(alphabet="<a>b"), st.sets(st.text(alphabet="<a>b", min_size=2, max_size=4)))
def test_broken_texts_hold_no_mark(text: str, markers: set[str]) -> None:
    harmless = breaking(markers)(text)
    assert not any(marker in harmless for marker in markers)
    assert harmless.replace(" ", "") == text


def test_texts_without_a_mark_stay_as_they_are() -> None:
    assert breaking(["<eos>"])("a < b <eo s>") == "a < b <eo s>"
    assert breaking([])("<eos>") == "<eos>"
    assert breaking(["x"])("x") == "x"  # a single character cannot be broken
