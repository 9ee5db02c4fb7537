"""ZeroRedundancyOptimizer: the state of an optimizer, divided among the ranks."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any

from ..autograd import enable_grad
from ..core import Tensor
from ..names import show
from ..optim import Optimizer
from ..optim.optimizer import Params
from .collectives import all_gather_shares
from .processes import ProcessGroup, world

__all__ = ["ZeroRedundancyOptimizer"]


class ZeroRedundancyOptimizer(Optimizer):
    """An optimizer of which each rank has the state for its share of the parameters.

    A step updates this rank's parameters, whose gradients have to be the same on all ranks, as
    `DistributedDataParallel` leaves them; then the ranks exchange the new values. The results are
    those of `optimizer_class`, bit by bit.

    - `params`, `defaults`: what `optimizer_class` takes.
    - `optimizer_class`: such as `optim.Adam`.
    - `process_group`: the group, by default all processes.
    - `parameters_as_bucket_view`: accepted for PyTorch's sake, without effect.
    - `overlap_with_ddp`: not there; RuntimeError if True.

    `state_dict()` is that of `optimizer_class`, after `consolidate_state_dict()`, so that a run can
    go on without this class or with another number of ranks.

    S. Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models",
    2020: its first stage.
    """

    _consolidated: dict[str, Any] | None

    def __init__(
        self,
        params: Params,
        optimizer_class: type[Optimizer],
        process_group: ProcessGroup | None = None,
        parameters_as_bucket_view: bool = False,
        overlap_with_ddp: bool = False,
        **defaults: Any,
    ) -> None:
        if overlap_with_ddp:
            raise RuntimeError("ZeroRedundancyOptimizer: overlap_with_ddp is not there")
        self.process_group = world(process_group)
        self.optim: Optimizer = optimizer_class(params, **defaults)
        self._owner: dict[Tensor, int] = {}
        super().__init__(self.optim.param_groups, self.optim.defaults)
        self.__setstate__({"state": self.optim.state})

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a state, of which that of this rank's parameters is kept; `optim` shares it."""
        super().__setstate__(state)
        self._consolidated = None
        for p in [p for p in self.state if self._owner.get(p, self._rank) != self._rank]:
            del self.state[p]
        self.optim.__setstate__({"state": self.state, "param_groups": self.param_groups})

    @property
    def _rank(self) -> int:
        return self.process_group.rank()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its parameters go to the ranks with the least so far, the largest first."""
        super().add_param_group(param_group)
        self._consolidated = None
        loads = [0] * self.process_group.size()
        for p, owner in self._owner.items():
            loads[owner] += p.numel()
        for p in sorted(self.param_groups[-1]["params"], key=Tensor.numel, reverse=True):
            self._owner[p] = loads.index(min(loads))
            loads[self._owner[p]] += p.numel()

    def step(self, closure: Callable[[], Any] | None = None, **kwargs: Any) -> Any:
        """Update this rank's parameters, and give all ranks the new values; see `Optimizer.step`.

        - `kwargs`: passed on to the step of `optimizer_class`.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        self._consolidated = None
        others = [(p, p._grad) for p, owner in self._owner.items() if owner != self._rank]
        updated = [p for p in self._owner if p._grad is not None]
        try:
            for p, _ in others:
                p._grad = None
            self.optim.step(**kwargs)
        finally:
            for p, grad in others:
                p._grad = grad
        shares: list[list[Tensor]] = [[] for _ in range(self.process_group.size())]
        for p in updated:
            shares[self._owner[p]].append(p)
        all_gather_shares(shares, self.process_group)
        return loss

    def consolidate_state_dict(self, to: int = 0) -> None:
        """Collect the state on rank `to`, for its `state_dict()`; all ranks have to call this."""
        own = super().state_dict()
        self.process_group.start(f"consolidate_state_dict(to={to})").wait()
        parts = self.process_group.objects.gather(own["state"], to)
        if parts is not None:
            merged = [item for part in parts for item in part.items()]
            self._consolidated = {**own, "state": dict(sorted(merged, key=itemgetter(0)))}

    def state_dict(self) -> dict[str, Any]:
        """Return the state dict that `optimizer_class` would have.

        RuntimeError on a rank that has not collected it by `consolidate_state_dict` since the last
        step.
        """
        if self._consolidated is None:
            raise RuntimeError(
                "Optimizer state has not been consolidated on this rank. Please call "
                f"`consolidate_state_dict(to={self._rank})` on all ranks beforehand if you meant "
                "to save the global state."
            )
        return self._consolidated


show(__name__)
