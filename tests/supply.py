"""The supply chain: the licence of every package in ``requirements.lock``, and their known vulnerabilities.

    python tests/supply.py                 # licences, of the packages that are installed here
    python tests/supply.py --audit         # and vulnerabilities, by pip-audit, which asks the network
    python tests/supply.py --sbom sbom.cdx.json --python /opt/vemseg/bin/python

The last one writes a bill of materials (CycloneDX) of an environment by cyclonedx-py, which
``pip install cyclonedx-bom`` brings.

The exit code is 1 where a licence is unknown or asks for more than attribution of whoever installs vemseg, or
where a vulnerability is known, or the service does not know a package: a mirror of PyPI tells nothing.
"""

import argparse
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, metadata
from importlib.util import find_spec
from pathlib import Path

LOCK = Path(__file__).resolve().parents[1] / "requirements.lock"

FREE = re.compile(
    r"\b(MIT|0?BSD|Apache|PSF|Python Software Foundation|ISC|MPL|Mozilla|HPND|Zlib|Unlicense|CC0|NCSA|BSL-1)",
    re.IGNORECASE,
)
"""Licences that let a package be used in any program; of MPL, changes to its own files are to be shown."""

STRICT = re.compile(r"\b(AGPL|GPL|Affero|General Public|SSPL|non-?commercial)", re.IGNORECASE)
"""Licences that ask for more. The lesser GPL counts as well, where nothing freer is offered."""


def locked(text):
    """Return names and versions of a list of requirements, ``name==version`` a line."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE))


def licence(about):
    """Return what the metadata of a package say of its licence, in one line."""
    said = [about.get("License-Expression"), *(about.get_all("Classifier") or ())]
    found = [text for text in said if text and (text == said[0] or text.startswith("License ::"))]
    text = "; ".join(found) or (about.get("License") or "").strip().partition("\n")[0]
    return text.replace("License :: OSI Approved :: ", "")


def verdict(text):
    """Return what is wrong with a licence; None where it is free.

    Of licences that hold together (``AND``) each has to be free; of others, one that is free is enough.
    """
    if all(FREE.search(part) for part in text.split(" AND ")):
        return None
    return "asks for more" if STRICT.search(text) else "unknown"


def licences(packages):
    """Return the licence of each package that is installed, by name, and those that are not installed."""
    found, absent = {}, []
    for name in packages:
        try:
            found[name] = licence(metadata(name))
        except PackageNotFoundError:
            absent.append(name)
    return found, absent


def write_sbom(python, target):
    """Write what is installed beside a Python, with versions and licences, as CycloneDX JSON."""
    if find_spec("cyclonedx_py") is None:
        sys.exit("cyclonedx-py writes the bill of materials: pip install cyclonedx-bom")
    listing = ["-m", "cyclonedx_py", "environment", "--output-format", "JSON", "--output-reproducible"]
    subprocess.run([sys.executable, *listing, "--output-file", str(target), python], check=True)


def main():
    """Print licences and, where that is wanted, what pip-audit says."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--audit", action="store_true", help="ask for known vulnerabilities, too")
    options.add_argument("--sbom", type=Path, help="write a bill of materials (CycloneDX) to this file")
    options.add_argument("--python", default=sys.executable, help="the environment that --sbom describes")
    given = options.parse_args()
    if given.sbom:
        write_sbom(given.python, given.sbom)
        return
    found, absent = licences(locked(LOCK.read_text(encoding="utf-8")))
    wrong = {name: f"{verdict(text)}: {text[:100]}" for name, text in found.items() if verdict(text)}
    print(f"{len(found)} packages, {len(found) - len(wrong)} of free licences")
    for name, says in wrong.items():
        print(f"{name}: {says}")
    if absent:
        print(f"not installed here, so not looked at: {', '.join(absent)}")
    code = int(bool(wrong))
    if given.audit:
        audit = ["-m", "pip_audit", "--strict", "--requirement", str(LOCK), "--no-deps", "--disable-pip"]
        code |= int(subprocess.run([sys.executable, *audit], check=False).returncode != 0)
    sys.exit(code)


if __name__ == "__main__":
    main()
