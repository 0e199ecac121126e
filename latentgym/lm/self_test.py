"""Does a model compute the same here as by itself?

The library takes for granted that embeddings are all that a model makes of token ids, that logits
are its head's on the last hidden state, that padding changes nothing, and that reading step by step
behind a cache is reading in one pass. For some architectures one of these is untrue, and nothing
would fail: numbers would only be wrong. So every model reads a few tokens when it is loaded, by
itself (its own forward pass and attention, from ids) and in our ways, and is refused where they
differ.

Differences count in units of what another prompt changes, as low precision makes much of rounding.
Fresh weights make little of a prompt, and have parts that do nothing until they are trained: a
small model is tested as a copy in fp32, with random numbers added to all its weights.

Legend: B rows, T positions, P positions of the longer prompts, V vocabulary, D width.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

import latentgym
from latentgym.errors import UsageError
from latentgym.lm.cache import GroupedCache
from latentgym.storage import atomic_write, cache_folder

if TYPE_CHECKING:
    from latentgym.lm.model import LatentLM

INSTEAD = "choose a model such as Llama, Qwen, Gemma, Mistral or GPT-2"
_LONG, _SHORT, _OWN = 6, 3, 3  # tokens of prompts, and of what stands behind them
_WINDOW = 4  # less than a prompt, so that windows take part
_WINDOWS = ("sliding_window", "attention_chunk_size")
_SMALL = 50_000_000  # parameters that are copied
# The largest difference, as a share of what another prompt changes; losing the prompt is about 1.
_MOST = {torch.float16: 0.1, torch.bfloat16: 0.5}
_MOST_ELSE = 0.01
_ROUNDING = 1e-6  # of the logits themselves, which a model without context has alone


def self_test(lm: LatentLM) -> None:
    """Refuse a model that computes something else here than by itself.

    What passed is remembered in the cache folder, by architecture, configuration and versions.

    Raises:
        UsageError: it does; the sentence says in what.
    """
    identity = _identity(lm)
    passed = cache_folder() / "self-tests" / sha256(identity.encode()).hexdigest()[:32]
    if passed.is_file():
        return
    problem = _problem(_stirred(lm) if lm.n_parameters() <= _SMALL else lm)
    if problem is not None:
        raise UsageError(
            f"{lm.architecture} cannot be used here: {problem}; {INSTEAD} "
            "(docs/models.md has a list)."
        )
    with suppress(OSError):  # without a cache the next one only takes the test again
        passed.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(passed) as path:
            path.write_text(identity)


def _identity(lm: LatentLM) -> str:
    """All that the outcome depends on."""
    kind = type(lm.model)
    return json.dumps(
        {
            "architecture": f"{kind.__module__}.{kind.__qualname__}",
            "model": lm.name,
            "config": lm.model.config.to_dict(),
            "dtype": str(lm.dtype),
            "device": lm.device.type,
            "latentgym": [latentgym.__version__, _sources()],
            "torch": torch.__version__,
            "transformers": metadata.version("transformers"),
        },
        sort_keys=True,
        default=str,
    )


@cache
def _sources() -> str:
    """A fingerprint of this package's code, which may change without its version."""
    digest = sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _stirred(lm: LatentLM) -> LatentLM:
    """A copy in fp32 no part of which does nothing."""
    other = copy.deepcopy(lm, {id(lm.tokenizer): lm.tokenizer}).float()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in other.parameters():
            if not weight.is_floating_point():
                continue  # in 4 bits
            size = weight.shape[-1] ** -0.5 if weight.dim() > 1 else 0.1
            weight.add_(torch.randn(weight.shape, generator=generator).to(weight), alpha=size)
    return other


def _problem(lm: LatentLM) -> str | None:
    """What is wrong with a model; None if nothing is."""
    try:
        with lm.decoding():
            with _narrowed(lm.model):
                problem = _Trial(lm).problem()
            if problem == _CACHE and _Trial(lm).problem() is None:
                problem = "its sliding window is not known to its attention"
            return problem
    except Exception as error:  # whatever code of any architecture does when it meets ours
        lines = str(error).strip().splitlines() or [""]
        return f"reading a few tokens fails ({type(error).__name__}: {lines[0][:200]})"


_FINITE = "its logits are not finite, so its weights are damaged"
_OVERWRITTEN = "it overwrites the embeddings that it reads"
_EMBEDDING = "it makes more of token ids than their embeddings, which is all that a latent has"
_LOGITS = "its logits are not its language-model head's on the last hidden state"
_AHEAD = "it sees what stands after a position, as no causal language model does"
_ATTENTION = "its attention is not the one that the engine computes"
_PADDING = "padding changes what it computes"
_CACHE = "reading step by step with a cache is not reading in one pass"


class _Trial:
    """A model and three rows of ids: two with other prompts before the same end, one shorter."""

    def __init__(self, lm: LatentLM) -> None:
        self.lm = lm
        pad = lm.tokenizer.pad_id
        known = torch.tensor([i for i in range(lm.vocab_size) if i != pad] or [0])
        generator = torch.Generator().manual_seed(0)
        at = torch.randint(len(known), (_LONG + _OWN,), generator=generator)
        other = torch.cat([at[:_LONG] + 1, at[_LONG:]])
        rows = [known[row % len(known)] for row in (at, other, at[_LONG - _SHORT :])]
        self.rows = [row.to(lm.device) for row in rows]
        alike = self._by_itself(input_ids=torch.stack(self.rows[:2]))  # no padding among them
        self.plain = [*alike, self._by_itself(input_ids=self.rows[2][None])[0]]
        one, another = (logits_TV[_LONG:] for logits_TV in self.plain[:2])
        most = _MOST.get(lm.dtype, _MOST_ELSE) * (one - another).norm()
        self.bound = float(most + _ROUNDING * self.plain[0].norm())
        self.overwritten = False

    def problem(self) -> str | None:
        """The first thing that differs, None if nothing does."""
        if not all(bool(logits_TV.isfinite().all()) for logits_TV in self.plain):
            return _FINITE
        same = self.padded() and self.stepwise()
        if self.overwritten:
            return _OVERWRITTEN
        if same:
            return None
        causes: dict[str, Callable[[], bool]] = {
            _EMBEDDING: self.embeddings,
            _LOGITS: self.head,
            _AHEAD: self.causal,
            _ATTENTION: self.attention,
            _PADDING: self.padded,
        }
        return next((what for what, holds in causes.items() if not holds()), _CACHE)

    def embeddings(self) -> bool:
        return self._same(0, self._by_itself(inputs_embeds=self.lm.embed(self.rows[0][None]))[0])

    def head(self) -> bool:
        ids_BT = self.rows[0][None]
        with _own_attention(self.lm.model):
            out = self.lm.backbone(
                input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), use_cache=False
            )
        return self._same(0, _centred(self.lm.logits(out.last_hidden_state))[0])

    def causal(self) -> bool:
        return self._same(0, self._by_itself(input_ids=self.rows[0][None, :_LONG])[0], stop=_LONG)

    def attention(self) -> bool:
        row_BT = self.rows[0][None]
        return self._same(0, self._read(row_BT, torch.ones_like(row_BT, dtype=torch.bool))[0])

    def padded(self) -> bool:
        """In one pass: a row that is padded on the left, one on the right and one on both sides."""
        width = _LONG + _OWN + 2
        places = [range(2, width), range(width - 2), range(2, 2 + _SHORT + _OWN)]
        ids_BT = self.rows[0].new_full((3, width), self.lm.tokenizer.pad_id)
        mask_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
        for row, place in enumerate(places):
            ids_BT[row, place], mask_BT[row, place] = self.rows[row], True
        logits_BTV = self._read(ids_BT, mask_BT)
        return all(self._same(row, logits_BTV[row, place]) for row, place in enumerate(places))

    def stepwise(self) -> bool:
        """Two rows behind each of two prompts, in two steps; and each prompt read on at once."""
        lm, pair = self.lm, (self.rows[0], self.rows[2])
        ids_BT = torch.stack([row[len(row) - _SHORT - _OWN :] for row in pair])
        left = torch.stack([pair[0][: _LONG - _SHORT], torch.zeros_like(pair[1][:_SHORT])])
        ids_BT = torch.cat([left, ids_BT], dim=1)
        mask_BT = torch.ones_like(ids_BT, dtype=torch.bool)
        mask_BT[1, : _LONG - _SHORT] = False
        cache = DynamicCache()
        behind = self._read(ids_BT[:, :_LONG], mask_BT[:, :_LONG], cache)[:, -1]
        grouped = GroupedCache(cache, mask_BT[:, :_LONG], 2)
        x_NTD = lm.embed(ids_BT[:, _LONG:]).repeat_interleave(2, dim=0)
        first = torch.tensor([_LONG, _SHORT], device=lm.device).repeat_interleave(2)[:, None]
        steps = [
            lm.extend(x_NTD[:, t : t + n], first + t + torch.arange(n, device=lm.device), grouped)
            for t, n in ((0, 1), (1, _OWN - 1))
        ]
        logits_NTV = _centred(lm.logits(torch.cat(steps, dim=1)))
        at_once = self._read(ids_BT[:, _LONG:], mask_BT, cache)
        return all(
            self._same(row, torch.cat([behind[i : i + 1], own]), start=-_OWN - 1)
            for i, row in enumerate((0, 2))
            for own in (logits_NTV[2 * i], logits_NTV[2 * i + 1], at_once[i])
        )

    def _by_itself(self, **inputs: Tensor) -> Tensor:
        """Logits as transformers alone computes them, (B, T, V)."""
        (given,) = inputs.values()
        mask_BT = torch.ones(given.shape[:2], dtype=torch.long, device=given.device)
        with _own_attention(self.lm.model):
            out = self.lm.model(attention_mask=mask_BT, use_cache=False, **inputs)
        return _centred(out.logits)

    def _read(self, ids_BT: Tensor, mask_BT: Tensor, cache: DynamicCache | None = None) -> Tensor:
        """Logits as the library computes them."""
        x_BTD = self.lm.embed(ids_BT)
        hidden_BTD = self.lm.hidden(x_BTD, mask_BT, cache)
        self.overwritten |= not torch.equal(x_BTD, self.lm.embed(ids_BT))
        return _centred(self.lm.logits(hidden_BTD))

    def _same(
        self, row: int, found_TV: Tensor, start: int | None = None, stop: int | None = None
    ) -> bool:
        difference = found_TV - self.plain[row][start:stop]
        return bool(difference.norm() <= self.bound)  # False for NaN


def _centred(logits: Tensor) -> Tensor:
    """Logits in fp32 without what all tokens have in common, which no probability depends on."""
    logits = logits.float()
    return logits - logits.mean(-1, keepdim=True)


@contextmanager
def _own_attention(model: Any) -> Iterator[None]:
    """Within it, a model computes attention as its authors wrote it."""
    ours = model.config._attn_implementation
    model.config._attn_implementation = "eager"
    try:
        yield
    finally:
        model.config._attn_implementation = ours


@contextmanager
def _narrowed(model: Any) -> Iterator[None]:
    """Within it, sliding windows are so short that a few tokens exceed them."""
    holders = {id(h): h for m in model.modules() for h in (m, getattr(m, "config", m))}
    found = [(h, name, getattr(h, name, None)) for h in holders.values() for name in _WINDOWS]
    wide = [(h, name, value) for h, name, value in found if type(value) is int and value > _WINDOW]
    for holder, name, _ in wide:
        setattr(holder, name, _WINDOW)
    try:
        yield
    finally:
        for holder, name, value in wide:
            setattr(holder, name, value)
