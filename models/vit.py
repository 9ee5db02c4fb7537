"""The Vision Transformer: an image, cut into patches, read by a Transformer encoder.

    python -m models.vit                                    learn scikit-learn's digits, see a few
    python -m models.vit train --depth 4 --out runs/mine    with settings of your own
    python -m models.vit evaluate --run runs/mine
    python -m models.vit classify 1711 --attention looks.png      a digit, by its number
    python -m models.vit classify seven.png                       or an image file

Sources:
- Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
  2020, arXiv:2010.11929: the model. Numbers in parentheses, such as (3.1), are its sections.
- Xiong et al., "On Layer Normalization in the Transformer Architecture", 2020, arXiv:2002.04745:
  pre-norm.
- Abnar, Zuidema, "Quantifying Attention Flow in Transformers", 2020, arXiv:2005.00928: rollout.

A tensor's name ends in its dimensions, and a test holds the names to it:

    N batch   C channels   I height and width of an image   P height and width of a patch
    G patches along a side, I = G * P   S patches of an image, S = G * G
    D numbers of a patch, D = C * P * P   L length, the class token and the patches, L = 1 + S
    E model width   H heads   K width of a head, E = H * K   F feed-forward width   V classes
"""

# ruff: noqa: RET504 - a result gets its name before it is returned, so that its shape is checked

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, nn
from minitensor.serialize import CheckpointError

from .command import InputError, exit_code, program, require
from .config import Config, config_from_json, load_state
from .digits import Digits, distort, load_digits, read_image
from .pictures import ORANGE, new_figure, write_figure
from .settings import Settings, count, setting, share
from .task import Checkpoint, CompiledForShapes, Task
from .training import add_train, load_trained, start_run, train_on

DEFAULT_RUN, DEMO_RUN = "runs/digits", "runs/digits-demo"


@dataclass(frozen=True)
class VisionConfig(Config):
    """The shape of a model. The defaults suit scikit-learn's digits.

    Raises ValueError, naming the field, for a type or a value that no model can have.
    """

    image_size: int = 8  # height and width of an image, in pixels
    patch_size: int = 2  # height and width of a patch, in pixels
    channels: int = 1  # 1 for grey, 3 for colour
    num_classes: int = 10
    embed_dim: int = 64
    num_heads: int = 4
    depth: int = 2  # layers
    dim_feedforward: int = 128
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in (
            "image_size", "patch_size", "channels", "num_classes", "embed_dim", "num_heads",
            "depth", "dim_feedforward",
        ):  # fmt: skip
            self._check_integer(name, 1, 2**31)
        self._check_share("dropout")
        if self.image_size % self.patch_size:
            raise ValueError(
                "the size of an image must be divisible by the size of a patch: "
                f"image_size={self.image_size}, patch_size={self.patch_size}"
            )
        if self.embed_dim % self.num_heads:
            raise ValueError(
                "the width of the model must be divisible by the number of heads: "
                f"embed_dim={self.embed_dim}, num_heads={self.num_heads}"
            )

    @property
    def grid(self) -> int:
        """The number of patches along a side of an image."""
        return self.image_size // self.patch_size

    @property
    def parameters(self) -> int:
        """The number of parameters of the model."""
        D, L = self.channels * self.patch_size**2, 1 + self.grid**2
        E, F, V = self.embed_dim, self.dim_feedforward, self.num_classes
        attention = (E + 1) * 3 * E + (E + 1) * E
        layer = attention + (E + 1) * F + (F + 1) * E + 4 * E
        return (D + 1) * E + E + L * E + self.depth * layer + 2 * E + (E + 1) * V


class VisionTransformer(nn.Module):
    """Images (N, C, I, I), with values from 0 to 1 -> scores of their classes (N, V).

    The parameters of `layers` and `norm` have the names they have in `torch.nn.TransformerEncoder`.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        patch = config.channels * config.patch_size**2
        self.patch_embedding = nn.Linear(patch, config.embed_dim)
        self.class_token = nn.Parameter(mt.empty(config.embed_dim))
        self.positions = nn.Parameter(mt.empty(1 + config.grid**2, config.embed_dim))
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.embed_dim)
        self.output = nn.Linear(config.embed_dim, config.num_classes)
        self.initialize()

    def initialize(self) -> None:
        """Initialise matrices by Xavier, biases to 0, positions as large as embedded patches."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.zeros_(self.class_token)  # it has a position of its own
        nn.init.normal_(self.positions, std=0.3)

    def forward(self, images: Tensor) -> Tensor:
        """Return scores (N, V); RuntimeError for images of another size than (N, C, I, I)."""
        x_NLE = self.embed(images)
        for layer in self.layers:
            x_NLE = layer(x_NLE)
        class_token_NE = self.norm(x_NLE)[:, 0]
        logits_NV = self.output(class_token_NE)
        return logits_NV

    def patches(self, images: Tensor) -> Tensor:
        """Cut images (N, C, I, I) into patches (N, S, D), row by row from the top left (3.1)."""
        c = self.config
        if images.dim() != 4 or images.shape[1:] != (c.channels, c.image_size, c.image_size):
            raise RuntimeError(
                f"the images have the shape {tuple(images.shape)}, this model reads "
                f"(N, {c.channels}, {c.image_size}, {c.image_size})"
            )
        pixel_NCII = images
        N, C, G, P = len(images), c.channels, c.grid, c.patch_size
        pixel_NCGPGP = pixel_NCII.reshape(N, C, G, P, G, P)
        pixel_NGGCPP = pixel_NCGPGP.permute(0, 2, 4, 1, 3, 5)
        patch_NSD = pixel_NGGCPP.reshape(N, G * G, C * P * P)
        return patch_NSD

    def embed(self, images: Tensor) -> Tensor:
        """Return dropout([class token; embedded patches] + positions) (3.1): (N, L, E)."""
        centred_NCII = 2 * images - 1
        patch_NSE = self.patch_embedding(self.patches(centred_NCII))
        class_token_N1E = self.class_token.expand(len(patch_NSE), 1, -1)
        x_NLE = mt.cat([class_token_N1E, patch_NSE], dim=1) + self.positions
        return self.dropout(x_NLE)

    @mt.no_grad()
    def attention_maps(self, images: Tensor) -> list[Tensor]:
        """Return the attention weights (N, H, L, L) of each layer. Call `eval()` first."""
        maps: list[Tensor] = []
        layer: Any  # an EncoderLayer
        x_NLE = self.embed(images)
        for layer in self.layers:
            maps.append(layer.self_attn.weights(layer.norm1(x_NLE)))
            x_NLE = layer(x_NLE)
        return maps


class EncoderLayer(nn.Module):
    """Self-attention, then the feed-forward network, in pre-norm: (N, L, E) -> (N, L, E)."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config.embed_dim, config.num_heads, config.dropout)
        self.linear1 = nn.Linear(config.embed_dim, config.dim_feedforward)
        self.linear2 = nn.Linear(config.dim_feedforward, config.embed_dim)
        self.norm1 = nn.LayerNorm(config.embed_dim)
        self.norm2 = nn.LayerNorm(config.embed_dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Add to `x` (N, L, E) what each sub-layer makes of it."""
        x_NLE = x
        x_NLE = x_NLE + self.dropout(self.self_attn(self.norm1(x_NLE)))
        x_NLE = x_NLE + self.dropout(self.feed_forward(self.norm2(x_NLE)))
        return x_NLE

    def feed_forward(self, x: Tensor) -> Tensor:
        """Return linear2(dropout(gelu(linear1(x)))), for each position on its own."""
        hidden_NLF = self.dropout(F.gelu(self.linear1(x)))
        return self.linear2(hidden_NLF)


class SelfAttention(nn.Module):
    """H heads, each softmax(q k^T / sqrt(K)) v, joined and projected: (N, L, E) -> (N, L, E).

    `models/attention.py` builds this step by step.
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(mt.empty(3 * embed_dim, embed_dim))  # of q, k and v
        self.in_proj_bias = nn.Parameter(mt.zeros(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return queries, keys and values of all heads, each (N, H, L, K)."""
        x_NLE = x
        qkv = F.linear(x_NLE, self.in_proj_weight, self.in_proj_bias)  # (N, L, 3E)
        return tuple(
            part_NLE.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for part_NLE in qkv.chunk(3, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Let each position of `x` attend to all of them."""
        q_NHLK, k_NHLK, v_NHLK = self.project(x)
        dropout = self.dropout if self.training else 0.0
        heads_NHLK = F.scaled_dot_product_attention(q_NHLK, k_NHLK, v_NHLK, dropout_p=dropout)
        joined_NLE = heads_NHLK.transpose(1, 2).flatten(2)
        return self.out_proj(joined_NLE)

    def weights(self, x: Tensor) -> Tensor:
        """Return the attention weights (N, H, L, L) that `forward` computes with."""
        q_NHLK, k_NHLK, _ = self.project(x)
        score_NHLL = q_NHLK @ k_NHLK.transpose(-2, -1) / math.sqrt(q_NHLK.shape[-1])
        weight_NHLL = score_NHLL.softmax(-1)
        return weight_NHLL


def rollout(maps: list[Tensor]) -> list[Tensor]:
    """Return, after each layer, the share (N, L, L) of each position in what another one holds.

    The heads' mean, with half of it for the residual sum, multiplied from layer to layer.
    """
    shares: list[Tensor] = []
    for weight_NHLL in maps:
        mean_NLL = weight_NHLL.mean(1)
        share_NLL = 0.5 * mean_NLL + 0.5 * mt.eye(mean_NLL.shape[-1])
        shares.append(share_NLL @ shares[-1] if shares else share_NLL)
    return shares


def example() -> tuple[nn.Module, dict[str, Tensor], dict[str, int]]:
    """Return a small model, its inputs, and the names of their sizes, to draw its graph."""
    mt.manual_seed(0)
    config = VisionConfig(
        image_size=10, patch_size=5, num_classes=11, embed_dim=28, num_heads=7, dim_feedforward=44
    )
    dims = {"N": 3, "E": 28, "H": 7, "F": 44, "V": 11}
    return VisionTransformer(config), {"images": mt.rand(3, 1, 10, 10)}, dims


# Training


def default(name: str, value: Any) -> Any:
    """Return the field of a setting that all runs have, with another default."""
    known = {item.name: item for item in fields(Settings)}
    return field(default=value, metadata=known[name].metadata)


@dataclass
class VisionSettings(Settings):
    """The settings of a run that learns the digits."""

    epochs: int = default("epochs", 12)
    lr: float = default("lr", 6e-3)
    schedule: str = default("schedule", "linear")
    views: int = setting(5, count, "how often a pass shows an image, each time distorted anew")
    batch_size: int = setting(64, count, "images of a batch")
    patch_size: int = setting(2, count, "height and width of a patch, in pixels")
    embed_dim: int = setting(64, count, "width of the model")
    num_heads: int = setting(4, count, "heads of each attention")
    depth: int = setting(2, count, "layers")
    dim_feedforward: int = setting(128, count, "width of the feed-forward networks")
    dropout: float = setting(0.1, share, "probability of dropping an activation")

    def config(self) -> VisionConfig:
        """Return the config of the model; ValueError if there can be none."""
        names = {item.name for item in fields(VisionConfig)}
        return VisionConfig(**{k: v for k, v in asdict(self).items() if k in names})

    def check(self) -> None:
        """Raise InputError for settings that contradict each other."""
        try:
            self.config()
        except ValueError as error:
            raise InputError(str(error)) from error


def label_loss(model: nn.Module, image: Tensor, label: Tensor) -> Tensor:
    """Return the mean cross entropy, in nats, of the labels (N) of images (N, C, I, I)."""
    image_NCII, label_N = image, label
    return F.cross_entropy(model(image_NCII), label_N)


class Vision(Task):
    """The digits for the Vision Transformer."""

    kind = "vit"
    unit = "images"
    words: ClassVar = {"accuracy": "right"}
    settings_class = VisionSettings
    readers: ClassVar = {"config": partial(config_from_json, kind=VisionConfig)}

    def __init__(self, settings: VisionSettings, checkpoint: Checkpoint | None = None) -> None:
        self.settings: VisionSettings = settings
        self.digits: Digits = load_digits()
        self.digest = self.digits.digest
        self.model: VisionTransformer = VisionTransformer(settings.config())

    @classmethod
    def check(cls, checkpoint: Checkpoint) -> None:
        """Raise CheckpointError unless weights and settings fit the config."""
        path, config = checkpoint.path, checkpoint.content["config"]
        found = sum(tensor.numel() for tensor in checkpoint.weights.values())
        if found != config.parameters:
            raise CheckpointError(
                f"{path} does not hold the weights of this model: it has {found:,} numbers, by its "
                f"config {config.parameters:,}"
            )
        wanted = asdict(checkpoint.settings.config())
        for name, value in asdict(config).items():
            if value != wanted[name]:
                raise CheckpointError(
                    f"{path}: its settings do not match its model: {name} is {value}, by the "
                    f"settings {wanted[name]}"
                )

    def train_batches(self, epoch: int) -> Sequence[np.ndarray]:
        """Return the batches of an epoch, by the numbers of their digits."""
        generator = mt.Generator().manual_seed(self.settings.seed + epoch)
        train, size = self.digits.train, self.settings.batch_size
        batches = []
        for _ in range(self.settings.views):
            order = train[mt.randperm(len(train), generator=generator).numpy()]
            batches += [order[start : start + size] for start in range(0, len(order), size)]
        return batches

    def valid_batches(self) -> Sequence[np.ndarray]:
        """Return the validation digits, by their numbers, as one batch."""
        return [self.digits.valid]

    def collate(self, numbers: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return distorted images (N, C, I, I) and their labels (N)."""
        image_NCII, label_N = self.digits.batch(numbers)
        return distort(image_NCII), label_N

    def collate_valid(self, numbers: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return images (N, C, I, I) as they are, and their labels (N)."""
        return self.digits.batch(numbers)

    def count(self, batch: tuple[Tensor, Tensor]) -> int:
        """Return the number of images."""
        return len(batch[1])

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean cross entropy, in nats per image."""
        return label_loss(self.model, *batch)

    def compiled_loss(self) -> Callable[[tuple[Tensor, Tensor]], Tensor]:
        """Return `loss`, compiled."""
        loss = CompiledForShapes(partial(label_loss, self.model))
        return lambda batch: loss(*batch)

    def measures(self, batch: tuple[Tensor, Tensor]) -> dict[str, float]:
        """Return the loss, and the share of images whose class is the most probable one."""
        image_NCII, label_N = batch
        logits_NV = self.model(image_NCII)
        right_N = logits_NV.argmax(-1) == label_N
        return {
            "loss": F.cross_entropy(logits_NV, label_N).item(),
            "accuracy": right_N.float().mean().item(),
        }

    def texts(self) -> dict[str, str]:
        """Return the config as JSON."""
        return {"config": json.dumps(asdict(self.model.config))}

    def describe(self) -> str:
        """Return the numbers of images and parameters."""
        train, valid, test = (
            len(numbers) for numbers in (self.digits.train, self.digits.valid, self.digits.test)
        )
        return (
            f"{train:,} digits to learn from, {valid} to validate with, {test} held out to test "
            f"with; {super().describe()}"
        )


# Use


def load_model(run: str | Path) -> VisionTransformer:
    """Load the model of a run's best checkpoint, or of a checkpoint file."""
    checkpoint = load_trained(run, Vision)
    model = VisionTransformer(checkpoint.content["config"])
    load_state(checkpoint.path, model, checkpoint.weights)
    return model.eval()


@mt.no_grad()
def probabilities(model: VisionTransformer, images: Tensor) -> Tensor:
    """Return the probabilities of the classes (N, V)."""
    logits_NV = model(images)
    return logits_NV.softmax(-1)


def draw_attention(model: VisionTransformer, image: Tensor, title: str, path: str | Path) -> None:
    """Draw what the class token looks at, over an image (C, I, I): a row for each layer.

    The left panels have the rollout, of all heads up to the layer, the others the layer's heads.
    """
    maps = model.attention_maps(image.unsqueeze(0))
    pixels = image.mean(0).numpy()
    G, depth, heads = model.config.grid, len(maps), model.config.num_heads
    figure = new_figure(figsize=(1.7 * (1 + heads), 1.9 * depth + 0.8))
    figure.suptitle(title, fontsize=11)
    figure.supxlabel("orange: where the class token looks, from not at all to most", fontsize=9)
    grid = figure.subplots(depth, 1 + heads, squeeze=False)
    for layer, (weight_NHLL, share_NLL) in enumerate(zip(maps, rollout(maps), strict=True)):
        looks = {"rollout": share_NLL[0], **{
            f"layer {layer}, head {head}": weight_NHLL[0, head] for head in range(heads)
        }}  # fmt: skip
        for axes, (name, weight_LL) in zip(grid[layer], looks.items(), strict=True):
            patch_GG = weight_LL[0, 1:].reshape(G, G).numpy()
            axes.imshow(pixels, cmap="gray_r", vmin=0, vmax=1.4, extent=(0, G, G, 0))
            strength_GG = 0.75 * patch_GG / patch_GG.max()
            colours = require("matplotlib.colors").ListedColormap([ORANGE])
            axes.imshow(patch_GG, cmap=colours, alpha=strength_GG, extent=(0, G, G, 0))
            axes.set(xticks=[], yticks=[])
            axes.set_title(name, fontsize=8)
    write_figure(figure, path)


def sketch(images: Tensor, labels: Sequence[str]) -> str:
    """Return images (N, 1, I, I) side by side as text, with a label below each."""
    ink = " .:-=+*#%@"
    image_NII = (images[:, 0] * (len(ink) - 1)).round().int()
    columns = [
        ["".join(2 * ink[value] for value in row) for row in image] for image in image_NII.tolist()
    ]
    width = 2 * image_NII.shape[2]
    lines = [*zip(*columns, strict=True), tuple(label.center(width) for label in labels)]
    return "\n".join("   ".join(line).rstrip() for line in lines)


# Commands


def demo(options: argparse.Namespace) -> int:
    """Learn the digits with the default settings, measure, and show a few."""
    with start_run(Vision, VisionSettings(), DEMO_RUN, overwrite=True) as trainer:
        code = train_on(trainer)
    if code:
        return code
    digits, model = load_digits(), load_model(DEMO_RUN)
    print()
    measure(model, digits)
    chosen = digits.test[:5]
    image_NCII, _ = digits.batch(chosen)
    found = probabilities(model, image_NCII).max(-1)
    print(f"\nThe first of them, numbers {', '.join(map(str, chosen))}:\n")
    print(sketch(image_NCII, [
        f"{label}, {p:.1%} sure"
        for label, p in zip(found.indices.tolist(), found.values.tolist(), strict=True)
    ]))  # fmt: skip
    command = program(f"{__package__}.vit")
    print(f"\nmore: {command} classify {chosen[0]} --run {DEMO_RUN} --attention looks.png")
    return 0


def measure(model: VisionTransformer, digits: Digits) -> None:
    """Print how many of the digits that were held out are read right, and the mistakes."""
    image_NCII, label_N = digits.batch(digits.test)
    found_N = probabilities(model, image_NCII).argmax(-1)
    rows = zip(digits.test.tolist(), label_N.tolist(), found_N.tolist(), strict=True)
    wrong = [row for row in rows if row[1] != row[2]]
    right = len(label_N) - len(wrong)
    print(
        f"{right} of {len(label_N)} digits that were held out are read right: "
        f"{right / len(label_N):.1%}"
    )
    for number, label, found in wrong:
        print(f"  number {number}, a {label}, is taken for a {found}")


def evaluate(options: argparse.Namespace) -> int:
    """Measure a model with the digits that were held out."""
    measure(load_model(options.run), load_digits())
    return 0


def classify(options: argparse.Namespace) -> int:
    """Print the most probable classes of an image; draw what the model looks at."""
    model = load_model(options.run)
    image_CII, name = choose(options.image, model.config)
    if options.invert:
        image_CII = 1 - image_CII
    probability_V = probabilities(model, image_CII.unsqueeze(0))[0]
    best = probability_V.argsort(descending=True).tolist()[:3]
    first, *others = (f"{label} ({probability_V[label].item():.1%})" for label in best)
    title = f"{name} is taken for a {first}"
    print(title + f"; next {' and '.join(others)}" * bool(others))
    if options.attention:
        draw_attention(model, image_CII, title, options.attention)
        print(f"what the model looked at is drawn in {options.attention}")
    return 0


def choose(image: str, config: VisionConfig) -> tuple[Tensor, str]:
    """Return an image (C, I, I) and its name, by the number of a digit or the name of a file."""
    if not image.isascii() or not image.isdigit():
        return read_image(image, config.image_size, config.channels), image
    digits = load_digits()
    count, size = len(digits.labels), digits.images.shape[-1]
    number = int(image) if len(image) < 10 else count
    if number >= count:
        raise InputError(f"there is no digit number {image}: they go from 0 to {count - 1}")
    if (config.channels, config.image_size) != (1, size):
        raise InputError(f"the digits have {size} x {size} pixels, this model reads others")
    seen = "held out" if number in digits.test else "learned from"
    return (
        mt.tensor(digits.images[number]),
        f"number {number}, a {digits.labels[number]} ({seen}),",
    )


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the commands; without one, the demonstration runs."""
    parser = argparse.ArgumentParser(
        prog=program(f"{__package__}.vit"),
        description="Learn handwritten digits with the Vision Transformer; read images. Without a "
        f"command, learn with the default settings in {DEMO_RUN} and show some digits.",
    )
    parser.set_defaults(command=demo)
    commands = parser.add_subparsers(metavar="COMMAND")
    add_train(commands, Vision, DEFAULT_RUN, "learn the digits of scikit-learn")

    command = commands.add_parser("evaluate", help="measure with the digits that were held out")
    add_run(command)
    command.set_defaults(command=evaluate)

    command = commands.add_parser("classify", help="read a digit, or an image of your own")
    command.add_argument(
        "image", help="number of a digit (0 to 1796), or a file: .npy, PNG, PGM; strokes are light"
    )
    command.add_argument("--invert", action="store_true", help="the strokes are dark on light")
    command.add_argument("--attention", metavar="PNG", help="picture of what the model looked at")
    add_run(command)
    command.set_defaults(command=classify)
    return parser


def add_run(command: argparse.ArgumentParser) -> None:
    """Add the option that names a trained model."""
    command.add_argument(
        "--run", default=DEFAULT_RUN, help="folder of a run, or a checkpoint (default: %(default)s)"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    options = build_parser().parse_args(arguments)
    return exit_code(lambda: options.command(options))


if __name__ == "__main__":
    sys.exit(main())
