"""Reasoning Gym's scorers as a job of the sandbox (see `latentgym.rewards.sandbox`).

Their scorers read the model's text, some with `eval` or sympy's `parse_expr`, which is `eval`
too: an answer could hang, or look up the right answer in the frame that calls it and score. So
they run in the bounded process, and there on literals and formulas only.
"""

from __future__ import annotations

import ast
import functools
import inspect
import json
import re
import sys
from fractions import Fraction
from typing import Any

# nan is at no distance from anything, and some scorers pay for a small one.
_NOT_FINITE = re.compile(r"(?<![a-z])(?:nan|inf|infinity)[ij]?(?![a-z])", re.IGNORECASE)
_DATASETS: dict[str, Any] = {}
# This scorer evaluates its own question, never an answer.
_EVALUATES_QUESTIONS = "bitwise_arithmetic"
# Attributes, strings, names with two underscores and comments lead out of a formula.
_NO_FORMULA = re.compile(r"__|['\"`\\#@;]|\.\s*[^\W\d]")
# Every other name in a formula is a symbol.
_NAMES = """
    Symbol Integer Float Rational Function Add Mul Pow factorial factorial2 binomial gamma
    sin cos tan cot sec csc asin acos atan acot asec acsc atan2
    sinh cosh tanh coth sech csch asinh acosh atanh acoth asech acsch
    exp log ln sqrt cbrt root Abs sign floor ceiling Min Max pi E I oo
    erf erfc erfi Ei Si Ci li Piecewise Eq Ne Lt Le Gt Ge
"""


def setting_of(name: str, settings: dict[str, Any]) -> str:
    """A data set as text, from which `prepare` makes it again."""
    return json.dumps([name, pack(settings)])


def prepare(setting: str) -> None:
    """Make the data set, as its scorer may need what it holds."""
    import reasoning_gym

    if setting:
        name, settings = json.loads(setting)
        dataset = reasoning_gym.create_dataset(name, **unpack(settings))
        _tame(name, sys.modules[type(dataset).__module__])
        _DATASETS[setting] = dataset


def run(setting: str, *request: str) -> float | str:
    """Score an answer.

    Args:
        setting: of the data set.
        request: the answer, and the packed entry as JSON.

    Returns:
        The score, or "error" if the scorer raised.
    """
    answer, packed = request
    entry = unpack(json.loads(packed))
    gold = str(entry["answer"])
    if _NOT_FINITE.search(answer) and not _NOT_FINITE.search(gold):
        return 0.0
    try:
        score = float(_DATASETS[setting].score_answer(answer, entry))
        same = _MENDED.get(json.loads(setting)[0])
        return score if same is None or score < 1 or same(answer, gold) else 0.0
    except (MemoryError, RecursionError):
        return "crash"
    except Exception:
        return "error"


def _same_words(answer: str, gold: str) -> bool:
    return answer.split() == gold.split()


def _same_numbers(answer: str, gold: str) -> bool:
    one, other = (Fraction(text.strip().lstrip("$").replace(",", "")) for text in (answer, gold))
    return abs(one - other) <= abs(other) / 10_000


# Scorers of theirs that pay for other answers than the right one, and what must hold as well: one
# compares whether texts are empty, one pays 0 as the beginning of 0.25, one drops signs and words.
_MENDED = {
    "game_of_life_halting": _same_words,
    "coin_flip": _same_numbers,
    "gsm_symbolic": _same_numbers,
}


def pack(value: Any) -> Any:
    """A value as JSON that keeps apart lists and tuples, and the types of keys.

    Raises:
        TypeError: a type that does not stand in their entries.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list):
        return [pack(item) for item in value]
    if isinstance(value, Fraction):
        return {"fraction": str(value)}
    if isinstance(value, (tuple, set)):
        kind = "tuple" if isinstance(value, tuple) else "set"
        return {kind: [pack(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[pack(key), pack(item)] for key, item in value.items()]}
    if hasattr(value, "item"):
        return value.item()  # a NumPy scalar
    raise TypeError(f"{type(value).__name__} cannot be packed")


def unpack(value: Any) -> Any:
    """What `pack` packed."""
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if isinstance(value, dict):
        ((kind, items),) = value.items()
        if kind == "fraction":
            return Fraction(items)
        if kind == "dict":
            return {unpack(key): unpack(item) for key, item in items}
        return (tuple if kind == "tuple" else set)(unpack(item) for item in items)
    return value


def _tame(name: str, module: Any) -> None:
    """Let a scorer's module evaluate literals and formulas only."""
    import sympy
    from sympy.parsing import sympy_parser

    if name != _EVALUATES_QUESTIONS:
        module.eval = ast.literal_eval
    theirs = inspect.unwrap(sympy_parser.parse_expr)
    names = {key: getattr(sympy, key) for key in _NAMES.split()}
    names |= {"abs": sympy.Abs, "max": sympy.Max, "min": sympy.Min}

    @functools.wraps(theirs)
    def formula(text: str, local_dict: Any = None, *args: Any, **options: Any) -> Any:
        if _NO_FORMULA.search(text):
            raise ValueError("this is no formula")
        return theirs(text, local_dict, *args, **{**options, "global_dict": dict(names)})

    # `sympify` takes it from the parser's module, and so do functions that are given text.
    sympy.parse_expr = sympy_parser.parse_expr = formula
    if getattr(module, "parse_expr", None) is theirs:
        module.parse_expr = formula
