"""A loopback Hub, and official clients of it, one process for each transport."""

import pytest
from hub_server import ClientProcess, LoopbackHub

TOKENS = {
    "ada": "hf_adaWritesEverythingOfHers01",
    "bob": "hf_bobWritesHisOwnThings0000001",
    "eve": "hf_eveMayOnlyRead000000001",
}


@pytest.fixture(scope="session")
def running_hub():
    with LoopbackHub() as hub:
        hub.store.add_user("ada", TOKENS["ada"], "write", ("lab",))
        hub.store.add_user("bob", TOKENS["bob"], "write")
        hub.store.add_user("eve", TOKENS["eve"], "read", ("lab",))
        yield hub
        assert not hub.unknown, "requests that the loopback Hub does not know"


@pytest.fixture
def hub(running_hub):
    """The Hub without faults; requests that it does not know, and its own errors, fail the test."""
    running_hub.reset()
    yield running_hub
    unknown, crashes = list(running_hub.unknown), list(running_hub.crashes)
    running_hub.reset()
    running_hub.unknown.clear()
    running_hub.crashes.clear()
    assert not unknown
    assert not crashes


@pytest.fixture(scope="session")
def start_client(running_hub, tmp_path_factory):
    """Starts a client with a fresh home: `start_client("xet")`."""
    started = []

    def start(transport, token=TOKENS["ada"]):
        home = tmp_path_factory.mktemp("clients") / f"{transport}{len(started)}"
        started.append(ClientProcess(running_hub, home, transport, token))
        return started[-1]

    yield start
    for client in started:
        client.close()


@pytest.fixture(scope="session")
def clients(start_client):
    """The client of a transport, logged in as ada, started when it is needed: `clients("xet")`."""
    started = {}

    def give(transport):
        if transport not in started:
            started[transport] = start_client(transport)
            started[transport].run("from huggingface_hub import *", "import vithub", "0")
            started[transport].run("import io, logging, sys, tempfile", "from pathlib import Path", "0")
            started[transport].run("from vithub.scripts.command_line import app, run", "0")
        return started[transport]

    return give


@pytest.fixture(scope="session", params=["lfs", "xet"])
def client(request, clients):
    """The client of each transport in turn; each test takes repositories of its own."""
    return clients(request.param)


@pytest.fixture(scope="session")
def tokens():
    return TOKENS
