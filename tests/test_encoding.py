"""Items as tokens, on a tokenizer whose tokens are whole words, so that every count can be read off."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from unlearn_core.data import Item
from unlearn_core.encoding import Encoded, collate, encode
from unlearn_core.settings import Encoding

END, BOS, FIRST = 0, 1, 2  # ids of the end, of the beginning, and of the word w0
PAPER = Encoding()  # 256 tokens, prompt at most 204 of them


def tokenizer(template: str = "$A") -> PreTrainedTokenizerFast:
    """The word w7 is token FIRST + 7; `template` says where the tokenizer puts <s> and </s>."""
    vocabulary = {"</s>": END, "<s>": BOS, **{f"w{n}": FIRST + n for n in range(400)}}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="</s>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single=template,
                                                           special_tokens=[("</s>", END), ("<s>", BOS)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", bos_token="<s>")


def words(first: int, count: int) -> str:
    return " ".join(f"w{n}" for n in range(first, first + count))


def ids(first: int, count: int) -> list[int]:
    return list(range(FIRST + first, FIRST + first + count))


def encoded(prompt: str, answer: str, encoding: Encoding = PAPER, template: str = "$A") -> Encoded:
    return encode(tokenizer(template), Item('"x"qa0', prompt, answer, "Task1"), encoding)


# ---- one item ------------------------------------------------------------------------------------------------

def test_an_item_is_prompt_answer_and_end_with_nothing_between():
    assert encoded(words(0, 3), words(3, 2)) == Encoded([*ids(0, 5), END], prompt_tokens=3, truncated=False)


def test_a_prompt_keeps_its_last_204_tokens_of_256():
    assert int(256 * 0.8) == 204
    row = encoded(words(0, 300), words(300, 10))
    assert row.ids == [*ids(300 - 204, 204), *ids(300, 10), END]
    assert row.prompt_tokens == 204
    assert not row.truncated


def test_a_prompt_of_204_tokens_is_kept_whole_and_of_205_loses_its_first():
    assert encoded(words(0, 204), "w300").ids == [*ids(0, 204), *ids(300, 1), END]
    assert encoded(words(0, 205), "w300").ids == [*ids(1, 204), *ids(300, 1), END]


@pytest.mark.parametrize(("answer_tokens", "kept", "ended"), [(51, 51, True), (52, 52, False), (60, 52, False)])
def test_the_end_of_the_whole_is_cut_to_256_tokens_and_takes_the_end_token_with_it(answer_tokens, kept, ended):
    row = encoded(words(0, 204), words(300, answer_tokens))
    assert row.ids == ids(0, 204) + ids(300, kept) + [END] * ended
    assert len(row.ids) == 256  # 204 + 51 + end, or 204 + 52
    assert row.truncated is not ended


def test_a_short_prompt_leaves_its_room_to_the_answer():
    row = encoded(words(0, 6), words(10, 249))
    assert row.ids == [*ids(0, 6), *ids(10, 249), END]  # 6 + 249 + 1 = 256
    assert not row.truncated


@pytest.mark.parametrize(("prompt_share", "kept"), [(0.09, 0), (0.5, 5), (1.0, 10)])
def test_the_prompt_keeps_its_share_of_ten_tokens_even_when_that_is_none(prompt_share, kept):
    row = encoded(words(0, 20), words(50, 20), Encoding(max_length=10, prompt_share=prompt_share))
    assert row.ids == ids(20 - kept, kept) + ids(50, 10 - kept)
    assert row.prompt_tokens == kept
    assert row.truncated


def test_the_beginning_token_stands_before_the_prompt_only():
    assert encoded(words(0, 2), words(2, 2), template="<s> $A").ids == [BOS, *ids(0, 4), END]


def test_a_cut_prompt_loses_its_beginning_token_as_in_the_released_code():
    row = encoded(words(0, 204), "w300", template="<s> $A")
    assert row.ids == [*ids(0, 204), *ids(300, 1), END]


def test_a_tokenizer_that_ends_every_text_does_not_end_the_prompt():
    row = encoded(words(0, 2), words(2, 2), template="$A </s>")
    assert row == Encoded([*ids(0, 4), END], prompt_tokens=2, truncated=False)


# ---- batches -------------------------------------------------------------------------------------------------

LONG, SHORT = Encoded([5, 6, 7, END], 2, False), Encoded([8, END], 1, False)
PAD = END  # as where a model has no padding token of its own


def test_left_padding_puts_the_answers_ends_under_one_another():
    batch = collate([LONG, SHORT], pad_id=PAD, side="left")
    assert batch.input_ids.tolist() == [[5, 6, 7, END], [PAD, PAD, 8, END]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3], [0, 0, 0, 1]]


def test_right_padding_puts_the_prompts_beginnings_under_one_another():
    batch = collate([LONG, SHORT], pad_id=PAD, side="right")
    assert batch.input_ids.tolist() == [[5, 6, 7, END], [8, END, PAD, PAD]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.position_ids[:, :2].tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize(("length", "width"), [(0, 4), (3, 4), (6, 6)])
def test_rows_are_padded_to_the_longest_or_to_a_greater_length(length, width):
    batch = collate([LONG, SHORT], pad_id=PAD, length=length)
    assert {t.shape for t in (batch.input_ids, batch.attention_mask, batch.position_ids)} == {(2, width)}
    assert batch.attention_mask.sum() == 4 + 2
