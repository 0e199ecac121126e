"""The file for OpenRLHF's `--train.agent_func_path`: token environments, with vLLM as the writer.

OpenRLHF loads this file in every rollout worker, by its path, and makes one `AgentExecutor`. It
asks for many episodes at once, each of the question that a data row names (see `prompts`). Token
ids come from the environment and go to vLLM as they are: no text is tokenised again. Everything
about an episode is in `episode`.
"""

from __future__ import annotations

import asyncio
from copy import deepcopy
from typing import Any

from openrlhf.utils.agent import AgentExecutorBase

from latentgym.openrlhf.episode import Episode
from latentgym.openrlhf.prompts import PromptRow


class AgentExecutor(AgentExecutorBase):  # type: ignore[misc]
    """Answers questions of token environments; it holds no state, as many episodes share it."""

    async def execute(
        self,
        prompt: str,
        label: str,
        sampling_params: Any,
        max_length: int,
        hf_tokenizer: Any,
        llm_engine: Any,
        images: Any = None,
    ) -> dict[str, Any]:
        """One episode.

        Args:
            prompt: passed through; the environment has the prompt's ids.
            label: of a `PromptRow`.
            sampling_params: vLLM's; `max_tokens`, if given, bounds the tokens of the whole episode.
            max_length: of prompt and episode. An episode that it or `max_tokens` cuts is not
                graded: its reward is 0, it is marked truncated, and the log `cut` counts it.
            hf_tokenizer: of the model that vLLM runs.
            llm_engine: with `async generate(token_ids, sampling_params)`.
            images: passed through.

        Returns:
            What OpenRLHF expects of an executor. Logged per episode: `thoughts`, `tokens`, `turns`,
            `cut` and `status/<status>`.

        Raises:
            UsageError: the label names no question, or the model has another vocabulary.
            PromptTooLongError: the prompt alone reaches `max_length`.
        """
        row = PromptRow.read(label)
        logged = sampling_params.logprobs is not None
        episode = await asyncio.to_thread(Episode, row, hf_tokenizer, max_length, logged)
        most = sampling_params.max_tokens
        while room := episode.room(most):
            params = deepcopy(sampling_params)
            params.max_tokens = room
            out = (await llm_engine.generate(list(episode.tokens), params)).outputs[0]
            # Grading may take a while, and other episodes go on meanwhile.
            await asyncio.to_thread(episode.take, out.token_ids, out.logprobs)
        return {
            "prompt": prompt,
            "label": label,
            "images": images,
            "mm_train_inputs": None,
            **episode.outcome(),
        }
