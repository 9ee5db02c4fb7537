"""A vision transformer: patches by reshaping, a class token, a Sequential with residual helpers."""

from __future__ import annotations

from collections.abc import Callable

import minitensor as mt
from minitensor import Tensor, nn


class Residual(nn.Module):
    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x) + x


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int, dim_head: int) -> None:
        super().__init__()
        inner_dim = dim_head * heads
        self.heads = heads
        self.scale = dim_head**-0.5
        self.attend = nn.Softmax(dim=-1)
        self.to_qkv = nn.Linear(dim, inner_dim * 3, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner_dim, dim), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        qkv = self.to_qkv(x).chunk(3, dim=-1)
        q, k, v = (t.reshape(b, n, self.heads, -1).permute(0, 2, 1, 3) for t in qkv)
        dots = mt.einsum("bhid,bhjd->bhij", q, k) * self.scale
        attn = self.attend(dots)
        out = mt.einsum("bhij,bhjd->bhid", attn, v)
        out = out.permute(0, 2, 1, 3).reshape(b, n, -1)
        return self.to_out(out)


def feed_forward(dim: int, hidden_dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(dim),
        nn.Linear(dim, hidden_dim),
        nn.GELU(),
        nn.Dropout(0.1),
        nn.Linear(hidden_dim, dim),
        nn.Dropout(0.1),
    )


class ViT(nn.Module):
    def __init__(
        self,
        image_size: int = 12,
        patch_size: int = 4,
        channels: int = 3,
        num_classes: int = 7,
        dim: int = 36,
        depth: int = 5,
        heads: int = 2,
        mlp_dim: int = 56,
        dim_head: int = 18,
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        num_patches = (image_size // patch_size) ** 2
        patch_dim = channels * patch_size**2
        self.patch_norm = nn.LayerNorm(patch_dim)
        self.to_patch_embedding = nn.Linear(patch_dim, dim)
        self.pos_embedding = nn.Parameter(mt.randn(1, num_patches + 1, dim))
        self.cls_token = nn.Parameter(mt.randn(1, 1, dim))
        self.layers = nn.Sequential(
            *[
                nn.Sequential(
                    Residual(nn.Sequential(nn.LayerNorm(dim), Attention(dim, heads, dim_head))),
                    Residual(feed_forward(dim, mlp_dim)),
                )
                for _ in range(depth)
            ]
        )
        self.mlp_head: Callable[[Tensor], Tensor] = nn.Linear(dim, num_classes)

    def patchify(self, img: Tensor) -> Tensor:
        b, c, height, width = img.shape
        p = self.patch_size
        x = img.reshape(b, c, height // p, p, width // p, p)
        return x.permute(0, 2, 4, 3, 5, 1).reshape(b, (height // p) * (width // p), p * p * c)

    def forward(self, img: Tensor) -> Tensor:
        x = self.to_patch_embedding(self.patch_norm(self.patchify(img)))
        b, n, _ = x.shape
        cls_tokens = self.cls_token.expand(b, -1, -1)
        x = mt.cat((cls_tokens, x), dim=1)
        x += self.pos_embedding[:, : (n + 1)]
        x = self.layers(x)
        x = x[:, 0]
        return self.mlp_head(x)


def example() -> tuple[nn.Module, dict[str, Tensor], dict[str, int]]:
    sizes = {"b": 5, "dim": 36, "heads": 2, "mlp_dim": 56, "num_classes": 7}
    return ViT(), {"img": mt.randn(5, 3, 12, 12)}, sizes
