"""Recipes: which are shipped, what is refused and how, and that no setting is lost."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from pkgutil import resolve_name
from typing import Literal

import pytest
from pydantic import ValidationError

from vemseg.errors import UsageError
from vemseg.recipe import (
    DEFAULT_RECIPE,
    KINDS,
    METHODS,
    ClassicalTable,
    ClusterTable,
    CodebookTable,
    Kind,
    KMeansTable,
    LinkageTable,
    MaesterTable,
    Method,
    ModelTable,
    diff,
    load_recipe,
    override,
    parse_recipe,
    sets,
    shipped,
)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def write(tmp_path):
    def _write(text, name="mine.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def test_shipped_recipes_load_and_say_what_they_are():
    assert {"maester", "maester-quick", "classical"} <= set(shipped())
    for name in shipped():
        recipe = load_recipe(name)
        assert recipe.description
        assert recipe.reference
    assert load_recipe() == load_recipe(DEFAULT_RECIPE)


def test_an_installed_package_finds_the_recipes_it_carries(tmp_path):
    """The wheel has the recipes inside the package, because nothing lies beside an installed package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    inside = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]["recipes"]
    shutil.copytree(ROOT / "vemseg", tmp_path / "vemseg", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "recipes", tmp_path / inside)
    code = (
        "from vemseg.recipe import load_recipe, shipped; load_recipe(); print(*shipped().values(), sep='\\n')"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    found = [Path(line) for line in done.stdout.splitlines()]
    assert found == [tmp_path / "vemseg" / "recipes" / path.name for path in shipped().values()], done.stderr
    assert next(iter(shipped().values())).parent == ROOT / "recipes"


def test_maester_has_the_settings_of_the_paper():
    recipe = load_recipe("maester")
    assert recipe.model == MaesterTable()
    assert recipe.model.grid == 16
    train = recipe.train
    assert (train.steps * train.batch, train.lr, train.schedule) == (5_600_000, 1.5e-4, "constant")
    assert (train.weight_decay, train.betas, train.warmup) == (1e-5, (0.9, 0.999), 0.0)
    assert (recipe.fov.crop, recipe.fov.flips, recipe.fov.rotate90) == ("monai12", "joint", False)
    assert (recipe.embed.placement, recipe.embed.kept) == ("cover-and-stride", 4)
    assert (recipe.volume.intensity, recipe.volume.range) == ("range", (0.0, 255.0))


def test_quick_differs_from_the_paper_in_sizes_training_and_inference_alone():
    changed = diff(load_recipe("maester"), load_recipe("maester-quick"))
    assert not [key for key in changed if key.startswith("cluster.")]
    assert {key for key in changed if key.startswith("model.")} == {
        f"model.{side}{size}" for side in ("", "decoder_") for size in ("dim", "depth", "heads")
    }
    assert changed["train.schedule"] == ("constant", "cosine")


def test_his4mae_is_the_papers():
    """Tables 1 and 2 of the paper; 2,800 epochs of 20,000 samples in batches of 256."""
    recipe = load_recipe("his4mae")
    model, train = recipe.model, recipe.train
    assert (model.codebook, model.student, model.pull, model.codes) == (1e-3, 2.5e-4, 0.8, 512)
    assert (model.fov, model.patch, model.dim, model.epoch) == (80, 5, 192, 20_000)
    assert (train.lr, train.min_lr, train.batch, train.schedule) == (5e-4, 8e-7, 256, "cosine")
    assert train.steps == 2800 * -(-20_000 // 256)
    assert (recipe.embed.placement, recipe.cluster.sample) == ("expand-stride", 0.001)
    shared = {key for key in diff(load_recipe("maester"), recipe) if key.startswith(("fov.", "volume."))}
    assert not shared


def test_quick_his4mae_differs_as_quick_maester_does():
    changed = diff(load_recipe("his4mae"), load_recipe("his4mae-quick"))
    sizes = {f"model.{side}{size}" for side in ("", "decoder_") for size in ("dim", "depth", "heads")}
    assert {key for key in changed if key.startswith("model.")} == sizes | {"model.epoch"}
    quick = load_recipe("his4mae-quick")
    other = diff(load_recipe("maester-quick"), quick)
    assert not {key for key in other if key.startswith(("fov.", "volume.", "embed.", "cluster.", "train."))}
    assert -(-quick.model.epoch // quick.train.batch) == 79  # as published


def test_sdae_is_sdae_recon_without_pixels():
    recon, plain = load_recipe("sdae_recon"), load_recipe("sdae")
    assert diff(recon, plain) == {"model.pixels": (1.0, 0.0)}
    assert (recon.model.mask_ratio, recon.model.folds, recon.model.drop_path) == (0.75, 3, 0.25)
    assert (recon.train.betas, recon.train.weight_decay, recon.train.warmup) == ((0.9, 0.95), 0.04, 0.2)
    assert (recon.model.ema, recon.model.momentum) == ("epoch", (0.96, 0.99))


def test_a_shipped_recipe_lays_its_keys_over_those_of_its_base():
    quick = tomllib.loads(shipped()["maester-quick"].read_text())
    base = tomllib.loads(shipped()["maester"].read_text())
    del quick["extends"]
    expected = {key: base[key] | value for key, value in quick.items() if isinstance(value, dict)}
    recipe = load_recipe("maester-quick")
    for table, keys in expected.items():
        for key, value in keys.items():
            assert recipe.settings[table][key] == value


def test_toml_round_trip_is_complete():
    for name in shipped():
        recipe = load_recipe(name)
        text = recipe.to_toml()
        assert parse_recipe(text, "text") == recipe
        tables = tomllib.loads(text)
        assert {key: set(tables[key]) for key in recipe.settings} == {
            key: set(keys) for key, keys in recipe.settings.items()
        }


def test_hash_follows_the_settings_and_nothing_else(write):
    a = load_recipe(write("[train]\nbatch = 8\nlr = 1\n"))
    b = load_recipe(write("description = 'x'\n[volume]\n[train]\nlr = 1.0 # same\nbatch = 8\n", "b.toml"))
    assert a.hash == b.hash
    assert len(a.hash) == 64
    assert diff(a, b) == {}
    c = load_recipe(write("[train]\nbatch = 8\nlr = 1\n"), ["train.batch=9"])
    assert c.hash != a.hash
    assert diff(a, c) == {"train.batch": (8, 9)}


def test_hash_is_the_same_in_another_process():
    code = "from vemseg.recipe import load_recipe; print(load_recipe('maester').hash, end='')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout == load_recipe("maester").hash


def test_recipes_are_frozen():
    with pytest.raises(ValidationError):
        load_recipe().train.batch = 3


def test_whole_numbers_stand_for_numbers_with_a_point_and_nothing_else_is_converted():
    recipe = load_recipe(overrides=["volume.voxel_size=8", "volume.percentiles=[1, 99]"])
    assert recipe.volume.voxel_size == 8.0
    assert isinstance(recipe.volume.voxel_size, float)
    assert recipe.volume.percentiles == (1.0, 99.0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.batch=0", "train.batch must be at least 1, not 0"),
        ("train.batch=1.5", "train.batch must be a whole number, not 1.5"),
        ("train.batch=true", "train.batch must be a whole number, not true"),
        ("train.batch='8'", 'train.batch must be a whole number, not "8"'),
        ("train.lr=0", "train.lr must be greater than 0.0, not 0"),
        ("train.lr=nan", "train.lr must be a finite number, not NaN"),
        ("train.lr=inf", "train.lr must be a finite number, not Infinity"),
        ("train.min_lr=1", "train.min_lr must be at most train.lr (0.00015), not 1.0"),
        ("train.warmup=1", "train.warmup must be less than 1.0, not 1"),
        ("train.betas=[0.9]", "train.betas[1] is missing"),
        ("train.betas=[0.9, 1]", "train.betas[1] must be less than 1.0, not 1"),
        ("train.betas=0.9", "train.betas must be a list, not 0.9"),
        ("train.precision=fp16", "train.precision must be 'auto', 'bf16' or 'fp32', not \"fp16\""),
        ("train.seed=2020-01-01", 'train.seed must be a whole number, not "2020-01-01"'),
        ("train=3", "train must be a table, not 3"),
        ("model=3", "model must be a table, not 3"),
        ("fov.crop_min=0", "fov.crop_min must be greater than 0.0, not 0"),
        ("fov.rotate90=1", "fov.rotate90 must be true or false, not 1"),
        ("fov.pool_bytes=5", "fov.pool_bytes must be at least 1048576, not 5"),
        ("volume.percentiles=[99, 1]", "volume.percentiles must rise within 0..100, not [99.0, 1.0]"),
        ("volume.range=[3, 3]", "volume.range must rise, not [3.0, 3.0]"),
        ("volume.range=[1, 2, 3]", "volume.range must hold at most 2 values, not [1, 2, 3]"),
        ("model.fov=82", "model.fov must be a multiple of model.patch (5), not 82"),
        ("model.patch=160", "model.fov must be a multiple of model.patch (160), not 80"),
        ("model.heads=5", "model.dim must be a multiple of model.heads (5), not 192"),
        ("model.dim=190", "model.dim must be a multiple of 4 (sine and cosine of two axes), not 190"),
        ("model.mask_ratio=0.999", "model.mask_ratio 0.999 leaves 0 of 256 patches visible"),
        (
            "model.kind=[1]",
            "model.kind must be one of maester, his4mae, sdae, unet, unet_supervised, vit_supervised, "
            "segmenter, han2022, cihs, classical, not '(1,)'",
        ),
        ("embed.stride=42", "embed.stride must be a multiple of model.patch (5), not 42"),
        ("embed.stride=85", "embed.stride must be at most model.fov (80), not 85"),
        ("cluster.k=256", "cluster.k must be at most 255, not 256"),
        ("cluster.k=0", "cluster.k must be at least 2, not 0"),
        ("cluster.k=1", "cluster.k must be at least 2, not 1"),
        ("cluster=3", "cluster must be a table, not 3"),
        ("cluster.sample=5", "cluster.sample must be at least cluster.k (6), not 5"),
        ("description=3", "description must be a string, not 3"),
    ],
)
def test_wrong_values_are_refused_by_name(override, message, write):
    with pytest.raises(UsageError) as caught:
        load_recipe(write(""), [override])
    assert str(caught.value) == f"{message} (--set {override})"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.bacth=3", "unknown key 'train.bacth' (did you mean 'train.batch'?)"),
        ("tarin.batch=3", "unknown table 'tarin' (did you mean 'train'?)"),
        ("batch=3", "unknown key 'batch' (did you mean 'train.batch'?)"),
        ("model.msk_ratio=3", "unknown key 'model.msk_ratio' (did you mean 'model.mask_ratio'?)"),
        ("model.sigmas=[1.0]", "unknown key 'model.sigmas'"),
        ("extends=maester", "unknown key 'extends'"),
        ("evaluate.ignore=[0]", "unknown table 'evaluate'"),
        ("cluster.sed=3", "unknown key 'cluster.sed' (did you mean 'cluster.seed'?)"),
        ("cluster.standardise=true", "unknown key 'cluster.standardise'"),
        (
            "cluster.linkage=ward",
            "unknown key 'cluster.linkage' (a setting of cluster.method linkage and codebook)",
        ),
        (
            "cluster.method=k-means",
            "cluster.method must be one of kmeans, minibatch, hyperbolic, gmm, linkage, codebook, named, "
            "points, incremental, spectral, dsm, deepcut, sccs, not 'k-means' (did you mean 'kmeans'?)",
        ),
        (
            "model.kind=mastr",
            "model.kind must be one of maester, his4mae, sdae, unet, unet_supervised, vit_supervised, "
            "segmenter, han2022, cihs, classical, not 'mastr' (did you mean 'maester'?)",
        ),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest_spelling(override, message, write):
    with pytest.raises(UsageError) as caught:
        load_recipe(write(""), [override])
    assert str(caught.value) == f"{message} (--set {override})"


def test_kept_tokens_must_fit_the_grid():
    assert load_recipe("maester", ["embed.kept=16"]).embed.kept == 16
    with pytest.raises(
        UsageError, match=r"embed.kept must be at most model.fov / model.patch \(16\), not 17"
    ):
        load_recipe("maester", ["embed.kept=17"])


@pytest.mark.parametrize("text", ["train.batch", "=3", "train.=3", ".batch=3", "a.b.c=3", ""])
def test_overrides_that_are_none_say_how_to_write_them(text):
    with pytest.raises(UsageError, match=r"write table.key=value"):
        load_recipe("maester", [text])


def test_overrides_take_bare_words_lists_and_spaces():
    recipe = load_recipe(
        "maester", ["embed.placement=whole-slice", "train.betas=[0.8, 0.9]", "train.steps = 1_000"]
    )
    assert (recipe.embed.placement, recipe.train.betas, recipe.train.steps) == (
        "whole-slice",
        (0.8, 0.9),
        1000,
    )


def test_a_resolved_recipe_can_be_overridden_too():
    recipe = load_recipe("maester")
    assert override(recipe, []) is recipe
    assert override(recipe, ["cluster.k=9"]) == load_recipe("maester", ["cluster.k=9"])
    with pytest.raises(UsageError, match=r"cluster\.k must be at least 2, not 0 \(--set cluster\.k=0\)"):
        override(recipe, ["cluster.k=0"])


def test_a_table_is_no_value_whatever_follows():
    with pytest.raises(UsageError, match=r"train must be a table, not 3"):
        load_recipe("maester", ["train=3", "train.batch=4"])


def test_another_kind_replaces_the_model_and_what_depends_on_it():
    assert {kind: of.table().kind for kind, of in KINDS.items()} == {kind: kind for kind in KINDS}
    recipe = load_recipe(overrides=["model.sigmas=[2.0]", "model.kind=classical"])
    assert recipe.model == ClassicalTable(sigmas=(2.0,))
    with pytest.raises(UsageError, match=r"model\.sigmas must hold at least 1 value"):
        load_recipe("classical", ["model.sigmas=[]"])
    with pytest.raises(UsageError, match=r"model\.sigmas\[1\] must be greater than 0"):
        load_recipe("classical", ["model.sigmas=[1, 0]"])


def test_scaling_follows_the_kind_of_model_unless_given(write):
    assert load_recipe(write("")).cluster.scale == "none"
    assert load_recipe(write("[model]\nkind = 'classical'\n")).cluster.scale == "standardise"
    given = write("[model]\nkind = 'classical'\n[cluster]\nscale = 'whiten'\n")
    assert load_recipe(given).cluster.scale == "whiten"


def test_methods_have_the_settings_that_count_for_them():
    assert {method: of.table().method for method, of in METHODS.items()} == {name: name for name in METHODS}
    shared = set(ClusterTable.model_fields)
    own = {method: set(of.table.model_fields) - shared for method, of in METHODS.items()}
    kernel = {"kappa", "density", "alpha", "distance"}
    assert own == {
        "kmeans": {"restarts", "max_iterations"},
        "minibatch": {"restarts", "max_iterations", "batch"},
        "hyperbolic": {"restarts", "max_iterations"},
        "gmm": {"restarts", "max_iterations", "components", "mixture_sample"},
        "linkage": {"max_iterations", "parts", "linkage"},
        "codebook": {"linkage"},
        "named": {"caution"},
        "points": {"strength"},
        "incremental": {"restarts", "max_iterations", "every"},
        "spectral": {"restarts", "centred", "max_iterations", *kernel, "eigenvectors", "segments"},
        "dsm": {"restarts", "centred", "max_iterations", *kernel, "eigenvectors", "segments"},
        "deepcut": {"restarts", "centred", "max_iterations", "loss", "alpha", "segments", "epochs"},
        "sccs": {
            *(
                *kernel,
                "widths",
                "dropout",
                "warmup",
                "spectral",
                "mu",
                "clustering",
                "smoothness",
                "eta",
                "nu",
            ),
            *("every", "forgetting", "centred"),
        },
    }
    assert shared - set(METHODS["named"].table.model_fields) == {"k", "k_range"}


def test_another_method_keeps_the_settings_that_it_has_too(write):
    own = "parts = 30\nlinkage = 'overlap'\nmax_iterations = 7\n"
    base = write(f"[cluster]\nmethod = 'linkage'\nk = 9\n{own}", "base.toml")
    recipe = load_recipe(write("extends = 'base.toml'\n[cluster]\nmethod = 'codebook'\nseed = 3\n"))
    assert recipe.cluster == CodebookTable(k=9, linkage="overlap", seed=3)
    assert load_recipe(base, ["cluster.method=kmeans"]).cluster == KMeansTable(k=9, max_iterations=7)
    again = override(override(recipe, ["cluster.method=linkage"]), ["cluster.parts=12"])
    assert again.cluster == LinkageTable(k=9, linkage="overlap", seed=3, parts=12)
    assert load_recipe("invariance", ["cluster.method=gmm"]).cluster.whitened == 24


def test_a_setting_of_another_method_is_refused_beside_the_method(write):
    path = write("[cluster]\nmethod = 'linkage'\npartz = 30\n")
    with pytest.raises(UsageError, match=r"unknown key 'cluster\.partz' \(did you mean 'cluster\.parts'\?\)"):
        load_recipe(path)
    path = write("[cluster]\nmethod = 'linkage'\nparts = 30\ncomponents = 8\n")
    with pytest.raises(
        UsageError, match=r"unknown key 'cluster\.components' \(a setting of cluster\.method gmm\)"
    ):
        load_recipe(path)
    with pytest.raises(
        UsageError, match=r"unknown key 'cluster\.parts' \(a setting of cluster\.method linkage\)"
    ):
        load_recipe("maester", ["cluster.method=kmeans", "cluster.parts=30"])


class ToyTable(ModelTable):
    """A kind of model that this test registers."""

    kind: Literal["toy"] = "toy"
    edge: int = 3

    def check_placement(self, embed):
        if embed.stride % self.edge:
            raise ValueError(
                f"embed.stride must be a multiple of model.edge ({self.edge}), not {embed.stride}"
            )


class ToyClusterTable(ClusterTable):
    """A method that this test registers."""

    method: Literal["toy"] = "toy"
    halves: int = 2


def test_what_is_registered_can_be_named_and_is_checked(write, monkeypatch):
    monkeypatch.setitem(KINDS, "toy", Kind(ToyTable, "a:Encoder", scale="standardise"))
    monkeypatch.setitem(METHODS, "toy", Method(ToyClusterTable, "a:Labeller"))
    path = write("[model]\nkind = 'toy'\nedge = 4\n[cluster]\nmethod = 'toy'\nhalves = 3\n")
    recipe = load_recipe(path)
    assert recipe.model == ToyTable(edge=4)
    assert recipe.cluster == ToyClusterTable(halves=3, scale="standardise")
    assert parse_recipe(recipe.to_toml(), "text") == recipe
    assert override(recipe, ["cluster.halves=4"]).cluster.halves == 4
    with pytest.raises(UsageError, match=r"unknown key 'model\.edg' \(did you mean 'model\.edge'\?\)"):
        load_recipe(path, ["model.edg=2"])
    with pytest.raises(UsageError, match=r"embed\.stride must be a multiple of model\.edge \(4\), not 42"):
        load_recipe(path, ["embed.stride=42"])
    with pytest.raises(
        UsageError, match=r"must be one of maester, his4mae, sdae, unet, .*, cihs, classical, toy, not"
    ):
        load_recipe(path, ["model.kind=boy"])


def test_what_is_registered_is_there():
    """Kinds and methods name classes, and what makes objectives, without importing them."""
    classes = [of.encoder for of in KINDS.values()] + [of.labeller for of in METHODS.values()]
    assert all(isinstance(resolve_name(name), type) for name in classes)
    makers = [name for of in KINDS.values() for name in (of.objective, of.student) if name]
    assert all(callable(resolve_name(name)) for name in makers)


def test_parts_lie_between_classes_and_sample():
    with pytest.raises(UsageError, match=r"cluster\.parts must be at least cluster\.k \(6\), not 5"):
        load_recipe(overrides=["cluster.method=linkage", "cluster.parts=5"])
    with pytest.raises(UsageError, match=r"cluster\.parts must be at most cluster\.sample \(50\), not 64"):
        load_recipe(overrides=["cluster.method=linkage", "cluster.sample=50"])
    with pytest.raises(
        UsageError, match=r"cluster\.components must be 0 or at least cluster\.k \(6\), not 5"
    ):
        load_recipe(overrides=["cluster.method=gmm", "cluster.components=5"])


def test_a_file_is_named_in_its_errors(write):
    path = write("[train]\nbatch = 0\n")
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    assert str(caught.value) == f"train.batch must be at least 1, not 0 (recipe {path})"
    path = write("[train]\nbatch = = 3\n")
    with pytest.raises(UsageError, match=r"not valid TOML: .*line 2") as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)
    path.write_bytes(b"description = '\xff'\n")
    with pytest.raises(UsageError, match=r"cannot read recipe .*mine\.toml"):
        load_recipe(path)
    with pytest.raises(UsageError, match=r"no recipe file .*absent\.toml"):
        load_recipe(str(path.with_name("absent.toml")))
    with pytest.raises(UsageError, match=r"cannot read recipe"):
        load_recipe(path.parent)


def test_an_unknown_name_lists_the_shipped_ones():
    with pytest.raises(UsageError) as caught:
        load_recipe("maestr")
    assert str(caught.value).startswith(
        "no recipe 'maestr' (did you mean 'maester'?): name one of cihs, classical, han2022,"
    )
    assert "\n" not in str(caught.value)


def test_extends_by_name_and_by_path_relative_to_the_file(write, tmp_path, monkeypatch):
    recipe = load_recipe(write("extends = 'maester'\n[train]\nsteps = 7\n"))
    assert diff(load_recipe("maester"), recipe) == {"train.steps": (175_000, 7)}
    assert recipe.reference == load_recipe("maester").reference
    write("[cluster]\nk = 9\n", "base.toml")
    path = write("extends = './base.toml'\n[cluster]\nseed = 1\n")
    monkeypatch.chdir("/")
    assert (load_recipe(path).cluster.k, load_recipe(path).cluster.seed) == (9, 1)


def test_extends_goes_one_level_deep(write):
    base = write("extends = 'maester'\n", "base.toml")
    path = write("extends = 'base.toml'\n")
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)
    assert str(base) in str(caught.value)
    with pytest.raises(UsageError, match=r"extends must be the name or path of a recipe, not 3"):
        load_recipe(write("extends = 3\n"))


def test_a_mistake_in_the_base_names_the_base(write):
    base = write("[train]\nbatch = 0\n", "base.toml")
    with pytest.raises(UsageError, match=r"train.batch must be at least 1, not 0") as caught:
        load_recipe(write("extends = 'base.toml'\n[train]\nbatch = 3\n"))
    assert str(base) in str(caught.value)


def test_a_model_of_another_kind_replaces_that_of_the_base(write):
    recipe = load_recipe(write("extends = 'maester'\n[model]\nkind = 'classical'\n"))
    assert recipe.model == ClassicalTable()


def test_a_setting_counts_as_given_however_it_is_spaced():
    assert override(load_recipe(DEFAULT_RECIPE), ["cluster.k = 4"]).cluster.k == 4
    assert sets(["cluster.k = 4"], "cluster.k") and sets(["train.lr=1", "cluster.k=4"], "cluster.k")
    assert not sets(["cluster.kind=4", "train.k=4"], "cluster.k") and not sets([], "cluster.k")
