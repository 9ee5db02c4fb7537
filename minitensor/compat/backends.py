"""`torch.backends`: settings of libraries that are not here. They are taken and change nothing."""

from __future__ import annotations

import contextlib
import platform
import warnings
from collections.abc import Iterator
from typing import Any

from ..names import show
from .answers import answer, namespace

__all__ = ["cpu", "cuda", "cudnn", "mkl", "mkldnn", "mps", "openmp", "opt_einsum"]

_no, _yes = answer(False), answer(True)


@contextlib.contextmanager
def _flags(*args: Any, **kwargs: Any) -> Iterator[None]:
    """A block with other settings, which change nothing."""
    yield


@contextlib.contextmanager
def _sdp_kernel(
    enable_flash: bool = True,
    enable_math: bool = True,
    enable_mem_efficient: bool = True,
    enable_cudnn: bool = True,
) -> Iterator[None]:
    """A block in which PyTorch would choose among its kernels of attention; there is one here."""
    yield


def sdp_kernel(*args: Any, **kwargs: Any) -> Any:
    """Return the block, with PyTorch's warning that it is to be removed."""
    warnings.warn(
        "`torch.backends.cuda.sdp_kernel()` is deprecated. In the future, this context manager "
        "will be removed. Please see `torch.nn.attention.sdpa_kernel()` for the new context "
        "manager, with updated signature.",
        FutureWarning,
        stacklevel=2,
    )
    return _sdp_kernel(*args, **kwargs)


cuda = namespace(
    f"{__name__}.cuda",
    "`torch.backends.cuda`.",
    is_built=_no,
    matmul=namespace(
        f"{__name__}.cuda.matmul",
        "Settings of matrix products on a GPU.",
        allow_tf32=False,
        allow_fp16_reduced_precision_reduction=True,
        allow_bf16_reduced_precision_reduction=True,
        allow_fp16_accumulation=False,
        fp32_precision="none",
    ),
    cufft_plan_cache=namespace(f"{__name__}.cuda.cufft_plan_cache", "A cache.", max_size=0),
    sdp_kernel=sdp_kernel,
    **{f"enable_{kind}_sdp": answer() for kind in ("flash", "math", "mem_efficient", "cudnn")},
    **{f"{kind}_sdp_enabled": _yes for kind in ("flash", "math", "mem_efficient", "cudnn")},
    preferred_linalg_library=answer(),
    preferred_blas_library=answer(),
)

cudnn = namespace(
    f"{__name__}.cudnn",
    "`torch.backends.cudnn`.",
    is_available=_no,
    version=answer(),
    enabled=True,
    deterministic=False,
    benchmark=False,
    benchmark_limit=None,
    allow_tf32=True,
    fp32_precision="none",
    flags=_flags,
)

mps = namespace(f"{__name__}.mps", "`torch.backends.mps`.", is_available=_no, is_built=_no)
mkl = namespace(f"{__name__}.mkl", "`torch.backends.mkl`.", is_available=_no)
mkldnn = namespace(
    f"{__name__}.mkldnn",
    "`torch.backends.mkldnn`.",
    is_available=_no,
    enabled=False,
    deterministic=False,
    allow_tf32=True,
    flags=_flags,
)
openmp = namespace(f"{__name__}.openmp", "`torch.backends.openmp`.", is_available=_no)
opt_einsum = namespace(
    f"{__name__}.opt_einsum",
    "`torch.backends.opt_einsum`.",
    is_available=_no,
    enabled=False,
    strategy=None,
)
cpu = namespace(
    f"{__name__}.cpu",
    "`torch.backends.cpu`.",
    get_cpu_capability=answer(platform.machine()),
)

show(__name__)
