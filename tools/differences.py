"""The differences from PyTorch that are meant, in one list, with their reasons.

`tests/agree.py` compares both libraries and finds each disagreement explained here, or fails;
`tools.surface` writes the reasons into the README.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Difference(NamedTuple):
    """A difference: the reason, and where it shows.

    All four patterns have to be found: in the full name, the aspect ("accepted", "refused",
    "class", "dtype", "value", ...), what is told of it, and the text of the call. Without `names`
    it is one that comparisons of single calls do not meet.
    """

    reason: str
    names: str | None = None
    aspect: str = ""
    how: str = ""
    call: str = ""


# Those that a user of PyTorch meets; the README lists them.
MEANT = [
    Difference("There is only the CPU; `.cuda()` says so.", r"\.cuda$"),
    Difference(
        "Dropout draws from a counter-based generator by default, which is fast and gives the same "
        "result on any number of threads; `mt.exact_dropout()` drops what PyTorch drops for the "
        "same seed."
    ),
    Difference("`numpy()` of bfloat16 gives an array of `ml_dtypes`, where PyTorch raises."),
    Difference("The state of a random generator is a NumPy array of bytes.", r"rng_state$", "type"),
    Difference(
        "`take_along_dim` refuses an index outside -n to n-1, which PyTorch wraps silently."
    ),
    Difference(
        "One of the views that `unbind`, `split` and `chunk` return may be changed in place: each "
        "has a history of its own."
    ),
    Difference(
        "`DataLoader` loads in the calling thread for any `num_workers`, with the random streams "
        "of PyTorch's workers."
    ),
    Difference(
        "`forward` of `nn.Linear`, `nn.LayerNorm` and `nn.Embedding` takes optional arguments that "
        "PyTorch's has not: see Speed."
    ),
    Difference(
        "`repr` and `type()` say minitensor where PyTorch's say torch; optimizers have no settings "
        "for graphics cards.",
        "",
        "value",
        r"minitensor\.FloatTensor|Parameter Group 0|of size",
    ),
    Difference(
        "What has no derivative (random draws, comparisons, `unique`) gives a tensor without a "
        "gradient, where PyTorch's may have one of zeros.",
        r"\.(bernoulli|normal|bincount|unique|unique_consecutive|new|uniform|exponential|random|fill|log_normal|geometric|"
        r"cauchy|eq|ne|lt|le|gt|ge|less|less_equal|greater|greater_equal|not_equal|logical_\w+)_?$",
        "requires_grad",
    ),
    Difference(
        "What is refused for a type, a size or a divisor is refused for an empty tensor too.",
        "",
        "refused",
        "",
        r"(?<![\d.])0x\d|\b\w+\d 0\b|bool 0\b|\dx0\b|\(0, 3\)",
    ),
    Difference(
        "Where a setting is a number (`beta`, `dim`, `k`), a 0-dim tensor or a bool may be refused "
        "or be taken with its type.",
        r"\.(softplus|leaky_relu|elu|celu|selu|gelu|hardshrink|softshrink|threshold|hardtanh|tril|triu|"
        r"roll|\w*norm|squeeze|topk|chunk|random|diag_embed|diagonal|size|split|tensor_split|clamp|"
        r"clip|broadcast_to|softmax|log_softmax|softmin|to|dropout|count_nonzero|glu|diag|narrow|fill_diagonal|rot90|[hv]split|logit|"
        r"avg_pool1d|resize|"
        r"repeat|tile|expand|unflatten|normal|cumsum|cumprod)_?$",
        "",
        "",
        r"scalar|True|False",
    ),
]
# Corners of single functions.
CORNERS = [
    Difference(
        "The deprecated `add(x, alpha, other)` and its like, the factor before the tensor, are "
        "refused.",
        r"\.(add|sub|subtract|rsub|addcmul|addcdiv|addmm|addbmm|baddbmm|addmv|addr)_?$",
        "refused",
        "takes .* positional|must be a Tensor, not (int|float|bool)",
    ),
    Difference(
        "Where PyTorch has no derivative (`floor_divide`, `remainder` by a tensor) or fails in it "
        "(bool operands of `atan2` and `logaddexp`), there is one.",
        "",
        "gradient",
        "^PyTorch: ",
    ),
    Difference(
        "The gradient at an infinite or NaN element may be NaN here and 0 there, or the reverse.",
        "",
        "gradient",
        "value|not None",
        r"float(32|64) 10\b",
    ),
    Difference(
        "The gradient of `kl_div` with an empty argument is that of its NaN.",
        r"\.kl_div$",
        "gradient",
        "nan",
        "0x3",
    ),
    Difference(
        "The gradient of `atan2` of uint8 is right, where PyTorch's squares overflow.",
        r"\.(atan2|arctan2)_?$",
        "gradient",
        "value",
        "uint8|int8",
    ),
    Difference(
        "A gradient in half precision is computed in float32 and rounded once.",
        "",
        "gradient",
        "value",
        "b?float16",
    ),
    Difference(
        "Groups of two in `group_norm` have a gradient that is all rounding error.",
        r"\.group_norm$",
        "gradient",
        "value",
    ),
    Difference("On the border of two bins of `histc`, rounding decides.", r"\.histc$", "value"),
    Difference(
        "`celu_` and `elu_` of an infinite `alpha` have another gradient; `elu_` has no scales.",
        r"\.c?elu_$",
        "gradient|refused",
        "value|multiple values",
    ),
    Difference(
        "`hardtanh_` refuses a least value above the greatest, as `hardtanh` does in both.",
        r"\.hardtanh_$",
        "refused",
        "is greater than",
    ),
    Difference(
        "`mT` of a 0-dim tensor is refused; PyTorch warns that it will be.", r"\.mT$", "refused"
    ),
    Difference("Dropout of integers gives floats.", r"\.dropout$", "dtype"),
    Difference(
        "`resize_` keeps the elements in the order of the dimensions, not of memory.",
        r"\.resize_$",
        "value",
    ),
    Difference(
        "`gelu` of infinity is infinity, of -infinity 0; PyTorch's may be NaN.",
        r"\.gelu$",
        "value",
        "",
        r"float(32|64) 10\b",
    ),
    Difference(
        "A number, which may stand for a type or a device in PyTorch, does so nowhere.",
        "",
        "refused",
        "not a data type|softmax: not implemented for int64",
    ),
    Difference(
        "Over `dim=()`, `all` and `any` reduce everything, as `sum` does; the gradients of `std` "
        "and `var` are those of all, not infinite.",
        r"\.(all|any|std|var|std_mean|var_mean)$",
        "",
        "",
        r"\(\)",
    ),
    Difference(
        "Among equal numbers `topk`, `median` and `sort` may choose another of them.",
        r"\.(topk|median|kthvalue|mode|sort|argsort|msort)$",
        "value",
    ),
    Difference("`median` of no integers is an error.", r"\.median$", "refused"),
    Difference("Norms by singular values are not there.", "norm$", "refused", "singular|nuclear"),
    Difference(
        "The derivative of `hardsigmoid` in float64 has all digits of 1/6.",
        "hardsigmoid|Hardsigmoid",
        "gradient|value",
        "",
        "float64|Hardsigmoid",
    ),
    Difference(
        "Integers multiplied by a fraction (`addcmul` with `value=0.5`) become floats, and bools "
        "by an integer integers.",
        r"\.(addcmul|addcdiv|add)_?$",
        "dtype|refused",
        "",
        "value=0.5|bool.*alpha",
    ),
    Difference(
        "Losses take both in the type of their sum, by the rules of arithmetic; `huber_loss` too.",
        r"_loss$|_logits$|cosine_similarity$",
        "dtype|value",
    ),
    Difference(
        "Functions of two Python numbers, and of no tensor, are not there.",
        "",
        "refused|dtype|value",
        "",
        r"^-?[\d.]+, -?[\d.]+$",
    ),
    Difference(
        "`isclose` and `allclose` of bools ask for equality.",
        r"\.(isclose|allclose)$",
        "value",
        "",
        "bool",
    ),
    Difference(
        "Several sizes or dimensions are given as a tuple where PyTorch's methods also take them "
        "one after the other (`squeeze`, `count_nonzero`, `broadcast_to`).",
        r"\.(squeeze_?|count_nonzero|broadcast_to|[hv]split)$",
        "refused",
        "positional|not iterable|iteration over",
    ),
    Difference("`repeat_interleave` of counts gives int64.", r"\.repeat_interleave$", "dtype"),
    Difference(
        "Where numbers are not sorted, `searchsorted` and `bucketize` may find another place.",
        r"\.(searchsorted|bucketize)$",
        "value",
    ),
    Difference(
        "`logit` outside 0 to 1, and with an `eps` above 0.5, has another result or gradient.",
        r"\.logit_?$",
        "value|gradient",
    ),
    Difference("`quantile` has no gradient by q, nor at NaN.", r"\.quantile$", "gradient"),
    Difference(
        "The gradients of `nanmean` and `logcumsumexp` are finite at NaN and -infinity.",
        r"\.(nanmean|logcumsumexp)$",
        "gradient",
    ),
    Difference(
        "Pooling takes floats alone.", r"pool[12]d$", "refused", "only for floats|expected 3"
    ),
    Difference(
        "`unique_consecutive` leaves out what is not asked for.", r"\.unique_consecutive$", "shape"
    ),
    Difference("An empty `diff` needs a dimension that is there.", r"\.diff$", "refused"),
    Difference(
        "Gradients of nothing do not require one.",
        r"\.(cummax|cummin)$",
        "gradient",
        "requires_grad",
    ),
    Difference("`block_diag` takes its type from 0-dim tensors too.", r"\.block_diag$", "dtype"),
]
DIFFERENCES = [*MEANT, *CORNERS]
# Shared names that no call is made for, by pattern, and why.
NO_INPUTS: dict[str, str] = {
    r"torch\.(set_flush_denormal|[sg]et_num_(interop_)?threads)": "settings of the processor",
    r"torch\.(get_autocast_dtype|BFloat16Tensor)": "the answer is a type; a type",
    r"torch\.Tensor\.(untyped_)?storage": "an object to be asked for its size and place",
    r"torch\.frombuffer": "memory of others, tested alone",
    r"torch\.Tensor\.(cuda|pin_memory)": "what a machine without a graphics card refuses",
    r"torch\.nn\.utils\.rnn\.Tensor": "an import",
    r"torch\.nn\.LinearCrossEntropyOptions": "settings, no tensors",
    r"torch\.(save|load|seed|OutOfMemoryError)": "files and chance, tested alone",
}


def reason_for(name: str, aspect: str, how: str, call: str) -> str | None:
    """Return the reason for a disagreement, None if there is none."""
    for d in DIFFERENCES:
        if d.names is None:
            continue
        texts = ((d.names, name), (d.aspect, aspect), (d.how, how), (d.call, call))
        if all(re.search(pattern, text) for pattern, text in texts):
            return d.reason
    return None
