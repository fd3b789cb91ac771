"""GPUs that are too old, too small, or unknown to PyTorch: what is computed instead, and what is said."""

import logging
import math

import pytest
import torch

from vemseg.budget import Budget, Cuts, Need, Stretch, choose_blocks
from vemseg.context import Context
from vemseg.dense import lay_over_volume
from vemseg.errors import ResourceError
from vemseg.geometry import Box
from vemseg.models import build_objective, devices, open_model
from vemseg.models.weights import save_encoder
from vemseg.phantom import Phantom
from vemseg.recipe import load_recipe
from vemseg.resources import GIB, batch_header
from vemseg.run import Run
from vemseg.sampling import Sampler, Source
from vemseg.training import Trainer
from vemseg.volume import ArrayVolume, Intensity

GPU = torch.device("cuda", 0)
SMALL = ["model.fov=20", "model.patch=5", "model.dim=16", "model.depth=1", "model.decoder_dim=16",
         "model.decoder_depth=1", "model.decoder_heads=2", "volume.voxel_size=16.0", "train.precision=fp32",
         "embed.placement=expand-stride", "embed.stride=10", "embed.batch=8"]  # fmt: skip


@pytest.fixture
def old(monkeypatch):
    """Pretend a GPU of a given compute capability."""

    def pretend(capability, built=("sm_80", "sm_90a", "compute_90")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Tesla X")
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(built))

    return pretend


@pytest.mark.parametrize(
    ("capability", "precision", "short"),
    [
        ((7, 5), "auto", False),
        ((7, 5), "bf16", False),
        ((8, 0), "auto", True),
        ((8, 0), "fp32", False),
        ((12, 0), "bf16", True),
    ],
)
def test_bfloat16_is_for_gpus_that_multiply_it(old, monkeypatch, caplog, capability, precision, short):
    old(capability)
    monkeypatch.setattr(devices, "_failing", lambda device: None)
    machine = devices.settle(Context(device="auto"), precision)
    assert (machine.device.type, machine.dtype) == ("cuda", torch.bfloat16 if short else torch.float32)
    with caplog.at_level(logging.INFO, "vemseg"):
        machine.say()
    said = "Tesla X has compute capability 7.5, which has no bfloat16: computing in float32" in caplog.text
    assert said == (precision == "bf16" and not short)


def test_a_gpu_that_pytorch_has_no_code_for_is_named_with_what_to_do(old, monkeypatch):
    old((3, 7))

    def refused(*sizes, device, **more):
        raise RuntimeError(
            "CUDA error: no kernel image is available for execution on the device\nCUDA kernel"
        )

    monkeypatch.setattr(torch, "ones", refused)
    says = r"Tesla X has compute capability 3\.7, and PyTorch \S+ has code for 8\.0, 9\.0 only: install"
    with pytest.raises(ResourceError, match=says):
        devices.pick_device("cuda")
    machine = devices.settle(Context(device="auto"), "fp32")
    assert machine.device.type == "cpu" and "has compute capability 3.7" in machine.unused


def test_both_memories_are_counted():
    axes = tuple(Cuts.of(n, lambda start, stop: Stretch(*3 * (stop - start,))) for n in (64, 64, 64))
    budgets = [Budget(10**9, 1000, (Need(voxel=2.0),)), Budget(10**6, 500, (Need(window=4.0),), "GPU memory")]
    found = choose_blocks(axes, budgets)
    size = math.prod(found.shape)
    assert (found.bytes, found.gpu) == (1000 + 2 * size, 500 + 4 * size) and found.gpu <= 10**6
    assert choose_blocks(axes, budgets[:1]).gpu == 0
    with pytest.raises(ResourceError, match="of GPU memory is not enough"):
        choose_blocks(axes, [budgets[0], Budget(100, 500, (Need(window=4.0),), "GPU memory")])


def test_a_header_for_slurm_asks_for_more_than_is_needed():
    assert batch_header(int(2.2 * GIB), 0.0, gpu=False, cores=4) == [
        "#SBATCH --cpus-per-task=4", "#SBATCH --mem=5G", "#SBATCH --time=00:10:00"
    ]  # fmt: skip
    asked = batch_header(GIB, 7001.0, gpu=True, cores=1)
    assert asked[2:] == ["#SBATCH --time=03:10:00", "#SBATCH --gres=gpu:1"]


def source_of(recipe, path):
    """Return the vectors of a phantom by an untrained model of a recipe."""
    torch.manual_seed(0)
    objective = build_objective(recipe.model, 0)
    with Run.create(path, recipe) as run:
        save_encoder(run.model, objective, {"step": 0})
    shape = (4, 40, 44)
    volume = ArrayVolume(Phantom(shape, 1).read(Box.whole(shape)), (16.0, 16.0, 16.0))
    return lay_over_volume(open_model(str(path)), volume, Context(device="cpu"))


NO_MEMORY = (
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), "-d cpu"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "ulimit -v"),
    (MemoryError(), "--max-memory"),
)


@pytest.mark.parametrize(("error", "mend"), NO_MEMORY, ids=["gpu", "torch", "numpy"])
@pytest.mark.parametrize(
    ("name", "most"),
    [("maester", 4), ("invariance", 40)],
)
def test_where_memory_runs_out_half_is_done_at_a_time(tmp_path, monkeypatch, caplog, name, most, error, mend):
    small = SMALL if name == "maester" else [
        "model.fov=32", "model.view=24", "model.slices=4", "model.widths=[6, 8]", "model.dim=3",
        "volume.voxel_size=16.0", "train.precision=fp32", "embed.filters=[]",
    ]  # fmt: skip
    source = source_of(load_recipe(name, small), tmp_path / "run")
    points = Box.whole(source.shape)
    whole = source.values(points)
    encode = source.covering.encoder.encode
    calls = []

    def scarce(windows, kept=None):
        size = len(windows) if name == "maester" else max(windows.shape[2:])
        calls.append(size)
        if size > limit:
            raise error
        return encode(windows, kept)

    limit = most
    if name == "invariance":
        source.values(points)
        read = source.covering.read(points).shape
        limit = max(read) - 1
    monkeypatch.setattr(source.covering.encoder, "encode", scarce)
    halves = source.values(points)
    torch.testing.assert_close(halves, whole, atol=2e-3, rtol=0)
    assert caplog.text.count("half as much at a time") == 1 and calls[0] > limit
    before = len(calls)
    source.values(points)
    assert all(size <= limit for size in calls[before:])
    limit = 0
    with pytest.raises(ResourceError, match=f"even for half of what was planned: .*{mend}"):
        source.values(points)


def test_a_training_that_does_not_fit_says_what_to_set(tmp_path, monkeypatch):
    recipe = load_recipe("maester", [*SMALL, "train.batch=6", "train.steps=2"])
    objective = build_objective(recipe.model, 0)
    shape = (4, 40, 44)
    volume = ArrayVolume(Phantom(shape, 1).read(Box.whole(shape)), (16.0, 16.0, 16.0))
    sampler = Sampler(
        [Source(volume, Intensity(0.0, 255.0))], objective.window, recipe.fov, 0, torch.device("cpu")
    )

    def full(batch, generator):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(objective, "forward", full)
    with Run.create(tmp_path / "run", recipe) as run:
        trainer = Trainer(objective, sampler, run, recipe.train)
        with pytest.raises(ResourceError, match=r"try --batch-size 3, or -d cpu"):
            trainer.fit(Context())
    assert not run.checkpoint.exists()
