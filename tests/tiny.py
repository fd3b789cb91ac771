"""Every recipe that is trained, as small as it can be, and data for it."""

import numpy as np

NM = (16.0, 16.0, 16.0)
TRANSFORMER = [
    "model.fov=20", "model.patch=5", "model.dim=16", "model.depth=2", "model.decoder_dim=16",
    "model.decoder_depth=1", "model.decoder_heads=2",
]  # fmt: skip
UNET = ["model.fov=32", "model.view=24", "model.slices=4", "model.widths=[6, 8]"]
NAMES = "model.classes=['a', 'b', 'c', 'd', 'e', 'f', 'g']"
CUBES = ["model.widths=[4, 8]", "model.grid=4", "model.hidden=12"]
RECIPES = {
    "vemseg": UNET,
    "invariance": [*UNET, "model.dim=4"],
    "unet_supervised": [*UNET, NAMES, "model.dim=7"],
    "maester": [*TRANSFORMER, "model.heads=2"],
    "his4mae": [*TRANSFORMER, "model.codes=8", "model.epoch=100"],
    "sdae_recon": TRANSFORMER,
    "vit_supervised": [*TRANSFORMER, NAMES, "model.kept=10", "model.stride=5"],
    "segmenter": [*TRANSFORMER, NAMES, "model.kept=10", "model.stride=5"],
    "han2022": [*CUBES, "model.latent=8", "model.semantic=3"],
    # no clip: torch sorts gradients by where they truly lie
    "cihs": ["model.widths=[2, 2, 4, 4]", "model.hidden=12", "model.gyroplanes=6", "train.clip=0.0"],
}
SHORT = [
    "train.batch=2", "train.log_every=2", "train.picture_every=4", "train.warmup=0.0",
    "volume.voxel_size=16.0", "embed.placement=expand-stride", "embed.stride=5", "embed.batch=8",
    "fov.pool_bytes=4_000_000",
]  # fmt: skip


class Tissue:
    """Two classes that are told by their grey, in place of synthetic tissue."""

    voxel_size, planes = NM, 8

    def make(self, rng, shape):
        labels = (rng.random(shape) < 0.5).astype(np.uint8)
        return (0.2 + 0.5 * labels).astype(np.float32), labels
