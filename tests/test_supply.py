"""The licences of what vemseg is installed with."""

from email.message import Message

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
    for text in ("GPL-3.0-only", "GNU Affero General Public License v3"):
        assert verdict(text) == "asks for more"
    assert supply.locked("a==1.0\n# b==2\nc[x]>=3\nd-e==4 ; sys_platform\n") == {"a": "1.0", "d-e": "4"}
