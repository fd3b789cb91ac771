"""What tests/conda.sh does in Python: make a channel from installed wheels, and check the recipe on it."""

import asyncio
import copy
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rattler import VirtualPackage, install, solve
from rattler.index import index_fs
from rattler_build import (
    BuildError,
    Package,
    Stage0Recipe,
    ToolConfiguration,
    VariantConfig,
    assemble_package,
)
from rattler_build.package_assembler import FileEntry

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "conda-recipe" / "recipe.yaml"
NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
PLATFORM = "linux-64"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
SITE = Path("lib") / f"python{PYTHON}" / "site-packages"
SHAPE = "24,96,96"

Change = Callable[[dict[str, Any]], None]
"""Makes another recipe of one."""


def main() -> None:
    """Do what the first argument names."""
    what, channel, folder = sys.argv[1], Path(sys.argv[2]).resolve(), Path(sys.argv[3]).resolve()
    if what == "channel":
        make_channel(channel, folder)
    else:
        sys.exit(check_recipe(channel, folder))


# The channel


def make_channel(channel: Path, environment: Path) -> None:
    """Pack this Python, and every distribution installed in an environment, as conda packages."""
    if "deb_system" in sysconfig.get_scheme_names():
        sys.exit("tests/conda.sh: Debian's Python looks for packages elsewhere: name another one, PYTHON=...")
    (channel / PLATFORM).mkdir(parents=True, exist_ok=True)
    (channel / "noarch").mkdir(exist_ok=True)
    installed = {canonicalize_name(d.name): d for d in distributions(path=[str(environment / SITE)])}
    began = time.monotonic()
    pack(channel, "python", sysconfig.get_config_var("py_version"), python_files(), [])
    for name, found in sorted(installed.items()):
        files = [FileEntry.from_paths(*pair) for pair in wheel_files(found)]
        if name == "pip":  # a recipe's pip_check takes the pip it finds first, and must find this one
            files.append(FileEntry.from_paths(script(channel), "bin/pip"))
        needed = {NAMES.get(need, need) for need in needs(found, frozenset(), installed)}
        pack(channel, NAMES.get(name, name), found.version, files, [f"python {PYTHON}.*", *sorted(needed)])
    asyncio.run(index_fs(channel))
    (channel / "complete").touch()
    size = sum(file.stat().st_size for file in channel.rglob("*.conda"))
    took = time.monotonic() - began
    print(f"channel: {len(installed) + 1} packages, {size / 1e9:.1f} GB, packed in {took:.0f} s", flush=True)


def pack(channel: Path, name: str, version: str, files: list[FileEntry], depends: list[str]) -> None:
    """Make one package in the channel."""
    assemble_package(
        name,
        version,
        PLATFORM,
        "0",
        channel / PLATFORM,
        files=files,
        depends=depends,
        compression_level=1,
        detect_prefix=False,
    )


def script(folder: Path) -> Path:
    """Write what starts pip in whatever environment it is installed in."""
    path = folder / "pip"
    path.write_text(
        "#!/usr/bin/env python\nfrom pip._internal.cli.main import main\n\nraise SystemExit(main())\n"
    )
    path.chmod(0o755)
    return path


def python_files() -> list[FileEntry]:
    """Return the interpreter this runs on and its standard library, as files of a package."""
    base = Path(sys.base_prefix)
    program = base / "bin" / f"python{PYTHON}"
    found = [(program, f"bin/{name}") for name in ("python", "python3", f"python{PYTHON}")]
    found += [(path, f"lib/{path.name}") for path in (base / "lib").glob("libpython*.so*")]
    library = base / "lib" / f"python{PYTHON}"
    left_out = {"site-packages", "__pycache__", "test", "idlelib", "turtledemo"}
    for path in library.rglob("*"):
        parts = path.relative_to(library).parts
        if path.is_file() and not left_out & set(parts) and not parts[0].startswith("config-"):
            found.append((path, str(path.relative_to(base))))
    return [FileEntry.from_paths(source.resolve(), destination) for source, destination in found]


def wheel_files(found: Distribution) -> Iterator[tuple[Path, Path]]:
    """Yield the files a wheel put into site-packages, and where they go; its scripts name another Python."""
    for file in found.files or []:
        if ".." not in file.parts and file.suffix != ".pyc" and Path(file.locate()).is_file():
            yield Path(file.locate()), SITE / file


def needs(found: Distribution, extras: frozenset[str], installed: dict[str, Distribution]) -> set[str]:
    """Return the names of what a distribution needs, with some of its extras."""
    names: set[str] = set()
    for text in found.requires or []:
        need = Requirement(text)
        name = canonicalize_name(need.name)
        if name in installed and any(
            need.marker is None or need.marker.evaluate({"extra": extra}) for extra in {"", *extras}
        ):
            names |= {name}
            if need.extras:
                names |= needs(installed[name], frozenset(need.extras), installed)
    return names


# The recipe


def check_recipe(channel: Path, work: Path) -> int:
    """Build, test and install the recipe; return how many checks failed."""
    work.mkdir(parents=True, exist_ok=True)
    channels = [channel.as_uri()]
    checks = {
        "the recipe builds and passes its own tests": lambda: built(
            RECIPE,
            work / "out",
            channels,
            "No broken requirements found",
            f"vemseg {version()}",
            "phantom_seg.tif",
        ),
        "the package holds what it should": lambda: contents(work / "out"),
        "it installs, runs and segments": lambda: installed_run(work, channels),
    }
    controls = {
        "a test of 'exit 0' passes": (ends_with(0), None),
        "a test of 'exit 1' fails": (ends_with(1), "Script failed with status 1"),
        "a missing run dependency fails": (without("tomli-w"), "requires tomli-w, which is not installed"),
    }
    for number, (name, (change, because)) in enumerate(controls.items(), start=1):
        recipe, out = control(work, number, change), work / f"control-{number}" / "out"
        checks[f"control: {name}"] = partial(
            fails if because else built, recipe, out, channels, because or "+ exit 0"
        )
    failed = 0
    for name, check in checks.items():
        began = time.monotonic()
        try:
            said, verdict = check(), "ok  "
        except Exception as error:
            said, verdict = f"{type(error).__name__}: {error}", "FAIL"
            failed += 1
            print("\n".join(getattr(error, "log", [])[-40:]))
        print(f"{verdict} {name} ({said}; {time.monotonic() - began:.0f} s)", flush=True)
    print(f"{len(checks) - failed} of {len(checks)} checks passed")
    return failed


def version() -> str:
    """Return the version of the recipe."""
    return str(yaml.safe_load(RECIPE.read_text())["context"]["version"])


def built(recipe: Path, out: Path, channels: list[str], *said: str) -> str:
    """Build a recipe and run its tests, which must say some things; return the package's name."""
    (variant,) = Stage0Recipe.from_file(recipe).render(VariantConfig())
    tools = ToolConfiguration(test_strategy="native", compression_threads=1)
    result = variant.run_build(tools, out, channels)
    log = "\n".join(result.log)
    tests = log[log.index("Collecting tests from") :]
    assert all(text in tests for text in said), f"the tests did not say {said}"
    (package,) = result.packages
    return Path(package).name


def contents(out: Path) -> str:
    """Check the built package against the wheel's promises."""
    (path,) = out.rglob("vemseg-*.conda")
    package = Package.from_file(path)
    assert package.noarch == "python", package.noarch
    assert package.license == "BSD-3-Clause", package.license
    files = [str(file) for file in package.files]
    for wanted in (
        "vemseg/recipes/vemseg.toml",
        "vemseg/weights/vemseg/model.safetensors",
        "vemseg/cli/__init__.py",
    ):
        assert any(file.endswith(wanted) for file in files), f"{wanted} is not in the package"
    extra = [f for f in files if f.startswith("site-packages/") and not f.startswith("site-packages/vemseg")]
    assert not extra, f"files of nobody: {extra[:3]}"
    return f"{len(files)} files, {path.stat().st_size / 1e6:.1f} MB, {len(package.depends)} requirements"


def installed_run(work: Path, channels: list[str]) -> str:
    """Install the package into an environment and segment a phantom with it."""
    prefix = work / "environment"

    async def make() -> int:
        await index_fs(work / "out")
        records = await solve(
            [(work / "out").as_uri(), *channels],
            ["vemseg"],
            platforms=[PLATFORM, "noarch"],
            virtual_packages=VirtualPackage.detect(),
        )
        await install(records, prefix, cache_dir=Path(os.environ["RATTLER_CACHE_DIR"]), show_progress=False)
        return len(records)

    count = asyncio.run(make())
    for command in (["fetch", "phantom", "--shape", SHAPE], ["segment", "phantom.tif", "-k", "6"]):
        kept = {name: os.environ[name] for name in ("TMPDIR", "OMP_NUM_THREADS") if name in os.environ}
        ended = subprocess.run(
            [prefix / "bin" / "vemseg", *command],
            cwd=work,
            env=kept | {"PATH": f"{prefix}/bin:/usr/bin:/bin", "HOME": str(work)},
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "phantom_seg.tif\n", ended.stdout
    shutil.rmtree(prefix)
    return f"{count} packages"


# Controls: recipes that must fail, each of another version, so that no cache can answer for it


def control(work: Path, number: int, change: Change) -> Path:
    """Write the recipe with a change; return its path."""
    recipe = yaml.safe_load(RECIPE.read_text())
    recipe["context"]["version"] += f".{number}"
    recipe["source"]["path"] = str(ROOT)
    change(recipe)
    path = work / f"control-{number}" / "recipe.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def ends_with(code: int) -> Change:
    """Return the change to a recipe that needs Python alone and is tested by ending with a code."""

    def change(recipe: dict[str, Any]) -> None:
        recipe["requirements"]["run"] = [need for need in recipe["requirements"]["run"] if "python" in need][
            :1
        ]
        recipe["tests"] = [{"script": [f"exit {code}"]}]

    return change


def without(name: str) -> Change:
    """Return the change that takes a run requirement out; only what is said to be needed is tested."""

    def change(recipe: dict[str, Any]) -> None:
        before = copy.copy(recipe["requirements"]["run"])
        after = [need for need in before if need.split()[0] != name]
        assert len(after) == len(before) - 1
        recipe["requirements"]["run"] = after
        recipe["tests"] = [{"python": {"imports": ["vemseg"], "pip_check": True}}]

    return change


def fails(recipe: Path, out: Path, channels: list[str], because: str) -> str:
    """Check that building and testing a recipe fails for a reason; return that."""
    try:
        name = built(recipe, out, channels)
    except BuildError as error:
        log = "\n".join([str(error), *error.log])
        assert because in log, f"it failed, but not because '{because}': {error}"
        return because
    raise AssertionError(f"{name} was built and passed")


if __name__ == "__main__":
    main()
