"""Small files and folders: nothing half written, nothing half read."""

import contextlib
import resource

import pytest

from unlearn_core import recipe as recipes
from unlearn_core.errors import InputError
from unlearn_core.files import read_json, read_rows, recovered, replace_dir, replacing_dir, write_json, write_rows
from unlearn_core.store import Store

SMOKE = recipes.load("smoke")


@pytest.fixture
def run(tmp_path):
    return Store(tmp_path / "runs").create(SMOKE, {"seed": 0})


@contextlib.contextmanager
def full_disk(room):
    """Writing more than `room` bytes into a file fails, as on a full disk and for every user, root too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_unfinished_last_line_is_skipped_and_the_whole_ones_are_read(tmp_path):
    path = tmp_path / "steps.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3, "lo')
    assert read_rows(path) == [{"step": 1}, {"step": 2}]
    path.write_text('{"step": 1}')
    assert read_rows(path) == []
    assert read_rows(tmp_path / "none.jsonl") == []


def test_a_line_cut_in_the_middle_of_a_character_is_skipped_too(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"name": "Zoë"}\n{"name": "Zoë'.encode()[:-1])
    assert read_rows(path) == [{"name": "Zoë"}]


@pytest.mark.parametrize("line", [b'{"step": 2', b"\xff", b"[2]", b"2", b"[" * 100_000],
                         ids=["torn", "not UTF-8", "list", "number", "too deep"])
def test_a_broken_line_before_the_last_is_an_error_with_file_and_line(tmp_path, line):
    path = tmp_path / "steps.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n')
    with pytest.raises(InputError) as caught:
        read_rows(path)
    assert str(caught.value).startswith(f"{path}, line 2; got ")
    assert "expected a JSON object" in str(caught.value)


@pytest.mark.parametrize("text", [b'{"a": ', b"", b"\xff\xfe", b"[1, 2]", b"3", b'"text"', b"null"])
def test_json_that_is_no_whole_object_is_an_error_that_names_the_file(tmp_path, text):
    path = tmp_path / "scores.json"
    path.write_bytes(text)
    with pytest.raises(InputError) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}; got ")
    assert "restore it, or remove the run folder" in str(caught.value)
    assert read_json(tmp_path / "none.json") is None


ODD = "a\u2028b\u2029c\x85d\x0be\r\nf\x00g\\ \"h\" 🙂 \x1b[31m </td>"


def test_line_separators_and_other_odd_characters_survive(tmp_path, run):
    write_rows(tmp_path / "rows.jsonl", [{"generation": ODD}, {"generation": "next"}])
    assert read_rows(tmp_path / "rows.jsonl") == [{"generation": ODD}, {"generation": "next"}]
    run.write_evaluation("base", answers=[{"generation": ODD}], documents=[], mmlu=[], scores={}, intervals={})
    assert run.answers("base") == [{"generation": ODD}]
    write_json(tmp_path / "meta.json", {"title": ODD})
    assert read_json(tmp_path / "meta.json") == {"title": ODD}


def test_on_a_full_disk_the_old_content_stays_and_nothing_is_left_beside_it(tmp_path):
    write_json(tmp_path / "scores.json", {"old": 1})
    write_rows(tmp_path / "rows.jsonl", [{"old": 1}])
    with full_disk(room=1000):
        with pytest.raises(OSError, match="too large"):
            write_json(tmp_path / "scores.json", {"new": "x" * 2000})
        with pytest.raises(OSError, match="too large"):
            write_rows(tmp_path / "rows.jsonl", [{"new": "x" * 100}] * 1000)
    assert read_json(tmp_path / "scores.json") == {"old": 1}
    assert read_rows(tmp_path / "rows.jsonl") == [{"old": 1}]
    assert names(tmp_path) == ["rows.jsonl", "scores.json"]


def test_a_value_that_is_no_json_leaves_the_old_content(tmp_path):
    write_json(tmp_path / "scores.json", {"mmlu": 0.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "scores.json", {"mmlu": float("nan")})
    assert read_json(tmp_path / "scores.json") == {"mmlu": 0.5}
    assert names(tmp_path) == ["scores.json"]


def test_replacing_a_folder_takes_the_new_files_only(tmp_path):
    for name, file in (("adapter", "old"), ("new", "fresh")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("")
    replace_dir(tmp_path / "new", tmp_path / "adapter")
    assert names(tmp_path) == ["adapter"]
    assert names(tmp_path / "adapter") == ["fresh"]


@pytest.mark.parametrize("read", [read_json, read_rows])
def test_a_folder_or_a_file_in_place_of_a_parent_is_an_error_that_names_the_path(tmp_path, read):
    (tmp_path / "recipe.json").mkdir()
    with pytest.raises(InputError, match=r"recipe\.json; got Is a directory; expected a JSON object"):
        read(tmp_path / "recipe.json")
    (tmp_path / "models").write_text("")
    with pytest.raises(InputError, match=r"steps\.jsonl; got Not a directory"):
        read(tmp_path / "models" / "steps.jsonl")


def killed_between_the_two_moves(target):
    """What `replace_dir` leaves if it dies after moving the old folder away: only .NAME.old and the new one."""
    old = target.with_name(f".{target.name}.old")
    old.mkdir()
    (old / "saved").write_text("step 10")
    return old


def test_a_folder_whose_replacement_was_killed_midway_is_recovered(tmp_path):
    target = tmp_path / "resume"
    assert recovered(target) == target  # nothing there, nothing done
    assert not target.exists()
    killed_between_the_two_moves(target)
    assert recovered(target) == target
    assert (target / "saved").read_text() == "step 10"
    assert names(tmp_path) == ["resume"]


def test_a_finished_replacement_is_not_undone_by_what_is_left_of_the_old_folder(tmp_path):
    killed_between_the_two_moves(tmp_path / "resume")
    (tmp_path / "resume").mkdir()
    assert names(recovered(tmp_path / "resume")) == []


def test_the_next_replacement_loses_the_old_folder_only_once_the_new_one_is_whole(tmp_path):
    target = tmp_path / "resume"
    killed_between_the_two_moves(target)
    with pytest.raises(KeyboardInterrupt), replacing_dir(target):
        raise KeyboardInterrupt
    assert names(tmp_path) == ["resume"]
    assert names(target) == ["saved"]
    with replacing_dir(target) as folder:
        (folder / "newer").write_text("step 20")
    assert names(tmp_path) == ["resume"]
    assert names(target) == ["newer"]


def test_a_message_keeps_its_letters_and_shows_control_characters_as_escapes():
    error = InputError("line 1", got="\x1b[2Jé \u202e\udcff\nend", expected="a\x00b")
    assert str(error) == r"line 1; got \x1b[2Jé \u202e\udcff end; expected a\x00b"
