"""Batches of rows of similar length."""

from unlearn_core.evaluation.batches import by_length


def test_batches_go_from_long_to_short_within_rows_and_tokens():
    assert list(by_length([3, 9, 5, 4], 2)) == [[1, 2], [3, 0]]
    assert list(by_length([3, 9, 5, 4], 64, token_budget=10)) == [[1], [2, 3], [0]]  # 9, 2 x 5, 3
    assert list(by_length([30, 20], 64, token_budget=10)) == [[0], [1]]  # one row at least


def test_no_row_of_a_batch_is_shorter_than_the_share_of_its_longest():
    assert list(by_length([10, 8, 7, 6, 1], 64, shortest=0.8)) == [[0, 1], [2, 3], [4]]  # 8 of 10, 6 of 7
    assert list(by_length([10, 8, 7], 2, shortest=0.5)) == [[0, 1], [2]]
    assert list(by_length([0, 0], 64, token_budget=10, shortest=0.8)) == [[0, 1]]
