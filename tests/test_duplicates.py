"""Near-duplicates: the fast search finds exactly what comparing all pairs finds."""

import os
import random
import time

import pytest

from unlearn_core.data import Item, world
from unlearn_core.data.duplicates import jaccard, near_duplicates, shingles
from unlearn_core.data.readers import read_items
from unlearn_core.settings import World

LUME = os.environ.get("LUME_DIR")


def items(texts, name="d"):
    return [Item(f"{name}{number}sc1", *text.split("|"), "Task1") for number, text in enumerate(texts)]


def naive(forget, retain, threshold):
    """All pairs, one by one, on lists of words."""
    def triples(text):
        words = "".join(c if c.isalnum() or c == "_" else " " for c in text.lower()).split()
        return {tuple(words[i:i + 3]) for i in range(len(words) - 2)} or ({tuple(words)} if words else set())
    found = []
    for a in forget:
        for b in retain:
            left, right = triples(a.text), triples(b.text)
            union = len(left | right)
            if union and len(left & right) / union >= threshold:
                found.append((a.id, b.id, len(left & right) / union))
    return sorted(found)


def fast(forget, retain, threshold):
    found = near_duplicates(forget, retain, threshold)
    return sorted((pair.forget.id, pair.retain.id, pair.similarity) for pair in found)


def test_similarity_is_shared_of_all_triples_without_case_and_punctuation():
    assert shingles("The red fox, the RED fox!") == {"the red fox", "red fox the", "fox the red"}
    assert shingles("one two") == {"one two"}
    assert shingles("--") == frozenset()
    # a b c d e: abc bcd cde; a b c d f: abc bcd cdf: 2 shared of 4
    assert jaccard(shingles("a b c d e"), shingles("a b c d f")) == 2 / 4
    assert jaccard(frozenset(), frozenset()) == 0


@pytest.mark.parametrize("seed", range(12))
def test_the_search_finds_exactly_the_pairs_that_the_comparison_of_all_pairs_finds(seed):
    chance = random.Random(seed)

    def text():
        words = [chance.choice("abcd") for _ in range(chance.randint(1, 14))]
        return f"{' '.join(words)}|{chance.choice('abcd')}"
    forget, retain = (items([text() for _ in range(60)], name) for name in ("f", "r"))
    for threshold in (0.1, 0.25, 0.3, 1 / 3, 0.5, 0.7, 0.9, 1.0):
        assert fast(forget, retain, threshold) == naive(forget, retain, threshold)


def test_the_search_agrees_with_all_pairs_on_a_generated_world():
    sides = world.generate(World(stories=12, people=8, biographies=12), 4)
    found = fast(sides.forget, sides.retain, 0.3)
    assert found == naive(sides.forget, sides.retain, 0.3)
    assert len(found) > 10


def test_pairs_come_the_most_similar_first_and_a_copy_is_one():
    pairs = near_duplicates(items(["a b c d e|f", "x y z|w"]), items(["a b c d e|g", "A b, c d e|F."], "r"), 0.2)
    assert [(pair.retain.id, pair.similarity) for pair in pairs] == [("r1sc1", 1.0), ("r0sc1", 3 / 5)]


def test_texts_without_a_word_and_empty_sides_are_like_nothing():
    assert near_duplicates(items(["--|!!"]), items(["--|!!"], "r"), 0.2) == []
    assert near_duplicates([], items(["a b c|d"]), 0.2) == []


@pytest.mark.skipif(not LUME, reason="LUME_DIR is not set: the LUME release is not here")
def test_all_of_lume_is_compared_within_seconds():
    sides = [read_items(f"{LUME}/{split}.jsonl") for split in ("forget", "retain")]
    started = time.perf_counter()
    pairs = near_duplicates(*sides, 0.5)
    assert time.perf_counter() - started < 10
    # The closest: the same question about two people of one surname who were born on one day.
    assert [(pair.forget.task, pair.similarity) for pair in pairs] == [("Task2", 0.5)]
