"""Faults put into the program's operations on files, one at a time: an error, a short write, the end.

``files.c`` counts the operations below one folder and hits the one that it is told to. It is compiled where
there is a compiler, and loaded into the server of ``processes.py``, whose children are armed one by one.
"""

import errno
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("files.c")
COUNT, KILL, FAIL, SHORT, LASTING, STOP = range(6)
"""What happens to the operation that is hit; the numbers are those of ``files.c``."""

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EDQUOT)
"""What a disk says that is full, broken, closed to this user, or of which this user has no more share."""


@dataclass(frozen=True)
class Fault:
    """What happens to one operation on files below a folder.

    Attributes
    ----------
    folder : Path
        Operations on what lies in it count.
    number : int
        Which operation is hit, from 1 on; 0 for none.
    action : int
        COUNT does nothing. KILL ends the process, in the middle of an operation that writes. FAIL makes this
        one fail, LASTING this one and all later ones. SHORT writes half, from this one on. STOP
        sends SIGTERM, and the operation goes well.
    error : int
        The error number of FAIL and LASTING.
    reading : bool
        Whether operations that only read count too.
    journal : Path or None
        Told every operation.
    """

    folder: Path
    number: int = 0
    action: int = COUNT
    error: int = 0
    reading: bool = False
    journal: Path | None = None

    def request(self):
        """Return the arguments of ``faults_arm``, as JSON can hold them."""
        journal = None if self.journal is None else str(self.journal)
        return [str(self.folder), self.number, self.action, self.error, int(self.reading), journal]


def compiled(folder):
    """Return the library made of ``files.c``, or None where no compiler can make it."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    library = folder / "faults.so"
    words = [compiler, "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"]
    done = subprocess.run(words, capture_output=True, check=False)
    return None if done.returncode else library


def operations(run, folder, journal, reading=False):
    """Return the names of the operations of an undisturbed command; ``run(fault)`` runs it."""
    journal.unlink(missing_ok=True)
    run(Fault(folder, reading=reading, journal=journal))
    return journal.read_text().splitlines() if journal.exists() else []
