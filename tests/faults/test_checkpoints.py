"""Checkpoints that lie about their sizes are refused in one line, before memory is taken for them."""

import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from vemseg.errors import InputError
from vemseg.models import import_maester, open_model
from vemseg.pipeline.fetch import import_weights

GOLDEN = Path(__file__).parents[1] / "golden" / "maester_small_weights.pt"


@pytest.fixture
def state():
    return torch.load(GOLDEN, weights_only=True)


def refuse(path, says):
    with pytest.raises(InputError, match=says) as caught:
        import_maester(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"blocks.999999999.norm1.weight": torch.zeros(1)}, "blocks are not numbered from 0 to 3"),
        ({"blocks.one.norm1.weight": torch.zeros(1)}, "blocks are not numbered"),
        ({"blocks.": torch.zeros(1)}, "blocks are not numbered"),
        ({"patch_embed.proj.weight": torch.zeros(1).expand(48000, 1, 5000, 5000)}, "claim 48000003.* bytes"),
        (
            {
                "patch_embed.proj.weight": torch.zeros(60000, 1, 1, 1),
                "decoder_embed.weight": torch.zeros(60000, 1),
            },
            "settings ask for 7566.* numbers, it holds",
        ),
        ({"pos_embed": torch.zeros(1, 10**7, 1, dtype=torch.int8)}, "positions: at most"),
        ({"patch_embed.proj.weight": torch.zeros(48)}, "no MAESTER checkpoint"),
        ({5: torch.zeros(1)}, "no state dict of tensors"),
        ({"norm.weight": torch.zeros(48).to_sparse()}, "no state dict of tensors"),
    ],
    ids=["number", "word", "nothing", "stride 0", "wide", "positions", "axes", "key", "sparse"],
)
@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
def test_a_checkpoint_that_lies(tmp_path, state, changes, says):
    torch.save(state | changes, tmp_path / "lie.pt")
    refuse(tmp_path / "lie.pt", says)


def test_a_checkpoint_in_another_wrapping(tmp_path, state):
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    refuse(tmp_path / "old.pt", "no checkpoint of PyTorch 1.6 or later")
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(10**7))
    refuse(tmp_path / "bomb.pt", "its parts claim 10000000 bytes")


@pytest.mark.parametrize("setting", ["dim = 65536", "depth = 60", "fov = 65535"])
def test_a_run_whose_recipe_asks_for_more_than_its_weights_hold(tmp_path, setting):
    import_weights(GOLDEN, None, tmp_path / "run", overwrite=False)
    shutil.copytree(tmp_path / "run", tmp_path / "lie")
    key, recipe = setting.split()[0], tmp_path / "lie" / "recipe.toml"
    lines = recipe.read_text().splitlines()
    recipe.write_text("\n".join(setting if line.startswith(f"{key} =") else line for line in lines))
    with pytest.raises(InputError, match=r"settings ask for|ask for .* numbers for positions"):
        open_model(str(tmp_path / "lie")).load()


def test_no_number_of_a_model_is_larger_than_any_model(tmp_path):
    import_weights(GOLDEN, None, tmp_path / "run", overwrite=False)
    recipe = tmp_path / "run" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("heads = 1\n", "heads = 99999999999\n"))
    with pytest.raises(InputError, match=r"at most 65536|must be a multiple"):
        open_model(str(tmp_path / "run"))
