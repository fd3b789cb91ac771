"""Blocks go through read, compute and write in overlap; what fails or stops leaves no false marker."""

import json
import threading
import time

import pytest

from vemseg.blocks import Stages, map_blocks
from vemseg.errors import InputError, Interrupted
from vemseg.geometry import Box

BLOCKS = dict(enumerate(Box.whole((6, 4, 4)).split((1, 4, 4))))


def never():
    return False


def quiet(done, total):
    pass


class Recorder:
    """Stages that write down what happened, in which thread."""

    def __init__(self, fail_at=None, stage=None):
        self.fail_at, self.stage = fail_at, stage
        self.events, self.held = [], 0
        self.most_held = 0
        self.lock = threading.Lock()

    def do(self, stage, block):
        with self.lock:
            self.held += {"read": 1, "compute": 0, "write": -1}[stage]
            self.most_held = max(self.most_held, self.held)
            self.events.append((stage, block.start[0], threading.current_thread().name))
        if (stage, block.start[0]) == (self.stage, self.fail_at):
            raise InputError(f"no {stage} of {block.start[0]}")
        return block.start[0]

    @property
    def stages(self):
        return Stages(
            lambda block: self.do("read", block),
            lambda block, given: self.do("compute", block) + given,
            lambda block, made: [self.do("write", block), made],
        )

    def numbers(self, stage):
        return [number for what, number, _ in self.events if what == stage]


def marked(folder):
    return sorted(int(path.stem) for path in folder.glob("*.json"))


def test_every_block_goes_through_all_stages_in_order(tmp_path):
    work, seen = Recorder(), []
    results = map_blocks(work.stages, BLOCKS, tmp_path, lambda *at: seen.append(at), never)
    assert results == [[i, 2 * i] for i in range(6)]
    for stage in ("read", "compute", "write"):
        assert work.numbers(stage) == list(range(6))
    assert seen == [(16 * i, 96) for i in range(7)]
    threads = {stage: {t for what, _, t in work.events if what == stage} for stage, *_ in work.events}
    assert threads["compute"] == {threading.current_thread().name}
    assert len(set.union(*threads.values())) == 3
    assert json.loads((tmp_path / "000003.json").read_text()) == [3, 6]


def test_stages_overlap_and_no_more_than_three_blocks_are_held(tmp_path):
    """A block is computed while the next is read, and written while the next is computed; else this hangs."""
    work = Recorder()
    meanwhile = {"compute": "read", "write": "compute"}
    begun = {
        (stage, number): threading.Event() for stage in ("read", "compute", "write") for number in BLOCKS
    }
    plain = work.do

    def do(stage, block):
        begun[stage, block.start[0]].set()
        following = begun.get((meanwhile.get(stage), block.start[0] + 1))
        assert following is None or following.wait(60), f"nothing goes on beside {stage} of {block}"
        return plain(stage, block)

    work.do = do
    map_blocks(work.stages, BLOCKS, tmp_path, quiet, never)
    assert work.most_held <= 3


@pytest.mark.parametrize("slow", ["read", "compute", "write"])
def test_looking_ahead_is_bounded_whichever_stage_is_slow(tmp_path, slow):
    work = Recorder()
    plain = work.do
    work.do = lambda stage, block: (time.sleep(0.02 * (stage == slow)), plain(stage, block))[1]
    map_blocks(work.stages, BLOCKS, tmp_path, quiet, never)
    assert work.most_held <= 3


@pytest.mark.parametrize(
    ("stage", "least", "most"), [("read", 2, 3), ("compute", 3, 3), ("write", 3, 3)], ids=str
)
def test_a_failure_leaves_markers_of_written_blocks_alone_and_no_thread(tmp_path, stage, least, most):
    work, before = Recorder(3, stage), threading.active_count()
    with pytest.raises(InputError, match=f"no {stage} of 3"):
        map_blocks(work.stages, BLOCKS, tmp_path, quiet, never)
    assert threading.active_count() == before
    assert least <= len(marked(tmp_path)) <= most
    assert marked(tmp_path) == list(range(len(marked(tmp_path))))
    again = Recorder()
    assert map_blocks(again.stages, BLOCKS, tmp_path, quiet, never) == [[i, 2 * i] for i in range(6)]
    assert again.numbers("compute") == list(range(most if stage != "read" else len(work.numbers("write")), 6))


def test_ctrl_c_while_computing_is_a_failure_like_any_other(tmp_path):
    work = Recorder()

    def compute(block, given):
        if block.start[0] == 2:
            raise KeyboardInterrupt
        return given

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        map_blocks(Stages(work.stages.read, compute, work.stages.write), BLOCKS, tmp_path, quiet, never)
    assert threading.active_count() == before
    assert marked(tmp_path) == [0, 1]


@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_stopped_run_has_written_what_it_computed_and_goes_on(tmp_path, after):
    asked = []
    work = Recorder()
    with pytest.raises(Interrupted, match=f"after {after} of 6 blocks"):
        map_blocks(work.stages, BLOCKS, tmp_path, quiet, lambda: bool(asked.append(1)) or len(asked) > after)
    assert marked(tmp_path) == list(range(after))
    again, seen = Recorder(), []
    results = map_blocks(again.stages, BLOCKS, tmp_path, lambda *at: seen.append(at), never)
    assert results == [[i, 2 * i] for i in range(6)]
    assert again.numbers("read") == list(range(after, 6))
    assert seen[0] == (16 * after, 96) and seen[-1] == (96, 96)


def test_marked_blocks_in_the_middle_are_passed_over(tmp_path):
    for i in (1, 4):
        (tmp_path / f"{i:06d}.json").write_text('"kept"')
    work = Recorder()
    results = map_blocks(work.stages, BLOCKS, tmp_path, quiet, never)
    assert [r if r == "kept" else r[0] for r in results] == [0, "kept", 2, 3, "kept", 5]
    assert work.numbers("read") == [0, 2, 3, 5]


def test_nothing_to_do(tmp_path):
    assert map_blocks(Recorder().stages, {}, tmp_path, quiet, never) == []


def test_a_stop_that_loses_what_was_done_says_so():
    answers = iter([False, False, True])
    with pytest.raises(Interrupted, match=r"after 2 of 6 blocks: the same command starts again$"):
        map_blocks(Recorder().stages, BLOCKS, None, quiet, lambda: next(answers))
