"""The licences of what vemseg is installed with."""

import re
import subprocess
from email.message import Message
from pathlib import Path

import pytest
import supply
from supply import LOCK, licence, licences, locked, verdict


def test_every_package_that_is_installed_is_free():
    found, _ = licences(locked(LOCK.read_text(encoding="utf-8")))
    assert len(found) > 20
    assert {name: text for name, text in found.items() if verdict(text)} == {}


def test_licences_are_told_apart():
    about = Message()
    about["License"] = "Long text\nof a licence"
    assert licence(about) == "Long text" and verdict("Long text") == "unknown"
    about["Classifier"] = "License :: OSI Approved :: MIT License"
    assert licence(about) == "MIT License" and verdict("MIT License") is None
    assert verdict("GPL-2.0-only OR MIT") is None and verdict("MIT AND Something") == "unknown"
    for text in ("GPL-3.0-only", "GNU Affero General Public License v3", f"{'MIT AND ' * 20}GPL-3.0-only"):
        assert verdict(text) == "asks for more"
    assert supply.locked("a==1.0\n# b==2\nc[x]>=3\nd-e==4 ; sys_platform\n") == {"a": "1.0", "d-e": "4"}


@pytest.mark.parametrize(
    ("release", "image", "code"),
    [("", "python:3.11", 0), ("1", "python:3.11", 1), ("1", "python:3.11@sha256:0af1", 0)],
)
def test_a_release_is_built_from_a_base_by_digest(release, image, code):
    text = (Path(__file__).resolve().parents[1] / "Dockerfile").read_text(encoding="utf-8")
    check = re.search(r"^RUN (case .*?esac)$", text, re.DOTALL | re.MULTILINE)[1].replace("\\\n", "\n")
    done = subprocess.run(["sh", "-c", check], env={"RELEASE": release, "PYTHON_IMAGE": image}, check=False)
    assert done.returncode == code
