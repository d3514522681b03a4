"""Silence of another machine ends a run; the end of its process does not."""

import socket
import threading
import time
from types import SimpleNamespace

import pytest
from patience import PATIENCE
from vithub.scripts.command_line import run
from vithub.training.runtime import lost_machines
from vithub.training.runtime.lost_machines import beat, lost_process, watch_machines


@pytest.fixture
def ends(monkeypatch):
    """Both ends of a connection, with a beat of 10 ms and 200 ms of silence allowed."""
    monkeypatch.setattr(lost_machines, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(lost_machines, "LOST_SECONDS", 0.2)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_machine_of_which_nothing_is_heard_is_lost(ends):
    told = []
    begun = time.monotonic()
    beat(ends[0], "the machine 10.0.0.2", told.append)
    assert time.monotonic() - begun > 0.2
    assert told == ["the machine 10.0.0.2 was lost: nothing was heard of it for 0 s. Resume the run"]
    assert ends[1].recv(100).startswith(b"..")  # it had been sent signs of life all the while


def test_the_end_of_another_process_is_no_lost_machine(ends, monkeypatch):
    monkeypatch.setattr(lost_machines, "LOST_SECONDS", PATIENCE)
    told = []
    one = threading.Thread(target=beat, args=(ends[0], "one", told.append))
    two = threading.Thread(target=beat, args=(ends[1], "two", told.append))
    one.start()
    two.start()
    ends[0].shutdown(socket.SHUT_RDWR)
    one.join()
    two.join()
    assert told == []


def test_a_lost_connection_is_told_in_one_line(capsys):
    text = "[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.2]:41233"

    def ended():
        raise RuntimeError(text)

    assert run(ended) == 1
    told = capsys.readouterr().err
    assert told.startswith("vithub: error: another process of the launch ended")
    assert told.count("\n") == 1
    assert lost_process(RuntimeError("CUDA out of memory")) is None


@pytest.fixture
def launch(monkeypatch):
    """Both machines of a launch in this process: `launch(address)` returns (port, secret) and the names watched."""
    told, names, connections = [], [], []

    def watched(other, name):
        names.append(name)
        connections.append(other)
        beat(other, name)

    def begin(address):
        monkeypatch.setenv("MASTER_ADDR", address)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
        monkeypatch.setattr(lost_machines, "beat", watched)
        monkeypatch.setattr(lost_machines, "broadcast_object_list", lambda given: told or told.extend(given) or told)
        for number in (0, 1):
            monkeypatch.setattr(lost_machines, "_started", threading.Event())
            watch_machines(SimpleNamespace(num_processes=2, process_index=number, local_process_index=0))
        return told[0], names

    yield begin
    if connections:  # the end of one side is that of the other
        connections[0].shutdown(socket.SHUT_RDWR)


def test_a_stranger_who_does_not_know_the_secret_is_not_watched(launch):
    (port, secret), names = launch("127.0.0.1")
    while len(names) < 2:
        time.sleep(0.01)
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(bytes(len(secret)))
        assert stranger.recv(1) == b""  # turned away
    assert sorted(names) == ["the first machine (127.0.0.1)", "the machine 127.0.0.1"]


def test_a_first_machine_that_cannot_be_reached_is_a_warning(launch, monkeypatch, caplog):
    monkeypatch.setattr(lost_machines, "LOST_SECONDS", 0.2)
    (port, _), names = launch("192.0.2.1")  # of no machine, RFC 5737
    assert f"no connection to port {port} of the first machine (192.0.2.1)" in caplog.text
    assert names == []
