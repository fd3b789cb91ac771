"""A campaign of kills and of disks that fail, at every operation on files of every command.

After each blow no file may be half under a final name, and the same command must then reach what an
undisturbed one makes, with no file more and none less. Of blows that are followed by something wrong the
fewest are named that still are.

    PYTHONPATH=.:tests python tests/faults/kills.py --cases 400
    PYTHONPATH=.:tests python tests/faults/kills.py --cases 50 --verb segment --seed 7

The quick part is ``test_kills.py``.
"""

import argparse
import errno
import os
import random
import re
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import test_exit_codes as commands
import tifffile
from injection import ERRORS, FAIL, KILL, LASTING, SHORT, Fault, compiled, operations
from processes import Programs

VERBS = commands.VERBS
VOLATILE = re.compile(r"^\.lock$|\.json$|\.toml$|metrics\.jsonl$|\.safetensors$|zarr\.json$")
"""Files that say when they were made; their names count, and what they hold besides is compared elsewhere."""


@dataclass(frozen=True)
class Blow:
    """What happens to an operation: its number, the action, and the error number where it fails."""

    number: int
    action: int
    error: int = 0

    def __str__(self):
        names = {KILL: "killed", SHORT: "short writes from", FAIL: "fails", LASTING: "fails from"}
        return f"{names[self.action]} {self.number} {errno.errorcode.get(self.error, '')}".strip()


class Campaign:
    """The commands, what they read, and what they make undisturbed.

    Parameters
    ----------
    folder : Path
        For all files; the commands' outputs come and go in it.
    """

    def __init__(self, folder):
        self._folder, self._undisturbed = folder, {}
        self.made, self.place = folder / "made", folder / "place"
        self.made.mkdir()
        library = compiled(folder)
        self._programs = Programs(folder, LD_PRELOAD=str(library))
        for verb in VERBS:
            ended = self._run(verb, None, self.made)
            assert ended.code == 0, ended.err

    def close(self):
        self._programs.close()

    def operations(self, verb):
        """Return the operations of an undisturbed command."""
        self._begin()
        return operations(lambda fault: self._run(verb, fault), self.place, self._folder / "journal")

    def check(self, verb, blows):
        """Return what is wrong after blows, one run each, and an undisturbed run; None where all is well."""
        self._begin()
        for blow in blows:
            ended = self._run(verb, Fault(self.place, blow.number, blow.action, blow.error))
            if wrong := self._wrong_end(verb, blow, ended):
                return wrong
        ended = self._run(verb, None)
        if ended.code != 0:
            return f"the rerun ends with {ended.code}: {ended.err.strip()[-300:]}"
        now, wanted = self._content(), self.undisturbed(verb)
        if more := sorted(now.keys() - wanted.keys()):
            return f"left over: {', '.join(more[:3])}"
        if less := sorted(wanted.keys() - now.keys()):
            return f"missing: {', '.join(less[:3])}"
        other = [name for name, held in wanted.items() if held != now[name]]
        return f"another content: {', '.join(other[:3])}" if other else None

    def shortened(self, verb, blows):
        """Return the fewest of these blows that are still followed by something wrong."""
        for count in range(1, len(blows)):
            for start in range(len(blows) - count + 1):
                part = blows[start : start + count]
                if self.check(verb, part):
                    return part
        return blows

    def undisturbed(self, verb):
        """Return the content of what a command makes undisturbed, by the name of the file."""
        if verb not in self._undisturbed:
            kept = self.place.with_name(f"kept-{verb}")
            if self.place.exists():
                self.place.rename(kept)
            self._begin()
            assert self._run(verb, None).code == 0
            self._undisturbed[verb] = self._content()
            shutil.rmtree(self.place)
            if kept.exists():
                kept.rename(self.place)
        return self._undisturbed[verb]

    def _wrong_end(self, verb, blow, ended):
        if blow.action == KILL:
            return None if ended.code in (-signal.SIGKILL, 0) else f"{blow}: it ends with {ended.code}"
        if ended.code not in (0, 3, 4) or "Traceback" in ended.err or "internal error" in ended.err:
            return f"{blow}: it ends with {ended.code}: {ended.err.strip()[-300:]}"
        main = self.place / commands.OUT[verb]
        if ended.code and main.is_file() and main.stat().st_size == 0:
            return f"{blow}: an empty {main.name} under its final name"
        return None

    def _begin(self):
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()

    def _run(self, verb, fault, folder=None):
        # one name for all folders, so that the same files are made: the name of the folder is in some
        return self._programs.run(
            folder or self.place,
            *commands.command(verb, self.made),
            changes=commands.SMALL_BLOCKS,
            fault=fault,
        )

    def _content(self):
        files = [path for path in self.place.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.place)): _essence(path) for path in files}


def _essence(path):
    """Return what of a file may not depend on when it was made."""
    if path.suffix in (".tif", ".tiff"):
        voxels = tifffile.imread(path)
        return voxels.shape, str(voxels.dtype), np.ascontiguousarray(voxels).tobytes()
    return None if VOLATILE.search(path.name) else path.read_bytes()


def blows(count, chance, actions=(KILL,)):
    """Return one or two blows at random operations of ``count``."""
    number = chance.choice((1, 1, 2))
    made = []
    for _ in range(number):
        action = chance.choice(actions)
        error = chance.choice(ERRORS) if action in (FAIL, LASTING) else 0
        made.append(Blow(chance.randint(1, count), action, error))
    return tuple(made)


def main():
    """Run the campaign; the exit code is 1 where anything was found."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--cases", type=int, default=400, help="of each kind: kills, and disks that fail")
    options.add_argument("--verb", choices=VERBS, action="append", help="only this command; may be repeated")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    chance, verbs, found = random.Random(given.seed), given.verb or VERBS, 0
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder))
        try:
            for verb in verbs:
                count = len(campaign.operations(verb))
                each = -(-given.cases // len(verbs))
                singles = [(Blow(number, KILL),) for number in range(1, min(count, each // 2) + 1)]
                killed = singles + [blows(count, chance) for _ in range(each - len(singles))]
                failed = [blows(count, chance, (FAIL, LASTING, SHORT)) for _ in range(each)]
                wrong = 0
                for case in killed + failed:
                    if campaign.check(verb, case):
                        case = campaign.shortened(verb, case)
                        print(
                            verb, "; ".join(map(str, case)), campaign.check(verb, case), sep=": ", flush=True
                        )
                        wrong += 1
                print(f"{verb}: {count} operations, {len(killed)} kills, {len(failed)} faults, {wrong} wrong")
                found += wrong
        finally:
            campaign.close()
    sys.exit(os.EX_OK if not found else 1)


if __name__ == "__main__":
    main()
