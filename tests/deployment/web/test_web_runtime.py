"""The runtime of web pages is loaded by its hash and kept."""

import http.server
import io
import tarfile
import threading

import pytest
from vithub.deployment.web import web_runtime
from vithub.deployment.web.web_runtime import RUNTIME, find_runtime
from vithub.hub.exported.forms import BackendError


def test_the_runtime_is_loaded_by_its_hash_and_kept(tmp_path, monkeypatch):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as made:
        for name in RUNTIME:
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(name)
            made.addfile(entry, io.BytesIO(name.encode()))
    content, asked = archive.getvalue(), []

    class Registry(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setattr(web_runtime.constants, "HF_HOME", str(tmp_path))
    monkeypatch.setattr(web_runtime.constants, "HF_HUB_OFFLINE", False)
    try:
        with pytest.raises(BackendError, match="is not the archive that this package was tested with, by its SHA-256"):
            find_runtime()
        assert not list(tmp_path.iterdir())
        hashes = {name: web_runtime.hashlib.sha256(name.encode()).hexdigest() for name in RUNTIME}
        monkeypatch.setattr(web_runtime, "ARCHIVE_HASH", web_runtime.hashlib.sha256(content).hexdigest())
        monkeypatch.setattr(web_runtime, "RUNTIME", hashes)
        for _ in range(2):  # the second time from the cache
            found = find_runtime()
            assert {name: found[name] for name in RUNTIME} == {name: name.encode() for name in RUNTIME}
        assert asked == [f"/onnxruntime-web/-/onnxruntime-web-{web_runtime.VERSION}.tgz"] * 2
    finally:
        server.shutdown()
        server.server_close()
    kept = next(tmp_path.rglob("*.wasm"))
    kept.write_bytes(b"changed")
    monkeypatch.setattr(web_runtime.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BackendError, match=r"not in the cache, and HF_HUB_OFFLINE is set: give .*web_runtime"):
        find_runtime()


def test_a_registry_that_cannot_be_reached_and_a_folder_without_the_files(tmp_path, monkeypatch):
    monkeypatch.setattr(web_runtime.constants, "HF_HOME", str(tmp_path))
    monkeypatch.setattr(web_runtime.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9")
    with pytest.raises(BackendError, match=r"could not be loaded from http://127.0.0.1:9/.*give .*web_runtime"):
        find_runtime()
    with pytest.raises(BackendError, match=r"holds no runtime for the web .* npm install --ignore-scripts"):
        find_runtime(tmp_path)
