"""Chat templates, which are programs: they come with a model, and run where they are bounded.

A template may loop for ever, fill the memory or recurse without end, and the library that compiles
it computes parts of it at once. So compiling and rendering are both the work of a bounded process
(`latentgym.system.bounded`), of which this module is the job too. What it gives is what the
`apply_chat_template` of transformers gives: the same environment of Jinja, in the versions that are
installed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from latentgym.errors import UsageError
from latentgym.system.bounded import BoundedError, BoundedProcess

_SECONDS = 5.0  # of the processor, compiling included
_MOST = 1 << 20  # characters of a conversation
_KNOWN = 1 << 14  # conversations: more than most data sets have questions
_PROCESS = BoundedProcess(
    "latentgym.text.chat_template", does="renders chat templates", needs="jinja2", timeout=_SECONDS
)


def render(
    template: str, messages: Sequence[Mapping[str, str]], special: Mapping[str, Any], model: str
) -> str:
    """A conversation as a template writes it, with what opens the next answer.

    Args:
        template: in the language of Jinja.
        messages: role and content of each turn.
        special: special tokens by name, such as `bos_token`, as a tokenizer has them.
        model: whose template it is, for messages.

    Raises:
        UsageError: the template refuses the conversation, or takes more than a conversation may.
    """
    values = {**special, "messages": [*messages], "tools": None, "documents": None}
    values_json = json.dumps({**values, "add_generation_prompt": True})
    try:
        return _rendered(template, values_json)
    except _TemplateError as error:
        raise UsageError(
            f"the chat template of {model} {error}; choose another model, or mend its template."
        ) from None
    except BoundedError as error:
        raise UsageError(f"{error}.") from error


class _TemplateError(Exception):
    """What a template does instead of writing a conversation."""


@lru_cache(maxsize=_KNOWN)
def _rendered(template: str, values_json: str) -> str:
    result = _PROCESS.call("", template, values_json)
    if isinstance(result, list):
        return str(result[0])
    raise _TemplateError(
        {
            "timeout": f"does not end within {_SECONDS:.0f} seconds",
            "crash": "takes more memory or stack than a conversation may",
            "refused": "does more than write a conversation",
            "long": f"writes more than {_MOST:,} characters",
        }.get(result["error"] if isinstance(result, dict) else result)
        or f"refuses a conversation ({result['error']})"
    )


def prepare(setting: str) -> None:
    """Load the library."""
    _compiled("")


def run(setting: str, *request: str) -> Any:
    """Compile a template, unless it is known, and render it: a list of one text, or an error."""
    template, values_json = request
    try:
        text = _compiled(template).render(**json.loads(values_json))
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # a template may raise anything
        lines = str(error).strip().splitlines()
        return {"error": (lines[0] if lines else type(error).__name__)[:200]}
    return [text] if len(text) <= _MOST else {"error": "long"}


@lru_cache(maxsize=16)
def _compiled(template: str) -> Any:
    """As transformers does it (`transformers.utils.chat_template_utils`), but for masks."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """Marks an assistant's message, for training; it is written as it stands."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, **how: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **how)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda how: datetime.now().strftime(how)
    return environment.from_string(template)
