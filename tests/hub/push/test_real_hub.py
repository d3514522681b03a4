"""The same push on the real Hub, for whoever gives a token that may write: VITHUB_TEST_HUB_TOKEN=hf_... pytest ..."""

import os
import secrets

import pytest
from hub_server import ClientError, ClientProcess
from vithub.data.image_processing import build_image_processor

import vithub

TOKEN = os.environ.get("VITHUB_TEST_HUB_TOKEN")


@pytest.mark.skipif(not TOKEN, reason="VITHUB_TEST_HUB_TOKEN gives no token of the real Hub")
@pytest.mark.parametrize("transport", ["lfs", "xet"])
def test_push_pull_and_load_on_the_real_hub(transport, tiny, tmp_path):
    folder = tmp_path / "model"
    vithub.HubViTForImageClassification(tiny()).save_pretrained(folder)
    build_image_processor((32, 32)).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nMade by a test; it goes away by itself.\n")
    client = ClientProcess("https://huggingface.co", tmp_path / "home", transport, TOKEN)
    client.run("import vithub", "from huggingface_hub import HfApi", "api = HfApi()", "0")
    owner = client.run("api.whoami()['name']")
    repo = f"{owner}/vithub-test-{secrets.token_hex(6)}"
    try:
        first = client.run(f"vithub.publish({str(folder)!r}, {repo!r}, private=True, tag='v1').to_dict()")
        assert first["created"]
        assert client.run(f"vithub.publish({str(folder)!r}, {repo!r}).nothing_to_do") is True
        vithub.HubViTForImageClassification(tiny()).save_pretrained(folder)
        second = client.run(f"vithub.publish({str(folder)!r}, {repo!r}).to_dict()")
        assert second["parent"] == first["commit"]
        for revision in ("v1", second["commit"]):
            name = f"type(vithub.load({repo!r}, revision={revision!r})).__name__"
            assert client.run(name) == "HubViTForImageClassification"
        proposed = client.run(f"vithub.publish({str(folder)!r}, {repo!r}, create_pr=True).nothing_to_do")
        assert proposed is True
        with pytest.raises(ClientError, match="names the commit"):
            client.run(f"vithub.publish({str(folder)!r}, {repo!r}, tag='v1').commit")
    finally:
        client.run(f"api.delete_repo({repo!r}, missing_ok=True)", "0")
        client.close()
