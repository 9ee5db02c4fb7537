"""The recurrent encoder-decoder: what translated before the Transformer, complete in one file.

Sources:
- Sutskever, Vinyals, Le, "Sequence to Sequence Learning with Neural Networks", 2014,
  arXiv:1409.3215: an LSTM reads the source, another writes the target from its last state.
- Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014, arXiv:1406.1078:
  the GRU.
- Bahdanau, Cho, Bengio, "Neural Machine Translation by Jointly Learning to Align and Translate",
  2015, arXiv:1409.0473: the encoder that reads in both directions, and attention.
- Luong, Pham, Manning, "Effective Approaches to Attention-based Neural Machine Translation", 2015,
  arXiv:1508.04025: attention as it is here, after the recurrence (3), with the score "general".
  It does not feed back into the recurrence, so a whole target is trained on at once.

The encoder reads the source forwards and backwards, and the decoder begins with its last states.
Without attention, these are all that the decoder learns of the source. A tensor's name ends in its
dimensions, and a test holds the names to it:

    N batch   S source length   L target length   E width   K width of a direction, E = 2 * K
    V vocabulary   D layers

    python -m models.recurrent                          learn to reverse digits, in a few seconds
    python -m models.recurrent train --cell gru         the embedded data: numbers in words
    python -m models.recurrent translate "three hundred and forty-two"
    python -m models.recurrent evaluate
    python -m models.recurrent compare --against transformer    why is it not used? two minutes

The first three commands are those of models.translate, with the same data and decoding.
"""

# ruff: noqa: RET504 - a result gets its name before it is returned, so that its shape is checked

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, nn
from minitensor.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from . import against, translate
from .against import Contestant
from .command import InputError
from .config import Config, check_shapes, config_from_json
from .decoding import generate, stop_at
from .pairs import Batch, PairSettings, TranslationSettings
from .settings import add_settings, amount, count, setting, share
from .text import write_file
from .training import start_task
from .translation import Translation

CELLS: dict[str, Any] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
PICTURES, FIGURES = ("against.png", "against.svg"), "against.json"


@dataclass(frozen=True)
class RecurrentConfig(Config):
    """The shape of a model.

    Raises ValueError, naming the field, for a type or a value that no model can have.
    """

    src_vocab_size: int
    tgt_vocab_size: int
    cell: str = "lstm"  # or "gru", "rnn"
    attention: bool = True
    width: int = 512  # of embeddings and states; each direction of the encoder has half of it
    layers: int = 1  # of the encoder, and of the decoder
    dropout: float = 0.1
    pad_id: int = 0
    bos_id: int = 1  # begins every target
    eos_id: int = 2  # ends every target

    def __post_init__(self) -> None:
        for name in "src_vocab_size", "tgt_vocab_size", "width", "layers":
            self._check_integer(name, 1, 2**31)
        self._check_integer("pad_id", 0, min(self.src_vocab_size, self.tgt_vocab_size))
        self._check_integer("bos_id", 0, self.tgt_vocab_size)
        self._check_integer("eos_id", 0, self.tgt_vocab_size)
        self._check_choice("cell", tuple(CELLS))
        self._check_choice("attention", (False, True))
        self._check_share("dropout")
        if self.width % 2:
            raise ValueError(
                f"the width must be even, for the two directions of the encoder: width={self.width}"
            )

    @property
    def position_limit(self) -> None:
        """The greatest length of a sequence: there is none."""
        return None


def parameter_shapes(config: RecurrentConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the names and shapes of a model's state without building the model."""
    E, K, G = config.width, config.width // 2, GATES[config.cell]
    yield "src_embedding.weight", (config.src_vocab_size, E)
    yield "tgt_embedding.weight", (config.tgt_vocab_size, E)
    for part, H, suffixes in ("encoder", K, ("", "_reverse")), ("decoder", E, ("",)):
        for layer in range(config.layers):
            for suffix in (f"_l{layer}{suffix}" for suffix in suffixes):
                yield f"{part}.weight_ih{suffix}", (G * H, E)
                yield f"{part}.weight_hh{suffix}", (G * H, H)
                yield f"{part}.bias_ih{suffix}", (G * H,)
                yield f"{part}.bias_hh{suffix}", (G * H,)
    if config.attention:
        yield "attention.key.weight", (E, E)
        yield "attention.combine.weight", (E, 2 * E)
    yield "output.weight", (config.tgt_vocab_size, E)
    yield "output.bias", (config.tgt_vocab_size,)


# The model


class Recurrent(nn.Module):
    """Source tokens (N, S) and target tokens (N, L) -> scores of the next target token (N, L, V).

    - `config`: the shape of the model.
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        cell = CELLS[config.cell]
        self.config = config
        self.src_embedding = nn.Embedding(config.src_vocab_size, config.width, config.pad_id)
        self.tgt_embedding = nn.Embedding(config.tgt_vocab_size, config.width, config.pad_id)
        between = config.dropout if config.layers > 1 else 0.0  # the layers
        stack: dict[str, Any] = {"num_layers": config.layers, "dropout": between}
        self.encoder = cell(
            config.width, config.width // 2, batch_first=True, bidirectional=True, **stack
        )
        self.decoder = cell(config.width, config.width, batch_first=True, **stack)
        self.attention = Attention(config.width) if config.attention else None
        self.output = nn.Linear(config.width, config.tgt_vocab_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        """Return scores (N, L, V) of the token after each of `tgt` (N, L), the shifted target.

        Source rows end in padding, if in anything. Raises RuntimeError for batches of different
        sizes and for a source row without tokens, IndexError for a token outside the vocabulary.
        """
        logits_NLV, _ = self.read(tgt, self.encode(src))
        return logits_NLV

    def encode(self, src: Tensor) -> RecurrentState:
        """Read padded source tokens (N, S) in both directions."""
        src_NS = src
        padding_NS = src_NS == self.config.pad_id
        length_N = (~padding_NS).sum(1)
        embedded_NSE = self.dropout(self.src_embedding(src_NS))
        packed = pack_padded_sequence(embedded_NSE, length_N, True, enforce_sorted=False)
        packed, last = self.encoder(packed)
        hidden = []
        for ends in last if self.config.cell == "lstm" else (last,):  # (2D, N, K)
            forward_DNK, backward_DNK = ends[0::2], ends[1::2]
            hidden.append(mt.cat([forward_DNK, backward_DNK], 2))
        state = RecurrentState(tuple(hidden))
        if self.attention is not None:
            memory_NSE, _ = pad_packed_sequence(packed, True, total_length=src_NS.shape[1])
            state.memory = memory_NSE, self.attention.key(memory_NSE), padding_NS.unsqueeze(1)
        return state

    def read(self, tgt: Tensor, state: RecurrentState) -> tuple[Tensor, Tensor | None]:
        """Read target tokens (N, L) into the state: scores (N, L, V), attention (N, L, S)."""
        tgt_NL = tgt
        if tgt_NL.shape[0] != state.hidden[0].shape[1]:
            raise RuntimeError(
                "the batch number of src and tgt must be equal: "
                f"src has {state.hidden[0].shape[1]} rows, tgt is {tuple(tgt_NL.shape)}"
            )
        embedded_NLE = self.dropout(self.tgt_embedding(tgt_NL))
        is_lstm = self.config.cell == "lstm"
        hidden_NLE, last = self.decoder(embedded_NLE, state.hidden if is_lstm else state.hidden[0])
        state.hidden = last if is_lstm else (last,)
        weights_NLS = None
        if self.attention is not None:
            hidden_NLE, weights_NLS = self.attention(hidden_NLE, *state.memory)
        logits_NLV = self.output(self.dropout(hidden_NLE))
        return logits_NLV, weights_NLS

    def shift_right(self, tgt: Tensor) -> Tensor:
        """Return the decoder's input for a target (N, L): begin, then all but its last token."""
        tgt_NL = tgt
        begin_N1 = mt.full((tgt_NL.shape[0], 1), self.config.bos_id)
        return mt.cat([begin_N1, tgt_NL[:, :-1]], dim=1)

    @mt.no_grad()
    def start(self, src: Tensor) -> RecurrentState:
        """Read padded source tokens (N, S): the state of N rows that have no target token yet."""
        return self.encode(src)

    @mt.no_grad()
    def advance(self, tokens: Tensor, state: RecurrentState) -> Tensor:
        """Read the next target tokens (N, L) of each row: logits (N, V) of the token after them.

        The first tokens of a row begin with the begin token. `models.decoding` does the rest.
        """
        logits_NLV, _ = self.read(tokens, state)
        logits_NV = logits_NLV[:, -1]
        return logits_NV


class RecurrentState:
    """The states of the decoder after the tokens so far, and for attention the source."""

    def __init__(self, hidden: tuple[Tensor, ...]) -> None:
        self.hidden = hidden  # h (D, N, E), and c of an LSTM
        # What attention needs: memory (N, S, E), its keys (N, S, E), its padding (N, 1, S).
        self.memory: tuple[Tensor, ...] = ()

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row may be repeated."""
        rows_N = mt.tensor(rows)
        self.hidden = tuple(h_DNE.index_select(1, rows_N) for h_DNE in self.hidden)
        self.memory = tuple(m.index_select(0, rows_N) for m in self.memory)


class Attention(nn.Module):
    """tanh(W_c [softmax(h W_k m) m; h]): states h attend to the memory m (Luong et al., 3.1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.key = nn.Linear(width, width, bias=False)
        self.combine = nn.Linear(2 * width, width, bias=False)

    def forward(
        self, hidden: Tensor, memory: Tensor, keys: Tensor, padding: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return what the states have become (N, L, E), and the weights (N, L, S).

        - `hidden` (N, L, E): the decoder's states.
        - `memory` (N, S, E) and `keys` (N, S, E), its projection: the encoder's states.
        - `padding` (N, 1, S): True where there is nothing to attend to.
        """
        hidden_NLE, memory_NSE, keys_NSE, padding_N1S = hidden, memory, keys, padding
        scores_NLS = hidden_NLE @ keys_NSE.transpose(1, 2)
        weights_NLS = scores_NLS.masked_fill(padding_N1S, -math.inf).softmax(-1)
        context_NLE = weights_NLS @ memory_NSE
        attended_NLE = self.combine(mt.cat([context_NLE, hidden_NLE], 2)).tanh()
        return attended_NLE, weights_NLS


# The task


@dataclass
class RecurrentSettings(PairSettings):
    """The settings of a translation run of a recurrent model."""

    cell: str = setting("lstm", tuple(CELLS), "kind of recurrence")
    attention: str = setting("yes", ("yes", "no"), "let the decoder look at the whole source")
    width: int = setting(192, count, "of embeddings and states")
    layers: int = setting(1, count, "of the encoder, and of the decoder")
    dropout: float = setting(0.1, share, "probability of dropping an activation")

    def check(self) -> None:
        """Raise InputError for settings that contradict each other."""
        if self.width % 2:
            raise InputError(
                "the width must be even, for the two directions of the encoder: "
                f"--width is {self.width}"
            )
        super().check()


class RecurrentTranslation(Translation):
    """Pairs of sentences for the recurrent encoder-decoder."""

    kind = "recurrent"
    settings_class = RecurrentSettings
    readers = {
        **Translation.readers,
        "config": partial(config_from_json, kind=RecurrentConfig),
    }

    @classmethod
    def make_config(cls, settings: Any, source_size: int, target_size: int) -> RecurrentConfig:
        """Return the config of the model that the settings ask for, with these vocabulary sizes."""
        return RecurrentConfig(
            src_vocab_size=source_size,
            tgt_vocab_size=target_size,
            cell=settings.cell,
            attention=settings.attention == "yes",
            width=settings.width,
            layers=settings.layers,
            dropout=settings.dropout,
        )

    @classmethod
    def make_model(cls, config: Any) -> Recurrent:
        """Build the model of a config."""
        return Recurrent(config)

    @classmethod
    def check_weights(cls, path: Path, config: Any, weights: dict[str, Tensor]) -> None:
        """Raise CheckpointError unless weights have the names and shapes that the config asks."""
        check_shapes(path, parameter_shapes(config), weights)

    @classmethod
    def attention_maps(cls, model: Any, src: Tensor, tgt: Tensor) -> list[np.ndarray]:
        """Return the attention of a translation (1, L) to its source (1, S): an array (1, L, S)."""
        _, weights_NLS = model.read(model.shift_right(tgt), model.encode(src))
        if weights_NLS is None:
            raise InputError(
                "there is no attention to draw: the model was trained with --attention no"
            )
        return [weights_NLS.numpy()]

    def predict(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the scores (N * L, V) of all target tokens of a batch, and the tokens (N * L)."""
        src_NS, tgt_NL = batch
        logits_NLV = self.model(src_NS, self.model.shift_right(tgt_NL))
        return logits_NLV.flatten(0, 1), tgt_NL.flatten()

    def compiled_loss(self) -> Callable[[Batch], Tensor]:
        """Return `loss` as it is: it reads the sentences' lengths, so it cannot be replayed."""
        return self.loss


# Running it


def example() -> tuple[nn.Module, dict[str, Tensor], dict[str, int]]:
    """Return a small model, its inputs by name, and the names of their sizes for a graph."""
    model = Recurrent(RecurrentConfig(11, 13, width=16, dropout=0.0)).eval()
    inputs = {"src": mt.randint(3, 11, (3, 5)), "tgt": mt.randint(3, 13, (3, 7))}
    return model, inputs, {"N": 3, "S": 5, "L": 7, "W": 16, "V": 11, "T": 13}


def learn(steps: int = 401) -> None:
    """Train a small model to reverse sequences of eight digits."""
    mt.manual_seed(0)
    model = Recurrent(RecurrentConfig(13, 13, width=64, dropout=0.0))
    optimizer = mt.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(steps):
        src_NS = mt.randint(3, 13, (64, 8))
        tgt_NL = mt.cat([src_NS.flip(1), mt.full((64, 1), model.config.eos_id)], dim=1)
        logits_NLV = model(src_NS, model.shift_right(tgt_NL))
        loss = F.cross_entropy(logits_NLV.flatten(0, 1), tgt_NL.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step:3d}  loss {loss.item():.4f}")
    model.eval()
    src_NS = mt.randint(3, 13, (5, 8))
    prompts, stop = [[model.config.bos_id]] * 5, stop_at(model.config.eos_id)
    outputs = generate(model, prompts, model.start(src_NS), 9, stop=stop)
    for source, output in zip(src_NS.tolist(), outputs, strict=True):
        print(*(token - 3 for token in source), "->", *(token - 3 for token in output.tokens[:-1]))


def contestants(given: dict[str, Any]) -> list[Contestant]:
    """Return the Transformer and recurrent models of about as many parameters.

    `given` are settings of all; the others have their defaults. Each recurrent model has the width
    that makes the number of its parameters the nearest to the Transformer's.
    """
    transformer = start_task(Translation, TranslationSettings(**given))
    data, size = transformer.data, sum(p.numel() for p in transformer.model.parameters())
    sizes = len(data.source_vocabulary), len(data.target_vocabulary)

    def difference(settings: PairSettings) -> int:
        shapes = parameter_shapes(RecurrentTranslation.make_config(settings, *sizes))
        count: int = sum(math.prod(shape) for _, shape in shapes)
        return abs(count - size)

    found = [Contestant("Transformer", Translation, transformer.settings)]
    for name, choices in (
        ("RNN", {"cell": "rnn", "attention": "no"}),
        ("GRU", {"cell": "gru", "attention": "no"}),
        ("LSTM", {"cell": "lstm", "attention": "no"}),
        ("LSTM, attention", {"cell": "lstm", "attention": "yes"}),
    ):
        widths = (RecurrentSettings(**{**given, **choices, "width": 2 * n}) for n in range(1, 1024))
        found.append(Contestant(name, RecurrentTranslation, min(widths, key=difference)))
    return found


def compare(options: argparse.Namespace) -> int:
    """Train recurrent models and the Transformer, print a table and draw a picture."""
    names = {item.name for item in fields(PairSettings)}
    given = {name: value for name, value in vars(options).items() if name in names}
    PairSettings(**given).check()
    found = against.compare(contestants(given), options.seconds)
    unit = "exact match, %" if PairSettings(**given).embedded else "BLEU"
    print(f"\n{against.show(found, unit)}\n")
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    for picture in PICTURES:
        against.draw(found, unit, folder / picture)
    write_file(folder / FIGURES, against.to_json(found).encode())
    print(f"the picture is {folder / PICTURES[0]}, all figures are in {folder / FIGURES}")
    return 0


def add_compare(commands: Any) -> None:
    """Add the command `compare`."""
    command = commands.add_parser("compare", help="why is it not used? measure it")
    command.add_argument(
        "--against", choices=("transformer",), default="transformer", help="the other model"
    )
    command.add_argument(
        "--seconds", type=amount, default=10.0, help="of training for each (default: %(default)g)"
    )
    command.add_argument(
        "--out", default="runs/against", help="folder of the results (default: %(default)s)"
    )
    add_settings(command, PairSettings, leave_out=("epochs", "schedule", "average"))
    command.set_defaults(command=compare)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, or learn to reverse digits without one; returns the exit code.

    `--against transformer` alone means `compare --against transformer`.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments:
        learn()
        return 0
    if arguments[0].startswith("--against"):
        arguments = ["compare", *arguments]
    return translate.main(
        arguments,
        task=RecurrentTranslation,
        module="recurrent",
        run="runs/recurrent",
        model="a recurrent encoder-decoder",
        add_more=add_compare,
    )


if __name__ == "__main__":
    sys.exit(main())
