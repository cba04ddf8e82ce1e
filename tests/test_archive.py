"""Run folders as zip files: what goes in comes out, and a hostile or broken zip file leaves nothing behind."""

import io
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests import example_run
from unlearn_core import archive
from unlearn_core.errors import InputError
from unlearn_core.files import read_json, write_json
from unlearn_core.store import Run, Store


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    return example_run.finished(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def exported(run, *, weights=False):
    target = io.BytesIO()
    archive.export_run(run, target, weights=weights)
    return target


def contents(folder):
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def names(zip_file):
    with zipfile.ZipFile(zip_file) as opened:
        return set(opened.namelist())


def zip_of(*entries):
    """A zip file of (name, bytes) pairs, or of (ZipInfo, bytes)."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in entries:
            opened.writestr(name, data)
    return target


def whole(run):
    """(name, bytes) of every file of a run, under its id."""
    return [(f"{run.id}/{name}", data) for name, data in contents(run.path).items()]


def assert_refused(store, zip_file, match, **limits):
    with pytest.raises(InputError, match=match):
        archive.import_run(store, zip_file, **limits)
    assert not store.exists() or list(store.iterdir()) == []  # nothing stays, not even a hidden folder


# ---- there and back --------------------------------------------------------------------------------------------

def test_a_run_comes_back_file_for_file(example, store):
    run = archive.import_run(store, exported(example))
    assert run.id == example.id
    assert contents(run.path) == contents(example.path)
    assert [found.id for found in Store(store).runs()] == [example.id]


def test_a_run_of_the_engine_comes_back_with_its_weights(smoke_run, store):
    run = archive.import_run(store, exported(smoke_run, weights=True))
    visible = {name: data for name, data in contents(smoke_run.path).items()
               if not any(part.startswith(".") for part in name.split("/"))}
    assert contents(run.path) == visible
    assert any(name.endswith("adapter_model.safetensors") for name in visible)


def test_without_weights_the_results_and_the_data_are_there_and_no_models_tensors(smoke_run, store):
    run = archive.import_run(store, exported(smoke_run))
    left_out = contents(smoke_run.path).keys() - contents(run.path).keys()
    assert left_out
    assert {"adapter", "checkpoints", "model", "resume"} >= {name.split("/")[2] for name in left_out
                                                            if not name.split("/")[-1].startswith(".")}
    assert run.scores() == smoke_run.scores()
    assert run.steps("model_1") == smoke_run.steps("model_1")
    assert [path.parent for path in run.path.rglob("*.safetensors")] == [run.path] * 2  # statistics of the weights
    assert run.arrays("weights")[1] == smoke_run.arrays("weights")[1]


def test_the_sizes_tell_what_the_two_exports_read(smoke_run):
    small, large = (archive.export_size(smoke_run, weights=weights) for weights in (False, True))
    with zipfile.ZipFile(exported(smoke_run)) as opened:
        assert small == sum(entry.file_size for entry in opened.infolist())
    tensors = sum(path.stat().st_size for path in smoke_run.path.rglob("models/**/*.safetensors"))
    assert large >= small + tensors


def test_a_name_that_is_taken_gets_a_number_and_the_manifest_keeps_its_id(example, store):
    zip_file = exported(example)
    ids = [archive.import_run(store, zip_file).id for _ in range(3)]
    assert ids == [example.id, f"{example.id}-2", f"{example.id}-3"]
    assert {Store(store).open(name).info()["id"] for name in ids} == {example.id}  # adapters name their base by it


def test_a_folder_is_imported_like_a_zip_file(example, store):
    run = archive.import_path(store, str(example.path))
    assert contents(run.path) == contents(example.path)
    assert archive.import_path(store, example.path).id == f"{example.id}-2"


def test_a_path_to_a_zip_file_is_imported_too(example, store, tmp_path):
    (tmp_path / "run.zip").write_bytes(exported(example).getvalue())
    assert archive.import_path(store, tmp_path / "run.zip").id == example.id


def test_a_folder_with_an_unusual_name_gets_one_that_the_store_can_open(example, store, tmp_path):
    copied = shutil.copytree(example.path, tmp_path / "_my run (1)")
    run = archive.import_folder(store, copied)
    assert run.id == "my-run-1-"
    assert Store(store).open(run.id).scores() == example.scores()


# ---- a run that is written to ----------------------------------------------------------------------------------

def test_an_unfinished_last_line_of_a_log_is_cut(tmp_path, store):
    run = example_run.unfinished(tmp_path)
    steps = run.model_dir("model_1") / "steps.jsonl"
    before = steps.read_bytes()
    steps.write_bytes(before + b'{"step": 41, "lo')
    run.log_path.write_bytes(b"one\ntw")
    copy = archive.import_run(store, exported(run))
    assert (copy.model_dir("model_1") / "steps.jsonl").read_bytes() == before
    assert copy.log_path.read_bytes() == b"one\n"


def test_the_data_stays_byte_for_byte_since_its_hashes_are_recorded(tmp_path, store):
    run = example_run.create(tmp_path)
    run.data_dir.mkdir()
    (run.data_dir / "forget.jsonl").write_bytes(b'{"id": 1}\n{"id": 2}')  # no newline at the end
    copy = archive.import_run(store, exported(run))
    assert (copy.data_dir / "forget.jsonl").read_bytes() == b'{"id": 1}\n{"id": 2}'


def test_a_file_that_vanishes_while_the_run_is_exported_is_left_out(example, tmp_path, monkeypatch):
    run = Run(shutil.copytree(example.path, tmp_path / example.id))
    found = archive._files(run)
    (run.path / "scores.json").unlink()
    monkeypatch.setattr(archive, "_files", lambda run: found)
    assert {f"{run.id}/{file.name}" for file in found} - names(exported(run)) == {f"{run.id}/scores.json"}


def test_temporary_files_and_locks_are_not_exported(example, tmp_path):
    run = Run(shutil.copytree(example.path, tmp_path / example.id))
    (run.path / ".lock").touch()
    (run.path / ".scores.json.77.tmp").write_text("{")
    (run.model_dir("model_1") / ".adapter.tmp").mkdir()
    (run.model_dir("model_1") / ".adapter.tmp" / "adapter_config.json").write_text("{}")
    assert names(exported(run, weights=True)) == names(exported(example, weights=True))


def test_the_resume_state_of_a_running_run_is_left_out(tmp_path):
    run = example_run.create(tmp_path)
    run.resume_dir("model_1").mkdir(parents=True)
    (run.resume_dir("model_1") / "state.json").write_text("{}")
    state = f"{run.id}/models/model_1/resume/state.json"
    run.write_status("running", "model_1", 3, 10)  # by this process, which lives
    assert state not in names(exported(run, weights=True))
    run.write_status("cancelled", "model_1", 3, 10)
    assert state in names(exported(run, weights=True))
    assert state not in names(exported(run, weights=False))


def test_a_run_that_was_running_when_it_was_exported_is_interrupted_here(tmp_path, store):
    run = example_run.create(tmp_path)
    run.write_status("running", "model_1", 3, 10)
    status = run.path / "status.json"
    write_json(status, read_json(status) | {"process_started": 1.0})  # as on another machine
    assert archive.import_run(store, exported(run)).status()["state"] == "interrupted"


def test_a_damaged_run_can_be_exported(tmp_path):
    run = example_run.damaged(tmp_path)
    (run.path / "status.json").write_text("{")
    assert f"{run.id}/status.json" in names(exported(run))


def test_what_an_import_would_refuse_is_not_exported(example, tmp_path, store):
    run = Run(shutil.copytree(example.path, tmp_path / example.id))
    (run.path / "optimizer.pt").write_bytes(b"pickle")
    (run.path / "elsewhere").symlink_to(tmp_path)
    assert contents(archive.import_run(store, exported(run)).path) == contents(example.path)


# ---- what is refused -------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("data", "match"), [(b"", "no whole zip file"), (b"PK\x03\x04 not one", "no whole zip file"),
                                             (os.urandom(500), "no whole zip file")])
def test_what_is_no_zip_file_is_refused(store, data, match):
    assert_refused(store, io.BytesIO(data), match)


def test_a_zip_file_that_was_cut_off_is_refused(example, store):
    data = exported(example).getvalue()
    assert_refused(store, io.BytesIO(data[: len(data) // 2]), "no whole zip file")


def test_a_zip_file_with_a_flipped_byte_is_refused(smoke_run, store):
    data = bytearray(exported(smoke_run).getvalue())
    data[len(data) // 2] ^= 0xFF
    assert_refused(store, io.BytesIO(data), "no whole zip file")


@pytest.mark.parametrize("name", [
    "../evil.json", "run/../../evil.json", "run/..", "/etc/evil.json", "//host/evil.json", "run//evil.json",
    "run/./evil.json", "C:/evil.json", "C:\\evil.json", "run\\..\\evil.json", "..\\evil.json", "run/a\nb.json",
    "run/\x1b[31m.json", "./evil.json",
])
def test_unsafe_names_are_refused(example, store, tmp_path, name):
    assert_refused(store, zip_of(*whole(example), (name, b"{}")), "plain names below one run folder")
    assert not list(tmp_path.rglob("evil*"))


def test_a_name_with_a_null_byte_is_refused(example, store):
    data = zip_of(*whole(example), (f"{example.id}/a.json?.txt", b"{}")).getvalue()
    assert_refused(store, io.BytesIO(data.replace(b"a.json?.txt", b"a.json\0.txt")), "unprintable")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(example, store, kind):
    link = zipfile.ZipInfo(f"{example.id}/notes.txt")
    link.external_attr = (kind | 0o777) << 16
    assert_refused(store, zip_of(*whole(example), (link, b"/etc/passwd")), "a link or device")


def test_names_that_differ_only_in_case_or_not_at_all_are_refused(example, store):
    assert_refused(store, zip_of(*whole(example), (f"{example.id}/Scores.json", b"{}")), "more than one file named")
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = zip_of(*whole(example), (f"{example.id}/scores.json", b"{}"))
    assert_refused(store, twice, "more than one file named scores.json")


def test_a_name_that_is_a_file_and_a_folder_is_refused(example, store):
    assert_refused(store, zip_of(*whole(example), (f"{example.id}/scores.json/a.json", b"{}")), "nothing was imported")


@pytest.mark.parametrize("name", ["model.bin", "optimizer.pt", "state.pkl", "modeling.py", "a.so", "run.sh", "noname",
                                  "tokenizer.pkl", "scores.json.exe"])
def test_files_that_no_run_has_are_listed_and_refused(example, store, name):
    zip_file = zip_of(*whole(example), (f"{example.id}/models/base/model/{name}", b"x"))
    assert_refused(store, zip_file, f"got models/base/model/{name}; expected a run folder's kinds of files")


def test_many_refused_names_are_cut_to_a_few(example, store):
    foreign = [(f"{example.id}/{number}.bin", b"") for number in range(12)]
    assert_refused(store, zip_of(*whole(example), *foreign), "0.bin, 1.bin, 2.bin, 3.bin, 4.bin and 7 more")


def test_a_sentencepiece_tokenizer_is_no_foreign_file(example, store):
    run = archive.import_run(store, zip_of(*whole(example), (f"{example.id}/models/base/model/tokenizer.model", b"x")))
    assert (run.full_model_dir("base") / "tokenizer.model").read_bytes() == b"x"


def test_two_folders_or_files_at_the_top_are_refused(example, store):
    assert_refused(store, zip_of(*whole(example), ("other/run.json", b"{}")), "one run folder with everything in it")
    assert_refused(store, zip_of(*contents(example.path).items()), "zip the folder, not its contents")
    assert_refused(store, zip_of(), "got at its top nothing")


def test_what_file_managers_add_is_left_out(example, store):
    run = archive.import_run(store, zip_of(*whole(example), (f"__MACOSX/{example.id}/._run.json", b"?"),
                                           (f"{example.id}/.DS_Store", b"?")))
    assert contents(run.path) == contents(example.path)


def test_a_folder_without_a_manifest_is_refused(example, store):
    rest = [(name, data) for name, data in whole(example) if not name.endswith("/run.json")]
    assert_refused(store, zip_of(*rest), "no run.json")


def test_a_folder_without_a_recipe_is_refused(example, store):
    rest = [(name, data) for name, data in whole(example) if not name.endswith("/recipe.json")]
    assert_refused(store, zip_of(*rest), "no recipe.json")


def test_a_newer_schema_is_refused(example, store):
    manifest = json.dumps(example.info() | {"schema_version": 999}).encode()
    files = [(name, manifest if name.endswith("/run.json") else data) for name, data in whole(example)]
    assert_refused(store, zip_of(*files), "schema version 999")


def test_too_many_files_are_refused(example, store, monkeypatch):
    monkeypatch.setattr(archive, "MAX_FILES", 50)
    more = [(f"{example.id}/{number}.json", b"{}") for number in range(51)]
    assert_refused(store, zip_of(*whole(example), *more), "expected at most 50")


def test_a_zip_file_that_unpacks_to_more_than_the_limit_is_refused_before_anything_is_written(example, store):
    files = [*whole(example), (f"{example.id}/zeros.txt", bytes(20 * 2**20))]
    bomb, size = zip_of(*files), sum(len(content) for _, content in files) / 2**30
    assert len(bomb.getvalue()) < 2**20
    assert_refused(store, bomb, f"got {size:.3g} GiB unpacked; expected at most 0.00977 GiB", max_bytes=10 * 2**20)


def test_a_small_file_that_unpacks_to_a_hundred_times_its_size_is_refused(example, store, monkeypatch):
    monkeypatch.setattr(archive, "SMALL", 2**20)
    bomb = zip_of(*whole(example), (f"{example.id}/zeros.txt", bytes(50 * 2**20)))
    assert len(bomb.getvalue()) * archive.MAX_RATIO < 50 * 2**20
    assert_refused(store, bomb, "from a file of its size")


def test_the_logs_of_a_real_run_are_far_from_that_limit(smoke_run):
    assert archive.export_size(smoke_run, weights=False) < archive.MAX_RATIO / 4 * len(exported(smoke_run).getvalue())


def test_a_file_larger_than_it_declares_is_not_unpacked_beyond_that(example, store):
    zip_file = bytearray(zip_of((f"{example.id}/zeros.txt", bytes(20 * 2**20)), *whole(example)).getvalue())
    size = struct.pack("<L", 20 * 2**20)
    assert zip_file.count(size) == 2  # in the file's own header and in the directory at the end
    assert_refused(store, io.BytesIO(zip_file.replace(size, struct.pack("<L", 10))), "Bad CRC-32", max_bytes=10 * 2**20)


def test_a_run_larger_than_the_free_space_is_refused(example, store, monkeypatch):
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 99, 1))
    assert_refused(store, exported(example), "the free space in")


def test_an_encrypted_file_is_refused(example, store):
    zip_file = bytearray(exported(example).getvalue())
    zip_file[zip_file.index(b"PK\x01\x02") + 8] |= 1  # first entry of the directory, flags, bit 0: encrypted
    assert_refused(store, io.BytesIO(zip_file), "an encrypted file")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_compression_is_refused(example, store, method):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as opened:
        opened.writestr(f"{example.id}/notes.txt", b"x" * 100)
    assert_refused(store, target, "an unusual compression")


def test_a_name_too_long_for_the_disk_is_refused(example, store):
    assert_refused(store, zip_of(*whole(example), (f"{example.id}/{'a' * 300}.json", b"{}")), "File name too long")


def test_a_folder_with_a_link_or_a_foreign_file_is_refused(example, store, tmp_path):
    copied = Path(shutil.copytree(example.path, tmp_path / "copy"))
    (copied / "model.bin").write_bytes(b"x")
    with pytest.raises(InputError, match=r"got model\.bin"):
        archive.import_folder(store, copied)
    (copied / "model.bin").unlink()
    (copied / "passwd.txt").symlink_to("/etc/passwd")
    (copied / "models" / "extra").symlink_to("/etc")
    with pytest.raises(InputError, match=r"links or devices, models/extra, passwd\.txt"):
        archive.import_folder(store, copied)
    assert not store.exists()


def test_places_that_hold_no_run_are_refused(example, store, tmp_path):
    with pytest.raises(InputError, match="a run folder or a zip file"):
        archive.import_path(store, tmp_path / "nothing")
    with pytest.raises(InputError, match=r"no run\.json"):
        archive.import_path(store, tmp_path)
    with pytest.raises(InputError, match="in the list already"):
        archive.import_path(example.path.parent, example.path)


def test_a_store_that_cannot_be_written_says_so(example, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="nothing was imported"):
        archive.import_run(tmp_path / "file", exported(example))


def test_importing_and_exporting_does_not_load_torch():
    code = "import sys, unlearn_core.archive; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)
