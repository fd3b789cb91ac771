"""The network of SCCS: three linear graph convolutions to spectral coordinates, and a head for classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import elu, linear

from vemseg.graphs.affinity import Affinity

NAMES = ("first", "second", "third")
"""What the weights of the convolutions are called where the network is saved."""


class SpectralNetwork(nn.Module):
    """SCCS (Jiang et al., AAAI): the vectors of regions to their spectral coordinates Z, and to classes.

    ``Z^(l+1) = D^-1/2 A D^-1/2 Z^(l) W^(l)`` without activation and, as the number of 42,308 parameters
    tells, without biases; the later code of the same group has biases. The columns of the last Z are brought
    to unit root mean square, so coordinates mean the same in graphs of different size. The head is two linear
    layers with biases; ELU and dropout between them are those of the later code and of DeepCut.

    A fixed vector, ``middle``, is subtracted from all vectors first. It is not in the paper. Vectors of most
    encoders point one way, and then all columns of Z begin as nearly the same one, from which training does
    not lead away; the biases of the later code can learn to take the common part off.

    Parameters
    ----------
    dim : int
        Length of the vectors of regions.
    widths : (int, int, int)
        Channels after each convolution; the last is the number of spectral coordinates, u.
    k : int
        Number of classes.

    Attributes
    ----------
    middle : Tensor (dim,)
        Zeros at first.
    """

    middle: Tensor

    def __init__(self, dim: int, widths: Sequence[int], k: int) -> None:
        super().__init__()
        self.register_buffer("middle", torch.zeros(dim))
        self.convolutions = nn.ParameterList(
            nn.init.xavier_uniform_(nn.Parameter(torch.empty(after, before)))
            for before, after in zip([dim, *widths[:-1]], widths, strict=True)
        )
        self.hidden = nn.Linear(widths[-1], widths[-1])
        self.out = nn.Linear(widths[-1], k)

    def coordinates(self, vectors: Tensor, affinity: Affinity) -> Tensor:
        """Return Z: vectors (n, d) -> (n, u), each column of root mean square 1."""
        values = vectors - self.middle
        for weight in self.convolutions:
            values = affinity.normalised_times(linear(values, weight))
        scaled: Tensor = unit_columns(values) * len(values) ** 0.5
        return scaled

    def logits(self, coordinates: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return the logit of each class: (n, u) -> (n, K); SCCS takes their sigmoid as probability.

        Parameters
        ----------
        coordinates : Tensor float (n, u)
        kept : Tensor float (n, u), optional
            What dropout multiplies the hidden layer by; nothing is dropped where it is left out.
        """
        hidden = elu(self.hidden(coordinates))
        found: Tensor = self.out(hidden if kept is None else hidden * kept)
        return found

    def arrays(self, order: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return the weights as ``labelling.sccs`` keeps them, the classes in another order."""
        named = dict(zip(NAMES, self.convolutions, strict=True))
        head = {"hidden": self.hidden.weight, "hidden_bias": self.hidden.bias}
        out = {"out": self.out.weight[order], "out_bias": self.out.bias[order]}
        return {"middle": self.middle} | named | head | out

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Return the network of weights that :meth:`arrays` returned; older ones lack a middle."""
        tensors = {name: torch.from_numpy(np.asarray(value)) for name, value in arrays.items()}
        convolutions = [tensors[name] for name in NAMES]
        widths = [len(weight) for weight in convolutions]
        made = cls(convolutions[0].shape[1], widths, len(tensors["out"]))
        with torch.no_grad():
            if "middle" in tensors:
                made.middle.copy_(tensors["middle"])
            for parameter, weight in zip(made.convolutions, convolutions, strict=True):
                parameter.copy_(weight)
            for layer, name in ((made.hidden, "hidden"), (made.out, "out")):
                layer.weight.copy_(tensors[name])
                layer.bias.copy_(tensors[f"{name}_bias"])
        return made


def dropped(n: int, width: int, share: float, generator: torch.Generator) -> Tensor:
    """Return what dropout multiplies (n, width) values by: 0 for a share of them, 1 / (1 - share) else."""
    return torch.rand(n, width, generator=generator).ge(share).float() / (1 - share)


def unit_columns(values: Tensor) -> Tensor:
    """Return columns (n, c) brought to length 1; a column of zeros stays one."""
    tiny = torch.finfo(values.dtype).tiny
    return values / values.square().sum(dim=0, keepdim=True).clamp_min(tiny).sqrt()
