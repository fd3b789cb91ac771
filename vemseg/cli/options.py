"""Every option, defined once: its names, help and panel. An option is the same in all commands that have it.

An option that a recipe also decides has no default here: where it is left out, the recipe's value holds.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vemseg.cli.words import ClassKind, LabelStyle, PlacementName, ProgressStyle, RegionKind

argument = partial(typer.Argument, show_default=False)
input_option = partial(typer.Option, rich_help_panel="Input", show_default=False)
model_option = partial(typer.Option, rich_help_panel="Model", show_default=False)
output_option = partial(typer.Option, rich_help_panel="Output")
out_option = partial(output_option, "-o", "--out", show_default=False)
compute_option = partial(typer.Option, rich_help_panel="Compute")
_advanced = partial(typer.Option, rich_help_panel="Advanced", show_default=False)
_messages = partial(typer.Option, rich_help_panel="Messages")
flag = {"metavar": "", "show_default": False}
zyx = {"metavar": "Z,Y,X"}
_box = {"metavar": "Z0:Z1,Y0:Y1,X0:X1"}

# What is read

Volume = Annotated[
    str, argument(metavar="VOLUME", help="TIFF stack, OME-Zarr, slices, HDF5, N5, MRC, or an address.")
]
VolumeOrFeatures = Annotated[
    str,
    argument(
        metavar="VOLUME", help="TIFF stack, OME-Zarr or another volume, or features that 'embed' stored."
    ),
]
TrainingVolumes = Annotated[
    list[str] | None,
    argument(metavar="VOLUMES...", help="Grey volumes to learn from; the default recipe needs none."),
]
StoredFeatures = Annotated[
    list[Path], argument(metavar="FEATURES...", help="What 'embed' stored, of one volume or of several.")
]
Prediction = Annotated[str, argument(metavar="PREDICTION", help="Labels to score.")]

_reference = partial(input_option, "--reference", "--gt", metavar="LABELS")
Reference = Annotated[str, _reference(help="Labels to compare with.")]
ReferenceToDraw = Annotated[str | None, _reference(help="Reference labels to draw for comparison.")]
Labels = Annotated[
    str | None, input_option("--labels", metavar="LABELS", help="Labels to draw on the volume.")
]
Mask = Annotated[
    str | None, input_option("--mask", metavar="VOLUME", help="Count only voxels where this is above 0.")
]
LessonLabels = Annotated[
    list[str] | None,
    input_option(
        "--labels", metavar="LABELS", help="Labels to learn from, once for each volume; 255 means not known."
    ),
]
LessonMasks = Annotated[
    list[str] | None,
    input_option("--mask", metavar="VOLUME", help="Learn only where this is above 0; once for each volume."),
]
Unlabelled = Annotated[
    str | None,
    input_option("--unlabelled", metavar="0,9", help="Further values that mean 'not known', as 255 does."),
]
Ignore = Annotated[
    str | None, input_option("--ignore", metavar="0,5", help="Reference labels that do not count.")
]
Map = Annotated[
    str | None,
    input_option(
        "--map", metavar="1=2,3=2", help="Which class each label is: label 1 is class 2, and so on."
    ),
]
Names = Annotated[
    str | None,
    input_option("--names", metavar="1=nucleus,...", help="Names of the labels, or a .toml file of them."),
]
ReferenceNames = Annotated[
    str | None,
    input_option("--reference-names", metavar="1=nucleus,...", help="Names of the reference's classes."),
]
EvaluateNames = Annotated[
    str | None,
    input_option(
        "--names",
        "--reference-names",
        metavar="1=nucleus,...",
        help="Names of the reference's classes, where its file has none or others.",
    ),
]
VoxelSize = Annotated[
    str | None,
    input_option("--voxel-size", **zyx, help="Voxel size in nm, where the file has none or a wrong one."),
]
Crop = Annotated[str | None, input_option("--crop", **_box, help="Use a part of the volume, in voxels.")]
ReferenceCrop = Annotated[
    str | None,
    input_option("--crop", **_box, help="The part of the larger volume that the smaller one shows."),
]

# What computes

Model = Annotated[
    str | None,
    model_option(
        "-m",
        "--model",
        metavar="MODEL",
        show_default="bundled weights",
        help="A trained run, bundled weights by name, a .pt file, or 'classical'.",
    ),
]
Clusters = Annotated[
    Path | None,
    model_option("--clusters", metavar="FILE", help="Classes that 'cluster' or an earlier 'segment' found."),
]
Classes = Annotated[
    str | None,
    model_option(
        "-k",
        metavar="K",
        show_default="6, or the recipe's",
        help="How many classes to find, 2 to 255; 'auto' tries 4 to 12 and takes one.",
    ),
]
ClassesRange = Annotated[
    str | None,
    model_option(
        "--k-range",
        metavar="4:12",
        help="Try each K from first to last, and take the largest whose classes are stable.",
    ),
]
WhichClasses = Annotated[
    ClassKind | None,
    model_option(
        "--classes",
        metavar="WHICH",
        show_default="clusters",
        help="clusters: found in this volume. named: those that the model was taught, such as mitochondrion.",
    ),
]
Regions = Annotated[
    RegionKind | None,
    model_option(
        "--regions",
        metavar="KIND",
        show_default="none",
        help="slic: label small regions of even grey (superpixels). none: label every voxel by itself.",
    ),
]
Config = Annotated[
    str | None,
    model_option(
        "-c",
        "--config",
        metavar="RECIPE",
        show_default="vemseg",
        help="A recipe by name (see 'fetch list'), or a .toml file.",
    ),
]
Start = Annotated[
    str | None,
    model_option(
        "--from", metavar="MODEL", help="Begin with the weights of a run, or with bundled ones by name."
    ),
]
Teacher = Annotated[
    str | None,
    model_option(
        "--teacher", metavar="MODEL", help="Train the dense encoder to give the vectors of another model."
    ),
]
Encoder = Annotated[
    str | None,
    model_option(
        "--encoder", metavar="MODEL", help="Train the recipe's labeller (sccs) on the vectors of this model."
    ),
]
Steps = Annotated[int | None, model_option("--steps", metavar="N", help="Training steps.")]
BatchSize = Annotated[
    int | None, model_option("--batch-size", metavar="N", help="Fields of view in one step.")
]
LearningRate = Annotated[float | None, model_option("--lr", metavar="RATE", help="Learning rate.")]

Device = Annotated[
    str,
    compute_option(
        "-d", "--device", metavar="DEVICE", envvar="VEMSEG_DEVICE", help="auto, cpu, cuda, cuda:1."
    ),
]
MaxMemory = Annotated[
    str | None,
    compute_option(
        "--max-memory",
        metavar="SIZE",
        show_default="half of what is free, at most 4GiB",
        help="Memory to use, such as 2GiB.",
    ),
]
Threads = Annotated[
    int | None,
    compute_option(
        "--threads", metavar="N", min=1, max=1024, show_default="all cores", help="Threads to compute with."
    ),
]
Plan = Annotated[
    bool,
    compute_option("--plan", **flag, help="Show the memory, disk and time that this would take, and stop."),
]
Shard = Annotated[
    str | None,
    compute_option(
        "--shard",
        metavar="I/N",
        show_default=False,
        help="Do part I of N, beside other tasks; 'auto' in an array job. --finalize comes last.",
    ),
]
Processes = Annotated[
    int | None,
    compute_option(
        "--processes",
        metavar="N",
        min=1,
        show_default="one for each GPU",
        help="Share the blocks among N processes, each with its own threads and memory.",
    ),
]
Dask = Annotated[
    str | None,
    compute_option(
        "--dask",
        metavar="WHERE",
        show_default=False,
        help="Do the blocks on a Dask cluster: 'local', 'slurm', or a scheduler's address or file.",
    ),
]
Finalize = Annotated[
    bool,
    compute_option("--finalize", **flag, help="Compute nothing: finish what tasks with --shard have done."),
]
Adapt = Annotated[
    str | None,
    model_option(
        "--adapt",
        metavar="TIME",
        help="First train on this volume for at most TIME, such as 10min; the run is kept beside the labels.",
    ),
]
MaxTime = Annotated[
    str | None,
    compute_option(
        "--max-time",
        metavar="TIME",
        show_default=False,
        help="Finish within 90s, 20min, 1h30 or 23:30 (hours:minutes).",
    ),
]

# What is written

RunFolder = Annotated[
    Path | None, out_option(metavar="RUN", help="Folder of the run: model, settings, curves.")
]
FeaturesOut = Annotated[Path, out_option(metavar="NAME.zarr", help="Where to store the features.")]
ClustersOut = Annotated[Path, out_option(metavar="NAME.safetensors", help="Where to store the classes.")]
ScoresOut = Annotated[
    Path | None, out_option(metavar="NAME.json", help="Store all scores, with plots beside them.")
]
Sha256 = Annotated[
    str | None, _advanced("--sha256", metavar="HEX", help="SHA-256 of the archive given by --from.")
]
Offline = Annotated[
    bool,
    input_option("--offline", envvar="VEMSEG_OFFLINE", **flag, help="Read nothing from the network."),
]
Overwrite = Annotated[bool, output_option("-f", "--overwrite", **flag, help="Replace what is there.")]
Json = Annotated[bool, output_option("--json", **flag, help="Print the result as JSON.")]
FailUnder = Annotated[
    str | None,
    output_option(
        "--fail-under",
        metavar="dice=0.6",
        show_default=False,
        help="Exit with code 7 if the mean is below this.",
    ),
]
DumpConfig = Annotated[
    bool, output_option("--dump-config", **flag, help="Print the complete recipe and stop.")
]

At = Annotated[
    str | None, output_option("--at", **zyx, show_default="the middle", help="Voxel where the planes cross.")
]
Style = Annotated[LabelStyle, output_option("--style", metavar="HOW", help="Draw labels as fill or contour.")]
Alpha = Annotated[
    float, output_option("--alpha", metavar="0..1", min=0.0, max=1.0, help="Opacity of a fill.")
]
Slices = Annotated[int, output_option("--slices", metavar="N", min=1, help="Slices of the montage.")]

# Fine control

Placement = Annotated[
    PlacementName | None,
    _advanced(
        "--placement",
        metavar="NAME",
        help="How fields of view cover the volume: cover-and-stride, expand-stride, whole-slice.",
    ),
]
Kept = Annotated[
    int | None,
    _advanced("--kept", metavar="M", help="cover-and-stride: central patches kept along a side."),
]
Stride = Annotated[
    int | None,
    _advanced("--stride", metavar="S", help="expand-stride: central pixels kept along a side."),
]
Sample = Annotated[
    int | None, _advanced("--sample", metavar="N", help="How many vectors the classes are found from.")
]
Restarts = Annotated[
    int | None, _advanced("--restarts", metavar="N", help="Attempts, of which the best is kept.")
]
Seed = Annotated[int | None, _advanced("--seed", metavar="N", help="Same seed, same result.")]
Settings = Annotated[
    list[str] | None,
    _advanced("--set", metavar="TABLE.KEY=VALUE", help="Change a setting of the recipe; may be repeated."),
]

# Shared by all commands

Verbose = Annotated[bool, _messages("-v", "--verbose", **flag, help="Say more; show where an error arose.")]
Quiet = Annotated[bool, _messages("-q", "--quiet", **flag, help="Only warnings and errors.")]
Progress = Annotated[
    ProgressStyle,
    _messages(
        "--progress",
        metavar="HOW",
        envvar="VEMSEG_PROGRESS",
        help="auto, rich (a bar), plain (lines) or none.",
    ),
]
