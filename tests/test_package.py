"""What the package carries and what its documents promise."""

import hashlib
import re
from functools import cache
from pathlib import Path

import pytest

from vemseg.catalog import DEFAULT_WEIGHTS, bundled_weights, find_weights
from vemseg.cli import app
from vemseg.errors import MissingError
from vemseg.models import load_encoder
from vemseg.recipe import shipped
from vemseg.run import Run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS = "\n".join(page.read_text() for page in PAGES)


def test_default_weights_ship_small_and_with_a_card():
    folder = bundled_weights()[DEFAULT_WEIGHTS]
    weights = folder / "model.safetensors"
    assert weights.stat().st_size < 10_000_000
    card = (folder / "README.md").read_text()
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in card
    for word in ("synthetic tissue", "CC BY", "FlyEM", "labels", "vemseg train", "curve.png", "BSD-3-Clause"):
        assert word in card
    assert (folder / "curve.png").stat().st_size > 1000


@pytest.mark.parametrize("name", bundled_weights())
def test_bundled_weights_load(name):
    run = Run.open(find_weights(name))
    encoder = load_encoder(run.recipe.model, run.model)
    assert all(p.isfinite().all() for p in encoder.parameters())


def test_unknown_weights_are_told_the_nearest_name():
    with pytest.raises(MissingError, match="did you mean 'maester'"):
        find_weights("maestro")


def test_readme_calls_what_ci_runs():
    called = re.search(r"tests/\w+\.sh", (ROOT / ".ci" / "run").read_text())
    assert f"bash {called.group(0)}" in README


def test_documents_name_every_command_recipe_and_existing_file():
    for command in app.registered_commands:
        assert re.search(rf"(vemseg |`){command.callback.__name__}\b", DOCUMENTS), command
    for recipe in shipped():
        assert f"`{recipe}`" in DOCUMENTS, recipe
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)[^):]*\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_links_into_pages_name_a_heading():
    for page in PAGES:
        for target, heading in re.findall(r"\]\(([^)#:]+)#([^)]+)\)", page.read_text()):
            titles = re.findall(r"^#+ (.*)$", (page.parent / target).read_text(), re.M)
            assert heading in {title.lower().replace(" ", "-") for title in titles}, f"{page.name}: {heading}"


def test_the_readme_leads_to_every_page():
    for page in PAGES[1:]:
        assert f"](docs/{page.name})" in README, page.name


def test_the_batch_script_is_shown_as_it_is():
    shown = re.search(r"```bash\n(.*?)```", (ROOT / "docs" / "clusters.md").read_text(), re.DOTALL)[1]
    shipped_one = (ROOT / "recipes" / "segment.slurm").read_text()
    remarks = re.compile(r"^# .*\n", re.M)
    assert remarks.sub("", shown) == remarks.sub("", shipped_one)


def test_options_in_documents_exist():
    from typer.testing import CliRunner

    runner = CliRunner()

    @cache
    def help_of(*words):
        return runner.invoke(app, [*words, "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output

    for line in re.findall(r"^(?:\.venv/bin/)?vemseg (\w+) (.*)$", DOCUMENTS, re.M):
        verb, rest = line
        words = [verb, rest.split()[0]] if verb == "fetch" else [verb]
        for option in re.findall(r"(?<!\S)(--?[a-z][\w-]*)", rest.split("#")[0]):
            assert option in help_of(*words), f"{verb} {option}"
