"""Mutants of sound files: a reader must read or refuse them in one line, soon and in little memory.

``campaign`` takes the bytes of a sound file, a reader and how many mutants to make of it. Mutants are read in
forked children, which have little memory and time; a failure is shrunk to the fewest changed bytes that still
fail. ``readers.py`` lists readers. From the command line, 10,000 mutants for one of them::

    python tests/faults/mutation.py tiff --count 10000 --keep failures
"""

import argparse
import os
import random
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vemseg.errors import InputError

SECONDS, MEMORY = 20.0, 400 * 2**20
"""What a mutant may take: seconds, and bytes beside what the process holds already."""

AT_ONCE = 40
"""How many mutants a child reads; if any of them fails, each is read by a child of its own."""

LONGEST_LINE = 600
"""The most characters of a message: one line that a user can read."""

NUMBERS = (1, 2, 3, *(2**bits + k for bits in (0, 7, 8, 15, 16, 31, 32, 63, 64) for k in (-1, 0)))
"""Numbers at which programs go wrong."""


@dataclass(frozen=True)
class Failure:
    """A mutant that a reader neither read nor refused as it should, shrunk; ``what`` says what happened."""

    seed: str
    number: int
    what: str
    data: bytes


def campaign(
    name: str, seed: bytes, read: Callable[[Path], None], count: int, first: int = 0
) -> list[Failure]:
    """Read mutants of a sound file, and return those that failed.

    Parameters
    ----------
    name : str
        The name of the seed; its ending becomes that of the mutants.
    seed : bytes
    read : callable
        Reads a file, or raises InputError.
    count, first : int
        How many mutants, and the number of the first; a number always makes the same mutant.
    """
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        for start in range(first, first + count, AT_ONCE):
            numbers = range(start, min(start + AT_ONCE, first + count))
            if outcome([mutant(seed, number) for number in numbers], read, path) is None:
                continue
            for number in numbers:
                data = mutant(seed, number)
                what = outcome([data], read, path)
                if what is not None:
                    small = shrunk(seed, data, lambda tried: outcome([tried], read, path) is not None)
                    failures.append(Failure(name, number, what, small))
    return failures


def mutant(seed: bytes, number: int) -> bytes:
    """Return a sound file with a few changes; the same file and number make the same changes."""
    rng = random.Random(f"{zlib.crc32(seed)} {number}")
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        rng.choice((_bit, _byte, _integer, _integer, _integer, _moved, _zeroed, _cut, _spliced))(data, rng)
    return bytes(data)


def _place(data, rng, width=1):
    """Return a place, near the beginning or the end in half of the cases: directories lie there."""
    last = max(0, len(data) - width)
    near = rng.choice((last, last, min(last, 512), 0))
    return max(0, last - rng.randrange(513)) if near == 0 else rng.randint(0, near)


def _bit(data, rng):
    if data:
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _byte(data, rng):
    if data:
        data[_place(data, rng)] = rng.randrange(256)


def _integer(data, rng):
    width = rng.choice((2, 4, 4, 8))
    at, value = (
        _place(data, rng, width),
        rng.choice((*NUMBERS, rng.randrange(len(data) + 1), rng.getrandbits(32))),
    )
    at -= at % 2 if rng.random() < 0.8 else 0
    data[at : at + width] = (value % 256**width).to_bytes(width, rng.choice(("little", "big")))


def _moved(data, rng):
    """Copy some bytes to another place, so that a tag or offset appears twice."""
    length = rng.choice((2, 4, 8, 12, 20, 64))
    source, target = _place(data, rng, length), _place(data, rng, length)
    data[target : target + length] = data[source : source + length]


def _zeroed(data, rng):
    at, length = _place(data, rng), rng.choice((2, 12, 100))
    data[at : at + length] = bytes(len(data[at : at + length]))


def _cut(data, rng):
    del data[_place(data, rng) :]


def _spliced(data, rng):
    at, length = _place(data, rng), rng.choice((1, 2, 7, 50))
    if rng.random() < 0.5:
        del data[at : at + length]
    else:
        data[at:at] = rng.randbytes(length)


def outcome(files: list[bytes], read: Callable[[Path], None], path: Path) -> str | None:
    """Read files in a child, and return what went wrong with the first that failed; None where none did."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        _child(files, read, path, theirs)
    os.close(theirs)
    try:
        return _watched(child, ours)
    finally:
        os.close(ours)


def _watched(child: int, ours: int) -> str | None:
    """Read what a child says after each file; it must say something in time, and end by itself."""
    said = b""
    while True:
        ready, _, _ = select.select([ours], [], [], SECONDS)
        part = os.read(ours, 4096) if ready else None
        if part is None:
            os.kill(child, signal.SIGKILL)
        if not part:
            _, status = os.waitpid(child, 0)
            break
        said += part
    if part is None:
        return f"took more than {SECONDS:g} seconds"
    if status:
        return said.strip(b".").decode(errors="replace") or f"ended with status {status}"
    return None


def _child(files: list[bytes], read: Callable[[Path], None], path: Path, theirs: int) -> None:
    """Read files and say a dot for each that was read or refused; else say what happened, and end."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        for data in files:
            path.write_bytes(data)
            try:
                read(path)
            except InputError as error:
                text = str(error)
                assert "\n" not in text and str(path) in text and len(text) < LONGEST_LINE, f"message: {text}"
            os.write(theirs, b".")
    except BaseException:
        os.write(theirs, traceback.format_exc().encode()[-3000:])
        os._exit(1)
    os._exit(0)


def shrunk(seed: bytes, data: bytes, fails: Callable[[bytes], bool], tries: int = 200) -> bytes:
    """Return a failing file with as few changes of the sound one as are found in so many tries.

    Changed bytes are put back, half of them at once, then fewer; a mutant of another length is cut shorter.
    """
    step = len(data)
    while step >= 1 and tries > 0:
        step //= 2
        for start in range(0, len(data), max(1, step)):
            part = slice(start, start + max(1, step))
            tried = data[: part.start] + seed[part] + data[part.stop :]
            if len(tried) > len(data) or tried == data:
                continue
            tries -= 1
            if tries <= 0:
                break
            data = tried if fails(tried) else data
    while tries > 0 and len(data) > 8 and fails(data[: len(data) * 3 // 4]):
        data, tries = data[: len(data) * 3 // 4], tries - 1
    return data


def main() -> int:
    """Run a campaign from the command line; the exit status says whether all went well."""
    from readers import READERS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reader", choices=sorted(READERS))
    parser.add_argument("--count", type=int, default=10000, help="mutants of all seeds together")
    parser.add_argument("--first", type=int, default=0, help="the number of the first mutant")
    parser.add_argument("--keep", type=Path, help="folder for shrunk failures")
    wanted = parser.parse_args()
    reader = READERS[wanted.reader]
    with tempfile.TemporaryDirectory() as folder:
        paths = list(reader.seeds(Path(folder)))
        for path in paths:
            reader.read_sound(path)
        seeds = {path.name: path.read_bytes() for path in paths}
    began, failures = time.monotonic(), []
    for name, seed in seeds.items():
        failures += campaign(name, seed, reader.read, -(-wanted.count // len(seeds)), wanted.first)
    for failure in failures:
        print(f"--- {failure.seed}, mutant {failure.number}, {len(failure.data)} bytes\n{failure.what}")
        if wanted.keep:
            wanted.keep.mkdir(parents=True, exist_ok=True)
            (wanted.keep / f"{failure.number}-{failure.seed}").write_bytes(failure.data)
    seconds = time.monotonic() - began
    print(f"{wanted.count} mutants of {len(seeds)} files, {len(failures)} failures, {seconds:.0f} seconds")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
