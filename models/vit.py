"""The Vision Transformer: an image, cut into patches, read by a Transformer encoder.

Sources:
- Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
  2020, arXiv:2010.11929: the model. Numbers in parentheses, such as (3.1), are its sections.
- Xiong et al., "On Layer Normalization in the Transformer Architecture", 2020, arXiv:2002.04745:
  pre-norm.
- Abnar, Zuidema, "Quantifying Attention Flow in Transformers", 2020, arXiv:2005.00928: rollout.
- Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", 1998, UCI Machine Learning
  Repository: the 1,797 digits of 8 x 8 pixels that scikit-learn carries.

A tensor's name ends in its dimensions, and a test holds the names to it:

    N batch   C channels   I height and width of an image   P height and width of a patch
    G patches along a side, I = G * P   S patches of an image, S = G * G
    D numbers of a patch, D = C * P * P   L length, the class token and the patches, L = 1 + S
    E model width   H heads   K width of a head, E = H * K   F feed-forward width   V classes
"""

# ruff: noqa: RET504 - a result gets its name before it is returned, so that its shape is checked

from __future__ import annotations

import math
import operator
from dataclasses import dataclass

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, nn
from minitensor.files import shown


@dataclass(frozen=True)
class VisionConfig:
    """The shape of a model. The defaults suit scikit-learn's digits.

    Raises ValueError, naming the field, for a type or a value that no model can have.
    """

    image_size: int = 8  # height and width of an image, in pixels
    patch_size: int = 2  # height and width of a patch, in pixels
    channels: int = 1  # 1 for grey, 3 for colour
    num_classes: int = 10
    embed_dim: int = 64
    num_heads: int = 4
    depth: int = 4  # layers
    dim_feedforward: int = 128
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in (
            "image_size", "patch_size", "channels", "num_classes", "embed_dim", "num_heads",
            "depth", "dim_feedforward",
        ):  # fmt: skip
            value = getattr(self, name)
            try:
                number = 0 if isinstance(value, bool) else operator.index(value)
            except TypeError:
                number = 0
            if not 1 <= number < 2**31:
                raise ValueError(
                    f"{name} must be an integer of at least 1 and below 2**31, not {shown(value)}"
                )
            object.__setattr__(self, name, number)  # NumPy's integers have no JSON
        if type(self.dropout) not in (int, float) or not 0 <= self.dropout <= 1:
            raise ValueError(f"dropout must be a number from 0 to 1, not {shown(self.dropout)}")
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


class VisionTransformer(nn.Module):
    """Images (N, C, I, I) -> scores of their classes (N, V).

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
        """Initialise matrices by Xavier, biases to 0, class token and positions near 0."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.normal_(self.class_token, std=0.02)
        nn.init.normal_(self.positions, std=0.02)

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
        patch_NSE = self.patch_embedding(self.patches(images))
        class_token_N1E = self.class_token.expand(len(patch_NSE), 1, -1)
        x_NLE = mt.cat([class_token_N1E, patch_NSE], dim=1) + self.positions
        return self.dropout(x_NLE)

    @mt.no_grad()
    def attention_maps(self, images: Tensor) -> list[Tensor]:
        """Return the attention weights (N, H, L, L) of each layer. Call `eval()` first."""
        maps = []
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
