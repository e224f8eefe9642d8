"""The process in which grammars are tried out: ``python -m engine.decode.sandbox_process FD``, started by Sandbox only.

It holds llguidance and the vocabulary and nothing else: 27 MB beside a small vocabulary. It forks for each grammar; a
crash, the CPU limit or the memory limit ends only that fork. It ends when its connection closes.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from engine.decode.budget import MAX_COMPILE_S, MAX_MEMORY_BYTES, MAX_STACK_BYTES, MAX_WAIT_S
from engine.decode.grammar_tokenizer import Vocabulary
from engine.decode.trial import Verdict, attempt

if TYPE_CHECKING:
    from llguidance import LLTokenizer

NICENESS = 5  # lower priority than the engine's threads, for machines with few cores
STARTED = b"\1"  # sent when a trial begins
OUTSIDE = signal.SIGALRM, signal.SIGKILL, signal.SIGTERM
"""What ends a trial without a fault of its grammar: it got no CPU time, or was killed, perhaps for lack of memory."""


def send(connection: socket.socket, message: object) -> None:
    """Sends ``message`` as JSON, after its length in bytes as 4 bytes, big-endian. Raises OSError if the connection
    fails."""
    body = json.dumps(message).encode()
    connection.sendall(len(body).to_bytes(4, "big") + body)


def receive(connection: socket.socket) -> object:
    """Returns a message sent by ``send``. Raises EOFError if the connection ends, TimeoutError after the socket's
    timeout, and OSError if the connection fails."""
    return json.loads(read(connection, int.from_bytes(read(connection, 4), "big")))


def read(connection: socket.socket, count: int) -> bytes:
    """Returns exactly ``count`` bytes. Raises EOFError if the connection ends before, and OSError if it fails."""
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def serve(control: socket.socket) -> None:
    """Receives the vocabulary, then a socket for each grammar, until the connection closes. Forks to serve each
    socket."""
    tokenizer = _load(control)
    while True:
        _, sockets, _, _ = socket.recv_fds(control, 1, 1)
        if not sockets:
            return
        if os.fork() == 0:
            control.close()
            _try(socket.socket(fileno=sockets[0]), tokenizer)
        os.close(sockets[0])


def _load(control: socket.socket) -> LLTokenizer:
    """Receives the vocabulary and loads it. Answers with an error message, empty if loading succeeded."""
    vocabulary = receive(control)
    assert isinstance(vocabulary, list)
    text, size, eos_token_ids = vocabulary
    try:
        tokenizer = Vocabulary(text, size, tuple(eos_token_ids)).load()
    except ValueError as error:
        send(control, str(error))
        raise
    send(control, "")
    return tokenizer


def _try(connection: socket.socket, tokenizer: LLTokenizer) -> NoReturn:
    """Runs in a fork: receives one definition and forks again to try it. Sends the verdict itself if that fork died of
    its grammar. If it was ended otherwise, there is no verdict, and the connection ends."""
    connection.settimeout(MAX_WAIT_S)
    definition = receive(connection)
    assert isinstance(definition, str)
    connection.sendall(STARTED)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        _attempt(connection, tokenizer, definition)
    status = os.waitpid(pid, 0)[1]
    ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if status and ended_by not in OUTSIDE:
        send(connection, asdict(Verdict(fault="slow" if ended_by == signal.SIGPROF else "died")))
    os._exit(0)  # without clean-up, which is left to the parent process


def _attempt(connection: socket.socket, tokenizer: LLTokenizer, definition: str) -> NoReturn:
    """Tries a definition and sends the verdict. Exits with 0 if there is one, else with 1."""
    verdicts: list[Verdict] = []
    threading.stack_size(MAX_STACK_BYTES)
    thread = threading.Thread(target=lambda: verdicts.append(attempt(tokenizer, definition)), daemon=True)
    _limit()
    thread.start()
    thread.join()
    for verdict in verdicts:
        send(connection, asdict(verdict))
    os._exit(0 if verdicts else 1)


def _limit() -> None:
    """Sets the limits on CPU time, wall time and memory. Signals and failed allocations then end the process, wherever
    it is."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stderr.fileno())  # what a crash writes may quote the grammar
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.setitimer(signal.ITIMER_PROF, MAX_COMPILE_S)
    signal.setitimer(signal.ITIMER_REAL, MAX_WAIT_S)
    statm = Path("/proc/self/statm")
    if statm.exists():
        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MAX_MEMORY_BYTES,) * 2)


def main() -> None:
    """Runs the sandbox process. Its command-line argument is the file descriptor of the connection to the engine."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C goes to all processes; the engine decides
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks leave no zombies
    os.nice(NICENESS)
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
