"""Which data the data page shows: the chosen run's, a folder's, a data set made here, or an upload."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from analysis import data_frames, texts
from pages import _frame, _widgets
from unlearn_core.data import persons, request
from unlearn_core.data.layout import SUFFIXES
from unlearn_core.errors import InputError
from unlearn_core.settings import Recipe
from unlearn_core.store import Run
from unlearn_core.tokens import SavedTokenizer

SOURCES = {"run": "Chosen run", "folder": "Folder", "made": "Made here", "upload": "Upload"}
SIDES = ("forget", "retain")
UPLOADS = "data_uploads"  # {split: uploaded file}, kept when the page is left


def chosen_run() -> Run | None:
    """The run of the sidebar, None where there is none yet."""
    name = st.session_state.get(_widgets.RUN_KEY)
    with _frame.bad_input_shown():
        return None if name is None else _frame.store().open(name)


def choose(run: Run | None) -> data_frames.Source:
    """The choice and the data; without data the page says what is missing and ends."""
    # A visitor of a read-only dashboard does not get to read the machine's folders.
    options = [name for name in SOURCES if name != "folder" or not _frame.read_only()]
    kind = st.segmented_control("Data of", options, default="run", required=True, key="data_source",
                                bind="query-params", format_func=SOURCES.__getitem__)
    with _frame.bad_input_shown():
        return {"run": lambda: _of_run(run), "folder": _of_folder, "made": _made, "upload": _upload}[kind]()


def tokenizer(run: Run | None, recipe: Recipe | None) -> SavedTokenizer | None:
    """The tokenizer of the chosen run's base, where its files are on this machine."""
    folders = [run.full_model_dir("base")] if run else []
    folders += [Path(recipe.base.model)] if recipe and recipe.base.model else []
    folder = next((folder for folder in folders if (folder / "tokenizer.json").is_file()), None)
    with _frame.bad_input_shown():
        return None if folder is None else _tokenizer(folder, _stamp(folder / "tokenizer.json"))


@st.cache_resource(max_entries=4, show_spinner=False)
def _tokenizer(folder: Path, stamp: tuple) -> SavedTokenizer:
    return SavedTokenizer(folder)


def _stamp(path: Path) -> tuple[str, int, int]:
    stat = path.stat()
    return str(path), stat.st_mtime_ns, stat.st_size


# ---- the people in the data ------------------------------------------------------------------------------------

def masking(source: data_frames.Source, personal: bool) -> dict[str, persons.Person] | None:
    """The people to mask, None where personal data are shown."""
    return None if personal else people(source.key, source)


@st.cache_resource(max_entries=4, show_spinner=False)
def people(key: str, _source: data_frames.Source) -> dict[str, persons.Person]:
    """The people of all splits of a data set, by document."""
    return persons.persons(_source.items)


# ---- where data come from --------------------------------------------------------------------------------------

def _of_run(run: Run | None) -> data_frames.Source:
    if run is None:
        _frame.explain_empty_store()
        st.stop()
    files = sorted(run.data_dir.glob("*.jsonl"))
    if not files:
        st.info(texts.WITHOUT_TEXTS if run.lacks_texts() else
                "This run has no data yet: they are written in its first stage.", icon=":material/hourglass_empty:")
        st.stop()
    return _read_run(tuple(map(_stamp, files)), run)


@st.cache_resource(max_entries=4, show_spinner="Reading the run's data")
def _read_run(key: tuple, _run: Run) -> data_frames.Source:
    return data_frames.of_run(_run, repr(key))


def _of_folder() -> data_frames.Source:
    path = st.text_input("Folder or file on this machine", key="data_path", bind="query-params",
                         placeholder="/path/to/lume", help="forget.jsonl and retain.jsonl as in LUME, or SemEval's "
                         "forget_train-*.parquet and retain_train-*.parquet; also one JSONL, JSON, Parquet or CSV file")
    if not path.strip():
        st.info("Give the path of a folder with a forget and a retain file, or of one such file.",
                icon=":material/folder_open:")
        st.stop()
    return _read(data_frames.files_at(path), path.strip())


def _made() -> data_frames.Source:
    store = _frame.store()
    names = store.datasets()
    if not names:
        st.info("No data set was made here yet: save an upload or a forget request under a name.",
                icon=":material/dataset:")
        st.stop()
    name = st.selectbox("Data set", names, key="data_made", bind="query-params")
    folder = store.dataset_dir(name)
    made = request.origin(folder)
    about = [f"{key.replace('_', ' ')}: {made[key]}" for key in ("source", "asked_by", "created") if made.get(key)]
    st.caption(_widgets.plain(" · ".join([str(folder), *about])))
    return _read(data_frames.files_at(str(folder)), f"data set {name}")


def _read(files: Mapping[str, tuple[str, Path]], name: str) -> data_frames.Source:
    return _read_files(tuple(_stamp(path) for _, path in files.values()), name, files)


@st.cache_resource(max_entries=4, show_spinner="Reading and checking every row")
def _read_files(key: tuple, name: str, _files: Mapping[str, tuple[str, Path]]) -> data_frames.Source:
    return data_frames.of_files(_files, name, repr(key))


# ---- uploads ---------------------------------------------------------------------------------------------------

def _upload() -> data_frames.Source:
    kept = st.session_state.setdefault(UPLOADS, {})
    for column, split in zip(st.columns(2), SIDES, strict=True):
        with column:
            given = st.file_uploader(
                f"{split.capitalize()} file", [suffix[1:] for suffix in SUFFIXES], key=f"data_upload_{split}",
                on_change=_keep, args=(split,),
                help="JSONL, column-wise JSON, Parquet or CSV with the fields id, input, output and task")
            if given is None and split in kept:
                st.caption(f"In use: {_widgets.plain(kept[split].name)}, uploaded before.")
    if not kept:
        st.info("Upload the items to forget and the items to keep. Each row is checked; nothing is stored before you "
                f"save it under a name. Up to {st.get_option('server.maxUploadSize')} MB a file: larger ones are read "
                "from a folder.", icon=":material/upload_file:")
        st.stop()
    return _read_uploads(tuple((split, file.file_id, file.name) for split, file in kept.items()), dict(kept))


def _keep(split: str) -> None:
    """Remember an upload beyond the page, or drop it when its owner does."""
    given = st.session_state[f"data_upload_{split}"]
    if given is None:
        st.session_state[UPLOADS].pop(split, None)
    else:
        st.session_state[UPLOADS][split] = given


@st.cache_resource(max_entries=2, show_spinner="Checking every row")
def _read_uploads(key: tuple, _uploads: Mapping) -> data_frames.Source:
    """The readers read files, so each upload becomes one for as long as it is read."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            files = {split: (upload.name, _copy(upload, Path(folder) / split)) for split, upload in _uploads.items()}
            return data_frames.of_files(files, "upload", repr(key))
    except OSError as error:
        raise InputError("upload", got=error.strerror or str(error), expected="room for a copy of it") from None


def _copy(upload: UploadedFile, stem: Path) -> Path:
    path = stem.with_suffix(Path(upload.name).suffix.lower())
    upload.seek(0)
    with path.open("wb") as file:
        shutil.copyfileobj(upload, file)
    return path
