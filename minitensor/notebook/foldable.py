"""Tensors and modules in treescope, which asks them for it: it is imported when it calls."""

from __future__ import annotations

import functools
import keyword
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core import Tensor
from ..formatting import gradient_repr
from .heatmap import measure


def summary(t: Tensor, fast: bool = False) -> str:
    """Return a tensor in one line: its type and shape and, unless `fast`, facts of its numbers."""
    parts = [f"{type(t).__name__} {t.dtype.name}{tuple(t._array.shape)}"]
    if not fast and t._array.size:
        parts.append(measure(t._array).text)
    if gradient := gradient_repr(t):
        parts.append(gradient)
    return ", ".join(parts)


@functools.cache
def _adapter() -> Any:
    from treescope import ndarray_adapters, type_registries

    numpy = type_registries.lookup_ndarray_adapter(np.empty(0))

    class TensorAdapter(ndarray_adapters.NDArrayAdapter):  # type: ignore[misc, type-arg]
        """Draws a tensor as its array."""

        def get_axis_info_for_array_data(self, array: Tensor) -> Any:
            return numpy.get_axis_info_for_array_data(array._array)

        def get_array_data_with_truncation(
            self, array: Tensor, mask: Any, edge_items_per_axis: tuple[int | None, ...]
        ) -> Any:
            mask = mask._array if isinstance(mask, Tensor) else mask
            return numpy.get_array_data_with_truncation(array._array, mask, edge_items_per_axis)

        def get_array_summary(self, array: Tensor, fast: bool) -> str:
            return summary(array, fast)

        def get_numpy_dtype(self, array: Tensor) -> np.dtype:
            return array._array.dtype

        def should_autovisualize(self, array: Tensor) -> bool:
            return bool(array._array.size)  # it fails for arrays without elements

    return TensorAdapter()


def adapter(t: Tensor) -> Any:
    """Return the object by which treescope draws tensors as arrays."""
    return _adapter()


def tensor_rendering(t: Tensor, path: str | None, subtree_renderer: Callable[..., Any]) -> Any:
    """Return the part of treescope's tree that stands for a tensor: its text, below a summary."""
    from treescope import rendering_parts as parts

    text = repr(t)
    if "\n" not in text:
        return parts.build_one_line_tree_node(parts.text(text), path)
    label = parts.siblings(
        parts.fold_condition(expanded=parts.text("# "), collapsed=parts.text("<")),
        parts.text(summary(t)),
        parts.fold_condition(collapsed=parts.text(">")),
    )
    return parts.build_custom_foldable_tree_node(
        label=parts.abbreviation_color(parts.comment_color_when_expanded(label)),
        contents=parts.fold_condition(expanded=parts.indented_children([parts.text(text)])),
        path=path,
    )


def module_rendering(module: Any, path: str | None, subtree_renderer: Callable[..., Any]) -> Any:
    """Return the part of treescope's tree that stands for a module.

    It has the settings, parameters, buffers and modules inside, or for a container those in it.
    """
    from treescope import formatting_util, repr_lib

    kind = type(module)
    settings = {k: v for k, v in vars(module).items() if k[0] != "_" and k != "training"}
    members = {**module._parameters, **module._buffers, **module._modules}
    if not settings and hasattr(kind, "__getitem__"):
        if hasattr(kind, "keys"):
            return repr_lib.render_dictionary_wrapper(
                kind, dict(module.items()), path, subtree_renderer
            )
        if list(members) == [str(i) for i in range(len(members))]:
            return repr_lib.render_list_wrapper(kind, list(module), path, subtree_renderer)
    attributes = {**settings, **members, "training": module.training}
    written = all(name.isidentifier() and not keyword.iskeyword(name) for name in attributes)
    color = formatting_util.color_from_string(f"{kind.__module__}.{kind.__qualname__}")
    return repr_lib.render_object_constructor(
        kind, attributes, path if written else None, subtree_renderer, color=color
    )
