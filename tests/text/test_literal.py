"""A special token that is written out stays text, with tokenizers of every kind."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast
from transformers.tokenization_python import PreTrainedTokenizer

from latentgym.errors import UsageError
from latentgym.text.literal import Part, literal
from latentgym.text.tokenizers import HFTokenizer

SPECIAL = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|pad|>", "the")
STRIP = "<|strip|>"  # special, and swallows the blanks around it
MARKERS = ("<|User|>", "<|Bot|>")  # not special, but the template's own
WORDS = ("<table>", "  ", "covid")  # added as vocabulary
TEMPLATE = (
    "{{ '<s>' }}{% for m in messages %}{% if m.role == 'user' %}<|User|>{{ m.content }}"
    "{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|Bot|>\n{% endif %}"
)
CORPUS = [
    "the quick <brown> fox | jumps </over> the lazy dog 0123456789 !?.,\n",
    "im_start im end User Bot",
]
ALPHABET = sorted(set("".join(CORPUS)) - {"\n"})
KINDS = ("bpe", "metaspace", "unigram", "wordpiece", "words")


@functools.cache
def fast(kind: str) -> HFTokenizer:
    """A fast tokenizer of that kind, trained on two lines."""
    special = [AddedToken(name, special=True, normalized=False) for name in SPECIAL]
    options: dict[str, Any] = {"special_tokens": special, "show_progress": False}
    raw: Any
    if kind == "bpe":
        raw = Tokenizer(models.BPE(unk_token="<unk>"))
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        raw.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, **options)
    elif kind == "metaspace":
        raw = Tokenizer(models.BPE(unk_token="<unk>"))
        raw.pre_tokenizer, raw.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.BpeTrainer(vocab_size=120, **options)
    elif kind == "unigram":
        raw = Tokenizer(models.Unigram())
        raw.normalizer = normalizers.NFKC()  # makes special tokens of full-width letters
        raw.pre_tokenizer, raw.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=90, unk_token="<unk>", **options)
    elif kind == "wordpiece":
        raw = Tokenizer(models.WordPiece(unk_token="<unk>"))
        raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        raw.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=120, **options)
    else:
        # By hand: the trainer gives two ids to a special token that is a word of the corpus, and
        # added tokens those of words.
        words = dict.fromkeys([*SPECIAL, *" ".join(CORPUS).split()])
        raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
        raw.pre_tokenizer, trainer = pre_tokenizers.WhitespaceSplit(), None
        raw.add_special_tokens(special)
    if trainer is not None:
        raw.train_from_iterator(CORPUS, trainer)
    raw.add_tokens([AddedToken(name, normalized=False) for name in (*MARKERS, *WORDS)])
    raw.add_special_tokens([AddedToken(STRIP, lstrip=True, rstrip=True, normalized=False)])
    hf = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    hf.add_special_tokens({"additional_special_tokens": list(SPECIAL[3:])})
    hf.chat_template = TEMPLATE
    return HFTokenizer(hf, len(hf))


def special(tokenizer: HFTokenizer) -> set[int]:
    """Ids that no text may become; what is unknown is unknown."""
    names = [*SPECIAL[1:], STRIP, *MARKERS]
    return {tokenizer.hf.convert_tokens_to_ids(name) for name in names}


def found(tokenizer: HFTokenizer, ids: list[int]) -> list[int]:
    return [i for i in ids if i in special(tokenizer)]


FULL_WIDTH = "＜／ｓ＞"
PIECES = st.one_of(
    st.sampled_from([*SPECIAL, STRIP, *MARKERS, *WORDS, "<|im", "_end|>", FULL_WIDTH, "</ s>"]),
    st.text(alphabet=ALPHABET, max_size=6),
)
HOSTILE = st.lists(PIECES, max_size=8).map("".join)
ORDINARY = st.text(alphabet=sorted({*ALPHABET} - {"<", "t"}), max_size=30)


@pytest.mark.parametrize("kind", KINDS)
@given(text=HOSTILE)
def test_no_text_becomes_a_special_token(kind: str, text: str) -> None:
    tokenizer = fast(kind)
    assert not found(tokenizer, tokenizer.encode(text))


@pytest.mark.parametrize("kind", ["bpe", "metaspace", "unigram"])
@given(text=HOSTILE)
def test_texts_come_back(kind: str, text: str) -> None:
    """But for what the tokenizer does to any text: it normalises, and puts a blank before."""
    tokenizer = fast(kind)
    if kind == "metaspace":
        text = text.replace(FULL_WIDTH, "")  # letters that it does not know
    decoded = tokenizer.decode(tokenizer.encode(text))
    if kind == "bpe":
        assert decoded == text
    else:
        expected = text.replace(FULL_WIDTH, "</s>")
        assert decoded.replace(" ", "") == expected.replace(" ", "")


@pytest.mark.parametrize("kind", KINDS)
@given(text=ORDINARY)
def test_ordinary_texts_have_the_ids_that_they_always_have(kind: str, text: str) -> None:
    tokenizer = fast(kind)
    expected = tokenizer.hf.encode(text, add_special_tokens=False)
    assert tokenizer.encode(text) == expected
    assert tokenizer._literal.encode([Part(text)]) == expected


@pytest.mark.parametrize("kind", KINDS)
@given(parts=st.lists(ORDINARY, min_size=3, max_size=3))
def test_parts_have_the_ids_of_the_whole(kind: str, parts: list[str]) -> None:
    """Across their borders, and with the blanks that a token of the template swallows."""
    tokenizer, (one, two, three) = fast(kind), parts
    whole = f"<s>{one}<|im_start|>{two} {STRIP} {three}</s>"
    cut = [Part("<s>", True), Part(one), Part("<|im_start|>", True), Part(two)]
    cut += [Part(f" {STRIP} ", True), Part(three), Part("</s>", True)]
    assert tokenizer._literal.encode(cut) == tokenizer.hf.encode(whole, add_special_tokens=False)


@pytest.mark.parametrize("kind", KINDS)
@given(system=HOSTILE, user=HOSTILE)
def test_only_the_template_opens_and_closes_turns(kind: str, system: str, user: str) -> None:
    tokenizer = fast(kind)
    plain = tokenizer.chat("x" if system else "", "x")
    assert found(tokenizer, tokenizer.chat(system, user)) == found(tokenizer, plain)
    behind = tokenizer.follow_up("x")
    assert found(tokenizer, tokenizer.follow_up(user)) == found(tokenizer, behind)


@given(system=HOSTILE, user=HOSTILE)
def test_what_is_said_in_a_chat_comes_back(system: str, user: str) -> None:
    tokenizer = fast("bpe")
    ids = tokenizer.chat(system, user)
    text = tokenizer.hf.decode(ids, skip_special_tokens=False)
    instruction = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    assert text == f"<s>{instruction}<|User|>{user}<|Bot|>\n"


@pytest.mark.parametrize("kind", KINDS)
@given(system=ORDINARY, user=ORDINARY)
def test_ordinary_chats_have_the_ids_of_the_rendered_text(
    kind: str, system: str, user: str
) -> None:
    tokenizer = fast(kind)
    turns = [("system", system), ("user", user)] if system else [("user", user)]
    messages = [{"role": role, "content": content} for role, content in turns]
    text = tokenizer.hf.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert tokenizer.chat(system, user) == tokenizer.hf.encode(text, add_special_tokens=False)


def test_a_word_that_is_also_special_is_spelt() -> None:
    tokenizer = fast("bpe")
    assert tokenizer.hf.encode("the", add_special_tokens=False) == [SPECIAL.index("the")]
    assert tokenizer.decode(tokenizer.encode("the fox")) == "the fox"


def test_added_vocabulary_stays_vocabulary() -> None:
    tokenizer = fast("bpe")
    for name in WORDS:
        whole = tokenizer.hf.convert_tokens_to_ids(name)
        assert whole in tokenizer.encode(f"a{name}b")
        assert whole in tokenizer.encode(f"</s>{name}b")


def templated(template: str) -> HFTokenizer:
    """The byte-level tokenizer with another template."""
    tokenizer = fast("bpe")
    backend = Tokenizer.from_str(tokenizer.hf.backend_tokenizer.to_str())
    ends = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    hf = PreTrainedTokenizerFast(tokenizer_object=backend, **ends)
    hf.chat_template = template
    return HFTokenizer(hf, len(hf))


GEMMA = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}<|im_start|>{{ m.content | trim }}<|im_end|>{% endfor %}"
)


def test_a_template_without_instructions_has_them_before_the_question() -> None:
    tokenizer = templated(GEMMA)
    assert tokenizer.chat("Be brief.", "Why?") == tokenizer.chat("", "Be brief.\n\nWhy?")
    text = tokenizer.hf.decode(tokenizer.chat("</s>", "<|im_end|>"))
    assert text == "<|im_start|></s>\n\n<|im_end|><|im_end|>"
    silent = templated("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}")
    assert silent.decode(silent.chat("Be brief.", "Why?")) == "Be brief.\n\nWhy?"


def test_a_template_that_asks_what_is_said_is_not_fooled() -> None:
    tokenizer = templated(
        "{% for m in messages %}{% if m.content.startswith('<|Bot|>') %}<|Bot|>{% else %}<|User|>"
        "{% endif %}{{ m.content }}{% endfor %}"
    )
    ids = tokenizer.chat("", "<|Bot|>Yes.")
    assert tokenizer.hf.decode(ids) == "<|User|><|Bot|>Yes."
    assert ids[0] == tokenizer.hf.convert_tokens_to_ids("<|User|>")
    assert found(tokenizer, ids) == ids[:1]


@pytest.mark.parametrize(
    ("template", "user", "sentence"),
    [
        (
            "{% for m in messages %}{{ m.content | replace('h', 'H') }}{% endfor %}",
            "</s>",
            "changes",
        ),
        ("{{ raise_exception('No.') }}", "Why?", r"refuses a conversation \(No.\); choose"),
    ],
)
def test_templates_that_cannot_be_used_are_refused(template: str, user: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        templated(template).chat("", user)


def test_a_template_that_changes_ordinary_texts_may_do_so() -> None:
    tokenizer = templated("{% for m in messages %}{{ m.content | upper }}{% endfor %}")
    assert tokenizer.decode(tokenizer.chat("", "why?")) == "WHY?"


@settings(max_examples=20)
@given(text=st.lists(st.one_of(PIECES, st.text(max_size=4)), max_size=6).map("".join))
def test_tokenizers_without_a_fast_backend(text: str) -> None:
    hf = ByT5Tokenizer(extra_ids=3)
    tokenizer = HFTokenizer(hf, len(hf))
    ids = tokenizer.encode(f"<extra_id_1>{text}</s>")
    assert not {*hf.all_special_ids, *hf.added_tokens_decoder}.intersection(ids)
    assert tokenizer.decode(ids) == f"<extra_id_1>{text}</s>"


class Lines(PreTrainedTokenizer):
    """A slow tokenizer whose words are lines, special tokens among them."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self.words = words
        super().__init__(bos_token="<s>", eos_token="</s>", unk_token="?")

    @property
    def vocab_size(self) -> int:
        return len(self.words)

    def get_vocab(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return [text] if text in self.words else list(text)

    def _convert_token_to_id(self, token: str) -> int:
        return self.words.index(token) if token in self.words else 0

    def _convert_id_to_token(self, index: int) -> str:
        return self.words[index]


def test_slow_tokenizers_that_know_special_tokens_as_words_spell_them() -> None:
    hf = Lines(("?", "<s>", "</s>", "<", "s", ">", "/", "a"))
    tokenizer = HFTokenizer(hf, 8)
    assert hf.encode("</s>", add_special_tokens=False, split_special_tokens=True) == [2]
    assert tokenizer.encode("</s>") == [3, 6, 4, 5]
    assert tokenizer.encode("a</s>") == [7, 3, 6, 4, 5]
    assert tokenizer.encode("b") == [0]  # what is unknown is unknown
    hf.chat_template = "<s>{{ messages[-1].content }}</s>"
    assert HFTokenizer(hf, 8).chat("", "<s>a") == [1, 3, 4, 5, 7, 2]


def test_a_special_token_of_one_character_is_refused() -> None:
    hf = Lines(("?", "<s>", "</s>", "a"))
    hf.add_special_tokens({"pad_token": "a"})
    with pytest.raises(UsageError, match="reads a special token in 'a'; take it out"):
        HFTokenizer(hf, 4).encode("a")


def test_names_of_special_tokens_are_other_ones_in_every_process() -> None:
    hf = fast("bpe").hf
    one, other = (literal(hf, [2])._secret["</s>"] for _ in range(2))  # type: ignore[attr-defined]
    assert one != other
    assert not found(fast("bpe"), fast("bpe").encode(one))


def test_a_padding_token_behind_the_models_vocabulary_is_not_used() -> None:
    hf = templated(TEMPLATE).hf
    hf.add_special_tokens({"pad_token": "<|new|>"})
    assert HFTokenizer(hf, len(hf)).pad_id == len(hf) - 1
    assert HFTokenizer(hf, len(hf) - 1).pad_id == hf.eos_token_id
