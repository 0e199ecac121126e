"""What happens in an episode, family by family."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from latentgym.episodes.protocol import Phase
from latentgym.episodes.spaces import FAMILIES
from latentgym.registry import make_vector_env

EASY = {"source": "sample", "think": 40, "answer": 8}


def make(env_id: str, **options: Any) -> Any:
    return gym.make(f"latent/{env_id}", **options).unwrapped


def say(env: Any, text: str) -> tuple[Any, float, bool, bool, dict[str, Any]]:
    """Act so that every action is read as the next byte of the text."""
    family, result = env._rows.family, None
    for token in env.task.tokenizer.encode(text):
        action = family.speak(np.array([token]), 64, 8)
        action = {k: v[0] for k, v in action.items()} if isinstance(action, dict) else action[0]
        result = env.step(action)
    assert result is not None
    return result


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_right_answer_behind_the_mark_is_rewarded(family: str) -> None:
    env = make(f"GSM8K-{family}", **EASY)
    observation, info = env.reset(options={"index": 3})
    assert observation["phase"] == Phase.THINK
    prompt = env.task.tokenizer.decode(observation["prompt"][: observation["prompt_length"]])
    assert info["question"] in prompt
    assert info["index"] == 3 and info["source"] == "sample" and info["dataset"] == "GSM8K"
    observation, reward, terminated, truncated, _ = say(env, "ok ####")
    assert (observation["phase"], observation["thoughts_used"]) == (Phase.ANSWER, 7)
    assert (reward, terminated, truncated) == (0.0, False, False)
    observation, reward, terminated, truncated, final = say(env, f" {info['target']}\n")
    assert (observation["phase"], reward, terminated, truncated) == (Phase.DONE, 1.0, True, False)
    assert final["answer"].strip() == info["target"]
    assert final["thoughts"] == 7 and final["tokens"] == len(info["target"]) + 2
    assert final["reward/correct"] == 1.0 and final["score"] == 1.0


def test_only_chains_of_words_are_read_by_the_grader() -> None:
    for family, words in (("token", "ok #### 5\n"), ("continuous", "#### 5\n")):
        env = make(f"GSM8K-{family}", **EASY)
        env.reset(options={"index": 0})
        final = say(env, "ok #### 5\n")[4]
        # Of latent thoughts the grader sees the mark alone, though it is split over four tokens.
        assert final["completion"] == words


def test_an_answer_behind_a_second_mark_is_wrong() -> None:
    env = make("GSM8K-hybrid", source="sample", think=16, answer=24)
    gold = env.task.question(0).gold
    for answer, score in ((f"#### {gold}\n", 1.0), (f"#### {gold} #### 7\n", 0.0)):
        env.reset(options={"index": 0})
        *_, reward, _, _, final = say(env, f"so {answer}")
        assert reward == final["score"] == final["reward/correct"] == score
    assert final["status"] == "invalid" and final["reward/format"] == 0


@pytest.mark.parametrize(("family", "forced"), [("token", False), ("hybrid", True)])
def test_latent_chains_are_asked_for_their_answer(family: str, forced: bool) -> None:
    env = make(f"GSM8K-{family}", source="sample", think=3, answer=8)
    env.reset(options={"index": 0})
    observation, _, terminated, truncated, _ = say(env, "abc")
    inserted = observation["inserted"][: observation["inserted_length"]]
    if forced:
        assert observation["phase"] == Phase.ANSWER and not truncated
        assert env.task.tokenizer.decode(inserted) == "\n#### "
        assert say(env, "12\n")[4]["completion"] == "\n#### 12\n"
    else:
        assert truncated and not terminated and not inserted.size


def test_an_answer_that_does_not_end_is_truncated() -> None:
    env = make("GSM8K-token", **EASY)
    env.reset(options={"index": 0})
    say(env, "####")
    *_, terminated, truncated, final = say(env, "12345678")
    assert truncated and not terminated and final["tokens"] == 8


@pytest.mark.parametrize("env_id", ["MNNS-continuous", "ProsQA-token", "GSM8K-hybrid"])
def test_no_thoughts_at_all(env_id: str) -> None:
    env = make(env_id, think=0)
    observation, _ = env.reset(seed=0)
    assert observation["phase"] == Phase.ANSWER and observation["thoughts_used"] == 0
    assert env.action_space is not None
    if env_id.startswith("GSM8K"):
        assert observation["inserted_length"] == len("\n#### ")
    env.action_space.seed(0)
    for _ in range(env.protocol.answer.steps):
        *_, terminated, truncated, final = env.step(env.action_space.sample())
        if terminated or truncated:
            break
    assert terminated or truncated
    assert final["thoughts"] == 0


def test_the_transcript_shows_the_episode() -> None:
    env = make("GSM8K-token", render_mode="ansi", **EASY)
    _, info = env.reset(options={"index": 1})
    say(env, "two####")
    assert env.render() == (
        f"question  {info['question']}\nthoughts  two####\nphase     answer, 7 of 40 thoughts"
    )
    say(env, "7\n")
    gold = info["target"]
    assert env.render() == (
        f"question  {info['question']}\nthoughts  two####\nanswer    7\n\n"
        f"phase     done, 7 of 40 thoughts\ngold      {gold}\nscore     {int(gold == '7')}"
    )
    env.reset(options={"index": 1})
    assert "gold" not in env.render()


def test_human_mode_prints(capsys: pytest.CaptureFixture[str]) -> None:
    env = make("MNNS-token", render_mode="human")
    env.reset(seed=0)
    assert env.render() is None
    assert capsys.readouterr().out.count("question  D") == 2


def test_a_vector_environment_renders_every_row() -> None:
    env = gym.make_vec("latent/MNNS-token", num_envs=2, render_mode="ansi")
    env.reset(seed=0)
    texts = env.render()
    assert len(texts) == 2 and all(text.startswith("question  D") for text in texts)


def test_a_group_shares_a_question() -> None:
    env = gym.make_vec("latent/MNNS-token", num_envs=6)
    _, info = env.reset(seed=0, options={"group_size": 3})
    index = info["index"].tolist()
    assert index[:3] == index[:1] * 3 and index[3:] == index[3:4] * 3 and index[0] != index[3]
    _, info = env.reset(options={"group_size": 3, "index": [5, 9]})
    assert info["index"].tolist() == [5, 5, 5, 9, 9, 9]
    _, info = env.reset(options={"index": 4})
    assert info["index"].tolist() == [4] * 6
    mask = np.array([True, False, True, False, False, False])
    observation, info = env.reset(options={"index": [7, 8], "reset_mask": mask})
    assert info["index"].tolist() == [7, 0, 8, 0, 0, 0] and info["_index"].tolist() == mask.tolist()
    assert (observation["prompt"][0] != observation["prompt"][2]).any()


def test_rows_that_never_started_are_done() -> None:
    env = gym.make_vec("latent/MNNS-token", num_envs=2)
    observation, _ = env.reset(options={"reset_mask": np.array([True, False])})
    assert observation["phase"].tolist() == [Phase.THINK, Phase.DONE]


def test_a_shorter_segment_leaves_its_row_where_it_is() -> None:
    env = make_vector_env("latent/MNNS-token", 2)
    env.reset(seed=0)
    observation, *_ = env.unwrapped.step_segment([[1, 2, 3], [1]])
    assert observation["thoughts_used"].tolist() == [3, 1]
    assert observation["phase"].tolist() == [Phase.ANSWER, Phase.THINK]
    assert observation["token"].tolist() == [3, 1]


def test_a_turn_ends_where_the_environment_speaks_or_the_episode_ends() -> None:
    env = make("GSM8K-token", think=4, answer=8, source="sample", force_answer=True)
    other = make("GSM8K-token", think=4, answer=8, source="sample", force_answer=True)
    for e in (env, other):
        e.reset(options={"index": 0})
    words = env.task.tokenizer.encode("never read 5\nnever read")
    taken, observation, *_ = env.step_turn(words)
    assert taken == 4 and observation["inserted_length"] == len(env.protocol.forced_prompt)
    answer = env.task.tokenizer.encode("5\nnever read")
    taken, *result = env.step_turn(answer)
    assert taken == 2 and result[2]
    for token in (*words[:4], *answer[:2]):
        stepped = other.step(token)
    assert_same(result, stepped)
    with pytest.raises(gym.error.ResetNeeded):
        env.step_turn(answer)


def test_another_environment_shares_the_task_and_nothing_else() -> None:
    env = make("GSM8K-token", **EASY)
    other = env.another()
    assert other.task is env.task and other.protocol is env.protocol
    env.reset(seed=0, options={"index": 0})
    other.reset(seed=1, options={"index": 1})
    say(env, "ok ####")
    fresh = make("GSM8K-token", **EASY)
    fresh.reset(seed=1, options={"index": 1})
    assert_same(say(other, "mine"), say(fresh, "mine"))
    assert_same(other.reset()[0], fresh.reset()[0])  # its draws are its own


def assert_same(one: Any, other: Any) -> None:
    np.testing.assert_equal(one, other)
