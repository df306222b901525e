"""Starts commands as real processes that need not import anything; run as a script, the process that starts them.

A process that has imported everything forks one child per command line: a kill falls into the work and not into
imports, and a start takes no time.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
LONGEST_S = 240
"""A process that has not ended after so long hangs."""


class Starter:
    """Starts commands as children of a process that has everything imported."""

    def __init__(self, folder: Path, modules: Sequence[str]) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), *modules],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder,
        )  # fmt: skip
        self._codes: dict[int, int] = {}
        assert self._ask({}) == "ready"

    def start(self, words: list[str], log: Path, environment: Mapping[str, str], *, at_most: int | None = None) -> int:
        """Start a command; return the number of its process.

        Args:
            words: The module with the command's `main`, or its package, then the command line.
            log: File for all that it prints.
            environment: Variables that it sees beside those of this process.
            at_most: Bytes that a file may have; a larger one fails to be written, as on a full disk.
        """
        asked = {"words": words, "log": str(log), "environment": dict(environment), "at_most": at_most}
        process = int(self._ask(asked))
        self._codes.pop(process, None)  # of an earlier process with this number
        return process

    def code(self, process: int) -> int | None:
        """Return the exit code of a child; negative for a signal, None while it runs."""
        if process not in self._codes and (answer := self._ask({"wait": process})) != "None":
            self._codes[process] = int(answer)
        return self._codes.get(process)

    def end(self, process: int) -> int:
        deadline = time.monotonic() + LONGEST_S
        while (code := self.code(process)) is None:
            if time.monotonic() > deadline:
                os.kill(process, signal.SIGABRT)
                raise AssertionError(f"process {process} hangs")
            time.sleep(0.02)
        return code

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _ask(self, question: dict[str, object]) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        assert answer, f"the starting process has ended: {self._process.wait()}"
        return answer


def serve() -> None:
    """Read what to start from standard input until it is closed."""
    for module in sys.argv[1:]:
        importlib.import_module(module)
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            process, status = os.waitpid(asked["wait"], os.WNOHANG)
            print(os.waitstatus_to_exitcode(status) if process else None, flush=True)
        elif "words" in asked:
            process = os.fork()
            if not process:
                child(**asked)
            print(process, flush=True)
        else:
            print("ready", flush=True)


def child(words: list[str], log: str, environment: dict[str, str], at_most: int | None) -> None:
    os.setsid()
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if at_most is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (at_most, at_most))
    package = words[0] if "." in words[0] else f"{words[0]}.__main__"
    main = importlib.import_module(package).main
    from pretext.system.errors import run_command

    sys.argv = words
    code = 70
    try:
        run_command(main)
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
