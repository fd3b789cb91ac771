"""Draws the windows that training sees, from volumes or synthetic tissue, and augments them.

    draws      the random choices of a batch, which follow from (seed, step) alone
    stocks     the contract between a source and the sampler
    sources    volumes with or without labels
    known      where the class of voxels is known: counted, drawn around, held out
    synthetic  tissue that is made up as training goes on
    held       boxes in memory, and windows cut out of them
    workers    processes that make synthetic tissue in advance
    warping    enlarges, mirrors and turns a whole batch
    sampler    makes batches from sources and choices
    joining    one batch of several processes that train together

A window has d planes of h rows and w columns: one plane in 2-D, a slab in 3-D. Its planes lie one short voxel
edge apart, and the axis across them is drawn for each sample.

Random numbers come from a counter-based stream: everything about step ``t`` follows from (seed, t) alone. So
no two steps or epochs repeat, a resumed run goes on with the very samples it would have seen, and the number
of processes changes nothing, since each takes its share of the same batch.
"""

from vemseg.sampling.draws import Draw
from vemseg.sampling.joining import whole_batch
from vemseg.sampling.known import Known, hold_out_known, shown_source, survey
from vemseg.sampling.sampler import Sampler, examining_sampler, plain_windows
from vemseg.sampling.sources import HELD_OUT, Source, hold_out
from vemseg.sampling.synthetic import Maker, Synthetic, tissue_sources

__all__ = [
    "HELD_OUT",
    "Draw",
    "Known",
    "Maker",
    "Sampler",
    "Source",
    "Synthetic",
    "examining_sampler",
    "hold_out",
    "hold_out_known",
    "plain_windows",
    "shown_source",
    "survey",
    "tissue_sources",
    "whole_batch",
]
