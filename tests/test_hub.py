"""Models of the hub that cannot be had, each with its own sentence, by the real client against a small server here."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import huggingface_hub
import pytest

from tests.tiny_lm import tiny_model, tiny_tokenizer
from unlearn_core import hub, model_size, models
from unlearn_core.errors import InputError
from unlearn_core.settings import Base

ROOT = Path(__file__).parent.parent
ORGANISERS_7B, ORGANISERS_1B = hub.TOKENIZERS
ANSWERS = {"gated": (403, "GatedRepo"), "gated-no-token": (401, "GatedRepo"), "missing": (404, "RepoNotFound"),
           "no-files": (404, "EntryNotFound"), "private": (401, "RepoNotFound"), "unauthorised": (401, ""),
           "forbidden": (403, "")}

# Ask for the config of each model; which sentence each one ends with, as JSON.
ASK = """
import json, sys
from unlearn_core import hub
from unlearn_core.errors import InputError
told = {}
for name in sys.argv[1:]:
    try:
        told[name] = sorted(hub.config(name))
    except InputError as error:
        told[name] = str(error)
print(json.dumps(told))
"""
LOAD = """
import sys
from unlearn_core import models
model, tokenizer = models.load_model(sys.argv[1])
print(type(model).__name__, tokenizer.eos_token)
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers for `owner/NAME` as `ANSWERS` says, and serves the files of the folder `served` for owner/open."""

    served = Path()

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        parts = self.path.split("?")[0].strip("/").split("/")
        name = parts[1] if parts[0] != "api" else parts[3] if len(parts) > 3 else ""
        file = self.served / parts[-1]
        found = name == "open" and parts[0] == "owner" and file.is_file()
        status, code = (200, "") if found else ANSWERS.get(name, (404, "EntryNotFound"))
        content = file.read_bytes() if found else b""
        self.send_response(status)
        for key, value in (("X-Error-Code", code), ("ETag", f'"{parts[-1]}-{len(content)}"'),
                           ("X-Repo-Commit", "0" * 40), ("Content-Length", str(len(content)))):
            if value:
                self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The folder of owner/open: a whole model."""
    folder = tmp_path_factory.mktemp("served") / "model"
    models.save_model(tiny_model(), tiny_tokenizer(), folder)
    return folder


@pytest.fixture(scope="module")
def home(served, tmp_path_factory):
    """Environment of a process whose hub is the server, with an empty cache."""
    Hub.served = served
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "OMP_NUM_THREADS": "1",
           "HF_HOME": str(tmp_path_factory.mktemp("home")), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
    server.shutdown()
    server.server_close()


def run(code, *arguments, **environment):
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, env=environment, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def told(environment, *names):
    return json.loads(run(ASK, *names, **environment))


@pytest.fixture(scope="module")
def messages(home):
    """{name: what is said of it} of every model that the server refuses."""
    return told(home, *(f"owner/{name}" for name in ANSWERS))


@pytest.mark.parametrize(("name", "words"), [
    ("gated", ["gated model that is not open to you (HTTP 403)", "expected access to it", "/owner/gated", "HF_TOKEN"]),
    ("gated-no-token", ["gated model that is not open to you (HTTP 401)", "hf auth login"]),
    ("missing", ["no model of this name, or a private one (HTTP 404)", "/owner/missing"]),
    ("private", ["no model of this name, or a private one (HTTP 401)", "hf auth login"]),
    ("unauthorised", ["no model of this name, or a private one (HTTP 401)", "hf auth login"]),
    ("no-files", ["got no config.json", "expected a model saved in Hugging Face's layout"]),
    ("forbidden", ["got no model from http://127.0.0.1:", "(HTTP 403)", "check network, proxy and HF_ENDPOINT"]),
])
def test_each_answer_of_the_hub_has_its_own_sentence_in_one_line(messages, name, words):
    message = messages[f"owner/{name}"]
    assert message.startswith(f"hub model owner/{name}; got ")
    assert [word for word in words if word not in message] == []
    assert "\n" not in message


def test_no_two_reasons_are_told_alike(messages):
    reasons = {name: text.partition("; got ")[2].partition(";")[0] for name, text in messages.items()}
    assert len(set(reasons.values())) == len(reasons) - 1  # private and unauthorised are the same thing


def test_a_hub_without_a_connection_is_said_to_have_none(home, tmp_path):
    message = told({**home, "HF_ENDPOINT": "http://127.0.0.1:1", "HF_HOME": str(tmp_path)}, "owner/open")["owner/open"]
    assert "got no model from http://127.0.0.1:1 (no connection)" in message
    assert "download it elsewhere and give its folder" in message


def test_offline_a_model_outside_the_cache_is_refused_with_the_command_that_gets_it(home, tmp_path):
    message = told({**home, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}, "owner/open")["owner/open"]
    assert "got HF_HUB_OFFLINE, and nothing of it in the cache" in message
    assert "hf download owner/open --local-dir FOLDER" in message


def test_a_model_of_the_hub_loads_and_loads_again_from_the_cache_without_a_network(home):
    assert run(LOAD, "owner/open", **home) == "OlmoForCausalLM <|end|>"
    offline = {**home, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:1"}
    assert run(LOAD, "owner/open", **offline) == "OlmoForCausalLM <|end|>"


def test_names_that_can_be_no_hub_id_are_refused_without_asking(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_: pytest.fail("asked the hub"))
    for name in ("/no/where", "./here", "a/b/c"):
        with pytest.raises(InputError, match=f"model; got {name}; expected an existing folder or a hub id"):
            hub.config(name)


def test_a_name_with_blanks_is_refused():
    with pytest.raises(InputError, match="expected an existing folder or a hub id"):
        hub.cached_config("two words")


def test_an_error_that_is_not_the_hubs_is_told_as_it_is():
    error = hub.refusal("owner/name", ValueError("Unrecognized model"))
    assert str(error).startswith("hub model owner/name; got Unrecognized model; expected a causal language model")


# ---- quantised weights ---------------------------------------------------------------------------------------

@pytest.mark.parametrize(("key", "about", "words"), [
    ("quantization_config", {"quant_method": "bitsandbytes", "load_in_4bit": True}, "by bitsandbytes"),
    ("quantization_config", {"quant_method": "gptq", "bits": 4}, "by gptq"),
    ("quantization_config", {"quant_method": "fp8", "weight_block_size": [128, 128]}, "by fp8"),
    ("quantization_config", {"bits": 4}, "by an unnamed method"),
    ("compression_config", {"quant_method": "compressed-tensors"}, "by compressed-tensors"),
])
def test_quantised_weights_are_refused_before_any_is_read(served, tmp_path, key, about, words):
    found = json.loads((served / "config.json").read_text()) | {key: about}
    (tmp_path / "config.json").write_text(json.dumps(found))  # no weights and no tokenizer: they would be missed later
    for look in (models.load_model, hub.config, lambda name: model_size.base_model(Base(source="load", model=name))):
        with pytest.raises(InputError, match=f"got weights quantised {words}.*{key}.*dequantize") as caught:
            look(str(tmp_path))
        assert str(caught.value).startswith(f"model folder {tmp_path}; got ")


def test_an_empty_entry_about_quantisation_is_none(served, tmp_path):
    found = json.loads((served / "config.json").read_text()) | {"quantization_config": None}
    (tmp_path / "config.json").write_text(json.dumps(found))
    assert hub.config(str(tmp_path))["model_type"] == "olmo"


# ---- models that are known without being here ----------------------------------------------------------------

def test_the_organisers_models_take_the_tokenizers_that_they_name(monkeypatch):
    """Their repositories have none; the loading stops at the tokenizer here, to see which one was asked for."""
    asked = []

    def tokenizer(name, **_):
        asked.append(name)
        raise OSError("far enough")
    monkeypatch.setattr(hub, "config", lambda name: {})
    monkeypatch.setattr(models.AutoTokenizer, "from_pretrained", tokenizer)
    for name in (ORGANISERS_7B, ORGANISERS_1B, "owner/other"):
        with pytest.raises(InputError, match="far enough"):
            models.load_model(name)
    assert asked == ["allenai/OLMo-7B-0724-Instruct-hf", "allenai/OLMo-1B-0724-hf", "owner/other"]


@pytest.mark.parametrize(("name", "parameters", "lora"), [
    # embedding and head 50304 x 4096, and 32 layers of four 4096 x 4096 and three 4096 x 11008
    (ORGANISERS_7B, 2 * 50304 * 4096 + 32 * (4 * 4096**2 + 3 * 4096 * 11008), 79.95e6),
    (ORGANISERS_1B, 2 * 50304 * 2048 + 16 * (4 * 2048**2 + 3 * 2048 * 8192), 24.1e6),
])
def test_the_organisers_models_have_their_published_sizes(monkeypatch, name, parameters, lora):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: pytest.fail("asked the hub"))
    size = model_size.base_model(Base(source="load", model=name))
    assert size.published
    assert size.parameters == parameters
    assert 32 * size.linear == pytest.approx(lora, rel=2e-3)  # trainable with rank 32, as published
    assert name in model_size.PUBLISHED
