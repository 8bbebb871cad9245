"""The emulator's server: fakesnow with our patches. Runs in its own environment: `python server.py PORT`.

Beyond Snowflake's protocol it answers `GET /emulator/acknowledged` with the statements
that were taken down and not executed, and `PUT /emulator/s3` says where `s3://` is.
"""

from __future__ import annotations

import os
import sys
import threading

import patches
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def acknowledged(_: Request) -> JSONResponse:
    """Statements about the account so far, in order."""
    return JSONResponse(patches.acknowledged)


async def use_s3(request: Request) -> JSONResponse:
    """From now on `s3://` is read at this endpoint with these keys."""
    import fakesnow.server
    import pyarrow.fs
    from fsspec.implementations.arrow import ArrowFSWrapper

    given = await request.json()
    scheme, _, address = given["endpoint_url"].partition("://")
    filesystem = pyarrow.fs.S3FileSystem(
        access_key=given["access_key_id"],
        secret_key=given["secret_access_key"],
        region=given["region"],
        endpoint_override=address,
        scheme=scheme,
    )
    con = fakesnow.server.shared_fs.duck_conn
    if "s3" in con.list_filesystems():
        con.unregister_filesystem("s3")
    con.register_filesystem(ArrowFSWrapper(filesystem))
    return JSONResponse({"success": True})


def end_with_the_caller() -> None:
    """Stop when the process that started us is gone, however it went: its end of our input closes."""
    sys.stdin.buffer.read()
    os._exit(0)


def main(port: int) -> None:
    """Serve on 127.0.0.1 until told to stop."""
    threading.Thread(target=end_with_the_caller, daemon=True).start()
    patches.install()
    import fakesnow.server

    own = [
        Route("/emulator/acknowledged", acknowledged, methods=["GET"]),
        Route("/emulator/s3", use_s3, methods=["PUT"]),
    ]
    fakesnow.server.app.router.routes.extend(own)
    uvicorn.run(fakesnow.server.app, host="127.0.0.1", port=port, log_level="info", access_log=False)


if __name__ == "__main__":
    main(int(sys.argv[1]))
