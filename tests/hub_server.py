"""A small hub on 127.0.0.1 for the tests: it serves folders as the Hugging Face hub does, and fails as told."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

MOVED = {
    "models/bert-base-uncased": "models/google-bert/bert-base-uncased",
    "models/gpt2": "models/openai-community/gpt2",
    "models/t5-small": "models/google-t5/t5-small",
}
LARGE = (".safetensors", ".bin", ".h5", ".msgpack", ".onnx", ".parquet")
NOWHERE = "http://127.0.0.1:9"


class Hub(ThreadingHTTPServer):
    """Serves `folder`/models/OWNER/NAME and `folder`/datasets/OWNER/NAME until it is closed.

    `asked`: all requests as (method, path, status). What it does wrong: `status`, `page` and `headers` answer every
    request for a path that `match`es, `cut` ends the connection after so many bytes of a matching file, the first `cuts`
    times; `gated` names need a login; `xet` says that large files lie in a Xet storage, which is out of reach.
    """

    daemon_threads = True

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder, self.asked, self.gated = folder, [], set()
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.be_well()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def be_well(self):
        self.status = self.cut = None
        self.page, self.headers, self.match = b'{"error": "told so"}', {}, "."
        self.cuts, self.xet = 10**6, False

    def close(self):
        self.shutdown()
        self.server_close()

    def files_of(self, repo: str) -> list[str]:
        base = self.folder / repo
        return sorted(str(path.relative_to(base)) for path in base.rglob("*") if path.is_file())

    def commit_of(self, repo: str) -> str:
        contents = [(self.folder / repo / file).read_bytes() for file in self.files_of(repo)]
        return hashlib.sha1(b"".join(contents)).hexdigest()


class Answer(BaseHTTPRequestHandler):
    """One connection: the pages of the API, files with their ETags, and the storage of large files."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def reply(self, status: int, body: bytes | list | dict | str = b"", **headers: str):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        self.server.asked.append((self.command, self.path, status))
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command == "HEAD":
            return
        hub = self.server
        if hub.cut is not None and hub.cuts and re.search(hub.match, self.path):
            hub.cuts, body, self.close_connection = hub.cuts - 1, body[: hub.cut], True
        self.wfile.write(body)

    def do_GET(self):
        hub, path = self.server, unquote(urlsplit(self.path).path).strip("/")
        if hub.status and re.search(hub.match, self.path):
            return self.reply(hub.status, hub.page, **hub.headers)
        if path.startswith("storage/"):
            return self.send_file(path.removeprefix("storage/"))
        found = re.fullmatch(
            r"api/((?:models|datasets)/.+?)(?:/(revision|tree|token)/(\w+).*)?", path
        )
        if found:
            return self.describe(*found.groups())
        found = re.fullmatch(r"(datasets/)?(.+?)/resolve/(\w+)/(.+)", path)
        if found:
            return self.resolve((found[1] or "models/") + found[2], *found.groups()[2:])
        return self.reply(404, {"error": "no such page"})

    do_HEAD = do_GET

    def repo_exists(self, repo: str) -> bool:
        """Whether there is such a name; otherwise the answer is given: a redirect, or one as for private names."""
        if repo in MOVED:
            there = self.path.replace(
                *(name.removeprefix("models/") for name in (repo, MOVED[repo]))
            )
            self.reply(307, Location=there)
        elif not (self.server.folder / repo).is_dir():
            self.reply(401, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        return repo not in MOVED and (self.server.folder / repo).is_dir()

    def describe(self, repo: str, page: str | None, revision: str | None):
        if not self.repo_exists(repo):
            return
        base, files, name = (
            self.server.folder / repo,
            self.server.files_of(repo),
            repo.split("/", 1)[1],
        )
        if page == "token":
            access = {"X_Xet_Cas_Url": NOWHERE, "X_Xet_Access_Token": "t"}
            self.reply(200, {}, X_Xet_Token_Expiration="9999999999", **access)
        elif page == "tree":
            oid = "0" * 40
            self.reply(
                200,
                [
                    {"type": "file", "path": f, "size": (base / f).stat().st_size, "oid": oid}
                    for f in files
                ],
            )
        else:
            siblings = [{"rfilename": file} for file in files]
            self.reply(200, {"id": name, "sha": self.server.commit_of(repo), "siblings": siblings})

    def resolve(self, repo: str, revision: str, file: str):
        if not self.repo_exists(repo):
            return
        commit, path = self.server.commit_of(repo), self.server.folder / repo / file
        if repo.split("/", 1)[1] in self.server.gated:
            self.reply(401, X_Error_Code="GatedRepo", X_Error_Message="Access is restricted")
        elif revision not in ("main", commit):
            self.reply(404, X_Error_Code="RevisionNotFound", X_Error_Message="no such revision")
        elif not path.is_file():
            self.reply(404, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found")
        elif path.suffix not in LARGE:
            self.send_file(f"{repo}/{file}", X_Repo_Commit=commit)
        else:  # as all that Git LFS kept: a link to another host
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            headers = {"X_Linked_Size": str(path.stat().st_size), "X_Linked_ETag": f'"{digest}"'}
            if self.server.xet:
                token = f"{self.server.url}/api/{repo}/token/{commit}"
                headers |= {"X_Xet_Hash": digest, "Link": f'<{token}>; rel="xet-auth"'}
            there = f"{self.server.url.replace('127.0.0.1', 'localhost')}/storage/{repo}/{file}"
            self.reply(302, Location=there, X_Repo_Commit=commit, **headers)

    def send_file(self, file: str, **headers: str):
        body = (self.server.folder / file).read_bytes()
        headers |= {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "Accept_Ranges": "bytes"}
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if start is None:
            return self.reply(200, body, **headers)
        end = f"{len(body) - 1}/{len(body)}"
        return self.reply(
            206, body[int(start[1]) :], Content_Range=f"bytes {start[1]}-{end}", **headers
        )
