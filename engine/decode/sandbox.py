"""Tries out a new grammar in a separate process before the engine compiles it, because llguidance may crash that
process.

llguidance follows references by unlimited recursion and cannot be interrupted: a chain of a thousand references
overflows the stack, and some small grammars take seconds or gigabytes. So each new grammar is tried out in a process of
its own, with a small stack, a CPU limit and a memory limit. The engine compiles only grammars that pass.

The first trial starts the process: 0.13 s and 27 MB with 4,096 tokens, about 2 s and 200 MB with 150,000. Each later
trial forks it twice, and takes 8 to 10 ms for a small grammar, work included.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import weakref

from engine.decode.budget import MAX_WAIT_S
from engine.decode.grammar_tokenizer import Vocabulary
from engine.decode.sandbox_process import STARTED, read, receive, send
from engine.decode.trial import Verdict

MAX_TRIALS = 2  # trials at the same time
MAX_START_S = 60.0  # seconds in which the process must have loaded the vocabulary


class SandboxError(Exception):
    """A trial gave no verdict, and not because of the grammar: the process could not be started, was killed from
    outside, or got no CPU time."""


class EndedError(SandboxError):
    """The process has ended."""


class Sandbox:
    """Compiles grammars for one vocabulary in a process of its own, with limits on time and memory, to learn whether
    they are safe for the engine. The first trial starts the process. May be used from any thread."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(MAX_TRIALS)
        self._process: _Process | None = None

    def attempt(self, definition: str) -> Verdict:
        """Compiles ``definition``, a grammar in llguidance's language, in the process, and returns whether it passed,
        with the reason. Waits for the process. Raises SandboxError if there is no verdict, and ValueError for a
        vocabulary that llguidance cannot read."""
        with self._slots:
            try:
                return self._started().attempt(definition)
            except EndedError:
                self.close()  # killed from outside, perhaps for lack of memory: try once more with a new process
                return self._started().attempt(definition)

    def close(self) -> None:
        """Ends the process if it runs. The next trial starts a new one."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.close()

    def _started(self) -> _Process:
        """Returns the running process, starting it if there is none."""
        with self._lock:
            if self._process is None:
                self._process = _Process(self._vocabulary)
            return self._process


class _Process:
    """A running process for trials. It ends when the last reference to this object is gone."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Starts the process. Raises SandboxError if that fails, and ValueError for a vocabulary that llguidance cannot
        read."""
        self._control, theirs = socket.socketpair()
        command = [sys.executable, "-m", "engine.decode.sandbox_process", str(theirs.fileno())]
        # The child imports modules from the same directories as this process.
        paths = os.pathsep.join(path for path in sys.path if path)
        environment = {**os.environ, "PYTHONPATH": paths, "TOKENIZERS_PARALLELISM": "false"}
        try:
            child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        except OSError as error:
            self._control.close()
            raise SandboxError(f"cannot start the process that tries grammars: {error.strerror}") from error
        finally:
            theirs.close()
        self.close = weakref.finalize(self, _end, self._control, child)
        self._sending = threading.Lock()
        self._load(vocabulary)

    def attempt(self, definition: str) -> Verdict:
        """Has the process try a grammar, and returns the verdict. Raises EndedError if the process has ended,
        SandboxError if there is no verdict in time."""
        mine, theirs = socket.socketpair()
        with mine:
            try:
                with theirs, self._sending:
                    socket.send_fds(self._control, [b"\0"], [theirs.fileno()])
                mine.settimeout(MAX_WAIT_S)
                send(mine, definition)
                read(mine, len(STARTED))
            except (OSError, EOFError) as error:
                raise EndedError("the process that tries grammars has ended") from error
            return _verdict(mine)

    def _load(self, vocabulary: Vocabulary) -> None:
        """Sends the vocabulary and waits until the process has loaded it."""
        try:
            self._control.settimeout(MAX_START_S)
            send(self._control, [vocabulary.text, vocabulary.size, vocabulary.eos_token_ids])
            fault = receive(self._control)
            self._control.settimeout(None)
        except (OSError, EOFError) as error:
            self.close()
            raise SandboxError("the process that tries grammars did not start") from error
        if fault:
            self.close()
            raise ValueError(str(fault))


def _verdict(connection: socket.socket) -> Verdict:
    """Returns the verdict that the process sends. Raises SandboxError if there is none in time."""
    try:
        found = receive(connection)
    except EOFError as error:
        raise SandboxError("a trial of a grammar was ended from outside, or got no CPU time") from error
    except OSError as error:
        raise SandboxError(f"there was no verdict on a grammar within {MAX_WAIT_S:g} s") from error
    assert isinstance(found, dict)
    return Verdict(**found)


def _end(control: socket.socket, child: subprocess.Popen[bytes]) -> None:
    """Ends the process by closing its connection, and kills it if that takes more than 5 s. A fork that tries a grammar
    ends by its own limits."""
    control.close()
    try:
        child.wait(timeout=5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
