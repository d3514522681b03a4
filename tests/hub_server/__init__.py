"""A Hub on the loopback interface for tests, which the unmodified official client drives from processes of its own.

    with LoopbackHub() as hub:
        hub.store.add_user("ada", token="hf_...", role="write")
        client = ClientProcess(hub, tmp_path / "home", transport="xet")
        client.run("from huggingface_hub import HfApi", "HfApi().whoami()['name']")

`hub.fail("commit", 503, times=1)` injects a fault at a route; `hub.unknown` lists requests that no route knows.
"""

from .client_process import ClientError, ClientProcess
from .faults import Fault
from .repositories import Commit, Repository, Store
from .server import LoopbackHub

__all__ = ["ClientError", "ClientProcess", "Commit", "Fault", "LoopbackHub", "Repository", "Store"]
