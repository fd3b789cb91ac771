"""The plan of the house, checked on the source: imports go down, libraries use one door, rooms are small.

The rooms are those of ``vemseg/__init__.py``: a module or a folder directly under ``vemseg``. Inside a folder
modules see each other freely, except in ``models``, which has an order of its own.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "vemseg"
MODULES = sorted(PACKAGE.rglob("*.py"))

FLOORS = {
    "errors": 0,
    **dict.fromkeys(["cache", "files", "foreign", "geometry", "modules", "names", "resources"], 1),
    **dict.fromkeys(["budget", "context", "drawing", "graphs", "metrics", "phantom", "recipe"], 2),
    **dict.fromkeys(["superpixels", "tiling"], 2),
    **dict.fromkeys(["batch", "blocks", "catalog", "points", "ranks", "run", "volume"], 3),
    **dict.fromkeys(["comparison", "features", "labelling", "models", "objects", "sampling", "surfaces"], 4),
    **dict.fromkeys(["datasets", "dense", "distillation", "gallery", "report", "training"], 5),
    "pipeline": 6,
    **dict.fromkeys(["cli", "__main__"], 7),
}
# Who sees a neighbour: blocks keeps its markers and catalog its files as run does, __main__ starts cli.
NEIGHBOURS = {("blocks", "run"), ("catalog", "run"), ("__main__", "cli")}
# Between parts and building lie the methods, one module each; they see what is below, and each other.
PARTS_OF_MODELS = ["devices", "layers", "encoder", "objective"]
ABOVE_METHODS = ["building", "weights", "checkpoints", "model", "__init__"]

TENSORS = {room for room, floor in FLOORS.items() if floor in (4, 5, 6)} - {
    "comparison",
    "gallery",
    "objects",
    "report",
    "surfaces",
} | {
    "batch",
    "graphs",
    "modules",
    "ranks",
}
DOORS = {
    "zarr": {"volume", "features"},
    "tifffile": {"volume"},
    "imagecodecs": {"volume"},
    "h5py": {"volume"},
    "mrcfile": {"volume"},
    "nibabel": {"volume"},
    "tensorstore": {"volume"},
    "filelock": {"run"},
    "pooch": {"catalog"},
    "cc3d": {"objects"},
    "sklearn": {"graphs", "labelling"},
    "threadpoolctl": {"labelling"},
    "skimage": {"drawing", "objects", "superpixels", "surfaces"},
    "matplotlib": {"drawing"},
    "PIL": {"drawing"},
    "pydantic": {"recipe", "foreign"},
    "torch": TENSORS,
    "torchvision": TENSORS,
    "timm": TENSORS,
    "geoopt": {"models"},
    "distributed": {"blocks"},
    "dask_jobqueue": {"blocks"},
    "typer": {"cli"},
    "rich": {"cli"},
}
ONLY_INSIDE_FUNCTIONS = {("pipeline", "torch"), ("pipeline", "torchvision"), ("pipeline", "timm")}

FUNCTION_LINES = 40
MODULE_LINES = 350


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def room(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(tree):
    """Yield (dotted name, whether outside all functions) for every import; ``from a import b`` is ``a.b``."""
    inside = {
        child for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield name, node not in inside


def misplaced(path, tree):
    """Yield what an import of this package does wrong."""
    here = room(path)
    for name, _ in imported(tree):
        package, *parts = name.split(".")
        if package != "vemseg" or not parts or parts == ["__version__"]:
            continue
        there = parts[0]
        if there not in FLOORS:
            yield f"imports vemseg.{there}, which is in no floor"
        elif there == here:
            yield from disorder_inside_models(path, parts) if here == "models" else ()
        elif FLOORS[there] >= FLOORS[here] and (here, there) not in NEIGHBOURS:
            yield f"floor {FLOORS[here]} imports vemseg.{there} of floor {FLOORS[there]}"


def place_in_models(name):
    """Return where a module stands in the order of ``models``; methods stand together in the middle."""
    if name in PARTS_OF_MODELS:
        return PARTS_OF_MODELS.index(name)
    methods = len(PARTS_OF_MODELS)
    return methods + 1 + ABOVE_METHODS.index(name) if name in ABOVE_METHODS else methods


def disorder_inside_models(path, parts):
    """Yield imports that go up in ``models``."""
    is_module = len(parts) > 1 and (PACKAGE / "models" / f"{parts[1]}.py").exists()
    target = parts[1] if is_module else "__init__"
    here, there = place_in_models(path.stem), place_in_models(target)
    if there > here or (there == here and here != len(PARTS_OF_MODELS)):
        yield f"models/{path.stem} imports models/{target}"


def wrong_doors(path, tree):
    """Yield the heavy libraries that enter where they should not."""
    here = room(path)
    for name, at_top in imported(tree):
        library = name.split(".")[0]
        if here not in DOORS.get(library, {here}):
            yield f"imports {library}, whose door is {' and '.join(sorted(DOORS[library]))}"
        elif at_top and (here, library) in ONLY_INSIDE_FUNCTIONS:
            yield f"imports {library} outside a function"


def code_lines(node):
    """Count the lines of the body of a function or module, without its docstrings and those inside it."""
    lines = node.body[-1].end_lineno - node.body[0].lineno + 1
    for inner in ast.walk(node):
        if (
            isinstance(inner, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(inner) is not None
        ):
            lines -= inner.body[0].end_lineno - inner.body[0].lineno + 1
    return lines


def oversized(path, tree):
    """Yield the functions that do not fit a screen, and modules that should be folders."""
    if tree.body and code_lines(tree) > MODULE_LINES:
        yield f"has {code_lines(tree)} lines: make it a folder"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and code_lines(node) > FUNCTION_LINES:
            yield f"{node.name} has {code_lines(node)} lines"


@pytest.mark.parametrize("check", [misplaced, wrong_doors, oversized])
def test_the_house_is_in_order(check):
    found = [f"{path.relative_to(ROOT)}: {what}" for path in MODULES for what in check(path, parse(path))]
    assert not found, "\n".join(found)


def test_every_room_has_a_floor_and_is_on_the_plan():
    rooms = {room(path) for path in MODULES} - {"__init__"}
    assert rooms <= set(FLOORS)
    plan = ast.get_docstring(parse(PACKAGE / "__init__.py"))
    missing = [name for name in sorted(rooms - {"__main__"}) if f" {name} " not in plan]
    assert not missing, f"not in the plan of vemseg/__init__.py: {missing}"


@pytest.mark.parametrize(
    ("file", "source", "checks"),
    [
        ("tiling.py", "import vemseg.volume", [misplaced]),
        ("tiling.py", "def f():\n    from vemseg import metrics", [misplaced]),
        ("tiling.py", "from vemseg.geometry import Box", []),
        ("volume/tiff.py", "from vemseg.volume.base import Volume", []),
        ("models/vit.py", "from vemseg.models.building import x", [misplaced]),
        ("models/layers.py", "from vemseg.models import build", [misplaced]),
        ("models/layers.py", "from vemseg.models.vit import x", [misplaced]),
        ("models/mae.py", "from vemseg.models.vit import x", []),
        ("errors.py", "import vemseg.cellar", [misplaced]),
        ("metrics/table.py", "import torch.nn", [wrong_doors]),
        ("pipeline.py", "import torch", [wrong_doors]),
        ("pipeline.py", "def f():\n    import torch", []),
        ("dense.py", "from zarr import open", [wrong_doors]),
        ("dense.py", "def f():\n" + "    x = 1\n" * 60, [oversized]),
        ("dense.py", 'def f():\n    """' + "\n" * 60 + '"""\n', []),
        ("dense.py", "x = 1\n" * 351, [oversized]),
        ("dense.py", '"""\n"""\n' + "x = 1\n" * 350, []),
    ],
)
def test_the_checks_see_what_they_should(file, source, checks, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda self, encoding=None: source)
    path = PACKAGE / file
    assert [
        check for check in (misplaced, wrong_doors, oversized) if list(check(path, parse(path)))
    ] == checks


def test_the_command_line_loads_nothing_heavy():
    heavy = {"torch", "torchvision", "timm", "zarr", "tifffile", "matplotlib", "sklearn", "skimage", "h5py"}
    code = f"import sys, vemseg.cli; print(sorted({heavy} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("[]\n", "")
