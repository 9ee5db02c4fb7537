"""PyTorch's own names: found under `torch` after `install`, and as attributes of minitensor."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from conftest import needs_torch

import minitensor as mt
from minitensor import compat
from minitensor.compat.__main__ import main
from minitensor.compat.modules import BEYOND, INSTEAD, MODULES
from minitensor.compat.version import VERSION, TorchVersion

ROOT = Path(__file__).parent.parent
PROGRAMS = sorted((ROOT / "tests/scripts").glob("*.py"))
IMPORTS = """
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.backends.cudnn as cudnn
import torch.utils.data as data
import torch.multiprocessing as mp
import torch.distributed as dist
import torch._dynamo
import torch._inductor.config
from torch import nn, optim, Tensor, autocast
from torch.nn import functional as F
from torch.nn.modules.activation import MultiheadAttention
from torch.nn.modules.module import Module, _IncompatibleKeys
from torch.nn.modules.utils import _pair, _triple
from torch.nn.modules.loss import _Loss
from torch.nn.modules.transformer import _get_clones, _get_activation_fn
from torch.nn.parameter import Parameter
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
from torch.nn.utils.clip_grad import clip_grad_norm_
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataset import random_split
from torch.utils.data.dataloader import default_collate
from torch.utils.data.distributed import DistributedSampler
from torch.utils.checkpoint import checkpoint
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.optimizer import Optimizer
from torch.autograd import Variable, Function
from torch.autograd.function import once_differentiable
from torch.cuda.amp import GradScaler, autocast, custom_fwd, custom_bwd
from torch.jit import Final, script
from torch.types import Device, Number
"""
BLOCKED = "import sys; sys.modules['torch'] = None\n"  # the one that is installed, if any


def python(*args: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def stem(program: Path) -> str:
    return program.stem


@pytest.fixture
def torch() -> Iterator[Any]:
    """`import torch` finds minitensor, also where PyTorch is imported: it is hidden meanwhile."""
    real = {n: m for n, m in sys.modules.items() if n.partition(".")[0] == "torch"}
    for name in real:
        del sys.modules[name]
    compat.install()
    yield import_module("torch")
    compat.uninstall()
    sys.modules.update(real)


def test_every_module_of_the_table_is_one_object_under_both_names(torch: Any) -> None:
    functions = [  # of the names of their modules, as in PyTorch
        "torch.autograd.gradcheck",
        "torch.nn.parallel.data_parallel",
        "torch.nn.utils.weight_norm",
    ]
    for name, target in MODULES.items():
        assert import_module(name) is import_module(target)
        found = torch
        for part in name.split(".")[1:]:
            found = getattr(found, part)
        assert found is import_module(target) or name in functions, name
    assert torch is mt
    assert torch.Tensor is mt.Tensor
    for name in functions:
        assert inspect.isfunction(eval(name))
    files = [getattr(m, "__file__", None) for n, m in sys.modules.items() if n.startswith("minit")]
    twice = {file for file in files if file and files.count(file) > 1}
    assert not twice


@pytest.mark.usefixtures("torch")
def test_the_imports_that_people_write() -> None:
    names: dict[str, Any] = {}
    exec(IMPORTS, names)
    assert names["_pair"](3) == (3, 3)
    assert names["_triple"]([1, 2, 3]) == (1, 2, 3)
    assert issubclass(mt.nn.CrossEntropyLoss, names["_Loss"])
    assert names["MultiheadAttention"] is mt.nn.MultiheadAttention
    assert len(names["_get_clones"](mt.nn.Linear(2, 2), 3)) == 3
    exec(
        "torch._dynamo.config.suppress_errors = True\n"
        "torch._inductor.config.coordinate_descent_tuning = True\n"
        "cudnn.benchmark = True\n"
        "cudnn.deterministic = True\n"
        "torch.backends.cuda.matmul.allow_tf32 = True\n"
        "assert torch.backends.cudnn.deterministic and cudnn.allow_tf32\n",
        names,
    )


def test_names_of_types_are_printed_as_pytorchs(torch: Any) -> None:
    x = torch.ones(2, 3, dtype=torch.float64)
    assert f"{x.shape} {x.type()}" == "torch.Size([2, 3]) torch.DoubleTensor"
    assert repr(x[0]) == "tensor([1., 1., 1.], dtype=torch.float64)"
    assert repr(x.max(0)).startswith("torch.return_types.max(")


def test_names_of_types_are_printed_as_our_own_without_install() -> None:
    assert str(mt.ones(2).shape) == "minitensor.Size([2])"


def test_dropout_is_pytorchs_for_the_same_seed(torch: Any) -> None:
    torch.manual_seed(0)
    dropped = torch.nn.functional.dropout(torch.ones(8))
    assert dropped.tolist() == [0, 0, 2, 0, 0, 0, 2, 2]


@pytest.mark.usefixtures("torch")
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("torch.fx", "minitensor has no torch.fx: minitensor.graph.trace records a program"),
        (
            "torch.utils.tensorboard",
            "minitensor has no torch.utils.tensorboard: print, or write the numbers to a file",
        ),
        (
            "torch.optim.lr_schedule",
            "minitensor has no torch.optim.lr_schedule: did you mean torch.optim.lr_scheduler?",
        ),
        ("torch.core", "minitensor has no torch.core"),  # which minitensor has, for itself
    ],
)
def test_a_module_that_is_not_there_is_told_in_a_sentence(name: str, sentence: str) -> None:
    with pytest.raises(ModuleNotFoundError) as raised:
        import_module(name)
    assert str(raised.value).startswith(sentence)
    assert raised.value.name == name


def test_a_name_that_is_not_there_is_told_in_a_sentence() -> None:
    with pytest.raises(AttributeError, match="tensors are real: write a rotation as pairs"):
        mt.view_as_complex  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(mt, "vmap")
    with pytest.raises(AttributeError, match="did you mean 'synchronize'"):
        mt.cuda.synchronise  # noqa: B018


def test_install_refuses_where_pytorch_is_already_imported() -> None:
    code = "import sys, types; sys.modules['torch'] = types.ModuleType('torch')\n"
    done = python("-c", f"{code}import minitensor.compat as c; c.install()")
    assert "PyTorch is already imported in this process" in done.stderr


@pytest.mark.usefixtures("torch")
def test_install_can_be_undone() -> None:
    compat.install()  # a second time
    import_module("torch.cuda")
    assert mt.__version__ == VERSION
    compat.uninstall()
    assert mt.__version__ == VERSION.of_minitensor
    assert not [name for name in sys.modules if name.partition(".")[0] == "torch"]


SCRIPT = """
import pickle, sys
import torch
from helper import three

class Item:
    pass

item = pickle.loads(pickle.dumps(Item()))
print(__name__, sys.argv[1:], int(three), type(item).__name__)
sys.exit(3)
"""


@pytest.mark.parametrize("start", [["script.py"], ["-m", "script"]])
def test_a_script_or_module_runs_with_its_arguments(tmp_path: Path, start: list[str]) -> None:
    (tmp_path / "helper.py").write_text("import torch\nthree = torch.tensor(3)\n")
    (tmp_path / "script.py").write_text(SCRIPT)
    done = python("-m", "minitensor.compat", *start, "--lr", "1", cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("__main__ ['--lr', '1'] 3 Item\n", 3), done.stderr


@pytest.mark.parametrize(("args", "code"), [([], 2), (["-h"], 0), (["nothing.py"], 1)])
def test_a_command_without_a_script_says_so(
    args: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["compat", *args])
    monkeypatch.setattr("minitensor.compat.__main__.install", lambda: None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code or "no file nothing.py" in str(ended.value.code)


def test_a_version_compares_by_its_numbers() -> None:
    assert f"2.13.0+minitensor.{VERSION.of_minitensor}" == VERSION
    assert VERSION > "2.5"
    assert VERSION >= (2, 0)
    assert VERSION > "1.13.1"
    assert not VERSION < "2.13"
    assert VERSION <= "2.13"
    assert TorchVersion("2.9") < VERSION < "3"
    assert int(VERSION.split(".")[0]) >= 2
    assert mt.__version__ == VERSION.of_minitensor


def test_names_of_pytorch_are_looked_up_when_they_are_asked_for_and_not_before() -> None:
    code = f"""{BLOCKED}
import minitensor as torch
from minitensor import nn
model = nn.Transformer(8, 2, 1, 1, 16)
optimizer = torch.optim.Adam(model.parameters())
model(torch.rand(3, 2, 8), torch.rand(4, 2, 8)).sum().backward()
optimizer.step()
import minitensor.graph, minitensor.testing
assert not [name for name in sys.modules if name.startswith("minitensor.compat")]
assert not torch.cuda.is_available() and torch.cuda.device_count() == 0
"""
    done = python("-W", "error", "-c", code)
    assert done.returncode == 0, done.stderr


def test_names_of_pytorch_are_there_without_install() -> None:
    assert mt.utils.data.DataLoader is mt.data.DataLoader  # type: ignore[attr-defined]
    assert mt.backends.mps.is_available() is False
    assert mt.compile(len, disable=True) is len
    assert mt.inf == float("inf")
    assert 3 < mt.pi < 4
    assert mt.nan != mt.nan
    assert mt.arange(3)[:, mt.newaxis].shape == (3, 1)
    with mt.amp.autocast("cpu"), mt.autocast("cpu", enabled=False):
        pass


def test_devices_that_are_not_there() -> None:
    cuda: Any = mt.cuda
    assert cuda.is_available() is False
    assert cuda.is_bf16_supported() is False
    assert cuda.max_memory_allocated() == cuda.memory_allocated("cuda:0") == 0
    for accepted in (cuda.manual_seed, cuda.manual_seed_all, mt.mps.manual_seed):
        assert accepted(0) is None
    assert cuda.empty_cache() is None
    x, layer = mt.ones(2), mt.nn.Linear(2, 2)
    for asks in (
        x.cuda,
        layer.cuda,
        cuda.synchronize,
        cuda.current_device,
        lambda: x.to("cuda"),
        lambda: layer.to("cuda:0"),
        lambda: mt.zeros(2, device="cuda"),
        lambda: cuda.get_device_name(0),
        lambda: cuda.Event(enable_timing=True),
        lambda: mt.set_default_device("cuda"),
    ):
        for kind in (AssertionError, RuntimeError):  # of PyTorch's two builds
            with pytest.raises(kind, match="only the CPU"):
                asks()
    with pytest.raises(TypeError, match="not available"):
        cuda.FloatTensor(3)
    assert not isinstance(x, cuda.FloatTensor)
    with cuda.device(None), cuda.stream(None):
        assert mt.accelerator.is_available() is False
    assert mt.accelerator.current_accelerator() is None
    assert mt.device("cuda" if cuda.is_available() else "cpu") == mt.get_default_device()
    with pytest.raises(RuntimeError, match="no kind of device: 'gpu'"):
        mt.device("gpu")


def test_compile_and_what_is_not_compiled() -> None:
    def f(x: int) -> int:
        return x + 1

    model = mt.nn.Linear(2, 2)
    assert mt.compile(f)(1) == mt.compile(mode="default")(f)(1) == 2
    assert mt.compile(f, disable=True) is f
    compiled = mt.compile(model, mode="max-autotune", fullgraph=True)
    assert compiled._orig_mod is model
    with pytest.raises(TypeError, match="expected a function or a module, got int"):
        mt.compile(3)
    jit: Any = mt.jit
    assert jit.script(f) is f
    assert jit.trace(model, mt.ones(2)) is model
    assert jit.ignore(drop=True)(f) is f
    assert jit.export(f) is f
    assert not jit.is_scripting()
    assert not isinstance(model, jit.ScriptModule)
    compiler: Any = mt.compiler
    assert compiler.disable(f) is f
    assert compiler.disable(recursive=False)(f) is f
    with mt.profiler.record_function("step"):  # type: ignore[attr-defined]
        assert compiler.is_compiling() is False
    with pytest.raises(RuntimeError, match="--overlay time"):
        mt.profiler.profile()  # type: ignore[attr-defined]


def test_gradients_are_not_scaled() -> None:
    weight = mt.ones(2, requires_grad=True)
    optimizer = mt.optim.SGD([weight], lr=1)
    scaler = mt.amp.GradScaler(enabled=False)
    scaler.scale(weight.sum()).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert weight.tolist() == [0, 0]
    assert (scaler.get_scale(), scaler.state_dict(), scaler.is_enabled()) == (1, {}, False)


def test_one_process_belongs_to_no_group() -> None:
    distributed: Any = mt.distributed
    assert not distributed.is_initialized()
    with pytest.raises(ValueError, match="Default process group has not been initialized"):
        distributed.get_rank()
    inner = mt.nn.Linear(2, 3)
    model = mt.nn.DataParallel(inner)  # type: ignore[attr-defined]
    assert model.module is inner
    assert list(model.state_dict()) == ["module.weight", "module.bias"]
    assert model(mt.ones(4, 2)).shape == (4, 3)
    with pytest.raises(ValueError, match="process group"):
        mt.nn.parallel.DistributedDataParallel(inner)  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="downloads nothing"):
        mt.hub.load("pytorch/vision", "resnet18")


def test_a_variable_is_a_tensor() -> None:
    variable: Any = mt.autograd.Variable  # type: ignore[attr-defined]
    x = mt.ones(2)
    v = variable(x, requires_grad=True)
    assert type(v) is mt.Tensor
    assert isinstance(x, variable)
    assert v.requires_grad
    assert not x.requires_grad
    assert v.data_ptr() == x.data_ptr()


def test_anomalies_are_looked_for_from_now_on_and_no_longer() -> None:
    detect: Any = mt.autograd.set_detect_anomaly  # type: ignore[attr-defined]

    def loss() -> mt.Tensor:
        x = mt.zeros(1, requires_grad=True)
        return (x.sqrt() * 0).sum()

    detect(True)
    try:
        with pytest.raises(RuntimeError, match="returned nan values"):
            loss().backward()
    finally:
        detect(False)
    loss().backward()
    with detect(True), pytest.raises(RuntimeError, match="nan values"):
        loss().backward()
    loss().backward()


def test_settings_are_given_back() -> None:
    try:
        mt.use_deterministic_algorithms(True, warn_only=True)
        assert mt.are_deterministic_algorithms_enabled()
        assert mt.get_deterministic_debug_mode() == 1
        mt.set_default_tensor_type("torch.DoubleTensor")
        assert mt.ones(1).dtype == mt.float64
    finally:
        mt.use_deterministic_algorithms(False)
        mt.set_default_tensor_type(mt.FloatTensor)
    assert mt.ones(1).dtype == mt.float32


def test_what_is_listed_as_missing_is_missing() -> None:
    for name in INSTEAD:
        module, _, last = name.rpartition(".")
        assert name not in MODULES
        assert last not in vars(import_module(MODULES[module]))
    for module, beyond in BEYOND.items():
        for name in getattr(import_module(beyond), "__all__", ()):
            assert hasattr(import_module(module), name)


@needs_torch
def test_every_name_of_compat_is_pytorchs() -> None:
    import torch

    assert torch.__version__.partition("+")[0] == VERSION.partition("+")[0]
    first = {target: name for name, target in reversed(MODULES.items())}  # of several names
    first.pop("minitensor.compat.nn.modules")  # has the names of all of PyTorch's modules there
    unknown = [
        f"{name}.{known}"
        for target, name in first.items()
        if target.startswith("minitensor.compat")
        for known in dir(import_module(target))
        if not known.startswith("_") and f"{name}.{known}" not in MODULES
        if not hasattr(import_module(name), known)
    ]
    assert unknown == []


@needs_torch
@pytest.mark.parametrize(
    "asks",
    [
        "torch.cuda.is_available()",
        "torch.cuda.device_count()",
        "torch.cuda.manual_seed_all(1)",
        "torch.cuda.max_memory_allocated()",
        "torch.cuda.empty_cache()",
        "torch.cuda.synchronize()",
        "torch.cuda.current_device()",
        "torch.cuda.get_arch_list()",
        "torch.cuda.is_bf16_supported()",
        "torch.ones(1).cuda()",
        "torch.ones(1).to('cuda')",
        "torch.nn.Linear(1, 1).cuda()",
        "torch.device('gpu')",
        "torch.cuda.FloatTensor(3)",
        "torch.backends.mps.is_available()",
        "torch.backends.cudnn.is_available()",
        "torch.backends.cudnn.version()",
        "torch.backends.cuda.sdp_kernel()",
        "torch.accelerator.is_available()",
        "torch.accelerator.device_count()",
        "torch.accelerator.synchronize()",
        "torch.get_float32_matmul_precision()",
        "torch.autocast('cuda')",
        "torch.autocast('cuda', enabled=False)",
        "torch.autocast('cpu')",
        "torch.autocast('cpu', dtype=torch.float32)",
        "torch.autocast('gpu')",
        "torch.autocast()",
        "torch.cuda.amp.autocast()",
        "torch.cuda.amp.autocast(enabled=False)",
        "torch.cuda.amp.GradScaler()",
        "torch.amp.GradScaler()",
        "torch.amp.GradScaler(enabled=False).get_scale()",
        "torch.distributed.is_initialized()",
        "torch.distributed.get_rank()",
        "torch.distributed.get_world_size()",
        "torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))",
        "torch.nn.DataParallel(torch.nn.Linear(1, 1)).device_ids",
        "torch.jit.is_scripting()",
        "torch.compiler.is_compiling()",
        "torch.hub.get_dir()",
        "torch.is_autocast_enabled()",
        "torch.is_autocast_enabled('cpu')",
        "torch.amp.is_autocast_available('cpu')",
        "torch.set_float32_matmul_precision('high')",
        "torch.set_float32_matmul_precision(3)",
        "torch.get_autocast_dtype('cpu') == torch.bfloat16",
        "torch.get_autocast_dtype('cuda') == torch.float16",
        "torch.are_deterministic_algorithms_enabled()",
        "torch.version.cuda",
        "torch.nn.init.uniform(torch.zeros(2, 2)).shape[0]",
        "torch.nn.init.xavier_normal(torch.zeros(2, 2)).shape[0]",
        "torch.nn.init._calculate_fan_in_and_fan_out(torch.zeros(2, 3))[0]",
        "torch._assert(1 < 2, 'fine')",
        "torch._assert(1 > 2, 'not fine')",
    ],
)
def test_answers_warnings_and_errors_are_those_of_pytorch_without_a_gpu(asks: str) -> None:
    import torch

    def outcome(library: Any) -> tuple[Any, list[tuple[type, str]]]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                answer = eval(asks, {"torch": library})
            except Exception as error:
                answer = error
        return answer, [(w.category, str(w.message)) for w in caught]

    (theirs, their_warnings), (ours, our_warnings) = outcome(torch), outcome(mt)
    assert our_warnings == their_warnings
    if isinstance(theirs, Exception):
        assert isinstance(ours, type(theirs)), f"{ours!r} for {theirs!r}"
    elif isinstance(theirs, int | float | str | list | None):
        assert ours == theirs


def recorded(program: Path) -> Path:
    """PyTorch's lines: `python tests/scripts/x.py > tests/scripts/x.txt` writes them."""
    return program.with_suffix(".txt")


@pytest.mark.parametrize("program", [p for p in PROGRAMS if recorded(p).exists()], ids=stem)
def test_a_program_prints_the_recorded_lines_of_pytorch(program: Path) -> None:
    done = python("-m", "minitensor.compat", str(program))
    assert done.returncode == 0, done.stderr
    assert done.stdout == recorded(program).read_text()


@needs_torch
@pytest.mark.parametrize("program", PROGRAMS, ids=stem)
def test_a_program_prints_the_same_lines_under_both(program: Path) -> None:
    theirs = python("-W", "ignore", str(program))
    assert theirs.returncode == 0, theirs.stderr
    ours = python("-W", "ignore", "-m", "minitensor.compat", str(program))
    assert ours.returncode == 0, ours.stderr
    assert len(theirs.stdout) > 100
    assert ours.stdout.splitlines() == theirs.stdout.splitlines()
    if recorded(program).exists():
        assert recorded(program).read_text() == theirs.stdout, "record it again"
