"""BERT, an encoder that learns a language by filling in blanks: complete, with its tasks.

Sources:
- Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language
  Understanding", 2018, arXiv:1810.04805: the model and its tasks. Numbers in parentheses, such as
  (3.1), are its sections.
- Hendrycks, Gimpel, "Gaussian Error Linear Units", 2016, arXiv:1606.08415.
- Reimers, Gurevych, "Sentence-BERT", 2019, arXiv:1908.10084: one vector for a sentence.
- Wang et al., "MiniLM", 2020, arXiv:2002.10957: the pretrained model of `make pretrained`.

A tensor's name ends in its dimensions, and a test holds the names to it:

    N batch   L length   E model width   H heads   K width of a head, E = H * K
    F feed-forward width   V vocabulary

Parameters have the names they have in Hugging Face's BertForPreTraining, so that its weights load
as they are.

    python -m models.bert      learn to count in words, in a minute, and fill in blanks
    python -m models.bert embed "A cat sat." "A kitten was sitting."      with real weights
"""

# ruff: noqa: RET504 - a result gets its name before it is returned, so that its shape is checked

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import minitensor as mt
import minitensor.nn.functional as F
from minitensor import Tensor, nn

from .bert_files import ACTIVATIONS, Pretrained, find_pretrained, pad, read_pretrained
from .bert_files import BertConfig as BertConfig


class Bert(nn.Module):
    """Tokens (N, L) -> a vector for each of them that knows of all others (N, L, E).

    Parameters have the names of Hugging Face's BertModel.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.pooler = Pooler(config)
        initialize(self, config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """Encode tokens (N, L).

        - attention_mask (N, L): 1 or True for a token, 0 or False for padding; all are tokens if
          it is None.
        - token_type_ids (N, L): the number of each token's segment; all are 0 if it is None.

        Raises IndexError for a token outside the vocabulary, a segment or a position never learned.
        """
        x_NLE = self.embeddings(input_ids, token_type_ids)
        mask_N11L = None
        if attention_mask is not None:
            mask_N11L = attention_mask.bool().unsqueeze(1).unsqueeze(2)
        return self.encoder(x_NLE, mask_N11L)


class Embeddings(nn.Module):
    """The sum of a token's, its position's and its segment's vector, normalised: (N, L, E)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        E = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, E, config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, E)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, E)
        self.LayerNorm = nn.LayerNorm(E, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Embed tokens (N, L) of segments (N, L), which are all 0 if None."""
        input_ids_NL = input_ids
        L, most = input_ids_NL.shape[1], self.position_embeddings.num_embeddings
        if most < L:
            raise IndexError(
                f"the text has {L} tokens, but this model learned only {most} positions"
            )
        segments_NL = mt.zeros_like(input_ids_NL) if token_type_ids is None else token_type_ids
        words_NLE = self.word_embeddings(input_ids_NL)
        segments_NLE = self.token_type_embeddings(segments_NL)
        positions_LE = self.position_embeddings(mt.arange(L))
        return self.dropout(self.LayerNorm(words_NLE + segments_NLE + positions_LE))


class SelfAttention(nn.Module):
    """H heads, each softmax(q k^T / sqrt(K)) v, side by side: (N, L, E) -> (N, L, E)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        E = config.hidden_size
        self.nhead = config.num_attention_heads
        self.query = nn.Linear(E, E)
        self.key = nn.Linear(E, E)
        self.value = nn.Linear(E, E)
        self.dropout = config.attention_probs_dropout_prob

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attend from `x` (N, L, E) to itself where `mask` (N, 1, 1, L) is True."""
        x_NLE = x
        q_NHLK = self.split_heads(self.query(x_NLE))
        k_NHLK = self.split_heads(self.key(x_NLE))
        v_NHLK = self.split_heads(self.value(x_NLE))
        dropout = self.dropout if self.training else 0.0
        heads_NHLK = F.scaled_dot_product_attention(q_NHLK, k_NHLK, v_NHLK, mask, dropout)
        concatenation_NLE = heads_NHLK.transpose(1, 2).flatten(2)
        return concatenation_NLE

    def split_heads(self, x: Tensor) -> Tensor:
        """Return each head's part: (N, L, E) -> (N, H, L, K)."""
        x_NLE = x
        x_NHLK = x_NLE.unflatten(2, (self.nhead, -1)).transpose(1, 2)
        return x_NHLK


class Output(nn.Module):
    """The end of a sub-layer: norm(residual + dropout(x w^T + b))."""

    def __init__(self, config: BertConfig, in_features: int) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Project `x`, (N, L, E) or (N, L, F), and add the residual (N, L, E)."""
        residual_NLE = residual
        return self.LayerNorm(residual_NLE + self.dropout(self.dense(x)))


class Attention(nn.Module):
    """The first sub-layer, self-attention: (N, L, E) -> (N, L, E)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = Output(config, config.hidden_size)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attend where `mask` (N, 1, 1, L) is True."""
        x_NLE = x
        return self.output(self.self(x_NLE, mask), x_NLE)


class Intermediate(nn.Module):
    """The wide part of the feed-forward network: (N, L, E) -> (N, L, F)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """Return f(x w^T + b)."""
        x_NLE = x
        hidden_NLF = self.activation(self.dense(x_NLE))
        return hidden_NLF


class Layer(nn.Module):
    """Self-attention, then the feed-forward network: (N, L, E) -> (N, L, E)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = Output(config, config.intermediate_size)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attend where `mask` (N, 1, 1, L) is True."""
        x_NLE = self.attention(x, mask)
        return self.output(self.intermediate(x_NLE), x_NLE)


class Encoder(nn.Module):
    """A stack of layers: (N, L, E) -> (N, L, E)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Run `x` through all layers; `mask` (N, 1, 1, L) is True at tokens, False at padding."""
        x_NLE = x
        for layer in self.layer:
            x_NLE = layer(x_NLE, mask)
        return x_NLE


class Pooler(nn.Module):
    """One vector for a whole text, from that of [CLS]: (N, L, E) -> (N, E)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return tanh(w h + b) of the first token's vector h."""
        first_NE = hidden[:, 0]
        return self.dense(first_NE).tanh()


class BertForPreTraining(nn.Module):
    """BERT with the heads of both tasks it learns from (3.1).

    The output of words is the word embedding itself.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = Bert(config)
        self.cls = PreTrainingHeads(config)
        initialize(self.cls, config)
        self.cls.predictions.decoder.weight = self.bert.embeddings.word_embeddings.weight
        self.cls.predictions.decoder.bias = self.cls.predictions.bias

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return scores of the token at each place (N, L, V), and of "follows" and "random" (N, 2).

        The arguments are those of `Bert`.
        """
        hidden_NLE = self.bert(input_ids, attention_mask, token_type_ids)
        logits_NLV = self.cls.predictions(hidden_NLE)
        follows_N2 = self.cls.seq_relationship(self.bert.pooler(hidden_NLE))
        return logits_NLV, follows_N2


class PreTrainingHeads(nn.Module):
    """The heads for masked words and for the next sentence."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.predictions = WordHead(config)
        self.seq_relationship = nn.Linear(config.hidden_size, 2)


class WordHead(nn.Module):
    """Scores of the word at a place: (*, E) -> (*, V)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.bias = nn.Parameter(mt.zeros(config.vocab_size))
        self.transform = Transform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Score all words."""
        return self.decoder(self.transform(hidden))


class Transform(nn.Module):
    """A layer before the scores: norm(f(x w^T + b)), (*, E) -> (*, E)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform vectors."""
        return self.LayerNorm(self.activation(self.dense(hidden)))


class BertClassifier(nn.Module):
    """BERT with a head that tells classes apart: tokens (N, L) -> scores (N, C)."""

    def __init__(self, config: BertConfig, classes: int) -> None:
        super().__init__()
        self.config = config
        self.bert = Bert(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, classes)
        initialize(self.classifier, config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """Score each text's classes (N, C); the arguments are those of `Bert`."""
        pooled_NE = self.bert.pooler(self.bert(input_ids, attention_mask, token_type_ids))
        return self.classifier(self.dropout(pooled_NE))


def initialize(model: nn.Module, config: BertConfig) -> None:
    """Draw matrices from a normal distribution; biases and the vector of padding are 0."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=config.initializer_range)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            with mt.no_grad():
                module.weight[module.padding_idx].zero_()


# One vector for a sentence


class SentenceEncoder:
    """A pretrained model that gives texts of similar meaning similar vectors.

    `folder` is that of a Hugging Face BERT; by default that of the package that `make pretrained`
    installs. InputError or CheckpointError, naming the file, for a folder that is not a BERT's.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        pretrained = read_pretrained(find_pretrained() if folder is None else folder)
        self.tokenizer, self.pools_first = pretrained.tokenizer, pretrained.pools_first
        self.model = load_bert(pretrained).eval()

    @mt.no_grad()
    def encode(
        self, texts: Sequence[str], max_length: int | None = None, replace_unknown: bool = False
    ) -> Tensor:
        """Return a vector of length 1 for each text, (N, E): their products are cosines.

        InputError as from `Tokenizer.encode`: texts are cut only to the `max_length` given.
        """
        limit = self.model.config.max_position_embeddings
        encoded = [
            ids for ids, _ in self.tokenizer.encode(texts, limit, max_length, replace_unknown)
        ]
        vectors_NE = mt.zeros(len(texts), self.model.config.hidden_size)
        for numbers in group_by_length([len(ids) for ids in encoded]):
            tokens_NL = pad([encoded[n] for n in numbers], self.tokenizer.pad)
            vectors_NE[mt.tensor(numbers)] = self.pool(tokens_NL)
        return vectors_NE

    def pool(self, tokens: Tensor) -> Tensor:
        """Return the mean of the vectors of each text's tokens (N, L), at length 1: (N, E)."""
        tokens_NL = tokens
        mask_NL = tokens_NL != self.tokenizer.pad
        padded = not mask_NL.all()
        hidden_NLE = self.model(tokens_NL, mask_NL if padded else None)
        if self.pools_first:
            pooled_NE = hidden_NLE[:, 0]
        else:
            weight_NL1 = mask_NL.unsqueeze(2).to(hidden_NLE.dtype)
            pooled_NE = (hidden_NLE * weight_NL1).sum(1) / weight_NL1.sum(1)
        return F.normalize(pooled_NE, dim=1)


def load_bert(pretrained: Pretrained) -> Bert:
    """Return the encoder of a folder."""
    model = nn.utils.skip_init(Bert, pretrained.config)
    pretrained.load_into(model, "bert.", new=("pooler.",))
    return model


GROUP_COST = 64  # a batch costs as much as so many more tokens
GROUP_TOKENS = 4096  # of a batch, padding included


def group_by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Group the numbers of texts of similar length, with little padding and in few batches."""
    groups: list[list[int]] = []
    longest = 0
    for number in sorted(range(len(lengths)), key=lambda n: lengths[n]):
        length = lengths[number]
        count = len(groups[-1]) if groups else 0
        if (
            not count
            or count * (length - longest) > GROUP_COST
            or (count + 1) * length > GROUP_TOKENS
        ):
            groups.append([])
        groups[-1].append(number)
        longest = length
    return groups
