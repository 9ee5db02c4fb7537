"""The checkpoints of a translation run: weights, config, vocabularies, settings, and progress."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from minitensor import Tensor
from minitensor.serialize import CheckpointError, load_file

from .command import InputError
from .config import TransformerConfig, check_state, load_state, read_config
from .pairs import digest, encode_pairs, fits, load_pairs
from .run_files import progress_from_json
from .settings import Settings, settings_from_json
from .text import (
    Pair,
    Vocabulary,
    vocabulary_from_json,
)
from .transformer import Transformer

TRAINING = "training."  # begins the names of tensors in a checkpoint that are not the model's


@dataclass
class Position:
    """The progress of a run."""

    epoch: int = 0  # epochs finished
    batch: int = 0  # batches done of the current epoch
    step: int = 0  # batches done in all
    loss_sum: float = 0.0  # over the tokens of the current epoch
    tokens: int = 0  # of the current epoch
    best_loss: float = math.inf


@dataclass
class Checkpoint:
    """The content of a checkpoint file; `training` is empty except in the last checkpoint."""

    path: Path
    config: TransformerConfig
    weights: dict[str, Tensor]
    vocabularies: tuple[Vocabulary, Vocabulary]
    settings: Settings
    training: dict[str, Tensor] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)

    def model(self) -> Transformer:
        """Build the model with these weights, in evaluation mode."""
        model = Transformer(self.config)
        load_state(self.path, model, self.weights)
        return model.eval()


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of a run; CheckpointError, naming the file, if it is anything else."""
    tensors, header = load_file(path)
    config = read_config(path, header)
    vocabularies, settings, progress = read_header(path, header)
    sizes = (config.src_vocab_size, config.tgt_vocab_size)
    for name, vocabulary, size in zip(("source", "target"), vocabularies, sizes, strict=True):
        if len(vocabulary) != size:
            raise CheckpointError(
                f"{path}: the {name} vocabulary does not match the model: it has {len(vocabulary)} "
                f"tokens, the model {size}"
            )
    weights = {k: t for k, t in tensors.items() if not k.startswith(TRAINING)}
    check_state(path, config, weights)
    check_settings(path, config, settings)
    training = {k.removeprefix(TRAINING): t for k, t in tensors.items() if k not in weights}
    return Checkpoint(Path(path), config, weights, vocabularies, settings, training, progress)


def read_header(
    path: str | Path, header: dict[str, str]
) -> tuple[tuple[Vocabulary, Vocabulary], Settings, dict[str, Any]]:
    """Read the header of a run's checkpoint, except the config; CheckpointError if it is wrong."""
    readers: dict[str, Callable[[str], Any]] = {
        "source_vocabulary": vocabulary_from_json,
        "target_vocabulary": vocabulary_from_json,
        "settings": settings_from_json,
        "progress": lambda text: progress_from_json(text, asdict(Position())),
    }
    found = {}
    for name, read in readers.items():
        try:
            if name not in header:
                raise ValueError("there is none")
            found[name] = read(header[name])
        except ValueError as error:
            raise CheckpointError(
                f"{path} is not a checkpoint of a translation run: {name}: {error}"
            ) from error
    source, target, settings, progress = found.values()
    return (source, target), settings, progress


def model_config(settings: Settings, source_size: int, target_size: int) -> TransformerConfig:
    """Return the config of the model that the settings ask for, with these vocabulary sizes."""
    return TransformerConfig(
        src_vocab_size=source_size,
        tgt_vocab_size=target_size,
        d_model=settings.d_model,
        nhead=settings.nhead,
        num_encoder_layers=settings.encoder_layers,
        num_decoder_layers=settings.decoder_layers,
        dim_feedforward=settings.dim_feedforward,
        dropout=settings.dropout,
        activation=settings.activation,
        norm_first=settings.norm == "pre",
        positions=settings.positions,
        max_length=settings.max_length,
        tied_output=settings.output == "tied",
    )


def check_settings(path: str | Path, config: TransformerConfig, settings: Settings) -> None:
    """Raise CheckpointError unless the settings in a checkpoint are those of its model."""
    wanted = model_config(settings, config.src_vocab_size, config.tgt_vocab_size)
    for name, value in asdict(config).items():
        if value != getattr(wanted, name):
            raise CheckpointError(
                f"{path}: its settings do not match its model: {name} is {value}, by the settings "
                f"{getattr(wanted, name)}"
            )


def held_out_pairs(checkpoint: Checkpoint) -> list[Pair]:
    """Read a run's validation pairs again; InputError if the data has changed since.

    Pairs that are too long for the run are left out, as in training.
    """
    advice = "name the pairs to evaluate with: --source and --target, or --tsv"
    try:
        pairs = load_pairs(checkpoint.settings)
    except InputError as error:
        raise InputError(f"{error}, which {checkpoint.path} was trained with: {advice}") from error
    if digest(pairs) != checkpoint.progress["data"]:
        raise InputError(f"the data has changed since {checkpoint.path} was trained: {advice}")
    valid = zip(pairs[1], encode_pairs(pairs[1], checkpoint.vocabularies), strict=True)
    return [pair for pair, tokens in valid if fits(tokens, checkpoint.settings)]
