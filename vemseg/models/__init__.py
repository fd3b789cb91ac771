"""Encoders, the objectives that train them, and the models that users name.

    encoder      the contract of all encoders
    objective    the contract of all objectives, which training minimises
    devices      chooses the device and the type of numbers to compute with
    layers       parts that several models share
    cubes        encoders of cubes, and the cubes that train them
    vit, unet, classical
                 encoders
    planes       an encoder of planes that is applied across all three axes
    filtered     an encoder with filters beside it
    patch_mean   the mean intensity of each patch, as an encoder
    receptive    which pixels of each level the vectors of a U-Net depend on
    workers      threads that each encode a part of a window by themselves
    windowed     encoders of logits, averaged where fields of view overlap
    mae, self_distilled, his4mae, sdae, invariance, recognition, self_training, distilled, sccs
                 objectives
    averaged     objectives that keep a running mean of the encoder they train
    supervision  the objective of what learns from labels, and Dice on held-out ones
    unet_supervised, vit_supervised, segmenter
                 what learns from labels: encoders and objectives
    han2022, cihs
                 variational autoencoders of cubes: encoder, decoder and objective
    hyperbolic   the latent space of cihs
    views        what dense encoders see of a region in training
    running_mean an encoder that follows another one
    codebook     codes, the vectors that tokens are replaced by
    building     makes encoders and objectives from the ``[model]`` table of a recipe
    weights      saves and loads the weights of an encoder
    checkpoints  reads the released weights of MAESTER
    model        opens what a user names: a run, bundled weights, a recipe, a checkpoint

A method is registered in ``vemseg.recipe.kinds``; nothing here lists methods.
"""

from vemseg.models.building import (
    build_encoder,
    build_labeller,
    build_objective,
    build_self_training,
    build_student,
    differing_encoder,
)
from vemseg.models.checkpoints import import_maester, reference_recipe
from vemseg.models.devices import Machine, pick_device, settle, spread
from vemseg.models.encoder import Encoder, Spacing
from vemseg.models.filtered import Filtered
from vemseg.models.model import Model, open_model
from vemseg.models.objective import Objective
from vemseg.models.patch_mean import PatchMean
from vemseg.models.planes import ThreePlanes
from vemseg.models.weights import load_codes, load_encoder, save_encoder
from vemseg.models.workers import in_order

__all__ = [
    "Encoder",
    "Filtered",
    "Machine",
    "Model",
    "Objective",
    "PatchMean",
    "Spacing",
    "ThreePlanes",
    "build_encoder",
    "build_labeller",
    "build_objective",
    "build_self_training",
    "build_student",
    "differing_encoder",
    "import_maester",
    "in_order",
    "load_codes",
    "load_encoder",
    "open_model",
    "pick_device",
    "reference_recipe",
    "save_encoder",
    "settle",
    "spread",
]
