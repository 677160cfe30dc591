"""A stand-in of the model hub's HTTP API on this machine, which counts what is asked of it."""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Repositories by name, each a folder at the one revision COMMIT.

    `gated` ones answer 401 as the hub does; `breaks_after` is how many bytes of a file are sent
    before the connection is cut, for as long as it is set. `sent` counts the bytes of each file.
    """

    repositories: dict[str, Path]
    gated: set[str] = field(default_factory=set)
    breaks_after: int | None = None
    sent: Counter[str] = field(default_factory=Counter)
    url: str = ""


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Answer at ``hub.url`` while open."""

    class Handler(Answer):
        answers_for = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()


class Answer(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    answers_for: Hub

    def log_message(self, format: str, *arguments: object) -> None: ...

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        hub = self.answers_for
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        parts = parts[2:] if api else parts
        kind, revision = parts[2:4] or ("revision", "main")
        name, rest = "/".join(parts[:2]), "/".join(parts[4:])
        if name in hub.gated:
            return self.refuse(403, "GatedRepo", f"Access to model {name} is restricted")
        if name not in hub.repositories:
            return self.refuse(401, "RepoNotFound", "Repository Not Found")
        if revision not in (COMMIT, "main"):
            return self.refuse(404, "RevisionNotFound", "Invalid rev id")
        folder = hub.repositories[name]
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if api and kind == "revision":
            siblings = [{"rfilename": path.relative_to(folder).as_posix()} for path in files]
            return self.send(json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}))
        if api and kind == "tree":
            tree = [
                {
                    "type": "file",
                    "path": path.relative_to(folder).as_posix(),
                    "size": path.stat().st_size,
                    "oid": tag(path),
                }
                for path in files
            ]
            return self.send(json.dumps(tree))
        if not (folder / rest).is_file():
            return self.refuse(404, "EntryNotFound", "Entry not found")
        return self.send_file(folder / rest, f"{name}/{rest}", with_body)

    def refuse(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        self.send(json.dumps({"error": message}), status, headers)

    def send(self, text: str, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def send_file(self, path: Path, name: str, with_body: bool) -> None:
        content = path.read_bytes()
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{tag(path)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if not with_body:
            return
        breaks_after = self.answers_for.breaks_after
        body = content[start:] if breaks_after is None else content[start : start + breaks_after]
        self.wfile.write(body)
        self.answers_for.sent[name] += len(body)
        if len(body) < len(content) - start:
            self.close_connection = True


def tag(path: Path) -> str:
    """A file's ETag."""
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
