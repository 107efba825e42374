"""Models that come from a hub, tried against a hub on the loopback."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager

import hub_server
import pytest

from helpers import places
from helpers.hub import weight_files

# huggingface_hub reads its settings once, when it is imported: each hub is asked by a process of its own,
# which evaluates the lines that it is given. Nobody waits between retries.
_CLIENT = """
import json, os, sys, time
from helpers import base_model
from helpers.errors import UserError
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
        assert "switch on Internet in the notebook's settings" in on_kaggle
        assert ask("base_model.hub_login('someone/other-model')").startswith("The hub can't be asked now")


def test_a_gated_model_says_where_to_accept_and_opens_with_a_token(ask):
    load = f"len(base_model.load_tokenizers({hub_server.GATED!r}))"
    assert ask(load) == (
        "someone/gated-model is gated: accept its licence on its page, then run the login cell of notebook 2."
    )
    assert ask(load, HF_TOKEN=hub_server.TOKEN) == 1


def test_a_missing_model_says_that_the_spelling_may_be_wrong(ask):
    sentence = ask("base_model.load_scheduler('someone/no-such-model')")
    assert sentence.startswith("The hub has no repository “someone/no-such-model”, or it is private:")


def test_a_connection_that_breaks_midway_says_to_run_again(ask):
    sentence = ask(f"base_model.load_vae({hub_server.BREAKING!r})")
    assert sentence.startswith(
        "The connection broke while fetching someone/breaking-model: run the cell again"
    )


def test_the_login_skips_itself(ask):
    assert ask("base_model.hub_login('miniature')") == "This base model is on disk: no login needed."
    login = f"base_model.hub_login({hub_server.OPEN!r})"
    assert ask(login) == "someone/open-model is open to everyone: no login is needed."
    assert ask(login, HF_TOKEN=hub_server.TOKEN).startswith("A token for the hub is here already")


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
