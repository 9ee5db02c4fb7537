"""The config of a Transformer, and what all configs share: checks, before the model is built."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import minitensor as mt
from minitensor import Tensor, nn
from minitensor.files import parse_json, shown
from minitensor.serialize import CheckpointError

# The norms, and the vectors (E,) in the state of each.
NORMS = {
    "layer": ("weight", "bias"),
    "rms": ("weight",),
    "batch": ("weight", "bias", "running_mean", "running_var"),
}
POSITIONS = ("sinusoidal", "learned", "rotary", "none")
TRAINING = "training."  # begins the names of tensors in a checkpoint that are not the model's
STEPS = "num_batches_tracked"  # of a batch norm, the only integer of a state


class Config:
    """The base of the frozen dataclasses that give the shapes of models."""

    def _check_integer(self, name: str, least: int, limit: int) -> None:
        """Make a field a Python integer from `least` to below `limit`; ValueError if it is none."""
        value = getattr(self, name)
        try:
            number = least - 1 if isinstance(value, bool) else operator.index(value)
        except TypeError:
            number = least - 1
        if not least <= number < limit:
            raise ValueError(
                f"{name} must be an integer of at least {least} and below {limit}, "
                f"not {shown(value)}"
            )
        object.__setattr__(self, name, number)  # NumPy's integers have no JSON

    def _check_choice(self, name: str, choices: tuple[Any, ...]) -> None:
        """Raise ValueError unless a field is one of these values, all of one type."""
        value = getattr(self, name)
        if type(value) is not type(choices[0]) or value not in choices:
            wanted = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
            raise ValueError(f"{name} must be {wanted}, not {shown(value)}")

    def _check_share(self, name: str) -> None:
        """Raise ValueError unless a field is a number from 0 to 1."""
        value = getattr(self, name)
        if type(value) not in (int, float) or not 0 <= value <= 1:
            raise ValueError(f"{name} must be a number from 0 to 1, not {shown(value)}")


@dataclass(frozen=True)
class TransformerConfig(Config):
    """The shape of a model. The defaults are the base model of the paper.

    Raises ValueError, naming the field, for a type or a value that no model can have.
    """

    src_vocab_size: int
    tgt_vocab_size: int
    d_model: int = 512
    nhead: int = 8
    num_encoder_layers: int = 6
    num_decoder_layers: int = 6
    dim_feedforward: int = 2048
    dropout: float = 0.1
    activation: str = "relu"  # or "gelu"
    norm: str = "layer"  # or "rms", "batch"
    norm_first: bool = False  # normalise the input of a sub-layer, not the sum after it
    positions: str = "sinusoidal"  # or "learned", "rotary" (of q and k in self-attention), "none"
    max_length: int = 512  # of a sequence, where positions are learned
    tied_output: bool = False  # the output projection is the target embedding
    pad_id: int = 0
    bos_id: int = 1  # begins every target
    eos_id: int = 2  # ends every target

    def __post_init__(self) -> None:
        for name in "src_vocab_size", "tgt_vocab_size", "d_model", "nhead", "dim_feedforward":
            self._check_integer(name, 1, 2**31)
        self._check_integer("num_encoder_layers", 0, 2**31)
        self._check_integer("num_decoder_layers", 0, 2**31)
        self._check_integer("max_length", 1, 2**31)
        self._check_integer("pad_id", 0, min(self.src_vocab_size, self.tgt_vocab_size))
        self._check_integer("bos_id", 0, self.tgt_vocab_size)
        self._check_integer("eos_id", 0, self.tgt_vocab_size)
        self._check_choice("activation", ("relu", "gelu"))
        self._check_choice("norm", tuple(NORMS))
        self._check_choice("norm_first", (False, True))
        self._check_choice("positions", POSITIONS)
        self._check_choice("tied_output", (False, True))
        self._check_share("dropout")
        if self.d_model % self.nhead:
            raise ValueError(
                "the width of the model must be divisible by the number of heads: "
                f"d_model={self.d_model}, nhead={self.nhead}"
            )
        if self.positions == "rotary" and self.d_model // self.nhead % 2:
            raise ValueError(
                "rotary positions need heads of even width, not "
                f"{self.d_model // self.nhead}: d_model={self.d_model}, nhead={self.nhead}"
            )

    @property
    def position_limit(self) -> int | None:
        """The greatest length of a sequence; None if there is none."""
        return self.max_length if self.positions == "learned" else None


def read_config(path: str | Path, header: dict[str, str]) -> TransformerConfig:
    """Read the config in the header of a checkpoint; CheckpointError if it is missing or wrong."""
    try:
        if "config" not in header:
            raise ValueError("there is none")
        return config_from_json(header["config"], TransformerConfig)
    except ValueError as error:
        raise CheckpointError(
            f"{path} is not a checkpoint of this model: its config: {error}"
        ) from error


C = TypeVar("C")


def config_from_json(text: str, kind: type[C]) -> C:
    """Parse a config, of class `kind`, that a checkpoint keeps as JSON; ValueError if wrong."""
    values = parse_json(text)
    if not isinstance(values, dict):
        raise ValueError(f"it is {shown(values)}")
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for name in sorted(set(values) - set(known)):
        raise ValueError(f"unknown setting {shown(name)}")
    for name, field in known.items():
        if name not in values and field.default is MISSING:
            raise ValueError(f"{name} is missing")
    return kind(**values)


def parameter_shapes(
    config: TransformerConfig, encoder: bool = True, decoder: bool = True
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the names and shapes of a model's state, in any order, without building the model.

    `encoder` and `decoder` are False if custom modules take their places.
    """
    E, F = config.d_model, config.dim_feedforward
    for side, vocabulary in ("src", config.src_vocab_size), ("tgt", config.tgt_vocab_size):
        yield f"{side}_embedding.weight", (vocabulary, E)
        if config.positions == "learned":
            yield f"{side}_positions.weight", (config.max_length, E)
    yield "output.weight", (config.tgt_vocab_size, E)
    yield "output.bias", (config.tgt_vocab_size,)
    stacks = (
        ("encoder", encoder, config.num_encoder_layers, ("self_attn",)),
        ("decoder", decoder, config.num_decoder_layers, ("self_attn", "multihead_attn")),
    )
    for stack, own, layers, attentions in stacks:
        for layer in (f"{stack}.layers.{number}" for number in range(layers if own else 0)):
            for attention in attentions:
                yield f"{layer}.{attention}.in_proj_weight", (3 * E, E)
                yield f"{layer}.{attention}.in_proj_bias", (3 * E,)
                yield f"{layer}.{attention}.out_proj.weight", (E, E)
                yield f"{layer}.{attention}.out_proj.bias", (E,)
            yield f"{layer}.linear1.weight", (F, E)
            yield f"{layer}.linear1.bias", (F,)
            yield f"{layer}.linear2.weight", (E, F)
            yield f"{layer}.linear2.bias", (E,)
            for number in range(1, len(attentions) + 2):
                yield from norm_shapes(f"{layer}.norm{number}", config)
        if own:
            yield from norm_shapes(f"{stack}.norm", config)


def norm_shapes(path: str, config: TransformerConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the names and shapes of the state of the norm at `path`."""
    for name in NORMS[config.norm]:
        yield f"{path}.{name}", (config.d_model,)
    if config.norm == "batch":
        yield f"{path}.{STEPS}", ()


def weights_of(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a file that are a model's, not the state of its training."""
    return {key: t for key, t in tensors.items() if not key.startswith(TRAINING)}


def check_state(
    path: str | Path,
    config: TransformerConfig,
    state: dict[str, Tensor],
    encoder: nn.Module | None = None,
    decoder: nn.Module | None = None,
) -> None:
    """Raise CheckpointError unless `state`, read from `path`, fits a model of this config.

    Call it before the model is made: a config of a few bytes can ask for any amount of memory.
    """
    custom = [f"{n}." for n, m in (("encoder", encoder), ("decoder", decoder)) if m is not None]
    shapes = parameter_shapes(config, encoder is None, decoder is None)
    check_shapes(path, shapes, state, tuple(custom))
    if config.tied_output:
        output, embedding = state["output.weight"], state["tgt_embedding.weight"]
        if output is not embedding and not mt.equal(output, embedding):
            raise CheckpointError(
                f"{path} does not hold the weights of this model: its config says tied_output, "
                "but output.weight is not tgt_embedding.weight"
            )


def check_shapes(
    path: str | Path,
    shapes: Iterable[tuple[str, tuple[int, ...]]],
    state: dict[str, Tensor],
    custom: tuple[str, ...] = (),
) -> None:
    """Raise CheckpointError unless `state` has tensors of these names and shapes, and no others.

    Names that begin with one of `custom` may be there, too.
    """
    reason, known = "", set()
    for name, shape in shapes:
        known.add(name)
        if name not in state:
            reason = f"{name} is missing"
        elif state[name].shape != shape:
            reason = f"{name} has the shape {shown(tuple(state[name].shape))}, expected {shape}"
        elif name.endswith(STEPS):
            if state[name].dtype != mt.int64:
                reason = f"{name} is of type {state[name].dtype}, expected int64"
        elif not state[name].is_floating_point():
            reason = f"{name} is of type {state[name].dtype}, expected floating point"
        if reason:
            break
    foreign = (name for name in state if name not in known and not name.startswith(custom))
    reason = reason or next((f"it has the unexpected tensor {shown(name)}" for name in foreign), "")
    if reason:
        raise CheckpointError(f"{path} does not hold the weights of this model: {reason}")


def load_state(path: str | Path, model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load `state`, which was read from `path`; CheckpointError if it is another model's."""
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[:2][-1].strip()
        first = first if len(first) <= 200 else f"{first[:197]}..."
        raise CheckpointError(f"{path} does not hold the weights of this model: {first}") from error
