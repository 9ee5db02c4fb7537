"""The settings of a check of gradients, and its report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..autograd.gradcheck import direction_in
from ..core import Tensor
from .probe import Checked, Probe


@dataclass
class Row:
    """The result for one parameter or input, or for one argument of an op."""

    name: str  # of the parameter; "linear: weight" of an op's argument
    order: int  # of the derivative, 1 or 2
    checked: Checked
    module: str = ""  # the path of the module that an op ran in
    line: str = ""  # of the user's code
    runs: int = 1  # of the same op at arguments of the same kind

    @property
    def ok(self) -> bool:
        """Return True if the gradient is right."""
        return self.checked.ok

    def __str__(self) -> str:
        order = "second derivative of " if self.order == 2 else ""
        where = f" in {self.module}" if self.module else ""
        where += f" at {self.line}" if self.line else ""
        wrong = self.checked.problem or self.checked.place or "right"
        return f"{order}{self.name} {self.checked.shape}{where}: {wrong}"


@dataclass
class Report:
    """The result of `check_gradients`."""

    mode: str  # how dropout was kept fixed
    parameters: list[Row] = field(default_factory=list)
    ops: list[Row] = field(default_factory=list)
    runs: int = 0  # of ops that were checked

    @property
    def ok(self) -> bool:
        """Return True if every gradient is right."""
        return not self.failures()

    def failures(self) -> list[Row]:
        """Return the rows that are wrong: ops first, as they say where the fault is."""
        return [row for row in (*self.ops, *self.parameters) if not row.ok]

    def message(self, most: int = 5) -> str:
        """Return the fault and its place, in words."""
        wrong = self.failures()
        if not wrong:
            return "all gradients are right"
        lines = [f"{len(wrong)} gradients are wrong ({self.mode}):"]
        lines += [f"  {row}" for row in wrong[:most]]
        if len(wrong) > most:
            lines.append(f"  and {len(wrong) - most} more")
        if all(row.ok for row in self.ops):
            lines.append(
                "Each op's own backward is right at its arguments: look for detach, .data, no_grad "
                "or a hook on the way from there to the output."
            )
        return "\n".join(lines)


@dataclass
class How:
    """The extent of a check, with the random numbers for it."""

    second: bool
    elements: int
    projections: int
    noise: np.random.RandomState
    # Elements of leaves, by id(): an embedding's padding row, whose gradient is 0 by convention.
    fixed: dict[int, np.ndarray] = field(default_factory=dict)

    def check(
        self,
        evaluate: Callable[[], Sequence[np.ndarray]],
        weights: Sequence[np.ndarray],
        array: np.ndarray,
        gradient: Tensor | None,
        fixed: np.ndarray | None = None,
    ) -> Checked:
        """Check one gradient of sum(weights * evaluate())."""
        found = np.zeros(array.shape) if gradient is None else gradient._array
        probe = Probe(evaluate, weights, array, found, self.noise)
        return probe.check(self.elements, self.projections, fixed)

    def weights(self, results: Sequence[Any]) -> list[np.ndarray]:
        """Return random weights of results, none of them near 0."""
        return [
            np.where(
                np.isfinite(r if isinstance(r, np.ndarray) else r._array),
                direction_in(self.noise, tuple(r.shape)),
                0.0,
            )
            for r in results  # a score of -inf, that a mask was added to, has no slope
        ]
