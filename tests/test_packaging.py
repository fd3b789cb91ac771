"""One truth on what vemseg needs: pyproject.toml; the conda recipe and the container repeat it faithfully."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import vemseg

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
RECIPE = yaml.safe_load((ROOT / "conda-recipe" / "recipe.yaml").read_text())
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
"""Packages that conda-forge has under another name than the Python index."""

NOT_IN_THE_IMAGE = ("3d", "umap", "viewer", "fast")
"""Extras for people who sit at a screen, which are large; and one whose licence is the lesser GPL."""

DEPENDENCIES = [Requirement(text) for text in PROJECT["project"]["dependencies"]]


def specs(requirements):
    """Return the bounds of each package of a list in a recipe."""
    split = [
        text.replace("${{ python_min }}", RECIPE["context"]["python_min"]).split() for text in requirements
    ]
    return {name: SpecifierSet(",".join(bounds)) for name, *bounds in split if not name.startswith("__")}


def test_the_recipe_needs_what_the_project_needs():
    wanted = {CONDA_NAMES.get(need.name, need.name): need.specifier for need in DEPENDENCIES}
    wanted["python"] = SpecifierSet(PROJECT["project"]["requires-python"])
    assert specs(RECIPE["requirements"]["run"]) == wanted


def extras(without=()):
    """Return what the extras need that users install, some of them left out."""
    named = PROJECT["project"]["optional-dependencies"]
    texts = [text for extra, group in named.items() if extra not in ("test", *without) for text in group]
    return [need for need in map(Requirement, texts) if need.name != PROJECT["project"]["name"]]


def test_the_recipe_bounds_what_only_some_users_need():
    extra = extras()
    assert specs(RECIPE["requirements"]["run_constraints"]) == {need.name: need.specifier for need in extra}


def test_the_recipe_builds_as_the_project_does():
    backend = [Requirement(text) for text in PROJECT["build-system"]["requires"]]
    host = dict(text.partition(" ")[::2] for text in RECIPE["requirements"]["host"])
    assert host.pop("python") == "${{ python_min }}.*" and host.pop("pip") == ""
    assert {name: SpecifierSet(bounds) for name, bounds in host.items()} == {
        need.name: need.specifier for need in backend
    }
    assert RECIPE["build"]["noarch"] == "python"


def test_the_recipe_installs_the_same_commands():
    scripts = [f"{name} = {target}" for name, target in PROJECT["project"]["scripts"].items()]
    assert RECIPE["build"]["python"]["entry_points"] == scripts


def test_the_recipe_is_of_this_version_and_licence():
    assert RECIPE["schema_version"] == 1
    assert RECIPE["context"]["version"] == vemseg.__version__
    assert RECIPE["package"] == {"name": PROJECT["project"]["name"], "version": "${{ version }}"}
    assert RECIPE["about"]["license"] == PROJECT["project"]["license"]
    assert [RECIPE["about"]["license_file"]] == PROJECT["project"]["license-files"]
    assert RECIPE["about"]["summary"] == PROJECT["project"]["description"]


def test_the_citation_is_of_this_version_and_licence():
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["version"] == vemseg.__version__
    assert CITATION["license"] == PROJECT["project"]["license"]
    assert set(CITATION["keywords"]) == set(PROJECT["project"]["keywords"])


def test_the_oldest_python_is_the_same_everywhere():
    oldest = RECIPE["context"]["python_min"]
    assert PROJECT["project"]["requires-python"] == f">={oldest}"
    named = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["project"]["classifiers"]))
    assert min(named, key=Version) == oldest
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + oldest.replace(".", "")
    assert PROJECT["tool"]["mypy"]["python_version"] == oldest


def test_the_recipe_tests_what_it_installs():
    python, script = (test for test in RECIPE["tests"])
    assert python["python"]["pip_check"] is True and "vemseg" in python["python"]["imports"]
    assert python["python"]["python_version"] == ["${{ python_min }}.*", "*"]
    for command in ("vemseg --version", "vemseg segment --help", "python -m vemseg --diagnose"):
        assert command in script["script"]
    assert any(command.startswith("vemseg segment phantom.tif") for command in script["script"])


def read_if_there(name):
    """Return the text of a file of the container; skips where there is none."""
    if not (ROOT / name).exists():
        pytest.skip(f"there is no {name}")
    return (ROOT / name).read_text()


def test_the_image_is_of_this_version_licence_and_python():
    text = read_if_there("Dockerfile")
    assert re.search(r"^ARG VERSION=(.*)$", text, re.MULTILINE)[1] == vemseg.__version__
    assert f'licenses="{PROJECT["project"]["license"]}"' in text
    assert f'ENTRYPOINT ["{next(iter(PROJECT["project"]["scripts"]))}"]' in text
    python = re.search(r"^ARG PYTHON_IMAGE=\S*python:(3\.\d+)", text, re.MULTILINE)[1]
    assert Version(python) in SpecifierSet(PROJECT["project"]["requires-python"])


def test_the_image_holds_what_the_project_needs():
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", read_if_there("requirements.lock"), re.MULTILINE))
    for need in [*DEPENDENCIES, *extras(NOT_IN_THE_IMAGE)]:
        assert Version(locked[need.name]) in need.specifier, need
