"""Ends a run over several machines when one of them is lost.

A machine that is switched off or cut from the network closes no connection: the others would wait in their next
exchange for as long as gloo or NCCL allow, half an hour by default. So the first process of each machine keeps a
connection of its own to the first of all, over which both send a byte every few seconds. Silence means that the other
machine is lost. A closed connection means only that the other process ended, which is told elsewhere.
"""

import logging
import os
import secrets
import select
import socket
import sys
import threading
import time
from collections.abc import Callable

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

logger = logging.getLogger("vithub")
BEAT_SECONDS = 3.0
LOST_SECONDS = 30.0  # of silence
_SECRET_BYTES = 32
_started = threading.Event()


def watch_machines(state: PartialState) -> None:
    """Begins to watch the other machines of a launch, once in a process; does nothing on a single machine.

    Where no connection can be made, as behind an address that forwards the port of the launch alone, a warning says so
    and the run goes on.

    Args:
        state: Joined processes; all of them must make this call.
    """
    if _started.is_set() or state.num_processes <= int(os.environ.get("LOCAL_WORLD_SIZE", state.num_processes)):
        return
    _started.set()
    address = os.environ.get("MASTER_ADDR", "")
    listening = _listen(address) if state.process_index == 0 else None
    told = (listening.getsockname()[1], secrets.token_bytes(_SECRET_BYTES)) if listening else None
    port, secret = broadcast_object_list([told])[0]
    if listening is not None:
        threading.Thread(target=_accept, args=(listening, secret), daemon=True).start()
    elif state.local_process_index == 0:
        try:
            other = socket.create_connection((address, port), LOST_SECONDS)
            other.sendall(secret)
        except OSError as error:
            logger.warning(
                "no connection to port %d of the first machine (%s): %s. If a machine is lost, this run ends only "
                "after the time limit of its exchanges",
                port,
                address,
                error,
            )
            return
        _watch(other, f"the first machine ({address})")


def _listen(address: str) -> socket.socket:
    """Socket at a free port of an address of this machine; of all its addresses if that is another's or a name's."""
    try:
        return socket.create_server((address, 0))
    except OSError:
        return socket.create_server(("", 0))


def _accept(listening: socket.socket, secret: bytes) -> None:
    while True:
        other, (address, *_) = listening.accept()
        threading.Thread(target=_welcome, args=(other, str(address), secret), daemon=True).start()


def _welcome(other: socket.socket, address: str, secret: bytes) -> None:
    """Watches a machine that says the secret of this launch, and turns away all else, whose silence means nothing."""
    try:
        other.settimeout(LOST_SECONDS)
        said = b""
        while len(said) < len(secret) and (more := other.recv(len(secret) - len(said))):
            said += more
    except OSError as error:
        logger.debug("%s connected and said nothing: %s", address, error)
        said = b""
    if secrets.compare_digest(said, secret):
        beat(other, f"the machine {address}")
    else:
        other.close()


def _watch(other: socket.socket, name: str) -> None:
    threading.Thread(target=beat, args=(other, name), daemon=True).start()


def beat(other: socket.socket, name: str, lost: Callable[[str], None] | None = None) -> None:
    """Sends bytes to another machine and reads its bytes until the connection is closed or the machine is lost.

    Args:
        other: Connection to it.
        name: What messages call it.
        lost: Called with the message when it is lost; None ends the process with code 1.
    """
    other.setblocking(False)
    heard = sent = time.monotonic()
    with other:
        while True:
            now = time.monotonic()
            if now - heard > LOST_SECONDS:
                (lost or _end)(f"{name} was lost: nothing was heard of it for {LOST_SECONDS:.0f} s. Resume the run")
                return
            try:
                if now - sent >= BEAT_SECONDS:
                    other.send(b".")
                    sent = now
                if select.select([other], [], [], BEAT_SECONDS)[0]:
                    if not other.recv(4096):
                        return
                    heard = time.monotonic()
            except BlockingIOError:  # its buffer is full, as nothing is taken from it
                time.sleep(BEAT_SECONDS)
            except OSError as error:
                logger.debug("the connection to %s ended: %s", name, error)
                return


def _end(message: str) -> None:
    """Ends this process at once: its main thread waits for the other machine, and cannot be interrupted."""
    sys.stderr.write(f"vithub: error: {message}\n")
    sys.stderr.flush()
    os._exit(1)


def lost_process(error: BaseException) -> str | None:
    """Message for an error of torch that says that another process of the launch ended, or None for other errors."""
    distributed = torch.distributed
    of_nccl = distributed.is_available() and isinstance(error, distributed.DistBackendError)
    if of_nccl or "gloo/transport" in str(error) or "Connection closed by peer" in str(error):
        return "another process of the launch ended; its own message tells why. Resume the run once that is mended"
    return None


__all__ = ["beat", "lost_process", "watch_machines"]
