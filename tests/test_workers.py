"""Threads that encode parts of a window: in order, with few threads of PyTorch each, and the same numbers."""

import threading
import time

import pytest
import torch
from test_unet import CPU, FULL, SMALL, encoder_of, noise, table_name

from vemseg.models import ThreePlanes, in_order
from vemseg.models.workers import MOST, workers_on


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_order_from_threads_that_share_those_of_torch(threads, workers):
    threads(6)

    def work(item):
        time.sleep(0.02 if item == 0 else 0)
        return item, threading.current_thread(), torch.get_num_threads(), torch.is_inference_mode_enabled()

    with torch.inference_mode():
        found = list(in_order(work, range(20), workers))
    assert [item for item, *_ in found] == list(range(20))
    assert {count for _, _, count, _ in found} == {6 // workers}
    assert {inference for *_, inference in found} == {True}
    assert (threading.current_thread() in {thread for _, thread, _, _ in found}) == (workers == 1)
    assert torch.get_num_threads() == 6


def test_no_more_is_taken_than_the_threads_need_and_all_end_with_the_caller(threads):
    threads(2)
    taken = []
    each = in_order(lambda item: item, (taken.append(i) or i for i in range(100)), 2)
    assert next(each) == 0 and len(taken) == 3
    each.close()
    assert torch.get_num_threads() == 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("encode")]


def test_an_error_reaches_the_caller(threads):
    threads(2)

    def work(item):
        if item == 3:
            raise RuntimeError("out of memory")
        return item

    found = []
    with pytest.raises(RuntimeError, match="out of memory"):
        found.extend(in_order(work, range(10), 2))
    assert torch.get_num_threads() == 2


def test_a_part_of_a_part_is_not_divided_once_more(threads):
    threads(4)
    busy, most = [], []

    def inner(item):
        busy.append(item)
        most.append(len(busy))
        time.sleep(0.002)
        busy.pop()
        return item

    def outer(item):
        return sum(in_order(inner, range(5), 2)), torch.get_num_threads()

    assert set(in_order(outer, range(6), 2)) == {(10, 2)}
    assert max(most) <= 2 and torch.get_num_threads() == 4


def test_one_thread_of_torch_is_one_worker(threads):
    threads(1)
    mine = threading.current_thread()
    assert set(in_order(lambda _: threading.current_thread(), range(4), 8)) == {mine}
    assert workers_on(CPU) == 1 and workers_on(torch.device("cuda")) == 1
    threads(MOST + 3)
    assert workers_on(CPU) == MOST


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("table", [SMALL, FULL], ids=table_name)
@torch.no_grad()
def test_workers_change_no_vector(threads, table, dtype):
    x, found = noise(16, 48, 64), []
    for count in (1, 2, 5):
        threads(count)
        encoder = encoder_of(table)
        encoder.prepare(CPU, dtype)
        assert encoder.workers == count
        three = ThreePlanes(encoder) if not table.full_resolution else encoder
        found.append(three.encode(x))
        assert torch.get_num_threads() == count
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
