"""Where training looks: windows drawn from volumes or made up, and their augmentation.

    draws      the choices behind a batch, which follow from (seed, step) alone
    stocks     what of a source samples are cut from: the contract
    sources    volumes with or without labels
    synthetic  tissue that is made up as it is needed
    warping    enlarging, mirroring and turning a whole batch
    sampler    sources + choices -> Batch

A window is d planes of h rows and w columns: one plane in 2-D, a slab in 3-D. Its planes lie one short voxel
edge apart; the axis they lie across is drawn for each sample.

The draw is a counter-based stream: everything about step ``t`` follows from (seed, t) alone. So no two
steps or epochs repeat, a resumed run goes on with the very samples it would have seen, and the number of
processes changes nothing: each takes its share of the same batch.
"""

from vemseg.sampling.draws import Draw
from vemseg.sampling.sampler import Sampler
from vemseg.sampling.sources import HELD_OUT, Source, hold_out
from vemseg.sampling.synthetic import Synthetic

__all__ = ["HELD_OUT", "Draw", "Sampler", "Source", "Synthetic", "hold_out"]
