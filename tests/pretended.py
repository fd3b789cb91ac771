"""A GPU that is pretended: tensors that lie on the CPU and say they lie on a GPU.

Every call of PyTorch passes through ``PretendedGPU``. It carries the call out on the CPU, and its result lies
on the GPU where one of its arguments does, or where ``device=`` says so. What would fail on a GPU fails here:
to mix tensors of both places, to draw random numbers there with a generator of the CPU, to give NumPy a
tensor from there. With ``steady``, what makes the CPU wait for the GPU fails too: reading a number, copying
to the CPU, results whose size is not known in advance. What compiled code does inside a call is not seen.
"""

import torch
import torch._dynamo  # the first optimiser loads it: too late, where `torch.Generator` is replaced
from torch.overrides import TorchFunctionMode

GPU = torch.device("cuda", 0)
PLACES = {"to", "copy_", "__set__", "__getitem__", "__setitem__", "index_put_"}
"""Calls that may get tensors of both places: they move them, or index with places from the CPU."""
WAITS = {
    "item", "tolist", "__bool__", "__int__", "__float__", "__index__", "cpu", "nonzero", "masked_select",
    "unique", "bincount", "equal", "is_nonzero", "allclose", "__contains__", "argwhere",
}  # fmt: skip
"""Calls on tensors of the GPU that the CPU waits for."""


ASIDE = {"_parse_to", "_has_compatible_shallow_copy_type", "_use_count"}
"""Calls that say something of modules and tensors, and compute nothing."""


class OnGPU(torch.Tensor):
    """A tensor that says it lies on the GPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl


class Generator(torch.Generator):
    """A generator of random numbers on the GPU."""

    device = GPU


def tensors(value):
    """Yield the tensors in arguments."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from tensors(one)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))


def is_gpu(value):
    """Tell whether a device, or the name of one, is the GPU."""
    return isinstance(value, torch.device | str) and str(value).startswith("cuda")


def on_cpu(value):
    """Return arguments with the CPU in place of the GPU."""
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(on_cpu(one) for one in value)
    return torch.device("cpu") if is_gpu(value) else value


def moved(value, there):
    """Return the tensors of a result, which lie on the GPU from now on."""
    if isinstance(value, torch.Tensor):
        if isinstance(value, OnGPU) or not there:
            return value
        return value.as_subclass(OnGPU)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(moved(one, there) for one in value))
    if isinstance(value, torch.return_types.max.__base__) and type(value) is not tuple:
        return type(value)(moved(one, there) for one in value)
    return type(value)(moved(one, there) for one in value) if isinstance(value, list | tuple) else value


class PretendedGPU(TorchFunctionMode):
    """Carries out calls on the CPU, and refuses what a GPU would.

    Parameters
    ----------
    steady : bool
        Whether calls that the CPU waits for are refused.
    """

    def __init__(self, steady):
        super().__init__()
        self.steady = steady

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = list(tensors([args, kwargs]))
        there = [tensor for tensor in given if isinstance(tensor, OnGPU)]
        name, owner = getattr(func, "__name__", ""), getattr(func, "__self__", None)
        if name == "__get__" and getattr(owner, "__name__", "") in ("device", "is_cuda"):
            return (GPU if owner.__name__ == "device" else True) if there else self.plain(func, args, kwargs)
        if name in ASIDE:
            return self.plain(func, args, kwargs)
        self.refuse(name, args, given, there)
        asked = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.device | str)]
        goes = any(map(is_gpu, asked))
        generator = kwargs.get("generator")
        if generator is not None and goes != isinstance(generator, Generator):
            raise AssertionError(f"{name}: a generator of another device")
        leaves = name == "cpu" or (name == "to" and "cpu" in map(str, asked))
        kwargs = {key: on_cpu(value) for key, value in kwargs.items()}
        result = self.plain(func, on_cpu(args), kwargs)
        return away(result) if leaves else moved(result, goes or bool(there))

    def plain(self, func, args, kwargs):
        """Carry out a call without looking at it."""
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    def refuse(self, name, args, given, there):
        """Refuse what a GPU would, and where that is wanted what the CPU would wait for."""
        if not there:
            return
        if name in ("numpy", "__array__"):
            raise AssertionError("NumPy gets a tensor of the GPU")
        if name not in PLACES and any(not isinstance(one, OnGPU) and one.ndim for one in given):
            raise AssertionError(f"{name}: tensors of both places")
        if name in ("__getitem__", "__setitem__") and not isinstance(args[0], OnGPU):
            raise AssertionError(f"{name}: a tensor of the CPU is indexed by one of the GPU")
        if self.steady and (name in WAITS or (name == "to" and "cpu" in map(str, args)) or masks(name, args)):
            raise AssertionError(f"{name}: the CPU waits for the GPU")


def masks(name, args):
    """Tell whether a tensor is indexed by a mask on the GPU, so that the size of the result is not known."""
    if name not in ("__getitem__", "__setitem__"):
        return False
    return any(isinstance(one, OnGPU) and one.dtype == torch.bool for one in tensors(args[1]))


def away(tensor):
    """Return a tensor that has left the GPU."""
    return tensor.as_subclass(torch.Tensor)


def placed(tensor):
    """Return a tensor that lies on the GPU."""
    return tensor.as_subclass(OnGPU)
