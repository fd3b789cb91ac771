"""Many processes of the program in little time: a server loads the libraries once and forks for each.

Every process has its own standard streams, environment, signals and end, like one that was started anew; only
the seconds in which PyTorch is loaded are saved. ``Programs`` is the tests' side; as a script this is the
server, which reads one request per line and answers with one line.
"""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 120
"""Longest that a process may take."""

PRELOADED = (
    *("torch", "timm.models.vision_transformer", "sklearn.cluster", "tifffile", "zarr", "vemseg.cli"),
    *(
        f"vemseg.pipeline.{verb}"
        for verb in ("cluster", "embed", "evaluate", "fetch", "objects", "plan", "refine", "render")
    ),
    *("vemseg.pipeline.adapt", "vemseg.pipeline.segment", "vemseg.pipeline.train", "vemseg.models"),
    "vemseg.drawing",
)


COARSE = {"vemseg.drawing.layout.DPI": 100.0, "vemseg.pipeline.evaluate.DPI": 50.0}
"""Pictures with fewer dots than usual, which are drawn in less time; the tests of drawing say how many."""


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, negative where a signal killed it, and what it wrote."""

    code: int
    out: str
    err: str


class Program:
    """A running process."""

    def __init__(self, programs, pid, out, err):
        self._programs, self.pid, self._out, self._err = programs, pid, out, err

    @property
    def running(self):
        return self._programs.ask(poll=self.pid) is None

    @property
    def err(self):
        """What it wrote to standard error so far."""
        return self._err.read_text()

    def send(self, number):
        os.kill(self.pid, number)

    def until(self, happened):
        """Wait until something has happened; fail where the process ends, or takes too long, without it."""
        deadline = time.monotonic() + SECONDS
        while not happened():
            assert self.running, f"it ended too early: {self.wait()}"
            assert time.monotonic() < deadline, self.err
            time.sleep(0.005)

    def wait(self):
        """Return how it ended."""
        deadline = time.monotonic() + SECONDS
        while (code := self._programs.ask(poll=self.pid)) is None:
            if time.monotonic() > deadline:
                self.send(signal.SIGKILL)
            time.sleep(0.01)
        return Ended(code, self._out.read_text() if self._out else "", self.err)


class Programs:
    """The server, and the processes that it forks.

    Parameters
    ----------
    folder : Path
        For what the processes write to their standard streams.
    library : Path, optional
        What ``injection.compiled`` made, so that faults can be put into their operations on files.
    """

    def __init__(self, folder, library=None):
        self._folder, self._count, self.library = folder, 0, library
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("VEMSEG_", "GITHUB_"))}
        for name in ("FORCE_COLOR", "PY_COLORS", "NO_COLOR", "COLUMNS", "TTY_COMPATIBLE"):
            kept.pop(name, None)
        self.environment = {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        if library is not None:
            self.environment["LD_PRELOAD"] = str(library)
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    @property
    def address_space(self):
        """Bytes of address space that the server has, and each process as it starts."""
        pages = Path(f"/proc/{self._server.pid}/statm").read_text().split()[0]
        return int(pages) * resource.getpagesize()

    def close(self):
        self._server.stdin.close()
        self._server.wait(SECONDS)
        self._server.stdout.close()

    def ask(self, **request):
        """Send a request to the server; return its answer."""
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def start(
        self, cwd, *args, powerless=False, terminal=None, changes=None, fault=None, limits=None, **environment
    ):
        """Start the program.

        Parameters
        ----------
        cwd : Path
            Working directory.
        args : str
            Of the command line.
        powerless : bool
            Without the privileges of root, where it has them.
        terminal : str, optional
            Device that standard error goes to instead of a file.
        changes : dict, optional
            ``module.NAME`` of constants that are other than usual, beside those of COARSE.
        fault : injection.Fault, optional
            What happens to its operations on files; the server must have been started with the library.
        limits : dict, optional
            What the process may use at most, by the names of ``resource``, such as ``RLIMIT_AS``.
        environment : str
            More variables, or other values of them.
        """
        self._count += 1
        out, err = (self._folder / f"{self._count}.{name}" for name in ("out", "err"))
        for path in (out, err):
            path.touch()
        pid = self.ask(
            start=[str(arg) for arg in args],
            cwd=str(cwd),
            environment={**self.environment, **environment},
            streams=[str(out), terminal or str(err)],
            powerless=powerless,
            changes=COARSE | (changes or {}),
            fault=fault and fault.request(),
            limits=limits or {},
        )
        return Program(self, pid, out, err)

    def run(self, cwd, *args, **options):
        """Start the program and wait for its end."""
        return self.start(cwd, *args, **options).wait()


def serve():
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    codes = {}
    for name in PRELOADED:
        import_module(name)
    import_module("vemseg.drawing.colours").table()
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            answer = poll(request["poll"], codes)
        elif answer := os.fork():
            codes.pop(answer, None)  # of an earlier process with the same number
        else:
            become(request)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    os._exit(0)


def poll(pid, codes):
    """Return the exit code of a process, None as long as it runs."""
    if pid not in codes:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            codes[pid] = os.waitstatus_to_exitcode(status)
    return codes.get(pid)


def become(request):
    """Be the program, in a process that was just forked."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for number, path in enumerate(["/dev/null", *request["streams"]]):
        os.dup2(os.open(path, os.O_RDWR | os.O_NOCTTY), number)
    for name, value in request["changes"].items():
        module, _, constant = name.rpartition(".")
        setattr(import_module(module), constant, value)
    if request["powerless"]:
        give_up_capabilities()
    sys.argv = ["vemseg", *request["start"]]
    for name, most in request["limits"].items():
        resource.setrlimit(getattr(resource, name), (most, most))
    if request["fault"]:
        folder, number, action, error, reading, journal = request["fault"]
        texts = [text and os.fsencode(text) for text in (folder, journal)]
        ctypes.CDLL(None).faults_arm(texts[0], ctypes.c_long(number), action, error, reading, texts[1])
    try:
        import_module("vemseg.cli").main()
    except SystemExit as end:
        for thread in threading.enumerate():
            if not (thread.daemon or thread is threading.main_thread()):
                thread.join()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code or 0)  # what Python does more at its end takes as long as loading PyTorch


def give_up_capabilities():
    """Be bound by the permissions of files, as anybody but root is."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capset")


if __name__ == "__main__":
    serve()
