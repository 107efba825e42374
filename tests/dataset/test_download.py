"""Fetching: what a person sees of good, slow, broken and wrong addresses. All on the loopback."""

import gzip
import io
import threading
import time
import tracemalloc
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from PIL import Image

from helpers.common import places
from helpers.common.errors import UserError
from helpers.dataset import fetch as download
from helpers.dataset.check import open_picture
from helpers.dataset.fetch import fetch_all


def png(colour="tan"):
    content = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(content, "PNG")
    return content.getvalue()


BOMB = gzip.compress(bytes(100_000_000), 6)


class Handler(BaseHTTPRequestHandler):
    """Each path fails, or not, in its own way; `server.seen` counts the requests."""

    def do_GET(self):
        self.server.seen[self.path] += 1
        getattr(self, self.path.strip("/").split(".")[0])()

    def answer(self, status=200, content=b"", length=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)

    def good(self):
        self.answer(content=png())

    def late(self):
        self.server.closing.wait(2)

    def together(self):
        self.server.together.wait(10)  # answers nobody until all have asked
        self.answer(content=png())

    def drip(self):
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        try:
            while not self.server.closing.wait(0.05):
                self.wfile.write(b"x")
        except OSError:
            pass  # the client has hung up, as it should

    def missing(self):
        self.answer(404, b"<html>not here</html>")

    def private(self):
        self.answer(403)

    def tired(self):
        self.answer(503) if self.server.seen[self.path] < 3 else self.good()

    def dead(self):
        self.answer(500)

    def cut_once(self):
        first = self.server.seen[self.path] == 1
        self.answer(content=png()[:50] if first else png(), length=len(png()))

    def cut(self):
        self.answer(content=png()[:50], length=len(png()))

    def zipped(self):
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(gzip.compress(png()))

    def chunked(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(png()), 40):
            piece = png()[start : start + 40]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def huge(self):
        self.send_response(200)  # without a length: only counting helps
        self.end_headers()
        try:
            for _ in range(100):
                self.wfile.write(bytes(10_000))
        except OSError:
            pass

    def moved(self):
        self.send_response(302)
        self.send_header("Location", "/good.png")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def busy(self):
        self.send_response(429 if self.server.seen[self.path] == 1 else 200)
        self.send_header("Retry-After", "3600")
        self.end_headers()
        self.wfile.write(png())

    def inward(self):
        self.send_response(302)
        self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/good.png")
        self.end_headers()

    def chain(self):
        self.send_response(302)
        self.send_header("Location", f"/chain.{self.server.seen['chain']}.png")
        self.server.seen["chain"] += 1
        self.end_headers()

    def longer(self):
        self.answer(content=png(), length=len(png()) // 2)

    def mislabelled(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(png())

    def bomb(self):
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(BOMB)

    def circle(self):
        self.send_response(302)
        self.send_header("Location", "/circle.png")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def web():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen, server.closing = Counter(), threading.Event()
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()


def problem(address, timeout=10.0, retries=2):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "_TIMEOUT", timeout)
        patch.setattr(download, "_RETRIES", retries)
        (fetched,) = fetch_all([address])
    assert fetched.data is None
    assert fetched.source == address
    return fetched.problem


def test_one_bad_address_never_loses_the_others_and_the_order_is_kept(web):
    names = ["good.png", "missing.png", "moved.png", "private.png"]
    fetched = fetch_all([f"{web.address}/{name}" for name in names])
    assert [one.source.rsplit("/")[-1] for one in fetched] == names
    assert [one.data == png() for one in fetched] == [True, False, True, False]
    assert "404" in fetched[1].problem and "check the address" in fetched[1].problem
    assert "403" in fetched[3].problem and "browser" in fetched[3].problem


def test_each_way_of_sending_a_body_is_understood(web):
    fetched = fetch_all([f"{web.address}/zipped.png", f"{web.address}/chunked.png"])
    assert [one.data for one in fetched] == [png(), png()]


def test_a_tired_server_is_asked_again(web):
    (fetched,) = fetch_all([f"{web.address}/tired.png"])
    assert fetched.data == png()
    assert web.seen["/tired.png"] == 3


def test_a_dead_server_is_given_up(web):
    assert "500" in problem(f"{web.address}/dead.png", retries=1)
    assert web.seen["/dead.png"] == 2


def test_a_missing_picture_is_not_asked_for_again(web):
    problem(f"{web.address}/missing.png")
    assert web.seen["/missing.png"] == 1


def test_no_answer_ends_after_the_time_out(web):
    assert "No answer in 0.2 seconds" in problem(f"{web.address}/late.png", timeout=0.2, retries=0)


def test_no_answer_ends_in_the_same_sentence_after_retries(web):
    assert "No answer in 0.1 seconds" in problem(f"{web.address}/late.png", timeout=0.1, retries=1)
    assert web.seen["/late.png"] == 2


def test_a_picture_that_comes_byte_by_byte_is_given_up(web):
    began = time.monotonic()
    assert "Not all of it arrived" in problem(f"{web.address}/drip.png", timeout=0.5)
    assert time.monotonic() - began < 30


def test_a_body_that_broke_off_is_fetched_again(web):
    (fetched,) = fetch_all([f"{web.address}/cut_once.png"])
    assert fetched.data == png()
    assert "broke off" in problem(f"{web.address}/cut.png", retries=1)
    assert web.seen["/cut.png"] == 2


def test_a_huge_file_is_stopped_on_the_way(web, monkeypatch):
    monkeypatch.setattr(download, "_MOST_BYTES", 2**17)
    assert "larger than" in problem(f"{web.address}/huge.png")


def test_addresses_are_fetched_side_by_side(web, monkeypatch):
    web.together = threading.Barrier(6)
    monkeypatch.setattr(download, "_TIMEOUT", 20)
    assert all(one.data for one in fetch_all([f"{web.address}/together.png"] * 6))


def test_a_circle_of_redirects_ends(web):
    assert "circles" in problem(f"{web.address}/circle.png")


def test_redirects_without_end_are_given_up(web):
    assert "circles" in problem(f"{web.address}/chain.png")
    assert web.seen["chain"] == 6


def test_a_public_address_does_not_lead_into_ones_own_network(web, monkeypatch):
    address = f"http://localhost:{web.server_port}/inward.png"
    (meant,) = fetch_all([address])
    assert meant.data == png(), "one of one's own network may lead on in it"
    monkeypatch.setattr(download, "_is_private", lambda host: host == "127.0.0.1")
    assert "into your own network" in problem(address)
    assert web.seen["/good.png"] == 1


def test_a_name_that_changes_its_address_leads_there_no_more_than_the_address(web, monkeypatch):
    """Looked up, the name is a public one; the connection then ends at a private address."""
    monkeypatch.setattr(download, "_is_private", lambda host: host in ("127.0.0.1", "::1"))
    address = f"http://localhost:{web.server_port}/moved.png"
    assert "into your own network" in problem(address)
    assert web.seen["/moved.png"] == 1 and not web.seen["/good.png"], "it was not even asked"


@pytest.mark.parametrize(
    "host",
    ["localhost", "10.0.0.1", "192.168.1.1", "169.254.169.254", "::1", "fd00::1", "0.0.0.0", "fe80::1"],
)
def test_an_address_that_only_a_network_of_ones_own_has_is_private(host):
    assert download._is_private(host)


@pytest.mark.parametrize("host", ["8.8.8.8", "2606:4700::1111", "no such host"])
def test_any_other_is_not(host):
    assert not download._is_private(host)


def test_a_redirect_never_leaves_https():
    with pytest.raises(UserError, match="redirects to http://"):
        download._check_redirect("https://8.8.8.8/a.png", "http://8.8.8.8/a.png")
    download._check_redirect("http://8.8.8.8/a.png", "https://8.8.4.4/b.png")


def test_a_busy_server_is_asked_again_after_the_time_it_names_within_reason(web, monkeypatch):
    waits = []
    monkeypatch.setattr("urllib3.util.retry.time", SimpleNamespace(sleep=waits.append, time=time.time))
    (fetched,) = fetch_all([f"{web.address}/busy.png"])
    assert fetched.data == png() and waits == [5.0]


def test_a_body_longer_than_announced_is_no_picture(web):
    (fetched,) = fetch_all([f"{web.address}/longer.png"])
    with pytest.raises(UserError, match="cut off"):
        open_picture(fetched.data)


def test_what_it_is_called_does_not_matter(web):
    assert fetch_all([f"{web.address}/mislabelled.png"])[0].data == png()


def test_a_compressed_bomb_is_stopped_before_it_fills_the_memory(web, monkeypatch):
    monkeypatch.setattr(download, "_MOST_BYTES", 2**20)
    tracemalloc.start()
    try:
        assert "larger than" in problem(f"{web.address}/bomb.png", timeout=60)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 80_000_000


def test_a_server_that_is_not_there(web, monkeypatch):
    assert "can't be reached" in problem("http://127.0.0.1:9/a.png", retries=0)
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert "switch Internet on" in problem("http://127.0.0.1:9/a.png", retries=0)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("ftp://example.org/a.png", "Only http://"),
        ("https://", "not an address"),
        ("file:///etc/hostname", "Only http://"),
        ("data:image/png;base64,aGk=", "Only http://"),
        ("no/such/folder", "No file or folder"),
        ("~nobody-of-this-name/a.png", "No file or folder"),
        ("a" * 300 + ".png", "No file or folder"),
        ("zero\0byte.png", "No file or folder"),
        ("/dev/zero", "no file that holds a picture"),
        ("http://a..b/c.png", "not an address"),
        ("www.example.org/a.png", "begins with https://"),
        ("dataset:no-owner/../x", "The hub has no repository"),
        ("dataset:someone/offline", "HF_HUB_OFFLINE is set and someone/offline was never fetched"),
    ],
)
def test_what_is_no_address_gets_its_sentence(address, sentence):
    assert sentence in problem(address)


def test_a_folder_gives_its_pictures_and_sums_up_the_rest(tmp_path):
    for name in ("b.PNG", "a.jpg", "._a.jpg", "notes.txt", "song.mp3"):
        (tmp_path / name).write_bytes(png())
    (tmp_path / "sub").mkdir()
    fetched = fetch_all(str(tmp_path))
    assert [one.source for one in fetched[:-1]] == [f"{tmp_path}/a.jpg", f"{tmp_path}/b.PNG"]
    assert all(one.data == png() for one in fetched[:-1])
    assert fetched[-1].data is None and fetched[-1].problem is None
    assert fetched[-1].note.startswith("2 files of another kind")


def test_a_folder_without_or_with_too_many_pictures(tmp_path):
    assert "no pictures" in problem(str(tmp_path))
    for number in range(51):
        (tmp_path / f"{number}.png").write_bytes(b"x")
    assert "51 pictures" in problem(str(tmp_path))


def test_a_path_counts_from_the_working_folder_then_from_notebooks(tmp_path, monkeypatch):
    (tmp_path / "mine.png").write_bytes(png())
    monkeypatch.chdir(tmp_path)
    assert fetch_all([" mine.png ", ""])[0].data == png()
    monkeypatch.setattr(places, "repository_folder", lambda: tmp_path)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "other.png").write_bytes(png("red"))
    assert fetch_all("other.png")[0].data == png("red")


def test_a_data_set_of_the_hub_gives_its_pictures(tmp_path, monkeypatch):
    (tmp_path / "1.jpeg").write_bytes(png())
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "2.jpeg").write_bytes(png("red"))
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda name, **how: asked.append((name, how)) or str(tmp_path)
    )
    fetched = fetch_all(["dataset:diffusers/cat_toy_example"])
    assert [one.data for one in fetched] == [png(), png("red")]
    assert fetched[0].source == "dataset:diffusers/cat_toy_example/1.jpeg"
    name, how = asked[0]
    assert name == "diffusers/cat_toy_example" and how["repo_type"] == "dataset"
    assert "*.jpeg" in how["allow_patterns"]
