"""The encoder-decoder Transformer for text, complete in one file.

Sources:
- Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762: the model. Numbers in
  parentheses, such as (3.2), are its sections.
- Ba, Kiros, Hinton, "Layer Normalization", 2016, arXiv:1607.06450.
- Xiong et al., "On Layer Normalization in the Transformer Architecture", 2020, arXiv:2002.04745:
  pre-norm.
- Press, Wolf, "Using the Output Embedding to Improve Language Models", 2017, arXiv:1608.05859: the
  tied output.
- Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010:
  Xavier initialisation.

A tensor's name ends in its dimensions, and a test holds the names to it:

    N batch   L target (or query) length   S source (or memory) length   E model width   H heads
    K width of a head, E = H * K   F feed-forward width   V vocabulary

Masks are those of `torch.nn.Transformer`: boolean, True where attention is *blocked*, or floating
point, added to the scores; (L, S), or (N * H, L, S). Key padding masks are (N, S). Batches come
first.

    python -m models.transformer      learn to reverse short sequences, in a few seconds
"""

# ruff: noqa: RET504 - a result gets its name before it is returned, so that its shape is checked

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, nn
from minitensor.nn.masks import causal_mask, merge_masks
from minitensor.serialize import load_file, save_file

from .config import TransformerConfig as TransformerConfig
from .config import check_state, load_state, read_config, weights_of
from .decoding import KVCache, generate, stop_at
from .fused import observed
from .positions import RotaryPositions, make_positions
from .transformer_fused import FusedDecoder, can_fuse, can_fuse_decoder, encode
from .transformer_state import DecoderState


class Transformer(nn.Module):
    """Source tokens (N, S) and target tokens (N, L) -> scores of the next target token (N, L, V).

    The parameters of `encoder` and `decoder` have the names they have in `torch.nn.Transformer`.

    `encoder` and `decoder` replace the stacks; they are called as in `torch.nn.Transformer`:
    `encoder(src, mask=, src_key_padding_mask=)` and `decoder(tgt, memory, tgt_mask=, memory_mask=,
    tgt_key_padding_mask=, memory_key_padding_mask=)`. `src_embedding` and `tgt_embedding` are
    pretrained embeddings, (V, E); RuntimeError if that is not their shape.
    """

    def __init__(
        self,
        config: TransformerConfig,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        src_embedding: Tensor | None = None,
        tgt_embedding: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.src_embedding = nn.Embedding(config.src_vocab_size, config.d_model, config.pad_id)
        self.tgt_embedding = nn.Embedding(config.tgt_vocab_size, config.d_model, config.pad_id)
        self.src_positions = make_positions(config)
        self.tgt_positions = make_positions(config)
        self.encoder: nn.Module = Encoder(config) if encoder is None else nn.Module()
        self.decoder: nn.Module = Decoder(config) if decoder is None else nn.Module()
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.d_model, config.tgt_vocab_size)
        self.initialize()
        if encoder is not None:
            self.encoder = encoder
        if decoder is not None:
            self.decoder = decoder
        with mt.no_grad():
            for embedding, pretrained in (
                (self.src_embedding, src_embedding),
                (self.tgt_embedding, tgt_embedding),
            ):
                if pretrained is None:
                    continue
                if pretrained.shape != embedding.weight.shape:
                    raise RuntimeError(
                        f"pretrained embedding has shape {tuple(pretrained.shape)}, the vocabulary "
                        f"and the width of the model ask for {tuple(embedding.weight.shape)}"
                    )
                embedding.weight.copy_(pretrained)
        if config.tied_output:
            self.output.weight = self.tgt_embedding.weight

    def initialize(self) -> None:
        """Initialise matrices by Xavier, biases to 0, embeddings to variance 1 after scaling."""
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        for embedding in (self.src_embedding, self.tgt_embedding):
            nn.init.normal_(embedding.weight, std=self.config.d_model**-0.5)
            with mt.no_grad():
                embedding.weight[self.config.pad_id].zero_()

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Return scores (N, L, V) of the token after each of `tgt` (N, L), the shifted target.

        Only the given masks apply: training passes
        `tgt_mask=generate_square_subsequent_mask(L)`, and the padding of a batch in
        `src_key_padding_mask` and `memory_key_padding_mask`. Raises RuntimeError for batches of
        different sizes, IndexError for a token outside the vocabulary or a position never learned.
        """
        src_NS, tgt_NL = src, tgt
        if src_NS.shape[0] != tgt_NL.shape[0]:
            raise RuntimeError(
                f"the batch number of src and tgt must be equal: src is {tuple(src_NS.shape)}, "
                f"tgt is {tuple(tgt_NL.shape)}"
            )
        memory_NSE = self.encode(src_NS, src_mask, src_key_padding_mask)
        decoder_output_NLE = self.decode(
            tgt_NL,
            memory_NSE,
            tgt_mask,
            memory_mask,
            tgt_key_padding_mask,
            memory_key_padding_mask,
        )
        return self.output(decoder_output_NLE)

    def encode(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Encode source tokens (N, S) into the memory (N, S, E)."""
        src_NS = src
        src_embedding_NSE = self.embed(src_NS, self.src_embedding, self.src_positions)
        encoder_output_NSE = self.encoder(
            src_embedding_NSE, mask=src_mask, src_key_padding_mask=src_key_padding_mask
        )
        return encoder_output_NSE

    def decode(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Decode target tokens (N, L), which attend to the memory (N, S, E), into (N, L, E)."""
        tgt_NL, memory_NSE = tgt, memory
        target_embedding_NLE = self.embed(tgt_NL, self.tgt_embedding, self.tgt_positions)
        decoder_output_NLE = self.decoder(
            target_embedding_NLE,
            memory_NSE,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
        )
        return decoder_output_NLE

    def embed(
        self, tokens: Tensor, table: nn.Embedding, positions: nn.Module | None, start: int = 0
    ) -> Tensor:
        """Return dropout(embedding * sqrt(E) + positions) (3.4, 3.5): (N, L) -> (N, L, E).

        `start` is the position of the first token.
        """
        tokens_NL = tokens
        embedding_NLE = table(tokens_NL) * math.sqrt(self.config.d_model)
        if positions is None:
            return self.dropout(embedding_NLE)
        position_LE = positions(tokens_NL.shape[1], start)
        sum_NLE = embedding_NLE + position_LE
        return self.dropout(sum_NLE)

    def shift_right(self, tgt: Tensor) -> Tensor:
        """Return the decoder's input for a target (N, L): begin, then all but its last token."""
        tgt_NL = tgt
        begin_N1 = mt.full((tgt_NL.shape[0], 1), self.config.bos_id)
        return mt.cat([begin_N1, tgt_NL[:, :-1]], dim=1)

    @staticmethod
    def generate_square_subsequent_mask(sz: int) -> Tensor:
        """Return the mask (sz, sz) that blocks later positions: -inf above the diagonal, else 0."""
        mask_LL = causal_mask(sz)
        return mask_LL

    def generate_source_key_padding_mask(self, src: Tensor) -> Tensor:
        """Return the `src_key_padding_mask` (N, S) of source tokens (N, S): True at padding."""
        src_NS = src
        mask_NS = src_NS == self.config.pad_id
        return mask_NS

    def generate(self, src: Tensor, max_length: int) -> Tensor:
        """Translate padded source tokens (N, S) greedily into (N, L), with L <= max_length.

        Each row has its most probable tokens up to the end token, then padding; the begin token is
        left out. A row that has no end token was cut. Call `eval()` first.
        """
        src_NS = src
        prompts = [[self.config.bos_id]] * src_NS.shape[0]
        stop = stop_at(self.config.eos_id)
        outputs = generate(self, prompts, self.start(src_NS), max_length, stop=stop)
        longest = max((len(output.tokens) for output in outputs), default=0)
        tgt_NL = mt.full((len(outputs), longest), self.config.pad_id)
        for row, output in enumerate(outputs):
            tgt_NL[row, : len(output.tokens)] = mt.tensor(output.tokens)
        return tgt_NL

    @mt.no_grad()
    def start(self, src: Tensor) -> DecoderState:
        """Read padded source tokens (N, S): the state of N rows that have no target token yet."""
        src_NS = src
        padding_NS = self.generate_source_key_padding_mask(src_NS)
        if isinstance(self.encoder, Encoder) and can_fuse(self, self.encoder):
            x_NSE = self.embed(src_NS, self.src_embedding, self.src_positions)
            padding = padding_NS.numpy() if padding_NS.any() else None
            memory_NSE = mt.from_numpy(encode(self, x_NSE.numpy(), padding))
        else:
            memory_NSE = self.encode(src_NS, src_key_padding_mask=padding_NS)
        state = DecoderState(memory_NSE, padding_NS, self.config.num_decoder_layers)
        if isinstance(self.decoder, Decoder) and can_fuse_decoder(self):
            padding = None if state.padding_NS is None else padding_NS.numpy()
            state.fused = FusedDecoder(self, memory_NSE.numpy(), padding)
        return state

    @mt.no_grad()
    def advance(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """Read the next target tokens (N, L) of each row: logits (N, V) of the token after them.

        The first tokens of a row begin with the begin token. `models.decoding` does the rest.
        """
        tokens_NL, given = tokens, {}
        if state.fused is not None:
            if not (self.training or observed()):
                state.length += tokens_NL.shape[1]
                return mt.from_numpy(state.fused.advance(tokens_NL.numpy()))
            state.unfuse()
        start = state.length
        state.length += tokens_NL.shape[1]
        if isinstance(self.decoder, Decoder):
            given["caches"] = state.caches
        else:  # one that replaces it remembers nothing: it reads all tokens again
            tokens_NL, start = state.tokens.append(tokens_NL), 0
        future_LS = None
        if tokens_NL.shape[1] > 1:
            future_LS = mt.full((tokens_NL.shape[1], state.length), -math.inf).triu(start + 1)
        target_embedding_NLE = self.embed(tokens_NL, self.tgt_embedding, self.tgt_positions, start)
        decoder_output_NLE = self.decoder(
            target_embedding_NLE,
            state.memory_NSE,
            tgt_mask=future_LS,
            memory_key_padding_mask=state.padding_NS,
            **given,
        )
        logits_NV = self.output(decoder_output_NLE[:, -1])
        return logits_NV

    def explain(
        self, src: Tensor, tgt: Tensor, **masks: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return probabilities (N, L, V) and, by the path of its module, each map (N, H, L, S).

        Takes the arguments of `forward`, and computes without dropout even in training mode. Each
        row of a map has the sum 1, or 0 where the masks block everything.
        """
        src_NS, tgt_NL = src, tgt
        training = [module for module in self.modules() if module.training]
        attentions = {p: m for p, m in self.named_modules() if isinstance(m, MultiheadAttention)}
        for attention in attentions.values():
            attention.keep_weights = True
        try:
            self.eval()
            probabilities_NLV = self(src_NS, tgt_NL, **masks).softmax(-1)
            maps = {path: attention.weights for path, attention in attentions.items()}
        finally:
            for attention in attentions.values():
                attention.keep_weights = False
                attention.weights = None
            for module in training:
                module.training = True
        return probabilities_NLV, {path: m for path, m in maps.items() if m is not None}

    def save(self, path: str | Path) -> None:
        """Write the weights as safetensors, atomically, with the config as JSON in the header."""
        save_file(self.state_dict(), path, {"config": json.dumps(asdict(self.config))})

    @classmethod
    def load(cls, path: str | Path, **modules: Any) -> Transformer:
        """Load a model that `save` or a training run wrote; pass custom modules again.

        Raises CheckpointError, naming the file, if it is truncated, foreign or of another model.
        """
        tensors, header = load_file(path)
        config, state = read_config(path, header), weights_of(tensors)
        check_state(path, config, state, modules.get("encoder"), modules.get("decoder"))
        model = cls(config, **modules)
        load_state(path, model, state)
        return model


def make_norm(config: TransformerConfig) -> nn.Module:
    """Return a norm of the kind that the config names, over the width of the model."""
    kinds = {"layer": nn.LayerNorm, "rms": nn.RMSNorm, "batch": BatchNorm}
    return kinds[config.norm](config.d_model)


class BatchNorm(nn.BatchNorm1d):
    """Normalise each of E features over all tokens of the batch: (N, L, E) -> the same.

    While training, padding counts as tokens do, and a token's norm depends on the tokens after it,
    which masks cannot hide. Evaluation uses the running averages of training, so neither is so.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input` (N, L, E)."""
        x_NLE = input
        return super().forward(x_NLE.flatten(0, 1)).unflatten(0, x_NLE.shape[:2])


class MultiheadAttention(nn.Module):
    """H heads, each softmax(q k^T / sqrt(K)) v, side by side and projected (3.2): (N, L, E)."""

    def __init__(self, d_model: int, nhead: int, dropout: float, rotary: bool = False) -> None:
        super().__init__()
        self.nhead = nhead
        self.head_dim = d_model // nhead
        self.in_proj_weight = nn.Parameter(mt.empty(3 * d_model, d_model))  # of q, k and v
        self.in_proj_bias = nn.Parameter(mt.zeros(3 * d_model))
        self.dropout = nn.Dropout(dropout)
        self.out_proj = nn.Linear(d_model, d_model)
        self.rotary = RotaryPositions(self.head_dim) if rotary else None  # for self-attention
        # Set to leave the map (N, H, L, S) in `weights`.
        self.keep_weights = False
        self.weights: Tensor | None = None

    def forward(
        self, query: Tensor, memory: Tensor, mask: Tensor | None, cache: KVCache | None = None
    ) -> Tensor:
        """Attend from `query` (N, L, E) to `memory` (N, S, E); `mask` is added to the scores.

        With a `cache`, self-attention attends to all tokens that the cache has seen, and to the new
        ones; attention to the memory projects it in the first call only.
        """
        q_NHLK, k_NHSK, v_NHSK = self.project(query, memory, cache)
        scores_NHLS = q_NHLK @ k_NHSK.transpose(2, 3) / math.sqrt(self.head_dim)
        if mask is None:
            weights_NHLS = scores_NHLS.softmax(-1)
        else:
            weights_NHLS = masked_softmax(scores_NHLS + mask)
        weights_NHLS = self.dropout(weights_NHLS)
        if self.keep_weights:
            self.weights = weights_NHLS
        head_NHLK = weights_NHLS @ v_NHSK
        concatenation_NLE = head_NHLK.transpose(1, 2).flatten(2)
        return self.out_proj(concatenation_NLE)

    def project(self, query: Tensor, memory: Tensor, cache: KVCache | None) -> tuple[Tensor, ...]:
        """Return the heads' q (N, H, L, K), and k and v (N, H, S, K) of what is attended to."""
        query_NLE, memory_NSE = query, memory
        E, weight, bias = query_NLE.shape[2], self.in_proj_weight, self.in_proj_bias
        if query is memory:
            q, k, v = map(self.split, F.linear(query_NLE, weight, bias).chunk(3, 2))
        else:
            q = self.split(F.linear(query_NLE, weight[:E], bias[:E]))
            if cache is not None and cache.length:  # it has the memory
                return q, *map(self.split, cache.all().chunk(2, 2))
            k, v = map(self.split, F.linear(memory_NSE, weight[E:], bias[E:]).chunk(2, 2))
        if self.rotary is not None:
            start = 0 if cache is None else cache.length
            q, k = self.rotary(q, start), self.rotary(k, start)
        if cache is not None:
            new = mt.cat([k, v], dim=1).transpose(1, 2).flatten(2)  # (N, L, 2E)
            k, v = map(self.split, cache.append(new).chunk(2, 2))
        return q, k, v

    def split(self, x: Tensor) -> Tensor:
        """Split a projection into heads: (N, L, E) -> (N, H, L, K)."""
        x_NLE = x
        return x_NLE.unflatten(2, (self.nhead, self.head_dim)).transpose(1, 2)


def masked_softmax(scores: Tensor) -> Tensor:
    """Return softmax(scores) over S, (N, H, L, S); zeros for a query whose keys are all blocked."""
    scores_NHLS = scores
    alone_NHL1 = scores_NHLS.detach().amax(-1, keepdim=True) == -math.inf
    return scores_NHLS.masked_fill(alone_NHL1, 0.0).softmax(-1).masked_fill(alone_NHL1, 0.0)


class Layer(nn.Module):
    """The base of encoder and decoder layers: two sub-layers, with a sum and a norm around each."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        rotary = config.positions == "rotary"
        self.self_attn = MultiheadAttention(config.d_model, config.nhead, config.dropout, rotary)
        self.linear1 = nn.Linear(config.d_model, config.dim_feedforward)
        self.linear2 = nn.Linear(config.dim_feedforward, config.d_model)
        self.norm1 = make_norm(config)
        self.norm2 = make_norm(config)
        self.dropout = nn.Dropout(config.dropout)
        self.norm_first = config.norm_first
        self.activation = config.activation

    def sublayer(self, x: Tensor, norm: nn.Module, inner: Callable[[Tensor], Tensor]) -> Tensor:
        """Surround `inner` with dropout, residual sum and norm.

        Pre-norm: x + dropout(inner(norm(x))). Post-norm: norm(x + dropout(inner(x))).
        """
        x_NLE = x
        if self.norm_first:
            return x_NLE + self.dropout(inner(norm(x_NLE)))
        return norm(x_NLE + self.dropout(inner(x_NLE)))

    def self_attention(
        self, x: Tensor, mask: Tensor | None, cache: KVCache | None = None
    ) -> Tensor:
        """Apply self-attention over `x` (N, L, E)."""
        return self.sublayer(x, self.norm1, lambda x_NLE: self.self_attn(x_NLE, x_NLE, mask, cache))

    def feed_forward(self, x: Tensor) -> Tensor:
        """Return linear2(dropout(activation(linear1(x)))), for each position on its own (3.3)."""
        feedforward_in_NLE = x
        activation = getattr(F, self.activation)
        hidden_NLF = self.dropout(activation(self.linear1(feedforward_in_NLE)))
        feedforward_out_NLE = self.linear2(hidden_NLF)
        return feedforward_out_NLE


class EncoderLayer(Layer):
    """Self-attention, then the feed-forward network: (N, S, E) -> (N, S, E)."""

    def forward(self, src: Tensor, mask: Tensor | None) -> Tensor:
        """Add `mask` to the scores."""
        x_NSE = src
        x_NSE = self.self_attention(x_NSE, mask)
        return self.sublayer(x_NSE, self.norm2, self.feed_forward)


class DecoderLayer(Layer):
    """Self-attention, attention to the memory, the feed-forward network: (N, L, E) -> (N, L, E)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.multihead_attn = MultiheadAttention(config.d_model, config.nhead, config.dropout)
        self.norm3 = make_norm(config)

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        mask: Tensor | None,
        memory_mask: Tensor | None,
        caches: tuple[KVCache | None, KVCache | None] = (None, None),
    ) -> Tensor:
        """Add the masks to the scores; `caches` are those of both attentions."""
        x_NLE, memory_NSE = tgt, memory
        own, other = caches
        x_NLE = self.self_attention(x_NLE, mask, own)
        x_NLE = self.sublayer(
            x_NLE,
            self.norm2,
            lambda x_NLE: self.multihead_attn(x_NLE, memory_NSE, memory_mask, other),
        )
        return self.sublayer(x_NLE, self.norm3, self.feed_forward)


class Encoder(nn.Module):
    """A stack of encoder layers, with a final norm: (N, S, E) -> (N, S, E)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.nhead = config.nhead
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_encoder_layers))
        self.norm = make_norm(config)

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Run the embedded source (N, S, E) through all layers."""
        x_NSE = src
        mask = merge_masks(mask, src_key_padding_mask, self.nhead, x_NSE.dtype)
        for layer in self.layers:
            x_NSE = layer(x_NSE, mask)
        return self.norm(x_NSE)


class Decoder(nn.Module):
    """A stack of decoder layers, with a final norm: (N, L, E) and memory (N, S, E) -> (N, L, E)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.nhead = config.nhead
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_decoder_layers))
        self.norm = make_norm(config)

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        caches: Sequence[tuple[KVCache, KVCache]] | None = None,
    ) -> Tensor:
        """Run the embedded target (N, L, E) through all layers; each attends to the memory.

        With the `caches` of a `DecoderState`, the target continues the tokens that they have seen.
        """
        x_NLE, memory_NSE = tgt, memory
        mask = merge_masks(tgt_mask, tgt_key_padding_mask, self.nhead, x_NLE.dtype)
        memory_mask = merge_masks(memory_mask, memory_key_padding_mask, self.nhead, x_NLE.dtype)
        for number, layer in enumerate(self.layers):
            given = (x_NLE, memory_NSE, mask, memory_mask)
            x_NLE = layer(*given) if caches is None else layer(*given, caches[number])
        return self.norm(x_NLE)


def main() -> None:
    """Train a small model to reverse sequences of eight digits."""
    mt.manual_seed(0)
    config = TransformerConfig(
        13, 13, d_model=64, nhead=4, num_encoder_layers=1, num_decoder_layers=1,
        dim_feedforward=128, dropout=0.0, norm_first=True,
    )  # fmt: skip
    model = Transformer(config)
    optimizer = mt.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(401):
        src_NS = mt.randint(3, 13, (64, 8))
        tgt_NL = mt.cat([src_NS.flip(1), mt.full((64, 1), config.eos_id)], dim=1)
        causal_LL = model.generate_square_subsequent_mask(tgt_NL.shape[1])
        logits_NLV = model(src_NS, model.shift_right(tgt_NL), tgt_mask=causal_LL)
        loss = F.cross_entropy(logits_NLV.flatten(0, 1), tgt_NL.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step:3d}  loss {loss.item():.4f}")
    model.eval()
    src_NS = mt.randint(3, 13, (5, 8))
    for source, reverse in zip(src_NS.tolist(), model.generate(src_NS, 9).tolist(), strict=True):
        print(*(token - 3 for token in source), "->", *(token - 3 for token in reverse[:-1]))


if __name__ == "__main__":
    main()
