"""A decoder-only language model as latent methods need it: vectors in, hidden states out.

`LatentLM` wraps any Hugging Face causal model whose attention can be chosen. It never computes
logits over a prompt, hidden states of inner layers, or positions by guessing: every call says its
mask, and positions follow from it.

Legend: B or N rows, T positions, V vocabulary, D width, Q prompts, G rows per prompt, P prompt
positions.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from latentgym.errors import UsageError
from latentgym.lm.attention import ATTENTION, behind
from latentgym.lm.cache import GroupedCache
from latentgym.lm.lean import LeanBlocks, is_lean
from latentgym.lm.mode import mode, recomputing, round_weights
from latentgym.lm.packed import packed, state_of
from latentgym.lm.quantized import elements
from latentgym.lm.row_cache import RowCache
from latentgym.lm.self_test import INSTEAD, self_test
from latentgym.text.tokenizers import Tokenizer

# What logits are multiplied with (Cohere), divided by (Granite) and capped at (Gemma 2).
_LOGITS = ("logit_scale", "logits_scaling", "final_logit_softcapping")
TABLE_BLOCK = 1 << 13  # rows of the embedding table that are looked at together
MOST_LOGITS = 1 << 26  # elements of fp32 logits alive at once: 256 MiB


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _in_its_precision(
    method: Callable[Concatenate[LatentLM, Arguments], Result],
) -> Callable[Concatenate[LatentLM, Arguments], Result]:
    """A method of the model under its autocast, whatever surrounds the call."""

    @functools.wraps(method)
    def run(lm: LatentLM, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with torch.autocast(lm.device.type, lm.autocast, enabled=lm.autocast is not None):
            return method(lm, *args, **kwargs)

    return run


@dataclass
class Prefill:
    """What reading the prompts gives.

    Attributes:
        cache: for N = Q * G rows.
        hidden_ND: last hidden state of each row's prompt.
        memory_QPD: all last-layer hidden states of the prompts, if they were asked for.
        memory_mask_QP: which of them are real.
    """

    cache: GroupedCache
    hidden_ND: Tensor
    memory_QPD: Tensor | None
    memory_mask_QP: Tensor


class LatentLM(nn.Module):
    """A language model that reads embeddings and tells hidden states.

    Args:
        model: a decoder-only `transformers` model with a language-model head.
        tokenizer: its tokenizer.
        name: how results name it.
        autocast: what the forward pass computes in, bfloat16, where weights are fp32 because they
            are trained; None for their own type.

    Attributes:
        architecture: name of the model's class.
        config: the configuration of what reads text.
        recomputes: whether the backward pass recomputes activations, see `checkpoint_gradients`.
        lean: whether decoding may go without the modules' own code, see `latentgym.lm.lean`.
        compiled: whether engines compile the step of decoding, see `Engine.compile`.

    Raises:
        UsageError: the model is an encoder-decoder, its attention cannot be chosen, or what it
            computes here is not what it computes by itself (`latentgym.lm.self_test`).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Tokenizer,
        name: str,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        config, any_model = model.config, cast(Any, model)  # transformers is typed in part
        self.architecture = type(model).__name__
        if config.is_encoder_decoder or any_model.get_output_embeddings() is None:
            raise UsageError(
                f"{self.architecture} is no decoder-only language model; choose a causal one."
            )
        if not getattr(model, "_supports_attention_backend", False):
            raise UsageError(
                f"{self.architecture} has no pluggable attention in transformers, which the "
                f"rollout engine needs; {INSTEAD}."
            )
        model.config._attn_implementation = ATTENTION
        self.model = model
        self.config: Any = config.get_text_config()
        self.tokenizer = tokenizer
        self.name = name
        self.autocast: torch.dtype | None = None
        self.recomputes = False
        # Whether embeddings are more than rows of the table, and logits more than products.
        self._scales = type(self._embedding).forward is not nn.Embedding.forward
        self._factor, self._divisor, self._cap = (getattr(self.config, n, None) for n in _LOGITS)
        self._norms: tuple[object, Tensor] | None = None
        self._lean: LeanBlocks | None = None  # while decoding
        self.lean = False
        self.compiled = False
        # transformers 5.24 renames the argument, architecture by architecture.
        known = inspect.signature(self.backbone.forward).parameters
        self._cache_argument = "cache" if "cache" in known else "past_key_values"
        self_test(self)  # in the precision of its weights, as it computes by itself
        self.lean = is_lean(self.backbone) and self._reads_alike()
        self.autocast = autocast

    @property
    def _causal_lm(self) -> Any:
        """The model itself, below adapters."""
        model: Any = self.model
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    @property
    def backbone(self) -> Any:
        """The transformer without its language-model head."""
        return self._causal_lm.base_model

    @property
    def lm_head(self) -> Any:
        """The language-model head."""
        return self._causal_lm.get_output_embeddings()

    @property
    def _embedding(self) -> Any:
        """The module that makes embeddings of token ids."""
        return self._causal_lm.get_input_embeddings()

    @property
    def table_VD(self) -> Tensor:
        """The input embedding table, in the scale in which the model reads it.

        Of a model that scales its embeddings (Gemma) it is a new tensor each time: take it once
        for a rollout or a pass, and not for its shape. Gradients flow to the weights.
        """
        if self._scales:
            return self.embed(torch.arange(self.vocab_size, device=self.device))
        weight: Tensor = self._embedding.weight
        return weight

    @torch.no_grad()
    def table_norms(self) -> Tensor:
        """Norms of the table's rows, fp32 (V,); computed again when the table has changed."""
        state = state_of(self._embedding.weight)
        if self._norms is None or self._norms[0] != state:
            ids_V = torch.arange(self.vocab_size, device=self.device)
            # In blocks: the table in fp32 may be gigabytes.
            blocks = torch.split(ids_V, TABLE_BLOCK)
            norms = [self.embed(ids).float().norm(dim=-1) for ids in blocks]
            self._norms = state, torch.cat(norms)
        return self._norms[1]

    @property
    def vocab_size(self) -> int:
        size: int = self._embedding.weight.shape[0]
        return size

    @property
    def logits_at_once(self) -> int:
        """How many positions' logits may be held at the same time."""
        return max(1, MOST_LOGITS // self.vocab_size)

    @property
    def hidden_size(self) -> int:
        width: int = self._embedding.weight.shape[1]
        return width

    @property
    def device(self) -> torch.device:
        device: torch.device = self._embedding.weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Of embeddings and hidden states."""
        dtype: torch.dtype = self._embedding.weight.dtype
        return dtype

    @property
    def max_positions(self) -> int | None:
        """The longest sequence the model can read, if it has a limit."""
        limit: int | None = getattr(self.config, "max_position_embeddings", None)
        return limit or None

    @staticmethod
    def elements(weight: Tensor) -> int:
        """How many numbers a weight stands for, also in 4 bits."""
        return elements(weight)

    def n_parameters(self) -> int:
        """Parameters that take part in one forward position, the embedding table counted once."""
        return sum(elements(p) for p in self.model.parameters())

    def freeze(self) -> None:
        """Train none of the weights, which need not be fp32 then: autocast's type will do."""
        self.requires_grad_(False)
        if self.autocast is not None:
            round_weights(self, self.autocast)

    def add_lora(self, r: int, alpha: int, seed: int = 0) -> None:
        """Freeze the model and train low-rank adapters of all its linear layers (extra `lora`).

        Args:
            r: rank.
            alpha: scale; updates are multiplied by alpha / r.
            seed: of their initial weights.

        Raises:
            UsageError: peft is missing, or r is not positive.
        """
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError as error:
            raise UsageError("LoRA needs peft; pip install 'latentgym[lora]'.") from error
        if r < 1:
            raise UsageError(f"the rank of LoRA must be at least 1, but is {r}.")
        config = LoraConfig(
            r=r,
            lora_alpha=alpha,
            target_modules="all-linear",
            fan_in_fan_out=self._causal_lm.config.model_type == "gpt2",  # its layers are transposed
        )
        self.freeze()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: Any = get_peft_model(self.model, config)
        self.model = model

    def checkpoint_gradients(self) -> None:
        """Recompute activations in the backward pass instead of keeping them, in either mode."""
        model: Any = self.model
        # The name since transformers 5.24, and the one before.
        names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
        enable = next(getattr(model, name) for name in names if hasattr(model, name))
        enable({"use_reentrant": False})
        self.recomputes = True

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings of token ids as the model makes them itself, (...,) to (..., D)."""
        if self._scales:
            scaled: Tensor = self._embedding(ids)
            return scaled
        # Not by the module, which keeps gradients from the id of padding: it often ends answers.
        return nn.functional.embedding(ids, self._embedding.weight)

    @_in_its_precision
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits in fp32, (..., D) to (..., V), scaled and capped as the model does it."""
        logits: Tensor = self.lm_head(hidden).float()
        if self._factor is not None:
            logits = logits * self._factor
        if self._divisor is not None:
            logits = logits / self._divisor
        if self._cap is not None:
            logits = self._cap * torch.tanh(logits / self._cap)
        return logits

    @_in_its_precision
    def hidden(self, x_BTD: Tensor, mask_BT: Tensor, cache: DynamicCache | None = None) -> Tensor:
        """Last hidden states of whole sequences in one parallel pass.

        Args:
            x_BTD: input embeddings, padded on either side.
            mask_BT: True where a position is real; with a cache, of what it holds and then of x.
            cache: what was read before, extended by x. Gradients flow through it, unlike through
                the rollout's own.

        Returns:
            (B, T, D); what stands at padded positions has no meaning.
        """
        with recomputing(self.backbone) if self.recomputes and cache is None else nullcontext():
            out = self.backbone(
                inputs_embeds=x_BTD,
                attention_mask=mask_BT.long(),
                position_ids=positions(mask_BT)[:, -x_BTD.shape[1] :],
                use_cache=cache is not None,
                **{self._cache_argument: cache},
            )
        hidden: Tensor = out.last_hidden_state
        return hidden

    @_in_its_precision
    def prefill(
        self,
        ids_QP: Tensor,
        mask_QP: Tensor,
        group_size: int = 1,
        *,
        memory: bool = False,
        given_QkD: Tensor | None = None,
    ) -> Prefill:
        """Read left-padded prompts, each once, for `group_size` rows each.

        Args:
            ids_QP: token ids.
            mask_QP: True where a position is real; the last column is all real.
            group_size: rows that continue each prompt.
            memory: keep the hidden states of all prompt positions.
            given_QkD: input embeddings that are read after each prompt, which are no part of it.
        """
        cache, x_QTD, mask_QT = DynamicCache(), self.embed(ids_QP), mask_QP
        if given_QkD is not None:
            x_QTD = torch.cat([x_QTD, given_QkD.to(x_QTD)], dim=1)
            mask_QT = nn.functional.pad(mask_QP, (0, given_QkD.shape[1]), value=True)
        hidden_QTD = self.hidden(x_QTD, mask_QT, cache)
        return Prefill(
            cache=GroupedCache(cache, mask_QT, group_size),
            hidden_ND=hidden_QTD[:, -1].repeat_interleave(group_size, dim=0),
            memory_QPD=hidden_QTD[:, : ids_QP.shape[1]] if memory else None,
            memory_mask_QP=mask_QP,
        )

    @_in_its_precision
    def extend(
        self,
        x_NnD: Tensor,
        position_Nn: Tensor,
        cache: GroupedCache | RowCache,
        mask_Nn: Tensor | None = None,
    ) -> Tensor:
        """Read n more positions per row behind a cache.

        Args:
            x_NnD: input embeddings.
            position_Nn: their positions.
            cache: of N rows; the new positions are appended to it.
            mask_Nn: True where a position is real, None for all.

        Returns:
            Last hidden states, (N, n, D).
        """
        n = x_NnD.shape[1]
        cache.extend_mask(mask_Nn, n)
        if self._lean is not None:
            read = self._lean(x_NnD, position_Nn, cache)
            cache.advance(n)
            return read
        with behind(cache):
            out = self.backbone(
                inputs_embeds=x_NnD,
                # A mask of four dimensions is passed on as it is: the grouped cache has its own.
                attention_mask=x_NnD.new_empty(1, 1, 1, 1),
                position_ids=position_Nn,
                use_cache=True,
                **{self._cache_argument: cache},
            )
        cache.advance(n)
        hidden: Tensor = out.last_hidden_state
        return hidden

    @contextmanager
    def full_precision(self) -> Iterator[None]:
        """Within it, what is computed outside the model is fp32, and its weights are cast once.

        Autocast forgets what it has cast where the outermost of its contexts ends: this one, as
        those of the model's calls lie within. All of these should want gradients, or none.
        """
        with torch.autocast(self.device.type, enabled=False):
            try:
                yield
            finally:
                torch.clear_autocast_cache()  # or a context around it would keep them

    @contextmanager
    def decoding(self, *, compiled: bool = False) -> Iterator[None]:
        """Evaluation mode, no gradients, and packed weights where they help.

        Threads that share the model take turns.

        Args:
            compiled: steps are compiled, which takes neither packed weights nor inference mode.
        """
        with _turn_of(self), mode(self, training=False), self.full_precision():
            if self.autocast is None and not compiled:
                with torch.inference_mode(), packed(self.model), self._leanly():
                    yield
            else:
                # Packed weights have one precision, and what is cast in inference mode is not kept;
                # torch's compiler tells tensors of that mode from others, and compiles for both.
                with torch.no_grad(), self._leanly():
                    yield

    def _reads_alike(self) -> bool:
        """Whether `extend` says the same with and without the modules' own code."""
        ids_NT = torch.arange(10, device=self.device).view(2, 5) % self.vocab_size
        mask_NT = torch.ones_like(ids_NT, dtype=torch.bool)
        found = []
        with self.decoding():
            for lean in (False, True):
                self.lean = lean
                with self._leanly():
                    cache = self.prefill(ids_NT[:, :3], mask_NT[:, :3]).cache
                    position_Nn = torch.arange(3, 5, device=self.device).expand(2, -1)
                    found.append(self.extend(self.embed(ids_NT[:, 3:]), position_Nn, cache).float())
        plain, leanly = found
        # NaN where a model tells none: a damaged one is refused elsewhere.
        return bool((leanly - plain).norm() <= 1e-3 * plain.norm())

    @contextmanager
    def _leanly(self) -> Iterator[None]:
        """Within it, `extend` goes without the modules' own code, where that computes the same."""
        before = self._lean
        lean = self.lean and is_lean(self.backbone)  # hooks come and go
        self._lean = LeanBlocks(self.backbone) if lean else None
        try:
            yield
        finally:
            self._lean = before


# Beside the models, as a lock can be neither copied nor pickled.
_turns: WeakKeyDictionary[LatentLM, threading.RLock] = WeakKeyDictionary()
_making = threading.Lock()


def _turn_of(lm: LatentLM) -> threading.RLock:
    """What a thread holds while a model is as decoding wants it."""
    with _making:
        return _turns.setdefault(lm, threading.RLock())


def positions(mask_BT: Tensor) -> Tensor:
    """Positions that count real tokens from 0; padded places repeat their neighbour's."""
    return (mask_BT.long().cumsum(-1) - 1).clamp_min(0)


def left_pad(
    sequences: list[list[int]], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Token ids as (Q, P) tensors, padded on the left, and the mask of what is real."""
    ids, mask = right_pad([s[::-1] for s in sequences], pad_id, device)
    return ids.flip(1), mask.flip(1)


def right_pad(
    sequences: list[list[int]], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """As `left_pad`, but padded on the right; a sequence may be empty."""
    width = max(map(len, sequences))
    rows = [s + [pad_id] * (width - len(s)) for s in sequences]
    ids = torch.tensor(rows, dtype=torch.long, device=device)
    lengths = torch.tensor([len(s) for s in sequences], device=device)
    return ids, torch.arange(width, device=device) < lengths[:, None]
