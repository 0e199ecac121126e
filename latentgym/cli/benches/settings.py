"""Settings of the benchmarks; each says what is measured, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from latentgym.errors import UsageError
from latentgym.system.options.ranges import Positive, Size, SizeOrZero, Steps

ANSWER = 8  # tokens of the answer that LatentSeek's benchmark asks for, of all new ones


@dataclass(frozen=True)
class DynamicsBench:
    """Steps of an environment with a model inside, beside our engine's own and n copies.

    All let the same model think the same mixtures of its likeliest tokens, so many steps behind the
    same prompts, and answer one token: the batched environment, stepped with zeros; the engine; and
    Gymnasium's vector of so many single environments, which share the weights. They take turns in
    this process; ratios are taken within a round and their median is reported.
    """

    model: str = "smollm2-135m"
    """Model inside."""
    rows: tuple[Size, ...] = (1, 8, 64)
    """Numbers of rows."""
    copies: tuple[Size, ...] = (1, 8)
    """Those at which n copies are measured too."""
    think: Size = 32
    """Thoughts of an episode."""
    k: Size = 8
    """Tokens that are mixed."""
    rounds: Size = 3
    """Rounds; each runs everything once."""
    threads: SizeOrZero = 0
    """Torch threads; 0 leaves the default."""


@dataclass(frozen=True)
class LatentSeekBench:
    """The batched search against one question at a time without a cache.

    The peer is LatentSeek as its authors run it (`latentgym.cli.benches.plain_latentseek`), on the
    same weights, prompts, settings, verifiers and rules, in fp32. It takes the first few of the
    questions, ours takes all of them at once; both are timed in this process, and the answers to
    the questions that they share are compared token by token. Its verifiers keep transformers'
    cache, as the authors' do, unless told otherwise. Once with the self-reward, and once with the
    constant reward, which costs nothing and never stops a search.
    """

    model: str = "smollm2-135m"
    """Model to search with."""
    questions: Size = 16
    """Questions of GSM8K that ours searches at once."""
    plain: Size = 2
    """The first so many of them, which the plain loop searches."""
    new: Size = 40
    """Most tokens of an answer."""
    iterations: Size = 2
    """Most steps of a search."""
    lr: Positive = 0.03
    """Learning rate of the latents."""
    verifier: SizeOrZero = 16
    """Most tokens of a verifier's reasoning."""
    cached_verifiers: bool = True
    """Let the plain loop's verifiers keep transformers' cache."""
    threads: SizeOrZero = 0
    """Torch threads; 0 leaves the default. On cores that others use, 1 is best for both."""

    def validate(self) -> None:
        """Raise `UsageError` for settings that cannot work."""
        if not 1 <= self.plain <= self.questions or self.new <= ANSWER:
            raise UsageError(
                f"plain must be at least 1 and at most questions = {self.questions}, and new above "
                f"{ANSWER}."
            )


@dataclass(frozen=True)
class MemoryBench:
    """Memory of a rollout and an update: foreseen for large models, measured on small ones.

    What is foreseen, for a GPU, is told from the sizes of a model alone, so no weights are needed:
    every part, and the most in all, in training of all weights and of LoRA's, with activations that
    are kept and recomputed. Small models are rolled out and updated, and the most that their
    tensors take then, beside weights and the optimiser's state, stands beside the formula. They
    compute in fp32 on a CPU, in bfloat16 on a GPU, and train all weights. Memory is that of
    tensors: a GPU's context and what allocators hold in reserve come on top.
    """

    layouts: tuple[str, ...] = ("1.5B", "3B", "7B")
    """Sizes that are foreseen, in Qwen2.5's layout: 0.5B, 1.5B, 3B, 7B, 14B."""
    models: tuple[str, ...] = ("tiny:llama:4x4x128", "tiny:gpt2:4x4x128", "smollm2-135m")
    """Models that are measured."""
    measure: bool = True
    """Measure them; else the formula alone speaks."""
    prompts: Size = 2
    """Prompts of a rollout."""
    group: Size = 8
    """Rows per prompt."""
    prompt: Size = 256
    """Prompt tokens."""
    new: Size = 64
    """Steps of a row."""
    micro_batch: Size = 8
    """Rows in a forward pass of an update."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """What foreseen sizes compute in; weights that are trained stay fp32."""
    lora: Size = 32
    """Rank of LoRA."""

    def validate(self) -> None:
        """Raise `UsageError` for settings that cannot work."""
        if self.micro_batch > self.prompts * self.group:
            raise UsageError(
                f"micro_batch = {self.micro_batch} is more than the {self.prompts * self.group} "
                "rows of a rollout; lower it, or give more --prompts or --group."
            )


@dataclass(frozen=True)
class RecommendBench:
    """Beam search over a catalogue, ours against transformers' `generate`.

    Both rank the same catalogue for the same users with the same weights and as many beams, in turn
    and in this process; ratios are taken within a round and their median is reported. transformers
    is told by `prefix_allowed_tokens_fn` what may follow, which is how published recommenders are
    decoded, and scores without a length penalty as we do. Cost against the size of the catalogue is
    ours alone.
    """

    model: str = "smollm2-135m"
    """Model to decode with."""
    source: str = "generated"
    """Purchases: generated, or as -o source of the environment; none takes what is installed."""
    items: Steps = 5000
    """Size of a generated catalogue."""
    users: Size = 8
    """Users that are recommended to at once."""
    beams: Size = 10
    """Beams, and titles that are found for each."""
    sizes: tuple[Steps, ...] = (1000, 10_000, 100_000)
    """Sizes of generated catalogues whose cost is compared."""
    rounds: Size = 3
    """Rounds; each runs everything once."""
    threads: SizeOrZero = 0
    """Torch threads; 0 leaves the default."""

    def validate(self) -> None:
        """Raise `UsageError` for settings that cannot work."""
        if min(self.users, self.beams, self.rounds) < 1:
            raise UsageError("users, beams and rounds must be at least 1.")


@dataclass(frozen=True)
class RetrievalBench:
    """Passages found per second, by Lucene and by bm25s.

    Both index the same corpus and answer the same questions in this process, in turn: one query at
    a time, all at once, and from 1, 2 and 4 workers that share one retriever, each with a part of
    the questions at a time, as the workers of a cluster do.
    """

    corpus: Path | None = None
    """A corpus; the real one under $LATENTGYM_DATA by default, else the sample's."""
    queries: Size = 500
    """Questions of NQ to search for."""
    k: Size = 5
    """Passages for each."""
    rounds: Size = 3
    """Rounds; each runs everything once, and the median counts."""

    def validate(self) -> None:
        """Raise `UsageError` for settings that cannot work."""
        if min(self.queries, self.k, self.rounds) < 1:
            raise UsageError("queries, k and rounds must be at least 1.")


@dataclass(frozen=True)
class RolloutBench:
    """The engine against `generate`, a loop without cache, and the floor.

    All run in this process on the same weights, prompt and group, in turn, so that a slow moment of
    the machine hits each alike; ratios are taken within a round and their median is reported. The
    floor is the time of the model's linear layers alone at the same batch: what a decoding step
    costs if everything else were free. A model in fp32 is also rolled out with its weights in
    bfloat16, and those rollouts are replayed in fp32. Latents per second are told of every head,
    behind groups of several sizes, beside the most that the memory's bandwidth allows. On a CPU
    with one thread, times are what this process computed, so that others at work do not count.
    """

    model: str = "smollm2-135m"
    """Model to decode with."""
    prompt: Size = 256
    """Prompt tokens."""
    new: Size = 64
    """New positions per row."""
    group: Size = 8
    """Rows per prompt."""
    groups: tuple[Size, ...] = (1, 8, 32)
    """Rows per prompt at which latents per second are told of every head."""
    gguf: Path | None = None
    """The model's weights for llama.cpp, which is measured at one row if it is installed."""
    device: str = "auto"
    """Where: auto takes a GPU if there is one, else the CPU; cpu and cuda insist."""
    rounds: Size = 5
    """Rounds; each runs everything once."""
    threads: SizeOrZero = 0
    """Torch threads; 0 leaves the default."""
    scaling: bool = True
    """Also vary group, prompt length and thought length."""


@dataclass(frozen=True)
class TrainBench:
    """One step of GRPO, ours beside TRL's, on the same model and prompts.

    A step is on-policy: rollouts, their grading, one pass forward and backward over them, one
    update by AdamW; no reference model. All take the same steps: the same questions, groups, tokens
    in every completion (exactly, whatever is written), rows in a forward pass, precision and
    threads. Each has weights of its own that were equal at first. They take turns in this process,
    so that a slow moment of the machine hits each alike; ratios are taken within a round and their
    median is reported. Where the processor's layers pack their weights in training, the first of
    ours also takes a step without. How the peer is set is told in `latentgym.cli.benches.peer_trl`.
    """

    model: str = "smollm2-135m"
    """Model to train."""
    prompts: Size = 2
    """Questions per step."""
    group: Size = 8
    """Completions per question."""
    examples: Size = 1
    """Worked examples in front of a language model's question, which make prompts longer."""
    new: Size = 64
    """Tokens of a completion, exactly."""
    micro_batch: Size = 4
    """Rows in a forward pass. Of 4, 8 and 16, TRL is fastest with 4 and this library with 8."""
    rounds: Size = 3
    """Rounds; in each, everything takes one step."""
    threads: SizeOrZero = 0
    """Torch threads; 0 leaves the default."""
    peer: Literal["trl", "none"] = "trl"
    """Measure TRL beside ours, or ours alone."""

    def validate(self) -> None:
        """Raise `UsageError` for settings that cannot work."""
        if min(self.prompts, self.rounds, self.micro_batch) < 1 or min(self.group, self.new) < 2:
            raise UsageError(
                "prompts, rounds and micro_batch must be at least 1, group and new at least 2."
            )
        rows = self.prompts * self.group
        if rows % self.micro_batch:
            raise UsageError(
                f"micro_batch = {self.micro_batch} does not divide the {rows} rows of a step."
            )
