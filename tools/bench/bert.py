"""Topic `bert`: a sentence encoder of the size of MiniLM, for one sentence and for a batch."""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import minitensor as mt
from minitensor.models.bert import Bert, BertConfig
from minitensor.models.bert_fused import FusedBert

from .measure import HERE, Figure, Sides, from_times, load, take_turns
from .plan import Plan

TARGET = 1.5  # of PyTorch's speed
COMPILED = "here compiled"


def measure_bert(plan: Plan, against: Sequence[str]) -> Iterator[Figure]:
    """Measure the encoding of tokens (N, L), none of them padding, with random weights.

    PyTorch runs BertModel of the package transformers, and onnxruntime a file exported from it;
    without that package there is nothing to compare with.
    """
    model = Bert(plan.bert).eval()
    fused, compiled = FusedBert(model), mt.compile(model, options={"freezing": True})
    theirs = hugging_face(model) if {"torch", "onnxruntime"} & set(against) else None
    for batch, length in plan.bert_batches:
        noise = np.random.RandomState(0)
        tokens = noise.randint(1, plan.bert.vocab_size, (batch, length))
        ours = mt.tensor(tokens)
        sides: Sides = {
            HERE: lambda ours=ours: fused(ours),  # type: ignore[misc]
            COMPILED: mt.inference_mode()(lambda ours=ours: compiled(ours)),  # type: ignore[misc]
        }
        if theirs is not None and "torch" in against:
            sides["torch"] = torch_call(theirs, tokens)
        if theirs is not None and "onnxruntime" in against:
            sides["onnxruntime"] = onnx_call(theirs, tokens)
        times = take_turns(sides, plan.rounds, plan.seconds, plan.pause)
        by_compiler, name = times.pop(COMPILED), f"N={batch} L={length}"
        each = flops(plan.bert, batch, length)
        yield from_times("bert", name, times, flops=each, target=TARGET)
        times[HERE] = by_compiler
        yield from_times("bert", f"{name}, compiled", times, flops=each)


def flops(config: BertConfig, batch: int, length: int) -> float:
    """Return the FLOPs of the matrix products, two per multiply-add."""
    E, F = config.hidden_size, config.intermediate_size
    layer = 4 * E * E + 2 * E * F + 2 * length * E
    return 2.0 * batch * length * config.num_hidden_layers * layer


def hugging_face(model: Bert) -> Any:
    """Return Hugging Face's model with the weights of `model`; None if it is not installed."""
    if importlib.util.find_spec("transformers") is None:
        return None
    torch, transformers = load("torch"), importlib.import_module("transformers")
    theirs = transformers.BertModel(transformers.BertConfig(**asdict(model.config))).eval()
    state = {name: torch.from_numpy(x.numpy().copy()) for name, x in model.state_dict().items()}
    theirs.load_state_dict(state)
    return theirs


def torch_call(theirs: Any, tokens: np.ndarray) -> Callable[[], Any]:
    """Return a call of PyTorch on tokens (N, L)."""
    torch = load("torch")
    given = torch.from_numpy(tokens)

    def call() -> Any:
        with torch.inference_mode():
            return theirs(given).last_hidden_state

    return call


def onnx_call(theirs: Any, tokens: np.ndarray) -> Callable[[], Any]:
    """Return a call of onnxruntime on tokens (N, L), on as many threads as here."""
    torch, runtime = load("torch"), load("onnxruntime")

    class Hidden(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = theirs

        def forward(self, tokens: Any, mask: Any) -> Any:
            return self.model(tokens, attention_mask=mask).last_hidden_state

    given = {"tokens": tokens, "mask": np.ones_like(tokens)}
    options = runtime.SessionOptions()
    options.intra_op_num_threads = mt.get_num_threads()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, on branches that do not change
        path = Path(folder) / "bert.onnx"
        torch.onnx.export(
            Hidden().eval(), tuple(map(torch.from_numpy, given.values())), path,
            input_names=list(given), output_names=["hidden"], dynamo=False,
        )  # fmt: skip
        session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, given)[0]
