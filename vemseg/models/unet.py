"""The dense encoder: a small convolutional network that computes the vectors of whole slices in one pass.

A slab of ``slices`` neighbouring planes goes in, and one vector per 2 x 2 pixels of its middle comes out, or
one per pixel of its two middle planes (``full_resolution``). In the first case vectors have half the
resolution in the plane, and in an isotropic volume also across it, where a vector stands between the two
middle planes; scores are interpolated from there to voxels as for any other encoder. In the second case the
last layer gives the vectors of 2 x 2 x 2 voxels at once, and lays them out (sub-pixel convolution: Shi et
al., CVPR 2016), so that nearly all of the network still works at half the resolution.
The network consists of convolutions only. So a vector depends on nothing but the voxels within ``halo``, and
does not change with the size of the window.

The network is modelled on the U-Net (Ronneberger, Fischer, Brox, MICCAI 2015) and deliberately differs where
speed asks for it: the first layer halves the resolution, skips are added instead of concatenated, and there
are three levels, so that the halo stays small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_shuffle
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vemseg.budget import Need
from vemseg.geometry import ZYX, is_anisotropic
from vemseg.models.encoder import WHOLE, Encoder, Kept, Memory, Spacing
from vemseg.models.receptive import Needs, Part, enlarged, mean_reach, reach
from vemseg.models.workers import in_order, workers_on
from vemseg.ranks import here, summed
from vemseg.recipe import UNetTable
from vemseg.tiling import reflect, slice_offsets

PATCH = 2
"""Edge in pixels of the patch that a vector describes."""
PASS_BYTES = {"cpu": 2**23, "cuda": 2**27}
"""Size of the widest activation of the slabs that are encoded together, by the type of device: it fits a
core's cache, or fills a GPU."""
ALONE = 2**15
"""A slab may be encoded alone where every convolution is given at least this many numbers. On CPUs, torch
convolves a single smaller image by another algorithm than several, which rounds differently."""


LANES = 16
"""Fewest channels that single pixels are convolved to in inference. On CPUs, torch convolves to fewer by an
algorithm that rounds otherwise in windows of another size, and with another number of threads."""


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that stays in float32, whatever the network around it is converted to."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BatchNorm:
        def keep(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved.float() if moved.is_floating_point() else moved

        super()._apply(keep, recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Normalise channels (b, c, y, x); in training by the samples of all processes (``vemseg.ranks``)."""
        return super().forward(x) if here().whole or not self.training else self._by_all(x)

    def _by_all(self, x: Tensor) -> Tensor:
        mine = x.float()
        count = mine.new_full((1,), mine.numel() // mine.shape[1])
        total = summed(torch.cat([mine.sum(dim=(0, 2, 3)), count]))
        count = total[-1].detach()
        mean = total[:-1] / count
        centred = mine - mean[:, None, None]
        variance = summed(centred.square().sum(dim=(0, 2, 3))) / count
        self._learn(mean.detach(), variance.detach() * count / (count - 1))
        factor = self.weight * (variance + self.eps).rsqrt()
        return (centred * factor[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    def _learn(self, mean: Tensor, variance: Tensor) -> None:
        """Let the running statistics follow those of a batch."""
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1


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
    """Encode slabs of planes into one vector per 2 x 2 pixels, or per pixel.

    Parameters
    ----------
    settings : UNetTable
        Number of slices, widths of the levels, length of a vector, classes it begins with, resolution.
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

    widths: tuple[int, ...]

    def __init__(self, settings: UNetTable, spacing: Spacing = (1.0, 1.0, 1.0)) -> None:
        super().__init__()
        self.slices, self.dim, self.classes = settings.slices, settings.dim, settings.classes
        self.width, self.widths, self.per_level = settings.widths[0], settings.widths, settings.layers
        self.margin = round(mean_reach(settings.widths, settings.layers, settings.slices))
        self.offsets = slice_offsets(settings.slices, spacing)
        deep = 1 if is_anisotropic(spacing) else PATCH
        self.pieces = PATCH if settings.full_resolution else 1
        self.outputs = self.pieces**3 * settings.dim
        self.patch = (1, 1, 1) if settings.full_resolution else (deep, PATCH, PATCH)
        coarsest = PATCH * 2 ** (len(settings.widths) - 1)
        self.align = (deep, coarsest, coarsest)
        inside = (deep - self.patch[0], PATCH - self.patch[1])
        across = max(-self.offsets[0], self.offsets[-1] - deep + 1) + inside[0]
        across += -across % deep
        within = reach(len(settings.widths), settings.layers) + inside[1]  # up to the sides of a finest pixel
        within += -within % coarsest
        self.halo = (across, within, within)
        self.fov = (self.patch[0] + 2 * across, self.patch[1] + 2 * within, self.patch[2] + 2 * within)
        self.stem = ConvLayer(settings.slices, settings.widths[0], size=4, stride=2)
        self.down = nn.ModuleList(
            _level(a, b, settings.layers)
            for a, b in zip((settings.widths[0], *settings.widths), settings.widths, strict=False)
        )
        self.lateral = nn.ModuleList(
            nn.Conv2d(b, a, 1) for a, b in zip(settings.widths, settings.widths[1:], strict=False)
        )
        self.up = nn.ModuleList(ConvLayer(a, a) for a in settings.widths[:-1])
        self.head = nn.Conv2d(settings.widths[0], self.outputs, 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def trunk(self, slabs: Tensor, needs: tuple[Needs, Needs] | None = None) -> Tensor:
        """Return the features below the last layer.

        Parameters
        ----------
        slabs : Tensor (b, slices, y, x)
        needs : (Needs, Needs), optional
            Rows and columns that are wanted; ``slabs`` are then cut to what is needed for them.

        Returns
        -------
        Tensor (b, width, y / 2, x / 2), or those rows and columns of it
        """
        rows, columns = needs or self._needs((slice(None), slice(None)), slabs.shape[2:])
        x = Part(self.stem(slabs), rows.down[0], columns.down[0])
        passed = []
        for i, level in enumerate(self.down):
            if i:
                x = x.pooled(_pooled(x.maps))
            entering = rows.down[i], columns.down[i]
            x = Part(level(x.cut(*entering)), *entering)
            passed.append(x)
        passed.pop()
        for i in reversed(range(len(self.up))):
            coarse = rows.up[i + 1], columns.up[i + 1]
            maps = self.lateral[i](x.cut(*coarse))[:, : self.widths[i]]
            x = enlarged(interpolate(maps, scale_factor=2, mode="nearest"), *coarse)
            x = Part(self.up[i](x.maps.add_(passed.pop().cut(x.rows, x.columns))), x.rows, x.columns)
        return x.cut(rows.up[0], columns.up[0])

    def _needs(self, wanted: tuple[slice, slice], shape: Sequence[int]) -> tuple[Needs, Needs]:
        """Return the rows and columns of each level that the wanted features of a window (y, x) come from."""
        rows, columns = (
            Needs.of(range(n // PATCH)[part], n // PATCH, len(self.widths), self.per_level)
            for part, n in zip(wanted, shape, strict=True)
        )
        return rows, columns

    def features(self, slabs: Tensor) -> Tensor:
        """Return what :meth:`trunk` does, for slabs of any type and memory layout."""
        return self.trunk(slabs.to(self.dtype).contiguous(memory_format=torch.channels_last))

    def maps(self, slabs: Tensor) -> Tensor:
        """Return the vectors of slabs: (b, slices, y, x) -> (b, p, dim, p * y / 2, p * x / 2).

        p is 2 for vectors of full resolution, which are those of the two middle slices; else 1.
        """
        return self.spread(self.head(self.features(slabs))[:, : self.outputs])

    def spread(self, found: Tensor) -> Tensor:
        """Lay out what the last layer gives: (b, p**3 * d, y, x) -> (b, p, d, p * y, p * x)."""
        if self.pieces == 1:
            return found[:, None]
        b, d, y, x = found.shape
        return pixel_shuffle(found.reshape(b, self.pieces, d // self.pieces, y, x), self.pieces)

    def encode(self, windows: Tensor, kept: Kept | None = None) -> Tensor:
        """Return the vectors of windows (b, 1, z, y, x), whose y and x are multiples of ``align``."""
        return torch.stack([torch.cat(list(self.layers(window[None], kept or WHOLE))) for window in windows])

    forward = encode

    def layers(self, window: Tensor, kept: Kept) -> Iterator[Tensor]:
        """Yield the vectors of one window (1, 1, z, y, x), a few layers of patches at a time.

        ``kept`` may take one layer of every few if each is encoded by itself (``align`` is ``patch``).
        """
        units = (self.align[0], PATCH, PATCH)
        z, rows, columns = (
            _Span.of(wanted, n // patch, unit // patch)
            for wanted, n, patch, unit in zip(kept, window.shape[2:], self.patch, units, strict=True)
        )
        needs = self._needs((rows.units, columns.units), window.shape[3:])
        skipped, left = z.inside.start, len(range(z.inside.start, z.inside.stop, kept[0].step or 1))
        voxels = window[0, 0, :, needs[0].voxels, needs[1].voxels].to(self.dtype)
        few = self._few(needs)

        def encoded(planes: Tensor) -> Tensor:
            alone = planes.expand(2, -1) if len(planes) == 1 and few else planes
            found: Tensor = self.head(self.trunk(_stacked(voxels, alone), needs))
            return found[: len(planes), : self.outputs]

        workers = 1 if torch.is_grad_enabled() else self.workers
        for found in in_order(encoded, self._passes(voxels, z.units), workers):
            vectors = self.spread(found)
            if self.align[0] < self.pieces:  # the two middle slices are one section
                vectors = vectors.mean(dim=1, keepdim=True)
            layers = vectors.permute(0, 1, 3, 4, 2).flatten(0, 1)[skipped : skipped + left]
            skipped, left = 0, left - len(layers)
            yield layers[:, rows.inside, columns.inside]

    def _passes(self, voxels: Tensor, chosen: slice) -> Sequence[Tensor]:
        """Return the planes (n, slices) of the slabs that are encoded together, pass by pass."""
        first = np.arange(len(voxels) // self.align[0])[chosen] * self.align[0]
        planes = torch.from_numpy(reflect(first[:, None] + self.offsets, len(voxels)))
        channels = max(self.width, self.outputs)
        widest = voxels[0].numel() / PATCH**2 * channels * self.dtype.itemsize
        fitting, share = int(self._pass_bytes // widest), -(-len(planes) // self.workers)
        return torch.split(planes, max(1, min(fitting, max(2, share))))

    def _few(self, needs: tuple[Needs, Needs]) -> bool:
        """Tell whether a convolution is given few numbers where a slab is encoded alone."""
        rows, columns = needs
        down = [len(y) * len(x) for y, x in zip(rows.down, columns.down, strict=True)]
        up = [len(y) * len(x) for y, x in zip(rows.up, columns.up, strict=True)]
        entering = [width * n for width, n in zip((self.width, *self.widths), down, strict=False)]
        handed_on = [width * n for width, n in zip(self.widths, up, strict=True)]
        grown = [width * PATCH**2 * n for width, n in zip(self.widths, up[1:], strict=False)]
        return min(*entering, *handed_on, *grown) < ALONE

    @property
    def _pass_bytes(self) -> int:
        return PASS_BYTES.get(self.head.weight.device.type, PASS_BYTES["cuda"])

    @property
    def margins(self) -> ZYX:
        """Voxels around the wanted patches that are encoded on average over the layers."""
        return self.halo[0], self.margin, self.margin

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
        if self.classes and self.head.bias is not None:
            for mine in (self.head.weight, self.head.bias):
                known = mine.view(self.pieces, self.dim, self.pieces**2, -1)[:, : len(self.classes)]
                known -= known.mean(dim=1, keepdim=True)

    @torch.no_grad()
    def information(self, windows: Tensor) -> float:
        """Return the mutual information between places and classes; see ``Encoder.information``."""
        if not self.classes:
            return 0.0
        logits = self.maps(windows[:, 0])[:, :, : len(self.classes)].double()
        each = torch.log_softmax(logits, dim=2)
        mean = each.exp().mean(dim=(0, 1, 3, 4))
        entropy = -(each.exp() * each).sum(dim=2).mean()
        return float(-(mean * mean.clamp_min(1e-12).log()).sum() - entropy)

    def memory(self, batch: int) -> Memory:
        """Return the memory for the vectors, and for several small slabs or a large one, with activations."""
        item = float(self.dtype.itemsize)
        activations = (self.slices + 3.0 * self.width / PATCH**2) * item
        return Memory(
            3 * self._pass_bytes * self.workers,
            Need(point=item * self.dim, pixel=activations * self.workers),
            Need(point=max(item, 2.0) * self.dim),
        )

    def prepare(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Fold the normalisation into the convolutions and centre logits, then make ready for inference."""
        self._centre_logits()
        self.head = _widened(self.head)
        self.lateral = nn.ModuleList(map(_widened, self.lateral))
        for module in self.modules():
            if isinstance(module, ConvLayer):
                module.fuse()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.workers = workers_on(device)
        return super().prepare(device, dtype)


def _stacked(voxels: Tensor, planes: Tensor) -> Tensor:
    """Return slabs (n, slices, y, x), channels last, of planes (n, slices) of voxels (z, y, x)."""
    n, slices = planes.shape
    first, step = int(planes[0, 0]), int(planes[1, 0] - planes[0, 0]) if n > 1 else 1
    regular = first + step * torch.arange(n)[:, None] + torch.arange(slices)
    if step > 0 and torch.equal(planes, regular):  # a view of neighbours, copied once
        slabs = voxels[first:].unfold(0, slices, step)[:n].permute(0, 3, 1, 2)
    else:
        slabs = voxels[planes.to(voxels.device)]
    return slabs.contiguous(memory_format=torch.channels_last)


def _pooled(maps: Tensor) -> Tensor:
    """Return the maxima of 2 x 2 pixels: (b, c, y, x) -> (b, c, y / 2, x / 2).

    PyTorch's pooling also notes where they lie, for training: without that, CPUs are twice as fast.
    """
    if maps.requires_grad:
        return nn.functional.max_pool2d(maps, 2)
    rows = torch.maximum(maps[..., ::2, :], maps[..., 1::2, :])
    return torch.maximum(rows[..., ::2], rows[..., 1::2])


@torch.no_grad()
def _widened(layer: nn.Module) -> nn.Conv2d:
    """Return a convolution of single pixels with channels added that nobody reads."""
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    given = layer.out_channels
    wide = max(LANES, -(-given // 8) * 8)
    if wide == given:
        return layer
    wider = nn.Conv2d(layer.in_channels, wide, 1)
    assert wider.bias is not None
    for mine, theirs in ((wider.weight, layer.weight), (wider.bias, layer.bias)):
        mine.zero_()[:given] = theirs
    return wider.to(layer.weight)


def _level(width_in: int, width: int, layers: int) -> nn.Sequential:
    return nn.Sequential(ConvLayer(width_in, width), *(ConvLayer(width, width) for _ in range(layers - 1)))


@dataclass(frozen=True)
class _Span:
    """The units of an axis that vectors are computed in, and which of their vectors are wanted."""

    units: slice
    inside: slice

    @classmethod
    def of(cls, wanted: slice, n: int, each: int) -> _Span:
        """Return the units, of ``each`` vectors, that hold the wanted ones of ``n``; steps count units."""
        start, stop, step = wanted.indices(n)
        first = start // each
        return cls(slice(first, -(-stop // each), step), slice(start - first * each, stop - first * each))
