"""The config of a GPT, and folders of weights as Hugging Face keeps those of GPT-2 and LLaMA.

A folder holds `config.json`, `model.safetensors` (or an index of several such files) and
`tokenizer.json`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import minitensor as mt
from minitensor import Tensor
from minitensor.files import parse_json, shown
from minitensor.serialize import CheckpointError, find_weights, load_file

from .command import InputError
from .config import Config
from .text import tokenizer_from_json

VARIANTS = ("gpt2", "llama")


@dataclass(frozen=True)
class GPTConfig(Config):
    """The shape of a model. The defaults are the smallest GPT-2.

    Raises ValueError, naming the field, for a type or a value that no model can have.
    """

    vocab_size: int = 50257
    context_length: int = 1024  # the most tokens that a position can look back on, itself included
    embed_dim: int = 768
    num_layers: int = 12
    num_heads: int = 12
    num_kv_heads: int = 0  # heads of keys and values; 0 stands for num_heads
    hidden_dim: int = 0  # of the feed-forward networks; 0 stands for 4 E, or 8/3 E in llama
    dropout: float = 0.1
    variant: str = "gpt2"  # learned positions, LayerNorm, GELU; "llama": rotary, RMSNorm, SwiGLU
    tied_output: bool = True  # the output projection is the token embedding
    norm_eps: float = 1e-5
    rotary_base: float = 10000.0

    def __post_init__(self) -> None:
        self._check_choice("variant", VARIANTS)
        for name in ("vocab_size", "context_length", "embed_dim", "num_heads"):
            self._check_integer(name, 1, 2**31)
        self._check_integer("num_layers", 0, 2**31)
        for name in ("num_kv_heads", "hidden_dim"):
            self._check_integer(name, 0, 2**31)
        width = 4 * self.embed_dim if self.variant == "gpt2" else 8 * self.embed_dim // 3
        object.__setattr__(self, "num_kv_heads", self.num_kv_heads or self.num_heads)
        object.__setattr__(self, "hidden_dim", self.hidden_dim or width)
        self._check_choice("tied_output", (False, True))
        self._check_share("dropout")
        self._check_share("norm_eps")
        base = self.rotary_base
        if type(base) not in (int, float) or not 0 <= base < math.inf:
            raise ValueError(f"rotary_base must be a number of at least 0, not {shown(base)}")
        if self.embed_dim % self.num_heads:
            raise ValueError(
                "the width of the model must be divisible by the number of heads: "
                f"embed_dim={self.embed_dim}, num_heads={self.num_heads}"
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                "the number of heads must be divisible by that of keys and values: "
                f"num_heads={self.num_heads}, num_kv_heads={self.num_kv_heads}"
            )
        if self.variant == "llama" and self.head_size % 2:
            raise ValueError(
                "rotary positions need heads of even width: "
                f"embed_dim={self.embed_dim} / num_heads={self.num_heads} is {self.head_size}"
            )

    @property
    def head_size(self) -> int:
        """The width of a head."""
        return self.embed_dim // self.num_heads


def parameter_shapes(config: GPTConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the names and shapes of a model's state without building the model."""
    E, F, plain = config.embed_dim, config.hidden_dim, config.variant == "gpt2"
    heads = config.num_heads + 2 * config.num_kv_heads

    def layer(name: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", shape
        if plain:
            yield f"{name}.bias", shape[:1]

    yield "token_embedding.weight", (config.vocab_size, E)
    if plain:
        yield "position_embedding.weight", (config.context_length, E)
    for block in (f"blocks.{number}" for number in range(config.num_layers)):
        yield from layer(f"{block}.norm1", E)
        yield from layer(f"{block}.attention.qkv", heads * config.head_size, E)
        yield from layer(f"{block}.attention.out", E, E)
        yield from layer(f"{block}.norm2", E)
        if not plain:
            yield from layer(f"{block}.feed_forward.gate", F, E)
        yield from layer(f"{block}.feed_forward.up", F, E)
        yield from layer(f"{block}.feed_forward.down", E, F)
    yield from layer("norm", E)
    yield "output.weight", (config.vocab_size, E)


def check_state(path: str | Path, config: GPTConfig, state: dict[str, Tensor]) -> None:
    """Raise CheckpointError unless `state`, read from `path`, fits a model of this config.

    Call it before the model is made: a config of a few bytes can ask for any amount of memory.
    """
    reason, known = "", set()
    for name, shape in parameter_shapes(config):
        known.add(name)
        if name not in state:
            reason = f"{name} is missing"
        elif state[name].shape != shape:
            reason = f"{name} has the shape {shown(tuple(state[name].shape))}, expected {shape}"
        elif not state[name].is_floating_point():
            reason = f"{name} is of type {state[name].dtype}, expected floating point"
        if reason:
            break
    reason = reason or next(
        (f"it has the unexpected tensor {shown(name)}" for name in state if name not in known), ""
    )
    if not reason and config.tied_output:
        output, embedding = state["output.weight"], state["token_embedding.weight"]
        if output is not embedding and not mt.equal(output, embedding):
            reason = "its config ties the output to the token embedding, but they differ"
    if reason:
        raise CheckpointError(f"{path} does not hold the weights of this model: {reason}")


# Folders


# For each kind of model: the settings of its config.json and the fields they are; the parts of the
# names of its tensors and the parts they are here.
SETTINGS = {
    "gpt2": {
        "vocab_size": "vocab_size",
        "n_positions": "context_length",
        "n_embd": "embed_dim",
        "n_layer": "num_layers",
        "n_head": "num_heads",
        "n_inner": "hidden_dim",
        "resid_pdrop": "dropout",
        "layer_norm_epsilon": "norm_eps",
        "tie_word_embeddings": "tied_output",
    },
    "llama": {
        "vocab_size": "vocab_size",
        "max_position_embeddings": "context_length",
        "hidden_size": "embed_dim",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "num_key_value_heads": "num_kv_heads",
        "intermediate_size": "hidden_dim",
        "rms_norm_eps": "norm_eps",
        "rope_theta": "rotary_base",
        "tie_word_embeddings": "tied_output",
    },
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "llama": {"tied_output": False, "norm_eps": 1e-6, "dropout": 0.0},
}
# Settings that would make it another model than the one here, and the values they may have.
FIXED: dict[str, dict[str, tuple[Any, ...]]] = {
    "gpt2": {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    },
    "llama": {
        "hidden_act": ("silu",),
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "rope_scaling": (None,),
    },
}
NAMES = {
    "gpt2": {
        "wte": "token_embedding",
        "wpe": "position_embedding",
        "h": "blocks",
        "ln_1": "norm1",
        "attn.c_attn": "attention.qkv",
        "attn.c_proj": "attention.out",
        "ln_2": "norm2",
        "mlp.c_fc": "feed_forward.up",
        "mlp.c_proj": "feed_forward.down",
        "ln_f": "norm",
        "lm_head": "output",
    },
    "llama": {
        "embed_tokens": "token_embedding",
        "layers": "blocks",
        "input_layernorm": "norm1",
        "self_attn.o_proj": "attention.out",
        "self_attn": "attention",
        "post_attention_layernorm": "norm2",
        "mlp.gate_proj": "feed_forward.gate",
        "mlp.up_proj": "feed_forward.up",
        "mlp.down_proj": "feed_forward.down",
        "lm_head": "output",
    },
}
PREFIX = {"gpt2": "transformer.", "llama": "model."}
# Not weights: the masks that old files of GPT-2 hold, the frequencies that old files of LLaMA hold.
IGNORED = re.compile(r"\.attn\.(masked_)?bias$|\.rotary_emb\.inv_freq$")


def read_folder(path: str | Path) -> tuple[GPTConfig, dict[str, Tensor]]:
    """Read a folder: the config, and the weights by their names here.

    InputError for a missing file, CheckpointError, naming the file, for one that is damaged or of
    another model.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder} has no config.json: a model's folder holds config.json, model.safetensors "
            "(or several such files and their index) and tokenizer.json"
        )
    file = find_weights(folder)
    try:
        config = config_from_folder((folder / "config.json").read_bytes())
    except ValueError as error:
        raise CheckpointError(
            f"{folder / 'config.json'} is not the config of a GPT-2 or a LLaMA: {error}"
        ) from error
    state = rename(config, load_file(file)[0])
    check_state(file, config, state)
    return config, state


def config_from_folder(text: str | bytes) -> GPTConfig:
    """Parse a config.json; ValueError if it is not that of a GPT-2 or a LLaMA as here."""
    values = parse_json(text)
    if not isinstance(values, dict):
        raise ValueError(f"it is {shown(values)}")
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in VARIANTS:
        raise ValueError(f"model_type is {shown(kind)}, expected 'gpt2' or 'llama'")
    rotary: Any = values.get("rope_parameters") or {}  # new files keep it apart
    if not isinstance(rotary, dict) or rotary.get("rope_type", "default") != "default":
        raise ValueError(f"rope_parameters is {shown(rotary)}, only the default type is supported")
    if "rope_theta" in rotary:
        values = {**values, "rope_theta": rotary["rope_theta"]}
    for name, allowed in FIXED[kind].items():
        value = values.get(name, allowed[0])
        if not any(value is a or (isinstance(value, str) and value == a) for a in allowed):
            wanted = " or ".join(map(repr, allowed))
            raise ValueError(f"{name} is {shown(value)}, only {wanted} is supported")
    settings = {
        field: values[name]
        for name, field in SETTINGS[kind].items()
        if values.get(name) is not None
    }
    config = GPTConfig(**{"variant": kind, **DEFAULTS[kind], **settings})
    if values.get("head_dim") not in (None, config.head_size):
        raise ValueError(
            f"head_dim is {shown(values['head_dim'])}, expected the width over the heads, "
            f"{config.head_size}"
        )
    return config


def rename(config: GPTConfig, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a folder by the names, and in the layouts, that they have here.

    The matrices of GPT-2 are transposed (it computes x w, not x wᵀ); LLaMA's projections to q, k
    and v become one.
    """
    kind, state = config.variant, {}
    for name, weight in weights.items():
        if IGNORED.search(name):
            continue
        if kind == "gpt2" and re.search(r"\.c_\w+\.weight$", name) and weight.dim() == 2:
            weight = weight.t()
        name = f".{name.removeprefix(PREFIX[kind])}"
        for theirs, ours in NAMES[kind].items():
            name = name.replace(f".{theirs}.", f".{ours}.")
        state[name[1:]] = weight
    for block in (f"blocks.{number}.attention" for number in range(config.num_layers)):
        parts = [f"{block}.{part}_proj.weight" for part in "qkv"]
        if all(part in state and state[part].shape[1:] == (config.embed_dim,) for part in parts):
            state[f"{block}.qkv.weight"] = mt.cat([state.pop(part) for part in parts])
    if config.tied_output and "token_embedding.weight" in state:
        state.setdefault("output.weight", state["token_embedding.weight"])
    return state


class Tokenizer:
    """Text to numbers and back by a `tokenizer.json`; InputError if it is missing or damaged.

    `ends` are the tokens that end a text, by config.json.
    """

    def __init__(self, folder: str | Path) -> None:
        file = Path(folder) / "tokenizer.json"
        if not file.is_file():
            raise InputError(f"{folder} has no tokenizer.json")
        try:
            self.tokenizer = tokenizer_from_json(file.read_text("utf-8"))
        except ValueError as error:
            raise InputError(f"{file}: {error}") from error
        self.file = file
        ends = parse_json((Path(folder) / "config.json").read_bytes()).get("eos_token_id")
        self.ends = [e for e in (ends if isinstance(ends, list) else [ends]) if type(e) is int]

    def encode_text(self, text: str) -> list[int]:
        """Return the tokens of a text; InputError for a character that the tokenizer lacks."""
        found = self.tokenizer.encode(text)
        unknown = getattr(self.tokenizer.model, "unk_token", None)
        if unknown in found.tokens:
            start, end = found.offsets[found.tokens.index(unknown)]
            raise InputError(f"{shown(text[start:end])} is not in the vocabulary of {self.file}")
        return list(found.ids)

    def decode_text(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, without special ones."""
        return str(self.tokenizer.decode(list(tokens)))
