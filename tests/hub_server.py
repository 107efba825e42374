"""A hub on this machine's loopback, with the few answers that `huggingface_hub` asks for.

It serves one folder under several repository ids, as a model or as a data set: `OPEN` as it is; `RENAMED`
by a redirect to it; `GATED` only with the token `TOKEN`; `BREAKING` with a connection that breaks in the
middle of each large file; `TIRED` with an error of the server's. Any other id is missing, and any other
token is refused. It has no page to log in. What is sent to `OPEN` with the token is kept in memory. Of
licences it knows `LICENCE`.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

OPEN, GATED, BREAKING = "someone/open-model", "someone/gated-model", "someone/breaking-model"
RENAMED, TIRED = "someone/renamed-model", "someone/tired-model"
TOKEN, LICENCE = "hf_" + "x" * 34, "cc-by-4.0"
_LARGE = 10_000
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve(folder: Path) -> Iterator["HubServer"]:
    """Serve `folder` at `server.address` until the block ends."""
    server = HubServer(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class HubServer(ThreadingHTTPServer):
    """`requested` lists the files that were sent, in order; `private` is whether `OPEN` is."""

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), _Answers)
        self.folder = folder
        self.requested: list[str] = []
        self.private = True

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @cached_property
    def files(self) -> dict[str, bytes]:
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in paths}


class _Answers(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self._answer(with_body=False)

    def do_GET(self):
        self._answer(with_body=True)

    def do_POST(self):
        """Make a repository, or take a commit, as the hub does for small files."""
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/validate-yaml":
            return self._judge_card(json.loads(sent)["content"])
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._refuse(401, "", "Invalid credentials in Authorization header")
        asked = self.path.rpartition("?")[0] or self.path
        if asked.endswith("/preupload/main"):
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(sent)["files"]
            ]
            return self._send_json({"files": files})
        if asked.endswith("/commit/main"):
            for line in map(json.loads, sent.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"{self.server.address}/{OPEN}/commit/{COMMIT}"
            return self._send_json({"success": True, "commitUrl": url, "commitOid": COMMIT})
        self._send_json({"url": f"{self.server.address}/{OPEN}", "errors": [], "warnings": []})

    def _judge_card(self, card):
        found = re.search("^license: (.*)$", card, re.MULTILINE)
        errors = [{"message": '"license" must be one of ...'}] if found and found[1] != LICENCE else []
        self._send(
            json.dumps({"errors": errors}).encode(), "application/json", {}, status=400 if errors else 200
        )

    def log_message(self, *_):
        pass

    def _answer(self, with_body):
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        is_api = parts[0] == "api"
        parts = parts[is_api:]
        repository, rest = self._split(parts)
        if self.headers.get("Authorization") not in (None, f"Bearer {TOKEN}"):
            return self._refuse(401, "", "Invalid credentials in Authorization header")
        if repository == TIRED:
            return self._refuse(503, "", "Service unavailable")
        if repository == RENAMED:
            return self._redirect(self.path.replace(RENAMED, OPEN))
        if repository not in (OPEN, GATED, BREAKING):
            return self._refuse(404, "RepoNotFound", "Repository not found")
        if is_api and rest[:1] != ["auth-check"]:
            return self._send_json(self._tree() if rest[:1] == ["tree"] else self._model(repository))
        if repository == GATED and not self.headers.get("Authorization"):
            return self._refuse(403, "GatedRepo", f"Access to model {repository} is restricted")
        if is_api:
            return self._send(b"{}", "application/json", {})
        return self._send_file(repository, "/".join(rest[2:]), with_body)

    def _split(self, parts):
        parts = parts[parts[0] in ("models", "datasets") :]
        return "/".join(parts[:2]), parts[2:]

    def _redirect(self, location):
        self._start(307, "text/plain", 0, {"Location": location})

    def _model(self, repository):
        siblings = [{"rfilename": name} for name in self.server.files]
        return {
            "id": repository,
            "modelId": repository,
            "sha": COMMIT,
            "siblings": siblings,
            "private": self.server.private,
        }

    def _tree(self):
        return [
            {"type": "file", "path": name, "size": len(data), "oid": _digest(data)}
            for name, data in self.server.files.items()
        ]

    def _send_file(self, repository, name, with_body):
        data = self.server.files.get(name)
        if data is None:
            return self._refuse(404, "EntryNotFound", f"No {name}")
        headers = {"ETag": f'"{_digest(data)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if with_body:
            self.server.requested.append(name)
        if with_body and repository == BREAKING and len(data) > _LARGE:
            return self._break_off(data, headers)
        return self._send(data, "application/octet-stream", headers, with_body)

    def _break_off(self, data, headers):
        self.close_connection = True
        if "Range" not in self.headers:  # a second try, for the rest, gets nothing at all
            self._start(200, "application/octet-stream", len(data), headers)
            self.wfile.write(data[: len(data) // 2])

    def _refuse(self, status, code, message):
        self._start(status, "text/plain", 0, {"X-Error-Code": code, "X-Error-Message": message})

    def _send_json(self, content):
        self._send(json.dumps(content).encode(), "application/json", {})

    def _send(self, data, kind, headers, with_body=True, status=200):
        self._start(status, kind, len(data), headers)
        if with_body:
            self.wfile.write(data)

    def _start(self, status, kind, length, headers):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": length, **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()


def _digest(data):
    return hashlib.sha1(data).hexdigest()
