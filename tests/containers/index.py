"""Make a package index with empty torch and torchvision of a CPU flavour.

    python index.py requirements.lock FOLDER

Their versions are those of the lock with a local part, ``+cpu``, and they require what the real ones do, so
that installing from it takes the same decisions. Nothing else is in the index.
"""

import re
import sys
import zipfile
from pathlib import Path

NEEDS = {
    "torch": ["filelock", "typing-extensions>=4.10.0", "sympy>=1.13.3", "networkx", "jinja2", "fsspec"],
    "torchvision": ["numpy", "torch=={torch}", "pillow!=8.3.*,>=5.3.0"],
}


def main(lock: Path, folder: Path) -> None:
    """Write the index."""
    versions = {name: re.search(rf"^{name}==(\S+)$", lock.read_text(), re.M)[1] for name in NEEDS}
    for name, version in versions.items():
        info = f"{name}-{version}+cpu.dist-info"
        needs = "".join(f"Requires-Dist: {need.format_map(versions)}\n" for need in NEEDS[name])
        files = {
            f"{name}/__init__.py": "",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}+cpu\n{needs}",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
        page = folder / name
        page.mkdir(parents=True, exist_ok=True)
        wheel = f"{name}-{version}+cpu-py3-none-any.whl"
        with zipfile.ZipFile(page / wheel, "w") as archive:
            for file, text in [*files.items(), (f"{info}/RECORD", record)]:
                archive.writestr(file, text)
        (page / "index.html").write_text(f'<a href="{wheel.replace("+", "%2B")}">{wheel}</a>')


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
