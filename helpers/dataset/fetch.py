"""Fetch picture files in parallel: from the web, local paths, folders and data sets of the hub."""

import contextlib
import ipaddress
import re
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import huggingface_hub
import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, LocationValueError, ProtocolError, ReadTimeoutError
from urllib3.poolmanager import pool_classes_by_scheme
from urllib3.util import Retry

from ..common import places
from ..common.errors import UserError
from ..common.files import PICTURE_SUFFIXES, is_picture_file
from ..common.progress import progress
from ..common.sheets import counted
from ..model.hub import hub_errors_in_words

DATASET = "dataset:"
_MOST_BYTES = 40 * 2**20  # of a download
_MOST_BYTES_ON_DISK = 200 * 2**20  # more than the PNG of any picture in `images/`: see `check.py`
_TOO_LARGE = "The file is larger than {} MB: make it smaller first."
_MOST_IN_A_FOLDER = 50
_IN_PARALLEL = 8
_TIMEOUT = 10.0  # seconds to wait for a connection, and for each piece of an answer
_TIMEOUTS_A_PICTURE = 6  # at most, until all of it has arrived
_CHUNK = 2**16  # bytes
_RETRIES = 2  # of a request that fails in a way that may pass
_MOST_REDIRECTS = 5
_LONGEST_WAIT = 5.0  # seconds before a retry; a server may ask for hours
_TEMPORARY = (408, 429, 500, 502, 503, 504)  # HTTP statuses
_HEADERS = {"User-Agent": "textual-inversion-notebooks/0.1 (python-requests)", "Accept": "image/*,*/*;q=0.5"}


@dataclass(frozen=True)
class Fetched:
    """One file that was asked for: its bytes, or a sentence that says why there are none."""

    source: str
    data: bytes | None = None
    problem: str | None = None
    note: str | None = None  # in place of both: what else is in a folder


def fetch_all(addresses: Sequence[str | Path | Fetched] | str | Path) -> list[Fetched]:
    """Fetch every address, in parallel; a bad one does not affect the others.

    Args:
        addresses: `http://` or `https://` addresses, paths of files or folders (in the working folder, in
            `notebooks/` or in the repository), and `dataset:owner/name` for the pictures of a data set of the
            hub. Only picture files of a folder are taken. What is fetched already, such as an upload, is
            returned as it is.

    Returns:
        Entries in the order of the addresses; for a folder one for each picture in it.
    """
    if isinstance(addresses, str | Path):
        addresses = [addresses]
    wanted = [one if isinstance(one, Fetched) else str(one).strip() for one in addresses]
    wanted = list(filter(None, wanted))
    with ThreadPoolExecutor(_IN_PARALLEL) as pool:
        found = pool.map(_fetch, wanted)
        return list(chain.from_iterable(progress(found, "fetching pictures", total=len(wanted))))


def _fetch(address: str | Fetched) -> list[Fetched]:
    if isinstance(address, Fetched):
        return [address]
    try:
        if address.startswith(DATASET):
            return _from_folder(_dataset_files(address.removeprefix(DATASET)), address)
        if re.match(r"https?://", address, re.IGNORECASE):
            return [Fetched(address, _from_web(address))]
        path = _find(address)
        if path.is_dir():
            return _from_folder(sorted(path.iterdir()), address)
        return [_from_file(path, address)]
    except UserError as error:
        return [Fetched(address, problem=str(error))]


def _find(address: str) -> Path:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", address):
        raise UserError("Only http://, https:// and dataset: are fetched: give such an address, or a path.")
    repository = places.repository_folder()
    if path := places.find_path(address, Path.cwd(), repository / "notebooks", repository):
        return path
    raise UserError(
        "No file or folder has this name, in notebooks/ or beside it; a web address begins with https://."
    )


def _from_folder(files: list[Path], source: str) -> list[Fetched]:
    pictures = [path for path in files if is_picture_file(path)]
    if not pictures:
        raise UserError("This folder holds no pictures: give one that holds .png, .jpg or .webp files.")
    if len(pictures) > _MOST_IN_A_FOLDER:
        raise UserError(f"This folder holds {len(pictures)} pictures: copy the 3 to 10 best into a new one.")
    fetched = [_from_file(path, f"{source.rstrip('/')}/{path.name}") for path in pictures]
    others = {path for path in files if path.is_file() and not path.name.startswith(".")} - {*pictures}
    captions = others & {path.with_suffix(".txt") for path in pictures}
    notes = {
        f"{counted(len(captions), 'caption')} in it, kept beside the pictures.": captions,
        f"{counted(len(others - captions), 'file')} of another kind in it.": others - captions,
    }
    return fetched + [Fetched(source, note=note) for note, found in notes.items() if found]


def _from_file(path: Path, source: str) -> Fetched:
    if not path.is_file():  # a device or a pipe might never end
        return Fetched(source, problem="This is no file that holds a picture: give the path of one.")
    try:
        if path.stat().st_size > _MOST_BYTES_ON_DISK:
            return Fetched(source, problem=_TOO_LARGE.format(_MOST_BYTES_ON_DISK // 2**20))
        return Fetched(source, path.read_bytes())
    except OSError as error:
        return Fetched(source, problem=f"The file can't be read ({error.strerror}): check its permissions.")


def _dataset_files(dataset: str) -> list[Path]:
    patterns = [f"*{suffix}" for suffix in sorted(PICTURE_SUFFIXES)]
    with hub_errors_in_words(dataset):
        folder = huggingface_hub.snapshot_download(dataset, repo_type="dataset", allow_patterns=patterns)
    return sorted(Path(folder).rglob("*"))


# From the web. The address that a person gives may be in their own network, but a public one must not
# redirect to there.
_INTO_YOUR_NETWORK = "The address redirects into your own network: give the address there itself."


def _from_web(address: str) -> bytes:
    try:
        with _Session() as session:
            for _ in range(_RETRIES):
                with contextlib.suppress(ProtocolError):  # it broke off half-way, which Retry does not see
                    return _get(session, address)
            return _get(session, address)
    except (requests.RequestException, HTTPError) as error:
        raise UserError(_sentence(error)) from error


def _get(session: requests.Session, address: str) -> bytes:
    seconds = _TIMEOUTS_A_PICTURE * _TIMEOUT
    deadline = time.monotonic() + seconds
    with session.get(address, timeout=_TIMEOUT, stream=True) as response:
        if not response.ok:
            raise UserError(_refusal(response.status_code, response.reason))
        body = bytearray()
        # read1 returns what has arrived, so that neither limit waits for a full chunk.
        while piece := response.raw.read1(_CHUNK, decode_content=True):
            body += piece
            if len(body) > _MOST_BYTES:
                raise UserError(_TOO_LARGE.format(_MOST_BYTES // 2**20))
            if time.monotonic() > deadline:
                raise UserError(f"Not all of it arrived in {seconds:g} seconds: try again later.")
    return bytes(body)


class _Session(requests.Session):
    """Checks where it is redirected to."""

    def __init__(self):
        super().__init__()
        self.max_redirects = _MOST_REDIRECTS
        self.headers.update(_HEADERS)
        self._retries = _Waits(
            total=_RETRIES, backoff_factor=0.3, status_forcelist=_TEMPORARY, raise_on_status=False
        )
        self._connect_by(HTTPAdapter)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target and _check_redirect(resp.url, urljoin(resp.url, target)):
            self._connect_by(_OnlyPublic)
        return target

    def _connect_by(self, adapter: type[HTTPAdapter]) -> None:
        for scheme in pool_classes_by_scheme:
            self.mount(f"{scheme}://", adapter(max_retries=self._retries))


class _Waits(Retry):
    """Waits as long as the server asks for, but not longer than a limit."""

    def get_retry_after(self, response) -> float | None:
        asked = super().get_retry_after(response)
        return None if asked is None else min(asked, _LONGEST_WAIT)


def _check_redirect(start: str, target: str) -> bool:
    """Whether it comes from a public address; UserError if it leaves HTTPS or leads to a private one."""
    here, there = urlsplit(start), urlsplit(target)
    if (here.scheme, there.scheme) == ("https", "http"):
        raise UserError("The address redirects to http://, which is not encrypted: take another one.")
    if _is_private(here.hostname):
        return False
    if _is_private(there.hostname):
        raise UserError(_INTO_YOUR_NETWORK)
    return True


def _is_private(host: str | None) -> bool:
    """Whether a name has an address that can't be reached from the Internet, such as a router's."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):  # it has no address: the request will say so
        return False
    return not all(ipaddress.ip_address(address.partition("%")[0]).is_global for address in found)


class _OnlyPublic(HTTPAdapter):
    """Sends nothing to a private address, even if its name had another address a moment ago."""

    def init_poolmanager(self, *given, **named) -> None:
        super().init_poolmanager(*given, **named)
        pools = {scheme: _public_only(pool) for scheme, pool in pool_classes_by_scheme.items()}
        self.poolmanager.pool_classes_by_scheme = pools


def _public_only(pool: type) -> type:
    """A class of connection pools whose connections check their peer's address before they send anything."""

    class Connection(pool.ConnectionCls):
        def _new_conn(self) -> socket.socket:
            reached = super()._new_conn()
            if _is_private(reached.getpeername()[0]):
                reached.close()
                raise UserError(_INTO_YOUR_NETWORK)
            return reached

    return type("Pool", (pool,), {"ConnectionCls": Connection})


def _refusal(status: int, reason: str) -> str:
    answered = f"The server answered {status} ({reason})" if reason else f"The server answered {status}"
    if status in (404, 410):
        return f"{answered}: check the address."
    if status in _TEMPORARY or status >= 500:
        return f"{answered}, again and again: try again later."
    return f"{answered}: save the picture with your browser, and give its path."


def _sentence(error: Exception) -> str:
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(error, requests.Timeout | ReadTimeoutError) or isinstance(reason, ReadTimeoutError):
        return f"No answer in {_TIMEOUT:g} seconds: try again later, or take the picture from elsewhere."
    if isinstance(error, requests.exceptions.SSLError):
        return "The server's certificate is not valid: take the picture from elsewhere."
    if isinstance(error, requests.TooManyRedirects):
        return "The address redirects in circles: check it in your browser."
    if isinstance(error, requests.exceptions.InvalidURL | LocationValueError):
        return "This is not an address: it needs a server's name after https://."
    if isinstance(error, HTTPError):
        return f"The connection broke off half-way. {places.connection_advice()}"
    return f"The server can't be reached: check the address. {places.connection_advice()}"
