"""Results that appear whole or not at all, wherever the process that makes them is killed."""

import contextlib
import errno
import itertools
import json
import os
import shutil
import signal

import pytest
from interpreter import start

from vemseg.errors import InputError, OutputExistsError, ResourceError
from vemseg.run import Lock, Output, Place, read_json, write_json
from vemseg.run.state import difference

STATE = {"output": "seg", "settings": {"cluster.k": 6}, "sizes": (1.5, 2)}


class Killed(BaseException):
    """What a process that is killed does next: nothing."""


@pytest.fixture
def cell(tmp_path):
    path = tmp_path / "cell.tif"
    path.write_bytes(b"voxels")
    return path


class Maker:
    """Make a result: a main file or directory, a table that says how it was made, and perhaps a picture."""

    def __init__(self, folder, inputs=(), main="seg", directory=False, picture=True):
        self.path, self.inputs, self.directory, self.picture = folder / main, inputs, directory, picture
        self.table, self.drawn = folder / "seg.json", folder / "seg.png"

    def record(self):
        return read_json(self.table)["state"] if self.table.exists() else None

    def __call__(self, state=STATE, overwrite=False):
        """Return the output as it was left, with all that it says."""
        output = Output(
            Place(self.path, folder=self.directory),
            state=state,
            inputs=self.inputs,
            beside=[self.table, self.drawn],
            record=self.record,
            overwrite=overwrite,
        )
        with output:
            if not output.done:
                self.grow(output, state["settings"]["cluster.k"])
        return output

    def grow(self, output, k):
        store = output.partial / "store"
        store.mkdir(exist_ok=True)
        (store / "zarr.json").write_text("{}")
        for number in range(2):
            (store / f"chunk{number}").write_text(f"{k}")
        write_json(output.growing(self.table), {"k": k, "state": output.state})
        if self.picture:
            output.growing(self.drawn).write_text(f"{k}")
        if self.directory:
            output.publish(store)
        else:
            output.growing(self.path).write_text(f"{k}")
            output.publish()

    def made(self):
        """Return the k of every part of the result that is there."""
        parts = [path.read_text() for path in self.path.glob("chunk*")] if self.directory else []
        parts += [self.path.read_text()] if self.path.is_file() else []
        parts += [str(read_json(self.table)["k"])] if self.table.exists() else []
        return parts + ([self.drawn.read_text()] if self.drawn.exists() else [])


@pytest.fixture(params=[False, True], ids=["file", "directory"])
def make(tmp_path, cell, request):
    return Maker(tmp_path, [cell], directory=request.param)


def names(folder):
    return {path.name for path in folder.iterdir()}


def of(k):
    return {**STATE, "settings": {"cluster.k": k}}


def test_a_result_appears_whole_and_is_made_once(tmp_path, make):
    first = make()
    assert not first.done and not first.resumed
    assert names(tmp_path) == {"cell.tif", "seg", "seg.json", "seg.png"}
    assert first.state["sizes"] == [1.5, 2]
    assert first.inputs == first.state["inputs"]
    assert first.inputs[0]["path"] == str(make.inputs[0])
    before = {path: path.stat().st_ctime_ns for path in tmp_path.rglob("*")}
    second = make()
    assert second.done and second.state == first.state
    assert {path: path.stat().st_ctime_ns for path in tmp_path.rglob("*")} == before


def test_another_input_or_setting_is_refused_by_name(tmp_path, make, cell):
    make()
    with pytest.raises(OutputExistsError) as caught:
        make(of(4))
    assert str(caught.value) == (
        f"{make.path} exists and was made otherwise (cluster.k 6 there, 4 now): "
        "give another -o, or -f to replace it"
    )
    given = {"refined": {"merges": [[1, 2]], "smooth": 0}}
    told = difference({**given, "names": 1, "inputs": []}, {"refined": {"merges": [], "smooth": 0}}, [])
    assert told == "was made otherwise (refined.merges [[1, 2]] there, [] now; names 1 there, nothing now)"
    cell.write_bytes(b"VOXELS")
    with pytest.raises(OutputExistsError, match=r"made otherwise \(cell\.tif had another content\)"):
        make()
    shutil.copy(cell, tmp_path / "twin.tif")
    make.inputs = [cell, tmp_path / "twin.tif"]
    with pytest.raises(OutputExistsError, match=r"made otherwise \(without twin\.tif\)"):
        make()
    make.table.unlink()
    with pytest.raises(OutputExistsError, match=r"exists and does not say how it was made"):
        make()
    assert names(tmp_path) == {"cell.tif", "twin.tif", "seg", "seg.png"}


def test_an_input_that_was_touched_or_moved_is_the_same(tmp_path, make, cell):
    make()
    os.utime(cell, (0, 0))
    make.inputs = [cell.rename(tmp_path / "moved.tif")]
    assert make().done


def test_another_result_is_replaced_whole(tmp_path, make):
    make(of(4))
    make.picture = False
    assert not make(overwrite=True).done
    assert set(make.made()) == {"6"}
    assert names(tmp_path) == {"cell.tif", "seg", "seg.json"}  # the picture was of the older result
    shutil.rmtree(make.path) if make.directory else make.path.unlink()
    make.drawn.write_text("mine")
    make(overwrite=True)
    assert make.drawn.read_text() == "mine"


def test_what_a_removed_result_left_beside_it_goes_too(tmp_path, make):
    make(of(4))
    shutil.rmtree(make.path) if make.directory else make.path.unlink()
    make.picture = False
    make()
    assert set(make.made()) == {"6"}
    assert names(tmp_path) == {"cell.tif", "seg", "seg.json"}


def test_what_somebody_puts_beside_a_result_while_it_is_made_stays(tmp_path, make):
    output = Output(Place(make.path), state=STATE, beside=[make.table, make.drawn], record=make.record)
    with output:
        output.growing(make.path).write_text("6")
        make.drawn.write_text("mine")
        output.publish()
    assert make.drawn.read_text() == "mine" and make.path.read_text() == "6"


def test_an_error_after_the_end_is_not_taken_for_a_removed_folder(tmp_path, make):
    make()
    place = Place(make.path, folder=make.directory)
    output = Output(place, state=STATE, inputs=make.inputs, record=make.record)
    with pytest.raises(FileNotFoundError, match=r"nowhere"), output:
        assert output.done
        (tmp_path / "nowhere").read_bytes()


@pytest.mark.parametrize("inputs", [None, 3, "cell.tif", [None], [["path", "cell.tif"]]])
def test_a_result_with_a_damaged_list_of_inputs_is_another_one(make, inputs):
    made = make().state
    write_json(make.table, {"k": 6, "state": made | {"inputs": inputs}})
    with pytest.raises(OutputExistsError, match=r"exists and was made otherwise \(.*inputs|another content"):
        make()


def test_a_setting_that_is_missing_differs_from_one_that_is_none():
    assert difference({"a": None}, {}, []) == "was made otherwise (a None there, nothing now)"


@pytest.mark.parametrize(
    "note", [{"replaces": False}, {"state": {}, "main": "seg", "replaces": 1}, {"state": {}, "own": ["../a"]}]
)
def test_a_damaged_state_is_named(tmp_path, make, note):
    write_json(tmp_path / "seg.partial" / "state.json", note)
    with pytest.raises(InputError, match=r"cannot read .*state\.json"):
        make()


def test_a_settled_result_goes_nowhere_else(tmp_path, cell, monkeypatch):
    """Two results may grow in one folder: labels in an image, and labels beside it of the same name."""

    def killed(*_):
        raise Killed

    inside = Place(tmp_path / "seg", tmp_path / "image" / "seg")
    make = {"state": STATE, "inputs": [cell], "record": lambda: None}
    output = Output(inside, **make)
    with monkeypatch.context() as patch, pytest.raises(Killed), output:
        output.growing(output.path).write_text("6")
        patch.setattr("vemseg.run.staging.Staging._move", killed)
        output.publish()
    with pytest.raises(OutputExistsError, match=r"holds a finished result that belongs in .*image/seg"):
        Output(tmp_path / "seg", **make, overwrite=True).__enter__()
    assert names(tmp_path) == {"cell.tif", "image", "seg.partial"}
    with contextlib.suppress(OutputExistsError):  # it does not say how it was made
        Output(inside, **make).__enter__()
    assert (tmp_path / "image" / "seg").read_text() == "6"


def test_who_looks_in_leaves_the_files_that_others_write(tmp_path, cell):
    """A task of a batch array writes blocks while another process finds that it is too early to finish."""
    make = {"state": STATE, "inputs": [cell], "record": lambda: None}
    with Output(tmp_path / "seg", **make).joined(lambda: False) as output:
        chunk = output.partial / "store" / f"zarr.{'a' * 32}.partial"
        chunk.parent.mkdir()
        chunk.write_text("half of a chunk")
    with pytest.raises(InputError, match="early"), Output(tmp_path / "seg", **make) as output:
        assert output.resumed
        raise InputError("too early")
    assert chunk.exists()
    with Output(tmp_path / "seg", **make) as output:
        output.publish(chunk.parent)
    assert names(tmp_path / "seg") == set()


def test_a_directory_may_replace_a_file_but_no_file_a_directory(tmp_path, cell):
    for directory in (False, True):
        make = Maker(tmp_path, [cell], directory=directory)
        make(overwrite=True)
        assert make.path.is_dir() == directory
    assert names(tmp_path) == {"cell.tif", "seg", "seg.json", "seg.png"}
    with pytest.raises(OutputExistsError, match=r"seg is a folder: give a file"):
        Maker(tmp_path, [cell])(overwrite=True)
    assert set(make.made()) == {"6"}


def test_an_interrupted_result_is_taken_up_with_the_same_state_alone(tmp_path, make, cell, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyError):
        patch.setattr(Output, "publish", lambda self, main=None: {}["killed"])
        make()
    assert names(tmp_path) == {"cell.tif", "seg.partial"}
    with pytest.raises(OutputExistsError) as caught:
        make(of(4))
    assert str(caught.value) == (
        f"{tmp_path / 'seg.partial'} was begun earlier and was made otherwise (cluster.k 6 there, 4 now): "
        "-f starts again"
    )
    voxels = cell.read_bytes()
    cell.write_bytes(b"VOXELS")
    with pytest.raises(OutputExistsError, match=r"begun earlier .*cell\.tif had another content.*-f starts"):
        make()
    cell.write_bytes(voxels)
    assert make().resumed
    assert set(make.made()) == {"6"}


def test_starting_again_forgets_what_was_begun(tmp_path, make, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyError):
        patch.setattr(Output, "publish", lambda self, main=None: {}["killed"])
        make(of(4))
    output = make(overwrite=True)
    assert not output.resumed
    assert set(make.made()) == {"6"}


def test_a_replacement_that_was_interrupted_is_named(tmp_path, make, monkeypatch):
    make(of(4))
    with monkeypatch.context() as patch, pytest.raises(KeyError):
        patch.setattr(Output, "publish", lambda self, main=None: {}["killed"])
        make(overwrite=True)
    assert set(make.made()) == {"4"}
    for state in (of(4), STATE):
        with pytest.raises(OutputExistsError) as caught:
            make(state)
        partial = tmp_path / "seg.partial"
        assert (
            str(caught.value)
            == f"{make.path} exists and is being replaced in {partial}: -f goes on with that"
        )
    assert make(overwrite=True).resumed
    assert set(make.made()) == {"6"}


def test_what_is_not_there_is_not_asked_how_it_was_made(make):
    def record():
        raise AssertionError("nothing is there to read")

    make.record = record
    make(overwrite=True)
    make.path.rename(make.path.with_name("elsewhere"))
    for path in (make.table, make.drawn):
        path.unlink()
    make()


def test_nothing_stays_where_nothing_has_grown(tmp_path, make):
    with (
        pytest.raises(KeyError),
        Output(make.path, state=STATE, inputs=make.inputs, record=make.record) as output,
    ):
        assert output.partial.is_dir()
        raise KeyError
    assert names(tmp_path) == {"cell.tif"}
    make.inputs = [tmp_path / "absent"]
    with pytest.raises(InputError, match="no such file"):
        make()
    assert names(tmp_path) == {"cell.tif"}


def test_no_new_folder_stays_where_nothing_has_grown_and_old_ones_do(tmp_path):
    old, new = tmp_path / "old", tmp_path / "old" / "new" / "newer"
    old.mkdir()
    with pytest.raises(KeyError), Output(new / "seg", state=STATE, record=lambda: None):
        raise KeyError
    assert names(tmp_path) == {"old"} and not names(old)
    with pytest.raises(KeyError), Output(new / "seg", state=STATE, record=lambda: None):
        (new.parent / "notes").write_text("somebody else's")
        raise KeyError
    assert names(new.parent) == {"notes"}


def test_what_cannot_be_gone_on_with_is_begun_anew(tmp_path, make, monkeypatch):
    def stopped(**options):
        with Output(make.path, state=STATE, record=make.record, **options) as output:
            output.growing(make.table).write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        stopped(resumable=False)
    assert names(tmp_path) == {"cell.tif"}
    with pytest.raises(KeyError):
        stopped()  # left as a killed process leaves it
    options = {"state": of(4), "record": make.record, "resumable": False}
    with Output(make.path, **options) as output:
        assert not output.resumed and not output.growing(make.table).exists()
    assert names(tmp_path) == {"cell.tif"}


def test_files_of_something_else_are_not_replaced(tmp_path, make):
    for name, content, whose in [
        ("seg.png", "mine", f"does not belong to {make.path}"),
        ("seg.json", '{"state": {"output": "seg2"}}', "belongs to seg2"),
    ]:
        (tmp_path / name).write_text(content)
        with pytest.raises(OutputExistsError) as caught:
            make()
        assert str(caught.value) == (
            f"{tmp_path / name} exists and {whose}: give another name with -o, or -f"
        )
    assert names(tmp_path) == {"cell.tif", "seg.json", "seg.png"}
    make(overwrite=True)
    assert set(make.made()) == {"6"}


def test_files_that_stayed_when_the_main_one_was_removed_are_its_own(tmp_path, make):
    make(of(4))
    shutil.rmtree(make.path) if make.directory else make.path.unlink()
    assert not make().done
    assert set(make.made()) == {"6"}


def test_one_process_at_a_time(tmp_path, make):
    lock = Lock(tmp_path / "seg.partial" / ".lock", "")
    lock.acquire()
    with pytest.raises(
        OutputExistsError, match=rf"another process writes {make.path} \(pid {os.getpid()} on"
    ):
        make()
    assert names(tmp_path / "seg.partial") == {".lock"}
    lock.release()
    make()
    assert names(tmp_path) == {"cell.tif", "seg", "seg.json", "seg.png"}


def test_a_full_disk_is_one_line(make, tmp_path):
    with (
        pytest.raises(ResourceError, match=r"cannot write .*seg: No space left on device"),
        Output(make.path, state=STATE, record=make.record),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(PermissionError), Output(make.path, state=STATE, record=make.record):
        raise OSError(errno.EACCES, "of an input")
    (tmp_path / "file").touch()
    with (
        pytest.raises(ResourceError, match=r"cannot write .*file/seg"),
        Output(tmp_path / "file" / "seg", state=STATE, record=make.record),
    ):
        pass


def test_what_was_not_written_cannot_be_published(make):
    with (
        pytest.raises(FileNotFoundError, match="was not written"),
        Output(make.path, state=STATE, record=make.record) as output,
    ):
        output.publish()


# Killed anywhere

OPERATIONS = ("replace", "rename", "unlink", "rmdir", "mkdir", "fsync")


@contextlib.contextmanager
def killed_at(last, monkeypatch):
    """From one file operation on, let none happen any more; yield the count of those that were tried."""
    count = itertools.count()

    def dying(operation):
        def act(*args, **kwargs):
            if next(count) >= last:
                raise Killed
            return operation(*args, **kwargs)

        return act

    with monkeypatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(os, name, dying(getattr(os, name)))
        with contextlib.suppress(Killed):
            yield count


@pytest.mark.parametrize("replacing", [False, True])
def test_whatever_is_killed_is_completed_by_the_same_call(tmp_path, make, monkeypatch, replacing):
    for last in range(100):
        for path in [make.path, tmp_path / "seg.partial"]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for path in (make.table, make.drawn):
            path.unlink(missing_ok=True)
        if replacing:
            make(of(4))
        with killed_at(last, monkeypatch) as count:
            make(overwrite=replacing)
        finished = next(count) < last
        found = set(make.made())
        if make.path.exists() and not (tmp_path / "seg.partial" / "state.json").exists():
            assert len(found) == 1  # what is not under way is whole
        if replacing:  # nobody takes the old result, or a mixture, for the new one
            with contextlib.suppress(OutputExistsError):
                assert make().done and set(make.made()) == {"6"}
        make(overwrite=replacing)
        assert set(make.made()) == {"6"} and len(make.made()) == (4 if make.directory else 3)
        assert make().done
        assert names(tmp_path) == {"cell.tif", "seg", "seg.json", "seg.png"}
        if finished:
            break
    assert last > 10


def test_the_old_settings_are_not_done_with_a_half_replaced_result(tmp_path, make, monkeypatch):
    """Killed while it replaces a result, the new one is whole for whoever comes next, with any settings."""
    for last in range(100):
        make(of(4), overwrite=True)
        with killed_at(last, monkeypatch) as count:
            make(overwrite=True)
        finished = next(count) < last
        with contextlib.suppress(OutputExistsError):
            assert make(of(4)).done
            assert set(make.made()) == {"4"}
        assert len(set(make.made())) == 1
        if finished:
            break
    assert set(make.made()) == {"6"}


KILLED = """
import os, sys, signal, pathlib
sys.path.insert(0, sys.argv[1])
from test_output import Maker, of
place, folder, directory = int(sys.argv[2]), pathlib.Path(sys.argv[3]), sys.argv[4] == "True"
replace = os.replace
def dying(*args):
    global place
    place -= 1
    if place < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*args)
make = Maker(folder, [folder / "cell.tif"], directory=directory)
os.replace = dying
make(of(6), overwrite=True)
"""


@pytest.mark.parametrize("place", [1, 3, 4])
def test_a_killed_process_leaves_what_the_next_completes(tmp_path, make, place):
    make(of(4))
    process = start(KILLED, os.path.dirname(__file__), place, tmp_path, make.directory)  # noqa: PTH120
    _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, err
    assert (tmp_path / "seg.partial").is_dir()
    output = make(overwrite=True)
    assert (output.done, output.resumed) == (place > 2, place < 3)
    assert set(make.made()) == {"6"}
    assert names(tmp_path) == {"cell.tif", "seg", "seg.json", "seg.png"}


def test_a_state_is_plain_json_that_reads_as_it_was_written(make):
    with pytest.raises(ValueError):
        Output(make.path, state={"a": float("nan")}, record=make.record)
    output = Output(make.path, state={"a": (1, 2.5), "p": make.path}, record=make.record)
    assert output.state == json.loads(json.dumps(output.state)) == {"a": [1, 2.5], "p": str(make.path)}
