"""Questions for trainers of texts: prompts are the environment's, and so are grades."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentgym.adapters.questions import Questions
from latentgym.errors import OptionError, UsageError

OPTIONS: dict[str, Any] = {"source": "sample"}
SAID = st.lists(
    st.sampled_from(["#### ", "18", "7", "\n", "The answer is ", "so ", "####", " 3.0", "."]),
    max_size=8,
).map("".join)


@pytest.fixture(scope="module", params=["hashes", "sentence", "boxed", "json"])
def both(request: pytest.FixtureRequest) -> tuple[Questions, Any]:
    asked = {**OPTIONS, "format": request.param}
    env = gym.make("latent/GSM8K-token", think=4000, answer=4000, **asked).unwrapped
    return Questions("latent/GSM8K-token", **asked), env


@given(text=SAID, gold=st.booleans(), index=st.integers(0, 5))
def test_grades_are_the_environments(
    both: tuple[Questions, Any], text: str, gold: bool, index: int
) -> None:
    questions, env = both
    if gold:
        text += questions.task.gold_completion(index)[0]
    env.reset(options={"index": index})
    ids = [*env.task.tokenizer.encode(text), env.task.tokenizer.eos_id]
    _, _, reward, terminated, _, info = env.step_turn(ids)
    assert terminated
    grade = questions.grade(index, text)
    assert grade.score == reward
    assert grade.status == info["status"] and (grade.parsed or "") == info["parsed"]


def test_a_prompt_is_what_a_model_is_asked(both: tuple[Questions, Any]) -> None:
    questions, env = both
    *system, user = questions.messages(2)
    assert user == {"role": "user", "content": env.task.question(2).text}
    assert system == [{"role": "system", "content": env.task.system}]
    told = env.task.tokenizer.decode(env.task.prompt(2))
    assert user["content"] in told and system[0]["content"] in told


def test_puzzles_are_asked_in_words() -> None:
    questions = Questions("latent/MNNS-token", limit=20)
    assert "Put a plus or a minus sign" in questions.messages(0)[-1]["content"]
    assert questions.grade(0, questions.task.gold_completion(0)[0]).score == 1


@pytest.mark.parametrize(
    ("env", "options", "error", "says"),
    [
        ("latent/GSM8K-continuous", {}, UsageError, "use latent/GSM8K-token"),
        ("latent/GSM8K-token", {"force_answer": True}, UsageError, "leave exact_thoughts"),
        ("latent/GSM8K-token", {"splt": "test"}, OptionError, "did you mean 'split'"),
        ("latent/GSM9K-token", {}, UsageError, "GSM8K"),
    ],
)
def test_what_cannot_be(env: str, options: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Questions(env, **{**OPTIONS, **options})
