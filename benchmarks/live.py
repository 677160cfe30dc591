"""The bytes of all tensors that are alive, counted while code runs on fake ones."""

import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

aten = torch.ops.aten
LARGEST_FLASH_HEAD = 256  # of torch's flash attention on CUDA
BFLOAT16_ONE = 0x3F80  # its bits, which numpy gets as int16


class LiveBytes(TorchDispatchMode):
    """Counts the storage of each tensor from the operation that makes it until it is freed, as
    torch.distributed's MemTracker does; `peak` is the most there was at once, in bytes.

    A number that the code reads from a fake tensor is 1: a mask leaves nothing out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.current = self.peak = 0
        self._sizes: dict[int, tuple[int, weakref.ref]] = {}

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: Sequence = (), kwargs: dict | None = None
    ) -> Any:
        if func is aten._local_scalar_dense.default:
            return 1.0 if args[0].is_floating_point() else 1
        if func is aten.index.Tensor:  # of a fake tensor, a mask says not how many it chooses
            args = args[0], [own for index in args[1] for own in _positions(index)]
        result = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self.add, result)
        return result

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's storage, unless it is counted already."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            reference = weakref.ref(storage, lambda _: self._forget(key))
            self._sizes[key] = storage.nbytes(), reference
            self.current += storage.nbytes()
            self.peak = max(self.peak, self.current)

    def remove(self, tensor: Tensor) -> None:
        """Count a tensor's storage no more: it has left the device."""
        self._forget(tensor.untyped_storage()._cdata)

    def restart(self) -> None:
        """Forget the peak so far."""
        self.peak = self.current

    def _forget(self, key: int) -> None:
        self.current -= self._sizes.pop(key, (0, None))[0]

    def place(self, modules: dict[str, nn.Module], parts: Collection[str]) -> None:
        """Count the weights of the modules named in `parts`, and no others'."""
        for chosen, change in ((False, self.remove), (True, self.add)):
            for name, module in modules.items():
                if (name in parts) == chosen:
                    for tensor in [*module.parameters(), *module.buffers()]:
                        change(tensor)


def _positions(index: Tensor | None) -> Sequence[Tensor | None]:
    """A real mask as the positions that it chooses, any other index as it is."""
    if index is None or index.dtype != torch.bool or isinstance(index, FakeTensor):
        return [index]
    return index.nonzero().unbind(1)


fake_mode = FakeTensorMode(allow_non_fake_inputs=True)


@contextmanager
def counted() -> Iterator[LiveBytes]:
    """While open, code runs with models that were built under `fake_mode`: what is computed from
    their weights is fake too, and what lives is counted.
    """
    live, real_numpy = LiveBytes(), torch.Tensor.numpy

    def numpy(tensor: Tensor, *, force: bool = False) -> np.ndarray:
        if not isinstance(tensor, FakeTensor):
            return real_numpy(tensor, force=force)
        kind = str(tensor.dtype).removeprefix("torch.")
        one = BFLOAT16_ONE if kind == "int16" else 1
        return np.full(tuple(tensor.shape), one, kind)

    def swap(parameter: Tensor, converted: Tensor) -> None:  # torch's own cannot take fake ones
        parameter.data = converted.data

    with (
        live,
        patch("torch.utils.swap_tensors", swap),
        patch.object(torch.Tensor, "numpy", numpy),
        patch.object(F, "scaled_dot_product_attention", fused_attention),
    ):
        yield live


@contextmanager
def as_on_cuda() -> Iterator[None]:
    """While open, autocast on the CPU normalises in float32, as it does on CUDA."""
    with ExitStack() as patches:
        for name in ("group_norm", "layer_norm", "rms_norm"):
            patches.enter_context(patch.object(F, name, _in_float32(getattr(F, name))))
        yield


def _in_float32(normalise: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def normalised(values: Tensor, *args: Any, **options: Any) -> Tensor:
        if not torch.is_autocast_enabled("cpu"):
            return normalise(values, *args, **options)
        floats = tree_map_only(Tensor, Tensor.float, (args, options))
        return normalise(values.float(), *floats[0], **floats[1])

    return normalised


def fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """What torch's attention keeps on an accelerator: flash attention, or the memory-efficient one
    where there is a mask, a large head or float32.
    """
    tensors = [query, key, value]
    if torch.is_autocast_enabled("cpu"):
        tensors = [tensor.to(torch.get_autocast_dtype("cpu")) for tensor in tensors]
    if enable_gqa:
        groups = query.shape[1] // key.shape[1]
        tensors[1:] = [tensor.repeat_interleave(groups, dim=1) for tensor in tensors[1:]]
    flash = (
        attn_mask is None
        and tensors[0].dtype != torch.float32
        and query.shape[-1] <= LARGEST_FLASH_HEAD
    )
    if flash:
        return aten._scaled_dot_product_flash_attention(
            *tensors, dropout_p, is_causal, scale=scale
        )[0]
    bias = None if attn_mask is None else _bias(attn_mask, tensors[0], tensors[1])
    needs_gradients = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return aten._scaled_dot_product_efficient_attention(
        *tensors, bias, needs_gradients, dropout_p, is_causal, scale=scale
    )[0]


def _bias(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    shape = (*query.shape[:2], query.shape[2], key.shape[2])
    return mask.to(query.dtype).expand(shape)
