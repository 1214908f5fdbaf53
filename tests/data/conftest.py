"""A web server on this machine that stands for the hosts of data sets and weights."""

import re
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Host:
    """Serves a folder; `cuts`: bytes after which the next answers break off; `asked`: (file, range)."""

    def __init__(self, folder):
        self.folder, self.asked, self.cuts, self.errors, self.knows_ranges = folder, [], [], [], True
        folder.mkdir()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.host = self
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def url(self, name):
        return f"http://127.0.0.1:{self.server.server_port}/{name}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        host, name = self.server.host, self.path.lstrip("/")
        if self.command == "GET":
            host.asked.append((name, self.headers["Range"]))
        if host.errors:
            return self.send_error(host.errors.pop(0))
        if not (host.folder / name).is_file():
            return self.send_error(404)
        data, start = (host.folder / name).read_bytes(), 0
        if host.knows_ranges and (asked := re.match(r"bytes=(\d+)-", self.headers["Range"] or "")):
            start = int(asked[1])
            if start >= len(data):
                return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if self.command == "GET":
            cut = host.cuts.pop(0) if host.cuts else None
            with suppress(ConnectionError):
                self.wfile.write(data[start:][:cut])

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


@pytest.fixture
def host(tmp_path):
    host = Host(tmp_path / "host")
    yield host
    host.close()
