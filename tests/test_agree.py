"""Every public name that is shared with PyTorch agrees with it, or differs for a reason given."""

from __future__ import annotations

from collections import Counter

from conftest import CHECKED, needs_torch

from minitensor.tools import surface
from minitensor.tools.differences import DIFFERENCES, reason_for
from minitensor.tools.read import marked


@needs_torch
def test_shared_names_agree_with_pytorch() -> None:
    from agree import all_compared, shared, without_inputs

    found, counts = all_compared(shared())
    CHECKED["comparisons with PyTorch by name"] += counts.total()
    disagree = [f for f in found if f.reason is None]
    assert not disagree, disagree[:20]
    assert not (missing := without_inputs(shared(), counts)), missing
    assert counts.total() > 50_000


@needs_torch
def test_a_wrong_value_is_found() -> None:
    """The comparison is not blind: another function under the name disagrees."""
    from agree import agree

    import minitensor

    counts: Counter[str] = Counter()
    assert not agree("torch.nn.functional.softsign", counts)
    functional = minitensor.nn.functional
    right = functional.softsign  # type: ignore[attr-defined]
    try:
        functional.softsign = lambda input: right(input) * 1.01  # type: ignore[attr-defined]
        aspects = {f.aspect for f in agree("torch.nn.functional.softsign", counts)}
    finally:
        functional.softsign = right  # type: ignore[attr-defined]
    assert "value" in aspects


@needs_torch
def test_the_list_of_pytorchs_names_is_that_of_the_installed_one() -> None:
    for space, names in surface.pytorch_names().items():
        assert names == surface.names_of(space), "run python -m tools.surface --names"


def test_the_table_in_the_readme_is_that_of_the_library() -> None:
    text = surface.README.read_text()
    assert surface.updated(text) == text, "stale table: run python -m tools.surface"
    part = marked(text, surface.MARK)[1]
    assert len(part.splitlines()) < 40


def test_every_difference_has_a_reason_that_reads_as_a_sentence() -> None:
    for d in DIFFERENCES:
        assert d.reason[0].isupper() or d.reason[0] == "`"
        assert d.reason.endswith("."), d.reason
    assert reason_for("torch.nothing", "value", "", "") is None
