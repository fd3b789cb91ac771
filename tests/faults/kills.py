"""A campaign of kills and of disks that fail, at every operation on files of every command.

After each blow no file may be half under a final name, and the same command must then reach what an
undisturbed one makes, with no file more and none less. Of blows that are followed by something wrong the
fewest are named that still are.

    PYTHONPATH=.:tests python tests/faults/kills.py --cases 400
    PYTHONPATH=.:tests python tests/faults/kills.py --cases 50 --way segment --seed 7

``ways.py`` lists what is run. The quick part is ``test_kills.py``.
"""

import argparse
import errno
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tifffile
from commands import run_all
from injection import ERRORS, FAIL, KILL, LASTING, SHORT, STOP, Fault, compiled, operations
from processes import Programs
from ways import WAYS, lay

from vemseg.run import lasting, provenance
from vemseg.volume import record

VOLATILE = re.compile(r"^\.lock$|run\.json$|metrics\.jsonl$|checkpoint\.safetensors$")
"""Files that say when they were made; their names count, and what they hold besides is compared elsewhere."""

BLOCKS = {"vemseg.budget.MOST_VOXELS": 2**13}
"""A setting that divides the small volumes of the campaign into eight blocks."""

MOST_SECONDS = 60.0
"""The longest that a command may take after a signal, which is no more than any may take here."""


@dataclass(frozen=True)
class Blow:
    """What happens to an operation: its number, the action, and the error number where it fails."""

    number: int
    action: int
    error: int = 0

    def __str__(self):
        names = {KILL: "killed", SHORT: "short writes from", FAIL: "fails", LASTING: "fails from"}
        name = names.get(self.action, "told to stop")
        return f"{name} {self.number} {errno.errorcode.get(self.error, '')}".strip()


class Campaign:
    """The commands, what they read, and what they make undisturbed.

    Parameters
    ----------
    folder : Path
        For all files; the commands' outputs come and go in it.
    programs : Programs
        Runs the commands; faults can be put into their operations.
    made : Path
        What all commands made; it is copied.
    """

    def __init__(self, folder, programs, made):
        self._folder, self._undisturbed, self._counts = folder, {}, {}
        self._revision = provenance("test")["revision"]
        self.made, self.place = folder / "made", folder / "place"
        shutil.copytree(made, self.made)
        self._programs = programs
        self._server = lay(self.made)

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def operations(self, name):
        """Return how many operations on files an undisturbed command does."""
        self.undisturbed(name)
        return self._counts[name]

    def check(self, name, blows):
        """Return what is wrong after blows, one run each, and an undisturbed run; None where all is well."""
        self._begin(name)
        for blow in blows:
            fault = Fault(self.place, blow.number, blow.action, blow.error)
            ended = self._run(self._struck(name), fault)
            if wrong := self._wrong_end(name, blow, ended):
                return wrong
        if wrong := self._undone(name):
            return f"the rerun {wrong}"
        return self._differs(name)

    def shortened(self, name, blows):
        """Return the fewest of these blows that are still followed by something wrong."""
        for count in range(1, len(blows)):
            for start in range(len(blows) - count + 1):
                part = blows[start : start + count]
                if self.check(name, part):
                    return part
        return blows

    def undisturbed(self, name):
        """Return the content of what a command makes undisturbed, by the name of the file."""
        if name not in self._undisturbed:
            kept = self.place.with_name(f"kept-{name}")
            if self.place.exists():
                self.place.rename(kept)
            self._begin(name)
            wrong = []
            found = operations(
                lambda fault: wrong.append(self._undone(name, fault)), self.place, self._folder / "journal"
            )
            assert wrong == [None], wrong
            self._counts[name], self._undisturbed[name] = len(found), self._content(name)
            shutil.rmtree(self.place)
            if kept.exists():
                kept.rename(self.place)
        return self._undisturbed[name]

    def _differs(self, name):
        """Return how what lies there differs from what an undisturbed command makes."""
        wanted = self.undisturbed(name)
        now = self._content(name)
        if more := sorted(now.keys() - wanted.keys()):
            return f"left over: {', '.join(more[:3])}"
        if less := sorted(wanted.keys() - now.keys()):
            return f"missing: {', '.join(less[:3])}"
        other = [file for file, held in wanted.items() if held != now[file]]
        if other and provenance("test")["revision"] != self._revision:
            sys.exit("the checkout changed meanwhile, and its revision stands in what is made: begin again")
        return f"another content: {', '.join(other[:3])}" if other else None

    def _wrong_end(self, name, blow, ended):
        codes = {KILL: (-signal.SIGKILL, 0), STOP: (0, 75, -signal.SIGTERM)}
        if "Traceback" in ended.err or "internal error" in ended.err:
            return f"{blow}: {ended.err.strip()[-300:]}"
        if ended.code not in codes.get(blow.action, (0, 3, 4)):
            return f"{blow}: it ends with {ended.code}: {ended.err.strip()[-300:]}"
        main = self.place / WAYS[name].out
        said = ended.err.splitlines()[-1:] or [""]
        refused = blow.error == errno.EACCES  # which no system says of a file that is open
        if ended.code in (3, 4) and not refused and main.name.partition(".")[0] not in said[0]:
            return f"{blow}: it does not say where: {said[0]}"
        if ended.code and main.is_file() and main.stat().st_size == 0:
            return f"{blow}: an empty {main.name} under its final name"
        return None

    def _struck(self, name):
        """Return the arguments of the command that is hit."""
        return WAYS[name].command(self.made)

    def _undone(self, name, counting=None):
        """Run a command undisturbed, and those that follow it; return what goes wrong."""
        for fault, args in (
            (counting, self._struck(name)),
            *((None, args) for args in WAYS[name].after(self.made)),
        ):
            ended = self._run(args, fault)
            if ended.code != 0:
                return f"ends with {ended.code}: {ended.err.strip()[-300:]}"
        return None

    def _begin(self, name):
        """Empty the folder of outputs, and lay into it what a command finds there."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        way = WAYS[name]
        for found in way.found:
            copy = shutil.copytree if (self.made / found).is_dir() else shutil.copy
            copy(self.made / found, self.place / found)
        for args in way.before(self.made):
            ended = self._run(args, None)
            assert ended.code == 0, ended.err

    def _run(self, args, fault):
        # one name for all folders, so that the same files are made: the name of the folder is in some
        began = time.monotonic()
        ended = self._programs.run(self.place, *args, changes=BLOCKS, fault=fault)
        assert time.monotonic() - began < MOST_SECONDS, args
        return ended

    def _content(self, name):
        """Return what files hold, by name; of what varies the names, without those inside of a run."""
        files = {str(path.relative_to(self.place)): path for path in self.place.rglob("*") if path.is_file()}
        if WAYS[name].varies:
            return {file: None for file in files if ".run/" not in file}
        return {file: _essence(path, WAYS[name].edited) for file, path in files.items()}


def _essence(path, edited):
    """Return what of a file may not depend on when it was made, nor on whether it was stopped."""
    if edited and path.suffix == ".tif":
        return tifffile.imread(path).tobytes(), lasting(record(path))
    if VOLATILE.search(path.name):
        return None
    if path.suffix == ".json":
        return lasting(json.loads(path.read_text()))
    return path.read_bytes()


def blows(count, chance, actions=(KILL,)):
    """Return one or two blows at random operations of ``count``."""
    number = chance.choice((1, 1, 2))
    made = []
    for _ in range(number):
        action = chance.choice(actions)
        error = chance.choice(ERRORS) if action in (FAIL, LASTING) else 0
        made.append(Blow(chance.randint(1, count), action, error))
    return tuple(made)


def cases(count, each, chance):
    """Return ``each`` sequences of kills, and as many of disks that fail and requests to stop.

    Half of the kills are single ones, spread over all operations.
    """
    singles = [
        (Blow(1 + n * (count - 1) // max(1, each // 2 - 1), KILL),) for n in range(min(count, each // 2))
    ]
    kills = singles + [blows(count, chance) for _ in range(each - len(singles))]
    return kills + [blows(count, chance, (FAIL, LASTING, SHORT, STOP)) for _ in range(each)]


def main():
    """Run the campaign; the exit code is 1 where anything was found."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--cases", type=int, default=400, help="of each kind: kills, and disks that fail")
    options.add_argument("--way", choices=WAYS, action="append", help="only this one; may be repeated")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    chance, ways, found, tried = random.Random(given.seed), given.way or list(WAYS), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if (library := compiled(place)) is None:
            sys.exit("no C compiler: faults cannot be put into operations on files")
        programs = Programs(place, library)
        try:
            (made := place / "first").mkdir()
            run_all(programs, made)
            campaign = Campaign(place, programs, made)
            for name in ways:
                count, wrong = campaign.operations(name), 0
                planned = cases(count, -(-given.cases // len(ways)), chance)
                for case in planned:
                    if first := campaign.check(name, case):
                        case = campaign.shortened(name, case)
                        says = campaign.check(name, case) or f"once, and not again: {first}"
                        print(name, "; ".join(map(str, case)), says, sep=": ", flush=True)
                        wrong += 1
                print(f"{name}: {count} operations, {len(planned)} cases, {wrong} wrong", flush=True)
                found, tried = found + wrong, tried + len(planned)
        finally:
            programs.close()
    print(f"{tried} cases, {found} wrong")
    sys.exit(os.EX_OK if not found else 1)


if __name__ == "__main__":
    main()
