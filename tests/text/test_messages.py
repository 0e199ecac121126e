"""Prompts as chat messages."""

from __future__ import annotations

import gymnasium as gym

from latentgym.text.messages import messages_of


def test_a_prompt_in_words_is_a_conversation() -> None:
    task = gym.make("latent/GSM8K-token", source="sample").unwrapped.task
    question, tokenizer = task.question(2).text, task.tokenizer
    assert messages_of(task, 2) == [
        {"role": "system", "content": task.system},
        {"role": "user", "content": question},
    ]
    assert task.tokenizer is tokenizer
    task = gym.make("latent/GSM8K-token", source="sample", system="").unwrapped.task
    assert messages_of(task, 2) == [{"role": "user", "content": question}]


def test_a_prompt_in_symbols_is_what_the_user_says() -> None:
    task = gym.make("latent/MNNS-continuous").unwrapped.task
    (message,) = messages_of(task, 0)
    assert message == {"role": "user", "content": task.tokenizer.decode(task.prompt(0))}
