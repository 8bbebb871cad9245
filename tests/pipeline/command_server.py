"""Runs `petwellness` commands as forks of one process that has imported the large libraries already.

Importing Dagster, dbt and the rest takes each command some five seconds of a core. A fork starts with them, and with
nothing of the platform's own: settings are read anew in every one. One server is for all workers of a session: each
has a connection, on which requests are lines of JSON; the answers are the process id of the command at its start and
its exit code at its end. The server ends with its last connection.
"""

import atexit
import contextlib
import gc
import json
import os
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, NoReturn

PRELOADED = (
    "dagster",
    "dagster_dbt",
    "dbt.adapters.duckdb",
    "dbt.cli.main",
    "duckdb",
    "great_expectations",
    "mlflow.sklearn",
    "pyarrow.compute",
    "pyarrow.parquet",
    "sklearn.ensemble",
    "typer",
)


def main(address: str) -> None:
    """Listen at a path, and say so by one line on standard output."""
    for name in PRELOADED:
        __import__(name)
    repository = Path(__file__).resolve().parents[2]
    ours = {path.parent.name for path in repository.glob("*/__init__.py")}
    assert ours.isdisjoint(name.partition(".")[0] for name in sys.modules)
    # What is here stays: a collection in a fork would go through it, and copy its pages, for nothing.
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print("listening", flush=True)
    serving: set[int] = set()
    while True:
        with contextlib.suppress(TimeoutError):
            connection, _ = listener.accept()
            if (pid := os.fork()) == 0:
                listener.close()
                return serve(connection)
            connection.close()
            serving.add(pid)
        listener.settimeout(0.2)
        while serving and (ended := os.waitpid(-1, os.WNOHANG)[0]):
            serving.discard(ended)
        if not serving:
            return os.unlink(address)


def serve(connection: socket.socket) -> None:
    """Run what one worker asks for, one command after the other."""
    with connection, connection.makefile("r") as requests, connection.makefile("w") as answers:
        for line in requests:
            if (pid := os.fork()) == 0:
                # The connection is the worker's and this process's parent's alone.
                os.close(connection.detach())
                become(json.loads(line))
            print(pid, file=answers, flush=True)
            _, status = os.waitpid(pid, 0)
            print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def become(request: dict[str, Any]) -> NoReturn:
    """Be the command: in a process group of its own, with its environment, folder and streams."""
    os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    writing = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number, file in enumerate((os.devnull, request["stdout"], request["stderr"])):
        os.dup2(os.open(file, writing if number else os.O_RDONLY), number)
    sys.argv = ["petwellness", *request["arguments"]]

    from petwellness_orchestration.cli import main

    code: Any = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    # As children of multiprocessing end: to take the interpreter apart would take seconds of collecting.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    main(sys.argv[1])
