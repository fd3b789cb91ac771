"""The dense encoder: a small convolutional network that computes the vectors of whole slices in one pass.

A slab of ``slices`` neighbouring planes goes in, and one vector per 2 x 2 pixels of its middle comes out. So
vectors have half the resolution in the plane, and in an isotropic volume also across it, where a vector
stands between the two middle planes. Scores are interpolated from there to voxels as for any other encoder.
The network consists of convolutions only. So a vector depends on nothing but the voxels within ``halo``, and
does not change with the size of the window.

The network is modelled on the U-Net (Ronneberger, Fischer, Brox, MICCAI 2015) and deliberately differs where
speed asks for it: the first layer halves the resolution, skips are added instead of concatenated, and there
are three levels, so that the halo stays small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vemseg.budget import Need
from vemseg.geometry import ZYX, is_anisotropic
from vemseg.models.encoder import WHOLE, Encoder, Kept, Memory, Spacing
from vemseg.recipe import UNetTable
from vemseg.tiling import reflect, slice_offsets

PATCH = 2
"""Edge in pixels of the patch that a vector describes."""
PASS_BYTES = 2**23
"""Size of the widest activation of the slabs that are encoded together, so that it fits a core's cache."""
ALONE = 2**19
"""A slab of at least this many pixels may be encoded alone. On CPUs, torch convolves a single smaller image
by another algorithm than several, which rounds differently."""


LANES = 16
"""Fewest channels of the last layer in inference. On CPUs, torch convolves to fewer by an algorithm that
rounds otherwise in windows of another size."""


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that stays in float32, whatever the network around it is converted to."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BatchNorm:
        def keep(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved.float() if moved.is_floating_point() else moved

        super()._apply(keep, recurse)  # type: ignore[no-untyped-call]
        return self


class ConvLayer(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, width_in: int, width: int, size: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width, size, stride, padding=(size - stride + 1) // 2, bias=False)
        self.norm: nn.Module = BatchNorm(width)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, width_in, y, x) to (b, width, y / stride, x / stride)."""
        out: Tensor = self.norm(self.conv(x)).relu_()
        return out

    def fuse(self) -> None:
        """Fold the normalisation, with its statistics as they are, into the convolution."""
        assert isinstance(self.norm, BatchNorm)
        self.conv = fuse_conv_bn_eval(self.conv.eval(), self.norm.eval())
        self.norm = nn.Identity()


class UNetEncoder(Encoder):
    """Encode slabs of planes into one vector per 2 x 2 pixels.

    Parameters
    ----------
    settings : UNetTable
        Number of slices, widths of the levels, length of a vector, classes it begins with.
    spacing : (float, float, float)
        Edges of the working voxels in units of the shortest, the axis across the sharp plane first. The
        slices of a slab lie one short edge apart. In an anisotropic volume each slice is taken from the
        section that it lies in, and vectors lie on the sections.

    Notes
    -----
    The encoder itself pads windows at the border of the volume.
    """

    pads = True
    streams = True
    sweeps = (0,)

    def __init__(self, settings: UNetTable, spacing: Spacing = (1.0, 1.0, 1.0)) -> None:
        super().__init__()
        self.slices, self.dim, self.classes = settings.slices, settings.dim, settings.classes
        self.width = settings.widths[0]
        self.offsets = slice_offsets(settings.slices, spacing)
        deep = 1 if is_anisotropic(spacing) else PATCH
        self.patch = (deep, PATCH, PATCH)
        coarsest = PATCH * 2 ** (len(settings.widths) - 1)
        self.align = (deep, coarsest, coarsest)
        across = max(-self.offsets[0], self.offsets[-1] - deep + 1)
        across += -across % deep
        within = _reach(len(settings.widths), settings.layers)
        self.halo = (across, within, within)
        self.fov = (deep + 2 * across, PATCH + 2 * within, PATCH + 2 * within)
        self.stem = ConvLayer(settings.slices, settings.widths[0], size=4, stride=2)
        self.down = nn.ModuleList(
            _level(a, b, settings.layers)
            for a, b in zip((settings.widths[0], *settings.widths), settings.widths, strict=False)
        )
        self.lateral = nn.ModuleList(
            nn.Conv2d(b, a, 1) for a, b in zip(settings.widths, settings.widths[1:], strict=False)
        )
        self.up = nn.ModuleList(ConvLayer(a, a) for a in settings.widths[:-1])
        self.head = nn.Conv2d(settings.widths[0], settings.dim, 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def trunk(self, slabs: Tensor) -> Tensor:
        """Return the features below the last layer: (b, slices, y, x) -> (b, width, y / 2, x / 2)."""
        x: Tensor = self.stem(slabs)
        passed = []
        for i, level in enumerate(self.down):
            x = level(x if i == 0 else nn.functional.max_pool2d(x, 2))
            passed.append(x)
        for i in reversed(range(len(self.up))):
            x = interpolate(self.lateral[i](x), scale_factor=2, mode="nearest") + passed[i]
            x = self.up[i](x)
        return x

    def features(self, slabs: Tensor) -> Tensor:
        """Return what :meth:`trunk` does, for slabs of any type and memory layout."""
        return self.trunk(slabs.to(self.dtype).contiguous(memory_format=torch.channels_last))

    def maps(self, slabs: Tensor) -> Tensor:
        """Return the vectors of slabs: (b, slices, y, x) -> (b, dim, y / 2, x / 2)."""
        vectors: Tensor = self.head(self.features(slabs))[:, : self.dim]
        return vectors

    def encode(self, windows: Tensor, kept: Kept | None = None) -> Tensor:
        """Return the vectors of windows (b, 1, z, y, x), whose y and x are multiples of ``align``."""
        return torch.stack([torch.cat(list(self.layers(window[None], kept or WHOLE))) for window in windows])

    forward = encode

    def layers(self, window: Tensor, kept: Kept) -> Iterator[Tensor]:
        """Yield the vectors of one window (1, 1, z, y, x), a few layers of patches at a time."""
        deep = self.patch[0]
        z, rows, columns = kept
        first = np.arange(window.shape[2] // deep)[z] * deep
        planes = torch.from_numpy(reflect(first[:, None] + self.offsets, window.shape[2]))
        voxels = window[0, 0].to(self.dtype)
        widest = voxels[0].numel() / PATCH**2 * self.width * self.dtype.itemsize
        for part in torch.split(planes, max(1, int(PASS_BYTES // widest))):
            alone = len(part) == 1 and voxels[0].numel() < ALONE
            index = part.expand(2, -1) if alone else part
            slabs = voxels[index.to(voxels.device)].contiguous(memory_format=torch.channels_last)
            vectors = self.head(self.trunk(slabs)[:, :, rows, columns])[: len(part), : self.dim]
            yield vectors.permute(0, 2, 3, 1)

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the network, which windows should have too."""
        return self.head.weight.dtype

    def slab(self, edge: int) -> ZYX | None:
        """Return a slab whose sides are a whole number of the coarsest pixels."""
        side = edge // self.align[1] * self.align[1]
        return (self.slices, side, side) if side else None

    @torch.no_grad()
    def normalise(self, windows: Tensor) -> None:
        """Replace the statistics of batch normalisation by those of the volume at hand.

        Another contrast, noise or stain shifts the mean and spread of every channel (adaptive batch
        normalisation: Li et al., Pattern Recognition 80, 2018; Schneider et al., NeurIPS 2020).

        Parameters
        ----------
        windows : Tensor float (n, 1, slices, y, x)
            A sample of the volume, intensities in [0, 1].
        """
        norms = [module for module in self.modules() if isinstance(module, BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        training = self.training
        self.train()
        self.trunk(windows[:, 0].to(self.dtype).contiguous(memory_format=torch.channels_last))
        self.train(training)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    @torch.no_grad()
    def _centre_logits(self) -> None:
        """Let the logits of all classes add up to 0: cross-entropy leaves that open, clusters should not."""
        known = slice(0, len(self.classes))
        if self.classes and self.head.bias is not None:
            self.head.weight[known] -= self.head.weight[known].mean(dim=0, keepdim=True)
            self.head.bias[known] -= self.head.bias[known].mean()

    @torch.no_grad()
    def _widen_head(self) -> None:
        """Add channels to the last layer that nobody reads, up to ``LANES`` or a multiple of 8."""
        wide = max(LANES, -(-self.dim // 8) * 8)
        if wide > self.dim and self.head.bias is not None:
            head = nn.Conv2d(self.head.in_channels, wide, 1)
            for mine, theirs in ((head.weight, self.head.weight), (head.bias, self.head.bias)):
                assert mine is not None
                mine.zero_()[: self.dim] = theirs
            self.head = head.to(self.head.weight)

    @torch.no_grad()
    def information(self, windows: Tensor) -> float:
        """Return the mutual information between places and classes; see ``Encoder.information``."""
        if not self.classes:
            return 0.0
        logits = self.maps(windows[:, 0])[:, : len(self.classes)].double()
        each = torch.log_softmax(logits, dim=1)
        mean = each.exp().mean(dim=(0, 2, 3))
        entropy = -(each.exp() * each).sum(dim=1).mean()
        return float(-(mean * mean.clamp_min(1e-12).log()).sum() - entropy)

    def memory(self, batch: int) -> Memory:
        """Return the memory for the vectors, and the activations of several small slabs or a large one."""
        item = float(self.dtype.itemsize)
        activations = 3.0 * self.width * item / PATCH**2
        return Memory(
            int(3 * PASS_BYTES),
            Need(point=item * self.dim, pixel=activations),
            Need(point=max(item, 2.0) * self.dim),
        )

    def prepare(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Fold the normalisation into the convolutions and centre logits, then make ready for inference."""
        self._centre_logits()
        self._widen_head()
        for module in self.modules():
            if isinstance(module, ConvLayer):
                module.fuse()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return super().prepare(device, dtype)


def _level(width_in: int, width: int, layers: int) -> nn.Sequential:
    return nn.Sequential(ConvLayer(width_in, width), *(ConvLayer(width, width) for _ in range(layers - 1)))


def _reach(levels: int, layers: int) -> int:
    """Return how many voxels beyond its patch a vector sees in the plane, in whole coarsest pixels.

    Every 3 x 3 convolution adds a pixel of its level. Pooling and enlarging stay within the coarser pixels,
    but the patch may lie at the corner of one.
    """
    half: int = 2 ** (levels - 1)
    convolutions = layers * (2 * half - 1) + half - 1
    corner, coarsest = half - 1, PATCH * half
    reach = 1 + PATCH * (convolutions + corner)
    return -(-reach // coarsest) * coarsest
