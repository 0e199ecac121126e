"""TRL's `GRPOTrainer` as a peer of ours in `latentgym bench train` (extra `peers`).

It is set to be as fast as it can be on one CPU without a change to what is computed: a KV cache in
`generate`, torch's scaled dot-product attention, no gradient checkpointing (TRL's default has it),
fp32 without autocast, AdamW's fused kernel, no reference model, as many rows in a forward pass as
ours (by default as many as suit TRL best), no padding to multiples, no worker processes, no logs,
no checkpoints, no evaluation. Nothing of TRL is patched: times are taken by a callback and by the
reward function, both of its interface.

Two choices of TRL 1.16 itself cost time here: it reads the prompt once per row, and off Triton
devices its language-model head scores prompt positions too.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from latentgym.errors import LatentGymError, UsageError
from latentgym.text.tokenizers import HFTokenizer, SymbolTokenizer, Tokenizer

Reward = Callable[[int, str], float]


@dataclass(frozen=True)
class PeerJob:
    """One GRPO step, as the peer is to take it.

    Attributes:
        model: a fresh `transformers` model, fp32; it is trained.
        tokenizer: of the model.
        prompts: token ids of the questions, all of which are in every step.
        reward: of (question, text of the completion).
        group: completions per question.
        micro_batch: rows in a forward pass; divides `group * len(prompts)`.
        new: tokens of every completion, exactly.
        lr: learning rate, constant.
    """

    model: Any
    tokenizer: Tokenizer
    prompts: Sequence[Sequence[int]]
    reward: Reward
    group: int
    micro_batch: int
    new: int
    lr: float


def load() -> tuple[Any, Any]:
    """TRL's configuration and trainer.

    Raises:
        UsageError: TRL, or what it needs, is not installed.
    """
    try:
        from trl import GRPOConfig, GRPOTrainer
    except ImportError as error:
        raise UsageError(
            f"the peer is not installed ({error}); pip install 'latentgym[peers]', or measure ours "
            "alone with --peer none."
        ) from error
    return GRPOConfig, GRPOTrainer


def train(job: PeerJob, steps: int, between: Callable[[], None]) -> list[dict[str, float]]:
    """Train for some steps; seconds of each step, and of its rollouts, grading included.

    Args:
        job: what is trained on what.
        steps: optimiser steps.
        between: called after each step, outside its time.

    Raises:
        UsageError: TRL is not installed, or cannot read the prompts as they are.
    """
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback

    GRPOConfig, GRPOTrainer = load()
    tokenizer = _hugging_face(job.tokenizer)
    texts = [tokenizer.decode(list(prompt)) for prompt in job.prompts]
    if tokenizer(text=texts)["input_ids"] != [list(prompt) for prompt in job.prompts]:
        raise UsageError("this model's tokenizer reads its own prompts otherwise; choose another.")
    clock = _Clock()

    def reward(
        completions: list[str], completion_ids: list[list[int]], question: list[int], **_: Any
    ) -> list[float]:
        require_length("TRL", map(len, completion_ids), job.new)
        scores = [job.reward(q, text) for q, text in zip(question, completions, strict=True)]
        clock.rolled = time.perf_counter()
        return scores

    class Timer(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            clock.started = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.stop()
            between()

    rows = job.group * len(job.prompts)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = GRPOConfig(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=job.micro_batch,
            gradient_accumulation_steps=rows // job.micro_batch,
            num_generations=job.group,
            max_completion_length=job.new,
            generation_kwargs={"min_new_tokens": job.new},
            temperature=1.0,
            beta=0.0,
            num_iterations=1,
            loss_type="dapo",
            learning_rate=job.lr,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=not torch.cuda.is_available(),
            pad_to_multiple_of=None,
            dataloader_num_workers=0,
            dataloader_pin_memory=False,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = GRPOTrainer(
            model=job.model,
            reward_funcs=reward,
            args=config,
            train_dataset=Dataset.from_list(
                [{"prompt": text, "question": i} for i, text in enumerate(texts)]
            ),
            processing_class=tokenizer,
            callbacks=[Timer()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return clock.steps


def require_length(name: str, lengths: Iterable[float], new: int) -> None:
    """Raise `LatentGymError` unless all completions are `new` tokens long: steps are compared."""
    other = [length for length in lengths if length != new]
    if other:
        raise LatentGymError(f"{name} wrote {other[0]:g} tokens instead of {new}; report this.")


class _Clock:
    """When a step began, when its rollouts were graded, and what came of it."""

    def __init__(self) -> None:
        self.started = self.rolled = 0.0
        self.steps: list[dict[str, float]] = []

    def stop(self) -> None:
        step, rollout = time.perf_counter() - self.started, self.rolled - self.started
        self.steps.append({"step": step, "rollout": rollout})


def _hugging_face(tokenizer: Tokenizer) -> Any:
    """The tokenizer as TRL wants it: that of the model, or one of a task's symbols."""
    if isinstance(tokenizer, HFTokenizer):
        return tokenizer.hf
    if not isinstance(tokenizer, SymbolTokenizer):
        raise UsageError(f"TRL cannot read {tokenizer.name}; choose another task or model.")
    from tokenizers import Tokenizer as Raw
    from tokenizers import models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {symbol: i for i, symbol in enumerate(tokenizer.symbols)}
    raw = Raw(models.WordLevel(ids, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=raw, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")
