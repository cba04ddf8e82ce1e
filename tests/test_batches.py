"""Batches of rows of similar length."""

import pytest
import torch

from unlearn_core.batches import by_length, in_batches


def test_batches_go_from_long_to_short_within_rows_and_tokens():
    assert list(by_length([3, 9, 5, 4], 2)) == [[1, 2], [3, 0]]
    assert list(by_length([3, 9, 5, 4], 64, token_budget=10)) == [[1], [2, 3], [0]]  # 9, 2 x 5, 3
    assert list(by_length([30, 20], 64, token_budget=10)) == [[0], [1]]  # one row at least


def test_no_row_of_a_batch_is_shorter_than_the_share_of_its_longest():
    assert list(by_length([10, 8, 7, 6, 1], 64, shortest=0.8)) == [[0, 1], [2, 3], [4]]  # 8 of 10, 6 of 7
    assert list(by_length([10, 8, 7], 2, shortest=0.5)) == [[0, 1], [2]]
    assert list(by_length([0, 0], 64, token_budget=10, shortest=0.8)) == [[0, 1]]


# ---- batches that must fit into memory ---------------------------------------------------------------------------

def memory_of(rows, calls=None):
    """Work that squares each index, with memory for so many rows at a time."""
    def work(batch):
        if calls is not None:
            calls.append(len(batch))
        if len(batch) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return [index**2 for index in batch]
    return work


def test_results_come_in_the_order_of_the_rows_and_progress_is_told():
    told = []
    assert in_batches(memory_of(64), [3, 9, 5, 4], 2, told=told.append) == [0, 1, 4, 9]
    assert told == [2, 4]
    assert in_batches(memory_of(64), [], 2) == []


@pytest.mark.parametrize(("rows", "calls"), [
    (64, [8, 8, 4]), (8, [8, 8, 4]),
    (5, [8, 4, 4, 4, 4, 4]),  # tried once with 8; all further batches have 4 at most
    (3, [8, 4, *[2] * 10]), (1, [8, 4, 2, *[1] * 20])])
def test_what_does_not_fit_is_halved_and_so_is_all_that_follows(rows, calls):
    seen = []
    assert in_batches(memory_of(rows, seen), [9] * 20, 8) == [index**2 for index in range(20)]
    assert seen == calls


def test_one_row_that_does_not_fit_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        in_batches(memory_of(0), [9, 9], 8)


def test_other_errors_are_not_tried_again():
    def work(batch):
        calls.append(batch)
        raise RuntimeError("shape mismatch")
    calls = []
    with pytest.raises(RuntimeError, match="shape mismatch"):
        in_batches(work, [9] * 8, 4)
    assert len(calls) == 1
