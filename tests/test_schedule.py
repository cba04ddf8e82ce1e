"""The schedule of a training by counting: which items each step reads, in which order, with which partners."""

import itertools
from collections import Counter

import pytest

from unlearn_core.settings import Unlearning
from unlearn_core.training.schedule import Schedule


@pytest.mark.parametrize(("forget", "batch_size", "processes", "steps", "warmup"), [
    (1112, 1, 1, 1390, 278), (1112, 2, 1, 695, 139), (1112, 1, 8, 173, 34), (1112, 2, 8, 86, 17),
    (1366, 1, 1, 1707, 341), (1366, 2, 1, 853, 170), (1366, 1, 8, 213, 42), (1366, 2, 8, 106, 21)])
def test_steps_of_the_papers_models_on_one_and_eight_devices(forget, batch_size, processes, steps, warmup):
    paper = Unlearning(batch_size=batch_size, gradient_accumulation=4, epochs=5, warmup_epochs=1)
    schedule = Schedule(forget, 1136, paper, seed=42, processes=processes)
    assert (schedule.steps, schedule.warmup) == (steps, warmup)
    assert steps == 5 * forget // (batch_size * 4 * processes)


def test_a_tiny_forget_set_still_gets_one_step():
    assert Schedule(3, 3, Unlearning(batch_size=2, gradient_accumulation=4, epochs=1, warmup_epochs=0), 0).steps == 1


def pairs(schedule: Schedule, epoch_items: int, epochs: int) -> list[list[tuple[int, int]]]:
    """All pairs of the first epochs, epoch by epoch."""
    flat = [pair for step in range(epochs * epoch_items // schedule.per_step)
            for micro in schedule.micro_batches(step)
            for pair in zip(micro.forget, micro.retain, strict=True)]
    return [flat[i: i + epoch_items] for i in range(0, epochs * epoch_items, epoch_items)]


@pytest.mark.parametrize("pairing", ["fixed", "shuffled"])
def test_each_forget_item_is_read_once_per_epoch_in_a_new_order(pairing):
    schedule = Schedule(12, 7, Unlearning(batch_size=2, gradient_accumulation=3, epochs=5, pairing=pairing), seed=3)
    orders = [[f for f, _ in epoch] for epoch in pairs(schedule, 12, 5)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert len(set(map(tuple, orders))) == 5


def test_epochs_follow_one_another_without_a_gap():
    schedule = Schedule(10, 10, Unlearning(batch_size=1, gradient_accumulation=4, epochs=2), seed=0)
    read = Counter(f for step in range(schedule.steps) for micro in schedule.micro_batches(step) for f in micro.forget)
    assert schedule.steps == 5  # 2 epochs of 10 items in steps of 4: step 3 reads 2 items of each epoch
    assert read == dict.fromkeys(range(10), 2)


def test_fixed_pairing_reads_retain_item_i_modulo_their_number_with_forget_item_i():
    fixed = Unlearning(batch_size=2, gradient_accumulation=3, pairing="fixed")
    assert all(r == f % 7 for epoch in pairs(Schedule(12, 7, fixed, seed=3), 12, 5) for f, r in epoch)
    more_retain = pairs(Schedule(12, 20, fixed, seed=3), 12, 5)
    assert {r for epoch in more_retain for _, r in epoch} == set(range(12))  # the last 8 are never read


def test_shuffled_pairing_reads_all_retain_items_equally_often_with_changing_partners():
    shuffled = Unlearning(batch_size=2, gradient_accumulation=3, pairing="shuffled")
    epochs = pairs(Schedule(12, 6, shuffled, seed=3), 12, 5)
    assert all(Counter(r for _, r in epoch) == dict.fromkeys(range(6), 2) for epoch in epochs)
    assert len({r for epoch in epochs for f, r in epoch if f == 0}) > 1
    # over many epochs even those beyond the number of forget items
    assert {r for epoch in pairs(Schedule(12, 20, shuffled, seed=3), 12, 20) for _, r in epoch} == set(range(20))


def test_processes_share_out_the_micro_batches_of_a_step():
    choice = Unlearning(batch_size=2, gradient_accumulation=3)
    four = Schedule(50, 40, choice, seed=1, processes=4)
    one = Schedule(50, 40, Unlearning(batch_size=2, gradient_accumulation=12), seed=1)
    for step in range(one.steps):
        shares = [four.micro_batches(step, process) for process in range(4)]
        assert [len(share) for share in shares] == [3, 3, 3, 3]
        assert Counter(itertools.chain(*shares)) == Counter(one.micro_batches(step))


def test_a_seed_gives_one_order_and_another_seed_another():
    orders = [pairs(Schedule(12, 12, Unlearning(), seed), 12, 3) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_a_forget_item_comes_with_as_many_retain_items_as_asked_for():
    fixed = Schedule(4, 10, Unlearning(batch_size=2, gradient_accumulation=1, retain_per_forget=3), seed=0)
    for step in range(fixed.steps):
        [micro] = fixed.micro_batches(step)
        assert micro.retain == tuple((f * 3 + k) % 10 for f in micro.forget for k in range(3))
    shuffled = Schedule(4, 6, Unlearning(batch_size=1, gradient_accumulation=1, retain_per_forget=3,
                                         pairing="shuffled"), seed=0)
    epoch = [r for step in range(4) for micro in shuffled.micro_batches(step) for r in micro.retain]
    assert Counter(epoch) == dict.fromkeys(range(6), 2)  # 4 x 3 places for 6 items


def test_a_chunk_gets_all_its_epochs_before_the_next_one_begins():
    choice = Unlearning(batch_size=1, gradient_accumulation=1, epochs=3, chunk=4)
    schedule = Schedule(10, 10, choice, seed=0)
    read = [micro.forget[0] for step in range(schedule.steps) for micro in schedule.micro_batches(step)]
    assert len(read) == 3 * 10
    assert [Counter(read[:12]), Counter(read[12:24]), Counter(read[24:])] == [
        dict.fromkeys(range(4), 3), dict.fromkeys(range(4, 8), 3), dict.fromkeys((8, 9), 3)]
    assert len({tuple(read[i: i + 4]) for i in range(0, 24, 4)}) > 2  # each epoch in its own order
