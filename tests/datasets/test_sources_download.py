"""Downloads: a file comes whole, within its cap, soon, or with a reason why not."""

import http.server
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from bench.datasets import sources
from bench.datasets.sources import File, WebFolder
from bench.errors import DataError

CONTENT = bytes(range(256)) * 40


def wanted(*names):
    return File(names=names or ("file.gz",), max_bytes=len(CONTENT))


def quiet(what, done, total):
    pass


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(sources, "RETRY_PAUSE_S", 0.0)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def serving(*answers):
    """Serve the answers in turn, the last one for ever; yield the address and the paths asked for."""
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
        handler.close_connection = True  # the client had enough


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
def test_a_download_comes_whole_and_reports_progress(tmp_path, announced):
    reports = []
    with serving(lambda handler: content(handler, announced=announced)) as (url, asked):
        path = WebFolder(url=url).get(wanted(), tmp_path, lambda *report: reports.append(report))
    assert path == tmp_path / "file.gz"
    assert path.read_bytes() == CONTENT
    assert asked == ["/base/file.gz"]
    total = None if announced else len(CONTENT)
    assert reports[-1] == (f"{url}file.gz", len(CONTENT), total)


def test_the_next_name_is_asked_for_where_the_first_is_not_there(tmp_path):
    with serving(state(404), content) as (url, asked):
        path = WebFolder(url=url).get(wanted("file.gz", "file"), tmp_path, quiet)
    assert (path.name, asked) == ("file", ["/base/file.gz", "/base/file"])


@pytest.mark.parametrize(
    "oversized",
    [
        lambda handler: content(handler, CONTENT + b"x"),
        lambda handler: content(handler, CONTENT + b"x", announced="nothing"),
        lambda handler: content(handler, b"x" * 2_000_000, announced="nothing"),
        lambda handler: content(handler, CONTENT, announced=str(1 << 40)),
    ],
)
def test_a_download_over_its_cap_is_refused_whatever_is_announced(tmp_path, oversized):
    with serving(oversized) as (url, asked), pytest.raises(DataError, match="larger than the 10240 bytes"):
        WebFolder(url=url).get(wanted(), tmp_path, quiet)
    assert len(asked) == 1
    written = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert written <= len(CONTENT)


@pytest.mark.parametrize("first", [state(503), state(429), cut_short, dropped])
def test_what_a_second_try_can_cure_is_tried_twice(tmp_path, first):
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
def test_what_fails_is_said_in_a_few_words(tmp_path, answer, tries, message):
    with serving(answer) as (url, asked), pytest.raises(DataError, match=message):
        WebFolder(url=url).get(wanted(), tmp_path, quiet)
    assert len(asked) == tries


def test_https_is_never_left_by_a_redirect():
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


def counted(monkeypatch):
    calls = []
    really = sources._transfer
    monkeypatch.setattr(sources, "_transfer", lambda *rest: calls.append(rest) or really(*rest))
    return calls


def test_a_refused_connection_fails_at_once(tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        calls = counted(monkeypatch)
        with pytest.raises(DataError, match="connection refused"):
            WebFolder(url=f"http://127.0.0.1:{taken.getsockname()[1]}").get(wanted(), tmp_path, quiet)
    assert len(calls) == 1


def test_a_name_that_cannot_be_looked_up_fails_at_once(tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    calls = counted(monkeypatch)
    with pytest.raises(DataError, match="the name of the host cannot be looked up"):
        WebFolder(url="https://host.invalid").get(wanted(), tmp_path, quiet)
    assert len(calls) == 1


def test_hosts_that_drop_packets_are_given_up_within_one_limit_for_all_addresses(tmp_path, monkeypatch):
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        with socket.create_connection(address):  # fills the queue; the next one gets no answer
            entry = (socket.AF_INET, socket.SOCK_STREAM, 0, "", address)
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [entry] * 8)
            monkeypatch.setattr(sources, "CONNECT_TIMEOUT_S", 1.0)
            calls = counted(monkeypatch)
            start = time.monotonic()
            with pytest.raises(DataError, match="no connection within 1 s"):
                WebFolder(url=f"http://127.0.0.1:{address[1]}").get(wanted(), tmp_path, quiet)
    assert time.monotonic() - start < 2.5  # 8 s if each address had the whole limit
    assert len(calls) == 1


def test_an_address_that_drops_packets_leaves_time_for_the_next(monkeypatch):
    with socket.socket() as full, socket.socket() as open_one:
        for server, queue in ((full, 0), (open_one, 5)):
            server.bind(("127.0.0.1", 0))
            server.listen(queue)
        with socket.create_connection(full.getsockname()):
            entries = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", s.getsockname()) for s in (full, open_one)]
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries)
            monkeypatch.setattr(sources, "CONNECT_TIMEOUT_S", 2.2)
            sources._reach("https://host.invalid")


def test_a_server_that_falls_silent_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "READ_TIMEOUT_S", 0.2)
    done = threading.Event()

    def silent(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        done.wait(5)

    with serving(silent) as (url, asked):
        with pytest.raises(DataError, match="the server was silent"):
            WebFolder(url=url).get(wanted(), tmp_path, quiet)
        done.set()
    assert len(asked) == 2
