"""MAESTER against reference vectors of its public code, and against slow restatements of its parts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import mse_loss

from vemseg.batch import Batch
from vemseg.errors import InputError, MissingError
from vemseg.models import build_encoder, import_maester
from vemseg.models.layers import patchify, random_order, sincos_positions, unpatchify
from vemseg.models.mae import MaskedAutoencoder, Masking
from vemseg.recipe import MaesterTable

GOLDEN = Path(__file__).parent / "golden"
SMALL = MaesterTable(
    fov=20, patch=5, dim=16, depth=2, heads=1, decoder_dim=8, decoder_depth=1, decoder_heads=2
)


@pytest.fixture(scope="module")
def golden():
    _, objective = import_maester(GOLDEN / "maester_small_weights.pt", decoder_heads=4)
    return objective.eval(), load_file(GOLDEN / "maester_small_io.safetensors")


def noise_for(ids_restore):
    """Return noise whose order hides what the reference hid: a token's noise is its shuffled place."""
    return ids_restore.float()


@torch.no_grad()
def test_latents_agree_with_the_reference(golden):
    model, io = golden
    assert (model.encoder.latent(io["images"]) - io["latent"]).abs().max() < 1e-4


@torch.no_grad()
def test_masked_pass_agrees_with_the_reference(golden):
    model, io = golden
    visible, restore, mask = random_order(noise_for(io["ids_restore"]), 0.5)
    assert torch.equal(restore, io["ids_restore"])
    assert torch.equal(mask, io["mask"].float())
    latent = model.encoder.latent(io["images"], visible)
    assert (latent - io["visible_latent"]).abs().max() < 1e-4
    assert (model.decoder(latent, restore) - io["prediction"]).abs().max() < 1e-4


@torch.no_grad()
def test_loss_agrees_with_the_reference(golden, monkeypatch):
    model, io = golden
    masking = Masking(*random_order(noise_for(io["ids_restore"]), 0.5))
    monkeypatch.setattr(model, "hide", lambda images, generator: masking)
    loss = model(Batch(io["images"][:, :, None]), torch.Generator())["loss"]
    assert abs(float(loss) - float(io["loss"])) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("fused", [False, True])
def test_encode_is_the_latent_without_class_token(golden, fused):
    model, io = golden
    for block in model.encoder.blocks:
        block.attn.fused_attn = fused
    tokens = model.encoder.encode(io["images"][:, :, None])
    assert tokens.shape == (3, 1, 8, 8, 48)
    assert (tokens.flatten(1, 3) - io["latent"][:, 1:]).abs().max() < 1e-4
    kept = (slice(0, 1), slice(2, 6), slice(1, 3))
    some = model.encoder.encode(io["images"][:, :, None], kept)
    assert (some - tokens[:, :, 2:6, 1:3]).abs().max() < 1e-5


def test_paper_configuration_has_the_reference_names_and_shapes():
    wanted = json.loads((GOLDEN / "maester_paper_state_dict.json").read_text())
    shapes = wanted["state_dict"]
    encoder = {name: list(value.shape) for name, value in build_encoder(MaesterTable()).state_dict().items()}
    for name, shape in encoder.items():
        assert list(shapes[name]) == shape, name
    assert sum(p.numel() for p in build_encoder(MaesterTable()).parameters()) == 4_163_904
    assert not {n for n in shapes if not n.startswith(("decoder", "mask_token"))} - set(encoder)


def test_initialisation_is_that_of_mae():
    torch.manual_seed(0)
    encoder = build_encoder(MaesterTable())
    qkv = encoder.blocks[0].attn.qkv
    bound = (6 / (192 + 576)) ** 0.5
    assert 0.98 * bound < qkv.weight.detach().abs().max() <= bound
    assert not qkv.bias.any()
    patch_bound = (6 / (192 + 25)) ** 0.5
    assert 0.98 * patch_bound < encoder.patch_embed.proj.weight.detach().abs().max() <= patch_bound
    assert 0.01 < encoder.cls_token.detach().std() < 0.03
    assert encoder.norm.eps == 1e-6


def test_positions_spelt_out():
    table = sincos_positions(16, 3)[0].numpy()
    assert not table[0].any()
    for row in range(3):
        for column in range(3):
            expected = []
            for place in (column, row):
                angles = [place * 10000 ** (-j / 4) for j in range(4)]
                expected += [np.sin(a) for a in angles] + [np.cos(a) for a in angles]
            np.testing.assert_allclose(table[1 + 3 * row + column], expected, atol=1e-6)


def test_patches_go_back_and_forth():
    images = torch.arange(2 * 20 * 20.0).reshape(2, 20, 20)
    patches = patchify(images, 5)
    assert torch.equal(patches[1, 6], images[1, 5:10, 10:15].flatten())
    assert torch.equal(unpatchify(patches, 5, 4), images)


def test_loss_counts_masked_patches_only():
    torch.manual_seed(1)
    model = MaskedAutoencoder(SMALL)
    images = torch.rand(3, 1, 1, 20, 20)
    loss = float(model(Batch(images), torch.Generator().manual_seed(5))["loss"].detach())
    noise = torch.rand(3, 16, generator=torch.Generator().manual_seed(5))
    masking = Masking(*random_order(noise, 0.5))
    pixels, mask = model.reconstruct(images[:, :, 0], masking), masking.mask
    slow = []
    for b, i in np.ndindex(3, 16):
        y, x = 5 * (i // 4), 5 * (i % 4)
        if mask[b, i]:
            slow.append(mse_loss(pixels[b, i], images[b, 0, 0, y : y + 5, x : x + 5].flatten()))
    assert len(slow) == 3 * 8
    assert loss == pytest.approx(float(torch.stack(slow).detach().mean()), rel=1e-5)


def test_hidden_pixels_do_not_reach_the_prediction():
    torch.manual_seed(1)
    model = MaskedAutoencoder(SMALL)
    noise = torch.rand(1, 16, generator=torch.Generator().manual_seed(5))
    images = torch.rand(1, 1, 20, 20, requires_grad=True)
    masking = Masking(*random_order(noise, 0.5))
    pixels, mask = model.reconstruct(images, masking), masking.mask
    pixels.sum().backward()
    touched = patchify(images.grad[:, 0].abs(), 5).sum(-1) > 0
    assert torch.equal(touched, mask == 0)


def test_preview_hides_what_was_masked():
    model = MaskedAutoencoder(SMALL)
    images = torch.rand(2, 1, 1, 20, 20)
    shown = model.preview(Batch(images), torch.Generator().manual_seed(0))
    hidden = shown.masked.isnan()
    assert hidden.float().mean() == 0.5
    assert torch.equal(shown.predictions[~hidden], images[:, 0, 0][~hidden])
    assert not torch.equal(shown.predictions[hidden], images[:, 0, 0][hidden])


def test_bad_checkpoints_are_told_apart(tmp_path):
    with pytest.raises(MissingError, match="no checkpoint"):
        import_maester(tmp_path / "nothing.pt")
    (tmp_path / "text.pt").write_text("no archive")
    with pytest.raises(InputError, match=r"text\.pt"):
        import_maester(tmp_path / "text.pt")
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="no MAESTER checkpoint"):
        import_maester(tmp_path / "other.pt")


def test_a_checkpoint_that_runs_code_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"model": Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(InputError, match="no checkpoint, or one that holds more than tensors"):
        import_maester(tmp_path / "bomb.pt")
    assert not (tmp_path / "ran").exists()


def test_wrapped_checkpoints_open(tmp_path):
    state = torch.load(GOLDEN / "maester_small_weights.pt", weights_only=True)
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "wrapped.pt")
    settings, _ = import_maester(tmp_path / "wrapped.pt", decoder_heads=4)
    assert (settings.fov, settings.patch, settings.dim, settings.depth) == (40, 5, 48, 3)
