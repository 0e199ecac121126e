"""Chat templates write what transformers would, or end in one sentence."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from latentgym.errors import UsageError
from latentgym.system.bounded import BoundedProcess
from latentgym.text import chat_template
from latentgym.text.chat_template import render
from latentgym.text.tokenizers import HFTokenizer

MESSAGES = [
    {"role": "system", "content": " Be <brief> & \u201ckind\u201d. "},
    {"role": "user", "content": "1 + 1?\n{{ no template }}"},
]
USUAL = {
    "turns": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "blank lines": "\n  {% for m in messages %}\n    {{ m['content'] | trim }}\n  {% endfor %}\n",
    "special tokens": "{{ bos_token }}{{ messages[1].content }}{{ eos_token }}{{ pad_token }}",
    "undefined": "{{ nothing }}{% if tools is none and documents is none %}no tools{% endif %}",
    "json": "{{ messages | tojson }} {{ messages[0] | tojson(indent=2) }}",
    "loop controls": "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}"
    "{{ m.content }}{% break %}{% endfor %}",
    "a generation": "{% generation %}\n{% set x = 1 %}{{ messages[0].content }}{% endgeneration %}"
    "{{ x }}",
    "a namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{% endfor %}{{ ns.n }}",
    "a macro": "{% macro say(m) %}[{{ m.role }}] {{ m.content }}{% endmacro %}"
    "{{ say(messages[0]) }}",
    "strings": "{{ messages[1].content.split('\n')[0].upper() ~ '%03d' % 7 }}",
    "the day": "{{ strftime_now('%Y') }}",
}


def hugging_face(template: str | None = None, **special: str) -> Any:
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, "one": 3, "two": 4, "three": 5}
    raw = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", **special)
    made.chat_template = template
    return made


@pytest.mark.parametrize("name", USUAL)
def test_it_writes_what_transformers_writes(name: str) -> None:
    tokenizer = hugging_face(USUAL[name], bos_token="<s>", eos_token="</s>")
    theirs = tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    ours = render(USUAL[name], MESSAGES, tokenizer.special_tokens_map, "model")
    assert ours == theirs


LOOPS = "{% for a in range(9999) %}" * 4 + "x" + "{% endfor %}" * 4
HOSTILE = {
    "nested loops": (LOOPS, "does not end within"),
    "a wide number": ("{{ '%1000000000d' % messages | length }}", "memory or stack"),
    "a wide constant": ("{{ '%1000000000d' % 1 }}", "memory or stack|OverflowError|refuses"),
    "a long text": ("{{ 'x' * 2000000 }}", "writes more than"),
    "a very long text": ("{{ 'x' * 100000000000 }}", "memory or stack"),
    "a power": ("{{ 9 ** (9 ** 9) }}", "does not end within|memory or stack"),
    "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "memory or stack"),
    "deep brackets": ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "memory or stack|refuses"),
    "no template": ("{% for %}", "refuses a conversation"),
    "a refusal": ("{{ raise_exception('System role not supported') }}", "System role not supp"),
    "a fault of types": ("{{ messages[0].content + 1 }}", "refuses a conversation"),
    "a fault of numbers": ("{{ 1 / 0 }}", "division by zero"),
    "a missing role": ("{{ messages[7].content }}", "refuses a conversation"),
    "a way out": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "refuses a conversation"),
}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A process that waits a second, not five."""
    made = BoundedProcess(
        "latentgym.text.chat_template", does="renders", needs="jinja2", timeout=1.0
    )
    monkeypatch.setattr(chat_template, "_PROCESS", made)
    yield
    made.close()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", HOSTILE)
def test_what_writes_no_conversation_is_a_sentence(name: str) -> None:
    template, says = HOSTILE[name]
    with pytest.raises(UsageError, match=rf"the chat template of model .*({says})") as error:
        render(template, MESSAGES, {}, "model")
    assert "\n" not in str(error.value) and "choose another model" in str(error.value)
    assert render("{{ messages[0].role }}", MESSAGES, {}, "model") == "system"


SYSTEMLESS = {
    "refused": "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}",
    "a fault": "{% if messages[0].role == 'system' %}{{ 1 / 0 }}{% endif %}",
    "left out": "",
}


@pytest.mark.parametrize("how", SYSTEMLESS)
def test_without_a_system_role_instructions_stand_before_the_question(how: str) -> None:
    turns = "{% for m in messages if m.role == 'user' %}one {{ m.content }} {% endfor %}two"
    chatty = HFTokenizer(hugging_face(SYSTEMLESS[how] + turns, eos_token="</s>"), vocab_size=6)
    assert chatty.chat("three three", "one") == [3, 5, 5, 3, 4]


def test_a_conversation_is_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def call(self: Any, *request: str) -> list[str]:
        asked.append(request)
        return ["written"]

    monkeypatch.setattr(BoundedProcess, "call", call)
    for _ in range(3):
        assert render("a template of its own", MESSAGES, {}, "model") == "written"
    assert len(asked) == 1


@pytest.mark.parametrize("eos", [None, 6, -1])
def test_a_tokenizer_without_an_end_is_refused(eos: int | None) -> None:
    with pytest.raises(UsageError, match="has no end-of-sequence token"):
        HFTokenizer(hugging_face(), vocab_size=6, eos_ids=() if eos is None else [eos])
