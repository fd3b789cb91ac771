"""Dockerfile, .dockerignore, vemseg.def and the lock: what can be held of them without building anything.

``tests/containers.sh`` builds and runs them.
"""

import fnmatch
import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from vemseg import __version__

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DEPENDENCIES = [Requirement(text) for text in PROJECT["dependencies"]]
LOCK = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.M))
FILES = ["Dockerfile", ".dockerignore", "vemseg.def", "requirements.lock"]
CACHES = ["MPLCONFIGDIR", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"]
CACHES += ["VEMSEG_CACHE_DIR"]


def instructions():
    """Return the Dockerfile's instructions, each as its name and its arguments on one line."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


def arguments(name):
    return [rest for found, rest in instructions() if found == name]


def pairs(name):
    """Return the NAME=value pairs of all ENV or LABEL or ARG instructions."""
    found = re.findall(r'([\w.]+)=("[^"]*"|\S*)', " ".join(arguments(name)))
    return {key: value.strip('"') for key, value in found}


def section(name):
    """Return a section of vemseg.def, or, for no name, what stands before the first."""
    parts = re.split(r"^%(\w+)\n", (ROOT / "vemseg.def").read_text(), flags=re.M)
    return dict(zip(["", *parts[1::2]], parts[0::2], strict=True))[name]


# The image


def test_the_user_is_a_number_and_not_root():
    assert arguments("USER") == ["1000:1000"]


def test_signals_reach_vemseg_itself():
    assert [json.loads(form) for form in arguments("ENTRYPOINT")] == [["vemseg"]]
    assert [json.loads(form) for form in arguments("CMD")] == [["--help"]]


@pytest.mark.parametrize("name", FILES)
def test_no_registry_and_no_moving_tag_is_named(name):
    text = (ROOT / name).read_text()
    assert not re.search(r"https?://|\b[\w-]+\.(io|com|org|net)/", text)
    assert ":latest" not in text


def test_every_base_is_the_python_that_can_be_chosen():
    assert {base.split(" AS ")[0] for base in arguments("FROM")} == {"${PYTHON_IMAGE}"}
    image, tag = pairs("ARG")["PYTHON_IMAGE"].split(":")
    assert image == "python"
    python = re.fullmatch(r"(\d+\.\d+)-slim-\w+", tag)[1]
    assert python in SpecifierSet(PROJECT["requires-python"])
    assert f"Programming Language :: Python :: {python}" in PROJECT["classifiers"]
    assert f"--python-version {python} " in (ROOT / "requirements.lock").read_text()


def test_the_version_is_the_packages():
    assert pairs("ARG")["VERSION"] == __version__
    for name in ("Dockerfile", "vemseg.def"):
        assert set(re.findall(r"vemseg:(\d\S*)", (ROOT / name).read_text())) == {__version__}, name


def test_labels_follow_the_open_container_names():
    labels = pairs("LABEL")
    names = ["title", "description", "version", "revision", "created", "source", "licenses", "base.name"]
    assert list(labels) == [f"org.opencontainers.image.{name}" for name in names]
    assert labels["org.opencontainers.image.licenses"] == PROJECT["license"]
    assert labels["org.opencontainers.image.description"] == PROJECT["description"]
    for name in ("version", "revision", "created", "source"):
        assert labels[f"org.opencontainers.image.{name}"] == f"${{{name.upper()}}}"
        assert name.upper() in pairs("ARG")


def test_nothing_is_written_but_below_tmp():
    environment = pairs("ENV")
    for name in CACHES:
        assert environment[name].startswith("/tmp/vemseg-cache"), name
    switches = {"PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1", "MPLBACKEND": "Agg"}
    assert switches.items() <= environment.items()
    assert {"NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"} <= {*environment}


def test_torch_comes_first_and_vemseg_last():
    steps = [step for step in arguments("RUN") if "/opt/vemseg/bin/python" in step]
    marks = ["/lock/torch.txt", "--requirement /lock/others.txt", "/wheels/*.whl"]
    assert [[mark in step for mark in marks] for step in steps] == [
        [place == number for place in range(3)] for number in range(3)
    ]


# What goes into it


def ignored(path):
    """Tell whether .dockerignore keeps a path out, by its rule that the last match counts."""
    out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.lstrip("!").removeprefix("**/")
        if line and not line.startswith("#"):
            parts = [path, *map(str, Path(path).parents)] + ([Path(path).name] if "**/" in line else [])
            if any(fnmatch.fnmatchcase(part, pattern) for part in parts):
                out = not line.startswith("!")
    return out


def test_what_the_package_is_built_from_is_sent_and_exists():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = ["pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], "requirements.lock"]
    for name in [*needed, *build["packages"], *build["force-include"]]:
        assert (ROOT / name).exists() and not ignored(name), name
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        assert not line.startswith("!") or (ROOT / line[1:]).exists(), line


def test_weights_are_sent_and_the_rest_is_not():
    weights = [path.relative_to(ROOT) for path in (ROOT / "vemseg").rglob("*.safetensors")]
    assert weights and not any(ignored(str(path)) for path in weights)
    for name in (".git", ".venv", "runs", "tests", "benchmarks", "Dockerfile", "vemseg/cli/__pycache__"):
        assert ignored(name), name


def test_every_file_the_dockerfile_names_is_there():
    sources = [source for copy in arguments("COPY") for source in copy.split()[:-1]]
    assert {"requirements.lock", "."} == {*sources}


# The lock


@pytest.mark.parametrize("dependency", DEPENDENCIES, ids=str)
def test_the_lock_has_what_the_project_asks_for(dependency):
    assert Version(LOCK[dependency.name]) in dependency.specifier


def test_the_lock_serves_every_flavour_of_torch():
    for name, version in LOCK.items():
        assert Version(version).local is None, name
        assert not name.startswith(("nvidia", "cuda", "triton")), f"{name}: torch names its own"
    pinned = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line[:1] not in "#"]
    assert len(pinned) == len(LOCK)


def test_a_cpu_flavour_satisfies_the_lock():
    assert Version(f"{LOCK['torch']}+cpu") in SpecifierSet(f"=={LOCK['torch']}")


# Apptainer


def test_the_definition_begins_with_an_image_that_can_be_chosen():
    chosen = dict(re.findall(r"^\s+(\w+)=(\S+)$", section("arguments"), re.M))
    assert {*re.findall(r"{{ (\w+) }}", section(""))} == {*chosen}
    assert chosen["bootstrap"] == "docker-archive"


def test_the_definition_replaces_itself_by_vemseg():
    assert section("runscript").split() == ["exec", "vemseg", '"$@"']
    assert "vemseg --version" in section("test")


def test_the_definition_gives_every_user_caches_of_their_own():
    for name in CACHES:
        assert re.search(rf'^\s+export {name}="\$cache', section("environment"), re.M), name
    assert "$(id -u)" in section("environment")


def test_both_images_say_the_same_of_themselves():
    labels = dict(line.split(maxsplit=1) for line in section("labels").strip().splitlines())
    assert labels.items() <= pairs("LABEL").items()
