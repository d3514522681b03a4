"""What the page keeps of visitors, how it begins, and what it says when it cannot answer."""

import json
import os
import re
import signal
import stat
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from patience import PATIENCE
from PIL import Image
from vithub.data.image_processing import build_image_processor
from vithub.data.images import EXTENSIONS
from vithub.interpretability.demo.files import PageFiles, page_files, remove_left_over

import vithub

if not os.environ.get("VITHUB_NEEDS_BROWSER"):  # with it, a missing library fails the tests
    pytest.importorskip("gradio", reason="the page needs the extra `demo`")
    pytest.importorskip("playwright", reason="the page is tested with playwright")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
    config = vithub.HubDeiTConfig(**sizes, id2label={0: "rose", 1: "tulip"}, initializer_range=0.4)
    vithub.HubDeiTForImageClassification(config).save_pretrained(folder)
    build_image_processor((32, 32)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """One picture in each format that can be written here, and a file that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    (folder / "all").mkdir()
    writable = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.SAVE}
    for suffix in sorted(EXTENSIONS & writable):
        image = Image.fromarray(pixels)
        (image.convert("L") if suffix == ".pgm" else image).save(folder / "all" / f"picture{suffix}")
    (folder / "broken.jpg").write_bytes(b"this is no picture")
    return folder


@pytest.fixture
def serve(model, tmp_path):
    """Starts `vithub demo` with a folder for temporary files; gives its process, address and that folder."""
    started = []

    def start(*arguments):
        place = tmp_path / f"temporary-{len(started)}"
        place.mkdir()
        environment = {**os.environ, "TMPDIR": str(place)}
        environment.pop("GRADIO_TEMP_DIR", None)
        command = ["demo", model, *arguments, "--port", processes.free_port()]
        ours, theirs = os.pipe()
        process = processes.start(processes.COMMAND, command, env=environment, stdout=theirs, stderr=theirs)
        os.close(theirs)
        process.stdout = os.fdopen(ours)
        started.append(process)
        told = ""
        for line in process.stdout:
            told += line
            if found := re.search(r"serving on (http://\S+)", line):
                return process, found[1].rstrip("/"), place
        process.wait()
        assert re.search(r"Server failed to start|localhost is not accessible", told), told
        return start(*arguments)  # gradio gives its server 5 seconds to start, which a busy machine exceeds

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def upload(url, file):
    """Sends a file as the page does; gives what the server calls it."""
    mark = b"----mark"
    head = f'Content-Disposition: form-data; name="files"; filename="{file.name}"\r\n\r\n'.encode()
    body = b"--" + mark + b"\r\n" + head + file.read_bytes() + b"\r\n--" + mark + b"--\r\n"
    request = urllib.request.Request(
        f"{url}/gradio_api/upload", body, {"Content-Type": f"multipart/form-data; boundary={mark.decode()}"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)[0]


def files_in(folder):
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_uploads_are_gone_when_the_page_ends(ending, serve, pictures):
    process, url, place = serve("--examples", pictures / "all" / "picture.png")
    kept = upload(url, pictures / "all" / "picture.jpg")
    (folder,) = place.iterdir()
    assert kept.startswith(str(folder))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert files_in(folder)
    process.send_signal(ending)
    output = process.stdout.read()
    process.wait()
    assert process.returncode in ((0, 130) if ending == signal.SIGINT else (143,)), output
    assert "Traceback" not in output
    assert list(place.iterdir()) == []


def test_a_page_that_was_killed_leaves_nothing_once_another_begins(tmp_path, tmp_path_factory):
    code = (
        "import sys, time\n"
        "from vithub.interpretability.demo.files import PageFiles\n"
        f"files = PageFiles(600, {str(tmp_path)!r})\n"
        "(files.folder / 'photo.jpg').write_bytes(b'x')\n"
        "print('made', flush=True)\n"
        "time.sleep(600)\n"
    )
    told = tmp_path_factory.mktemp("told") / "output"
    with told.open("w") as output, processes.start(code, stdout=output) as process:
        while "made" not in told.read_text():
            assert process.poll() is None
            time.sleep(0.01)
        remove_left_over(tmp_path)
        assert len(files_in(tmp_path)) == 1  # it runs
        process.kill()
        process.wait()
    (tmp_path / "vithub-page-notes").mkdir()
    remove_left_over(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["vithub-page-notes"]


def test_what_is_old_is_deleted_and_what_is_new_or_an_example_stays(tmp_path):
    files = PageFiles(600, tmp_path)
    names = ("old/a.jpg", "new/b.jpg", "example/c.jpg", "old/deep/d.webp")
    for name in names:
        (files.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (files.folder / name).write_bytes(b"x")
    before = time.time() - 601
    for path in [*files_in(files.folder), files.folder / "old", files.folder / "old" / "deep"]:
        if path.name != "b.jpg":
            os.utime(path, (before, before))
    files.delete_old(600, {str(files.folder / "example" / "c.jpg")})
    assert {path.name for path in files_in(files.folder)} == {"b.jpg", "c.jpg"}
    files.remove()
    assert not files.folder.exists()
    files.remove()


def test_files_are_deleted_in_time_without_being_asked(tmp_path):
    files = PageFiles(1.0, tmp_path)
    (files.folder / "a.jpg").write_bytes(b"x")
    (files.folder / "stays.jpg").write_bytes(b"x")
    files.watch({str(files.folder / "stays.jpg")})
    end = time.monotonic() + PATIENCE
    while (files.folder / "a.jpg").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert (files.folder / "stays.jpg").exists()
    files.remove()


def test_a_process_has_one_folder_and_gradio_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    files = PageFiles(600, tmp_path)
    monkeypatch.setattr("vithub.interpretability.demo.files._of_this_process", {os.getpid(): files})
    assert page_files(600) is files
    assert os.environ["GRADIO_TEMP_DIR"] == str(files.folder)
    files.remove()


def test_errors_hold_no_path_of_the_server(serve, model):
    """Requests that the page itself never sends."""
    _, url, place = serve()
    secrets = (str(place), "/etc", str(model.parent), str(Path.cwd()), "site-packages")
    for number, data in enumerate(
        ([{"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}],
         [[{"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}], []],
         [{"path": f"{place}/none.jpg", "meta": {"_type": "gradio.FileData"}}], ["words"], [{"path": 3}], [])
    ):  # fmt: skip
        body = json.dumps({"data": data, "fn_index": 0, "session_hash": f"s{number}", "trigger_id": None}).encode()
        request = urllib.request.Request(
            f"{url}/gradio_api/queue/join?", body, {"Content-Type": "application/json", "Origin": url}
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                joined = json.load(answer)
        except urllib.error.HTTPError as error:
            told = error.read().decode()
            error.close()
        else:
            assert "event_id" in joined
            told = ""
            with urllib.request.urlopen(
                f"{url}/gradio_api/queue/data?session_hash=s{number}", timeout=PATIENCE
            ) as lines:
                for line in lines:
                    told += line.decode()
                    if "process_completed" in told or "unexpected_error" in told:
                        break
            assert '"success":false' in told.replace(" ", "") or "unexpected_error" in told
        assert not [secret for secret in secrets if secret in told], told


def test_the_page_opens_on_the_default_method_shows_examples_of_every_format_and_one_error(browser, serve, pictures):
    _, url, _ = serve("--examples", pictures / "all")
    page = browser.new_page(viewport={"width": 1280, "height": 1400})
    page.set_default_timeout(1000 * PATIENCE)
    page.goto(url)
    assert page.input_value("#model0-method input") == "Attention relevance"
    examples = page.locator(".gallery-item img, .gallery img, button.gallery-item img")
    examples.last.wait_for()
    count = len(list((pictures / "all").iterdir()))
    assert examples.count() == count > 10
    page.wait_for_function(
        "count => [...document.querySelectorAll('.gallery img, .gallery-item img')]"
        ".filter(image => image.complete && image.naturalWidth > 0).length >= count",
        arg=count,
    )
    last = ""
    for number in (0, examples.count() - 1):
        examples.nth(number).click()
        page.wait_for_function(
            "last => { const image = document.querySelector('#model0-overlay img');"
            " return image && image.complete && image.naturalWidth > 0 && image.src !== last; }",
            arg=last,
        )
        last = page.get_attribute("#model0-overlay img", "src")
    if shots := os.environ.get("VITHUB_SCREENSHOTS"):
        page.screenshot(path=f"{shots}/demo_examples.png", full_page=True)
    page.click("#photo button[aria-label='Remove Image']")
    page.wait_for_selector("#model0-overlay img", state="detached")
    page.set_input_files("#photo input[type=file]", str(pictures / "broken.jpg"))
    page.wait_for_selector(".toast-body")
    with page.expect_response("**/queue/join*"):  # whatever came of it before is answered first
        page.click("#model0-method input")
        page.get_by_role("option", name="Occlusion").click()
    page.wait_for_function("document.querySelector('#model0-about').innerText.includes('greyed')")
    assert page.inner_text(".toast-body").count("broken.jpg: not an image in a known format") == 1
    assert page.locator(".toast-body").count() == 1
    told_by_parts = "[...document.querySelectorAll('.error')].filter(part => !part.closest('.toast-body')).length"
    assert page.evaluate(told_by_parts) == 0
    if shots:
        page.screenshot(path=f"{shots}/demo_error.png", full_page=True)
    page.close()
