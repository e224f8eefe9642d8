"""The process in which grammars are tried: ``python -m engine.decode.sandbox_process FD``, started by Sandbox alone.

It holds llguidance and the vocabulary and nothing else: 27 MB beside a small vocabulary. Each grammar has a fork of it,
and a crash, the CPU limit or the memory limit ends that fork alone. It ends when its connection closes.
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

NICENESS = 5  # the engine's own threads come first where cores are few
STARTED = b"\1"


def send(connection: socket.socket, message: object) -> None:
    """JSON with its length in bytes before it, as 4 bytes. Raises OSError."""
    body = json.dumps(message).encode()
    connection.sendall(len(body).to_bytes(4, "big") + body)


def receive(connection: socket.socket) -> object:
    """What ``send`` has sent. Raises EOFError at the end, OSError, or TimeoutError."""
    return json.loads(read(connection, int.from_bytes(read(connection, 4), "big")))


def read(connection: socket.socket, count: int) -> bytes:
    """Exactly ``count`` bytes. Raises EOFError at the end."""
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def serve(control: socket.socket) -> None:
    """Takes the vocabulary, then one socket for each grammar, until the connection closes."""
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
    """The vocabulary that the engine sends; says whether it can be read."""
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
    """In a fork: reads one definition, has another fork try it, and says how that ended if it could not itself."""
    connection.settimeout(MAX_WAIT_S)
    definition = receive(connection)
    assert isinstance(definition, str)
    connection.sendall(STARTED)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        _attempt(connection, tokenizer, definition)
    status = os.waitpid(pid, 0)[1]
    if status:
        slow = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF
        send(connection, asdict(Verdict(fault="slow" if slow else "died")))
    os._exit(0)  # without clean-up: the process that this is a fork of does that


def _attempt(connection: socket.socket, tokenizer: LLTokenizer, definition: str) -> NoReturn:
    """Sends the verdict, and ends with 0 if there is one."""
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
    """Signals and failed allocations end the process wherever it is; Python is not asked."""
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C goes to all processes; the engine decides
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks leave no zombies
    os.nice(NICENESS)
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
