"""Models that come from a hub, tried against a hub on the loopback."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager

import hub_server
import pytest

from helpers.common import places
from helpers.model.hub import weight_files

# huggingface_hub reads its settings once, when it is imported: each hub is asked by a process of its own,
# which evaluates the lines that it is given. Nobody waits between retries.
_CLIENT = """
import json, os, sys, time, torch
from helpers.model import base_model
from helpers.dataset import fetch as download
from helpers.common.errors import UserError
time.sleep = lambda seconds: None
for line in sys.stdin:
    expression, variables = json.loads(line)
    os.environ.update(variables)
    try:
        answer = eval(expression)
    except UserError as error:
        answer = str(error)
    for name in variables:
        del os.environ[name]
    print(json.dumps(answer), flush=True)
"""
_NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def server():
    with hub_server.serve(places.miniature_folder()) as server:
        yield server


@pytest.fixture(scope="module")
def ask(server, tmp_path_factory):
    """Evaluate an expression where the hub is on the loopback; an error gives its sentence."""
    cache = tmp_path_factory.mktemp("hub")
    with _client(HF_ENDPOINT=server.address, HF_HOME=str(cache)) as ask:
        yield ask


@contextmanager
def _client(**settings):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    process = subprocess.Popen(
        [sys.executable, "-c", _CLIENT],
        env={**clean, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **settings},
        cwd=places.repository_folder(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def ask(expression, **variables):
        print(json.dumps([expression, variables]), file=process.stdin, flush=True)
        return json.loads(process.stdout.readline())

    with process:
        yield ask
        process.stdin.close()


def test_a_model_comes_from_the_hub_once(ask, server):
    load = f"base_model.load_components({hub_server.OPEN!r}).family"
    assert ask(load) == "sd1"
    assert "unet/diffusion_pytorch_model.safetensors" in server.requested
    server.requested.clear()
    assert ask(load) == "sd1"
    assert server.requested == []


def test_tokenizers_need_no_weights_and_no_hub_the_second_time(server, tmp_path):
    tokenizers = f"len(base_model.load_tokenizers({hub_server.OPEN!r}))"
    server.requested.clear()
    with _client(HF_ENDPOINT=server.address, HF_HOME=str(tmp_path)) as ask:
        assert ask(tokenizers) == 1
    assert server.requested
    assert not [name for name in server.requested if name.endswith(".safetensors")]
    with _client(HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path)) as ask:
        assert ask(tokenizers) == 1
        assert "HF_HUB_OFFLINE is set" in ask("base_model.load_vae('someone/other-model')")


def test_without_a_connection_there_is_a_sentence(tmp_path):
    other = "base_model.load_tokenizers('someone/other-model')"
    with _client(HF_ENDPOINT=_NOWHERE, HF_HOME=str(tmp_path)) as ask:
        assert ask(other).startswith("The connection broke while fetching someone/other-model")
        on_kaggle = ask(other, KAGGLE_KERNEL_RUN_TYPE="Interactive")
        assert "switch Internet on: in the panel at the right" in on_kaggle
        assert ask("base_model.hub_login('someone/other-model')").startswith("The hub can't be asked now")


def test_a_gated_model_says_where_to_accept_and_opens_with_a_token(ask):
    load = f"len(base_model.load_tokenizers({hub_server.GATED!r}))"
    assert ask(load) == (
        "someone/gated-model is gated: accept its licence on its page, then run the login cell of "
        "notebook 2, or set HF_TOKEN."
    )
    assert ask(load, HF_TOKEN=hub_server.TOKEN) == 1


def test_a_token_that_is_no_longer_good_is_not_taken_for_a_broken_connection(ask):
    for call in ("load_tokenizers", "hub_login", "check_base_model"):
        sentence = ask(f"base_model.{call}({hub_server.GATED!r})", HF_TOKEN="hf_expired")
        assert sentence.startswith("The hub refuses your token for someone/gated-model: make a new one")


def test_a_missing_model_says_that_the_spelling_may_be_wrong(ask):
    for call in ("load_resolution", "hub_login", "check_base_model"):
        sentence = ask(f"base_model.{call}('someone/no-such-model')")
        assert sentence.startswith(
            "The hub has no repository “someone/no-such-model”, and there is no folder"
        )


def test_a_renamed_model_is_found_under_its_new_name(ask):
    assert ask(f"len(base_model.load_tokenizers({hub_server.RENAMED!r}))") == 1


def test_a_model_that_was_taken_away_names_the_one_that_is_there(ask):
    sentence = ask("base_model.load_tokenizers('runwayml/stable-diffusion-v1-5')")
    assert sentence == (
        "runwayml/stable-diffusion-v1-5 was taken from the hub: use stable-diffusion-v1-5/"
        "stable-diffusion-v1-5, the same model."
    )


def test_a_server_in_trouble_is_to_be_asked_later(ask):
    sentence = ask(f"base_model.load_tokenizers({hub_server.TIRED!r})")
    assert sentence.endswith("try again later, finished files are kept.") and "503" in sentence


def test_a_connection_that_breaks_midway_says_to_run_again(ask):
    sentence = ask(f"base_model.load_vae({hub_server.BREAKING!r})")
    assert sentence == (
        "The connection broke while fetching someone/breaking-model; finished files are kept. "
        "Check your connection, then try again."
    )


def test_the_login_skips_itself(ask):
    assert ask("base_model.hub_login('miniature')") == "This base model is on disk: no login needed."
    login = f"base_model.hub_login({hub_server.OPEN!r})"
    assert ask(login) == "someone/open-model is open to everyone: no login is needed."
    gated = f"base_model.hub_login({hub_server.GATED!r})"
    assert ask(gated, HF_TOKEN=hub_server.TOKEN) == (
        "someone/gated-model is open to your token: no login is needed."
    )


def test_a_login_that_nobody_can_answer_says_what_to_do(ask):
    sentence = ask(f"base_model.hub_login({hub_server.GATED!r})")
    assert sentence == (
        "someone/gated-model is gated, and no login could be asked for: set HF_TOKEN before you start."
    )


def test_a_data_set_gets_the_same_sentences(ask):
    def problems(name, **variables):
        fetch = f"[one.problem for one in download.fetch_all('dataset:{name}')]"
        return ask(fetch, **variables)

    assert set(problems(hub_server.OPEN)) == {None}
    assert "is gated: accept its licence" in problems(hub_server.GATED)[0]
    assert set(problems(hub_server.GATED, HF_TOKEN=hub_server.TOKEN)) == {None}
    assert "The hub has no repository" in problems("someone/no-such-set")[0]
    assert "The connection broke" in problems(hub_server.BREAKING)[0]


def test_in_a_short_format_only_the_files_in_half_precision_are_fetched(families, tmp_path):
    folder = shutil.copytree(families["sd1"], tmp_path / "model")
    for path in folder.glob("*/*.safetensors"):
        shutil.copy(path, path.with_suffix(".fp16.safetensors"))
    with (
        hub_server.serve(folder) as server,
        _client(HF_ENDPOINT=server.address, HF_HOME=str(tmp_path / "hub")) as ask,
    ):
        load = f"str(base_model.load_pipeline({hub_server.OPEN!r}, torch.float16).unet.dtype)"
        assert ask(load) == "torch.float16"
        fetched = {name for name in server.requested if name.endswith(".safetensors")}
    assert {name.split("/")[0] for name in fetched} == {"unet", "vae", "text_encoder", "safety_checker"}
    assert all(name.endswith(".fp16.safetensors") for name in fetched)


def test_one_format_of_each_part_is_fetched():
    files = [
        "v1-5-pruned.safetensors",
        "unet/config.json",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "text_encoder/pytorch_model.bin",
        "vae/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
        "vae/diffusion_pytorch_model.fp16-00002-of-00002.safetensors",
    ]
    assert weight_files(files, "unet", half=False) == ["unet/diffusion_pytorch_model.safetensors"]
    assert weight_files(files, "unet", half=True) == ["unet/diffusion_pytorch_model.fp16.safetensors"]
    assert weight_files(files, "text_encoder", half=True) == ["text_encoder/model.safetensors"]
    assert weight_files(files, "vae", half=False) == files[-2:]
    assert weight_files(files, "safety_checker", half=False) == []
