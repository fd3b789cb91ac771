"""What happens around a command: inputs and folders that go away, two at once, no network."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import test_cli
import tifffile
from commands import SMALL_BLOCKS, begun, command, refused
from injection import LASTING, Fault, operations

from vemseg.errors import InputError, ResourceError
from vemseg.geometry import Box
from vemseg.run import Output, Run, load_tensors
from vemseg.volume import open_volume

ROOT = Path(__file__).resolve().parents[2]
inside = test_cli.inside


def output(path, source):
    """Return an output that is made of one input."""
    return Output(path, state={"output": path.name}, inputs=[source], record=lambda: None)


@pytest.mark.parametrize("change", ["changes", "grows", "shrinks", "vanishes"])
def test_an_input_that_does_not_stay_is_seen(tmp_path, change):
    source, out = tmp_path / "in.raw", tmp_path / "out.txt"
    source.write_bytes(bytes(1000))
    with pytest.raises(InputError, match=r"in\.raw changed while it was read.*-f"), output(out, source) as o:
        o.growing(out).write_text("made")
        if change == "vanishes":
            source.unlink()
        else:
            size = {"changes": 1000, "grows": 2000, "shrinks": 500}[change]
            source.write_bytes(b"x" * size)
        o.publish()
    assert not out.exists()


def test_an_output_folder_that_is_removed_is_one_line(tmp_path):
    source, out = tmp_path / "in.raw", tmp_path / "to" / "out.txt"
    source.write_bytes(bytes(10))
    for remade in (False, True):  # some libraries make the folder again as they write
        with pytest.raises(ResourceError, match=r"partial was removed while"), output(out, source) as o:
            shutil.rmtree(out.parent)
            if remade:
                o.partial.mkdir(parents=True)
            o.growing(out).write_text("made")
            o.publish()
        assert not out.exists()


def test_a_folder_removed_in_the_midst_ends_a_command(programs, made, tmp_path):
    program = programs.start(tmp_path, *command("segment", made), changes=SMALL_BLOCKS)
    program.until(lambda: begun("segment", tmp_path))
    shutil.rmtree(tmp_path / "labels.tif.partial", ignore_errors=True)
    ended = program.wait()
    refused(ended, 4, "labels.tif")
    assert not (tmp_path / "labels.tif").exists()
    assert programs.run(tmp_path, *command("segment", made), changes=SMALL_BLOCKS).code == 0


def test_two_at_once_do_not_share_an_output(programs, made, tmp_path):
    first = programs.start(tmp_path, *command("segment", made), changes=SMALL_BLOCKS)
    first.until(lambda: begun("segment", tmp_path))
    second = programs.run(tmp_path, *command("segment", made), changes=SMALL_BLOCKS)
    if second.code:  # it may have been late
        refused(second, 6, "another process writes labels.tif")
    assert first.wait().code == 0
    assert tifffile.imread(tmp_path / "labels.tif").min() >= 1
    assert not list(tmp_path.rglob("*partial*"))


def test_a_file_cut_off_under_the_reader_is_an_error(tmp_path):
    """Also where it was mapped into memory, which would end the process."""
    program = (
        "import os, sys; from vemseg.volume import open_volume; from vemseg.errors import InputError\n"
        "volume = open_volume(sys.argv[1]); os.truncate(sys.argv[1], 70_000)\n"
        "try: volume.read(volume.box)\n"
        "except InputError as error: print('refused', error)\n"
    )
    for name, options in {"plain": {}, "packed": {"compression": "zlib"}}.items():
        path = tmp_path / f"{name}.tif"
        noise = np.random.default_rng(0).integers(0, 255, (40, 64, 64)).astype("u1")
        tifffile.imwrite(path, noise, **options)
        done = subprocess.run(
            [sys.executable, "-c", program, path], capture_output=True, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, (done.returncode, done.stderr[-500:])
        assert done.stdout.startswith("refused"), name


def test_a_training_on_a_full_disk_keeps_its_last_checkpoint(vulnerable, tmp_path, made):
    place = tmp_path / "place"
    place.mkdir()
    args = [*command("train", made, steps=8), "--set=train.checkpoint_minutes=1e-9"]
    names = operations(lambda fault: vulnerable.run(place, *args, fault=fault), place, tmp_path / "journal")
    shutil.rmtree(place / "run")
    ended = vulnerable.run(place, *args, fault=Fault(place, len(names) // 2, LASTING, 28))
    refused(ended, 4, "cannot write .*run/.*No space left")
    _, state = load_tensors(Run.open(place / "run").checkpoint)
    assert state["step"] >= 1
    again = vulnerable.run(place, *args)
    assert again.code == 0 and f"going on from step {state['step']}" in again.err, again.err


def test_nothing_but_addresses_needs_a_network(inside, tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was used")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert inside("fetch", "phantom", "--shape", "4,40,40", "-o", "cell.tif").returncode == 0
    done = inside("segment", "cell.tif", "-m", "classical", "-k", 2, "--offline", "-o", "labels.tif")
    assert done.returncode == 0, done.stderr
    assert inside("evaluate", "labels.tif", "--gt", "cell_labels.tif").returncode == 0
    refusal = inside("segment", "https://example.org/cell.zarr", "--offline", "-o", "no.tif")
    assert refusal.returncode == 5 and "--offline" in refusal.stderr


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9)
)  # a thousand million letters


@pytest.mark.parametrize(
    "head",
    [BOMB + "]>", '<!DOCTYPE x [<!ENTITY j SYSTEM "file:///etc/passwd">]>'],
    ids=["grows", "outside"],
)
def test_entities_of_ome_xml_are_not_opened(tmp_path, head):
    path, ome = tmp_path / "bomb.ome.tif", "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    text = f'<?xml version="1.0"?>{head}<OME xmlns="{ome}"><Description>&j;</Description></OME>'
    tifffile.imwrite(path, np.zeros((5, 8, 8), np.uint8), description=text, metadata=None)
    with pytest.raises(InputError, match="its OME description is not XML"):
        open_volume(path).read(Box((0, 0, 0), (1, 1, 1)))
