"""push and pull with the real huggingface_hub, against a hub that lives in this process."""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from apart import run_apart

pytest.importorskip("huggingface_hub", reason="needs the extra hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Repositories as {name: {file: bytes}}; whoever has a token may write."""

    repositories: dict[str, dict[str, bytes]]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    """The part of the hub's HTTP that create_repo, upload_folder and snapshot_download use."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def say(self, status: int, value: Any, **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, said in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), said)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != "Bearer hf_test":
            return self.say(401, {"error": "Invalid username or password."})
        repositories = self.server.repositories
        if self.path == "/api/validate-yaml":  # of the model card
            return self.say(200, {"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            said = json.loads(body)
            name = (
                f"{said['organization']}/{said['name']}"
                if said.get("organization")
                else said["name"]
            )
            repositories.setdefault(name, {})
            return self.say(200, {"url": f"{self.server.address}/{name}", "id": name, "name": name})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", self.path):
            asked = json.loads(body)["files"]
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked
            ]
            return self.say(200, {"files": files})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", self.path):
            for line in body.splitlines():
                said = json.loads(line)
                if said["key"] == "file":
                    content = base64.b64decode(said["value"]["content"])
                    repositories[found[1]][said["value"]["path"]] = content
            url = f"{self.server.address}/{found[1]}/commit/{COMMIT}"
            return self.say(200, {"commitUrl": url, "commitOid": COMMIT, "pullRequestUrl": None})
        return self.say(404, {"error": self.path})

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/main)?", path):
            if found[1] not in self.server.repositories:
                return self.say(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            files = [{"rfilename": name} for name in self.server.repositories[found[1]]]
            return self.say(
                200, {"id": found[1], "sha": COMMIT, "siblings": files, "private": False}
            )
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+", path):
            files = [
                {"type": "file", "path": name, "size": len(data), "oid": COMMIT}
                for name, data in self.server.repositories[found[1]].items()
            ]
            return self.say(200, files)
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            content = self.server.repositories[found[1]].get(found[2])
            if content is None:
                return self.say(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
            tag = hashlib.sha256(content).hexdigest()
            return self.say(200, content, ETag=f'"{tag}"', X_Repo_Commit=COMMIT)
        return self.say(404, {"error": path})

    do_HEAD = do_GET


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub(("127.0.0.1", 0), Answers)
    server.repositories = {}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def alexnet(
    hub: Hub, home: Path, *words: object, token: str = "hf_test"
) -> "subprocess.CompletedProcess[str]":
    """The command in a process of its own: the library reads its address when imported."""
    return run_apart(
        home, [*words], HF_ENDPOINT=hub.address, HF_HOME=str(home), HF_TOKEN=token,
        HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_TELEMETRY="1",
    )  # fmt: skip


def test_what_is_pushed_can_be_pulled(hub: Hub, trained: Path, tmp_path: Path) -> None:
    """A run goes to the hub and comes back: same weights, classes and certificate."""
    run = Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))
    done = alexnet(
        hub, tmp_path / "home", "export", run, "--format", "safetensors", "--out", tmp_path / "hub",
        "--push", "someone/digits",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files = hub.repositories["someone/digits"]
    assert {"README.md", "certificate.json", "config.json", "model.safetensors"} <= set(files)
    for name in ("README.md", "certificate.json", "config.json", "model.safetensors"):
        assert files[name] == (tmp_path / "hub" / name).read_bytes()

    files["run-me.py"] = b"raise SystemExit('was run')"
    done = alexnet(
        hub, tmp_path / "home", "import", "hf:someone/digits", "--run", tmp_path / "again"
    )
    assert done.returncode == 0, done.stderr
    weights = [
        next(place.glob("checkpoints/best/model.safetensors"))
        for place in (run, tmp_path / "again")
    ]
    one, other = map(load_file, weights)
    assert one.keys() == other.keys()
    assert all((one[name] == other[name]).all() for name in one)
    assert not list((tmp_path / "again").rglob("*.py"))
    assert str(tmp_path) not in done.stderr
    digest = hashlib.sha256(files["model.safetensors"]).hexdigest()
    saved = json.loads((tmp_path / "again/recipe.json").read_text())
    assert saved["init"] == {"path": "hf:someone/digits", "revision": COMMIT, "sha256": digest}
    events = (tmp_path / "again/metrics.jsonl").read_text().splitlines()
    assert json.loads(events[0])["file"] == "hf:someone/digits"
    done = alexnet(hub, tmp_path / "home", "report", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    page = html.unescape((tmp_path / "again/report.html").read_text())
    line = f"alexnet import hf:someone/digits --run {tmp_path / 'again-again-1'}"
    assert f"<pre><code>{line}</code></pre>" in page
    done = alexnet(hub, tmp_path / "home", *line.split()[1:])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again-again-1/certificate.json").is_file()

    del files["certificate.json"]
    words = ("import", "hf:someone/digits", "--run", tmp_path / "none")
    done = alexnet(hub, tmp_path / "home", *words)
    assert done.returncode == 2
    assert "hf:someone/digits has no certificate" in done.stderr
    assert "/tmp" not in done.stderr.replace(str(tmp_path), "")


def test_refusals_of_the_hub_are_one_line(hub: Hub, trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))
    done = alexnet(
        hub, tmp_path / "home", "export", run, "--format", "safetensors",
        "--out", tmp_path / "there", "--push", "someone/digits",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = alexnet(
        hub, tmp_path / "home", "export", run, "--format", "safetensors", "--out", tmp_path / "hub",
        "--push", "someone/digits", token="hf_wrong",
    )  # fmt: skip
    assert done.returncode == 2
    assert "cannot push to 'someone/digits'" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    done = alexnet(hub, tmp_path / "home", "import", "hf:someone/none", "--run", tmp_path / "again")
    assert done.returncode == 2
    assert "cannot pull 'someone/none'" in done.stderr.splitlines()[-1]
    for given, why in ((["--mean", "mean.binaryproto"], "--mean"), (["--bgr"], "torch's names")):
        words = ("import", "hf:someone/digits", "--run", tmp_path / "again", *given)
        done = alexnet(hub, tmp_path / "home", *words)
        assert done.returncode == 2
        assert why in done.stderr.splitlines()[-1]
    assert not (tmp_path / "again").exists()
