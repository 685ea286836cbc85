"""The subcommand `watch`: a page on this machine over what runs and what is in the store."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from reasoning_lab.commands.arguments import take_values
from reasoning_lab.commands.root_config import PathsConfig
from reasoning_lab.report.server import ADDRESS, serve
from reasoning_lab.types import UserError

_MAX_PORT = 65_535
# A training on the same cores goes first.
_NICENESS = 10


def main(arguments: Sequence[str]) -> None:
    """Serve the page until Ctrl-C."""
    (runs, port), unknown = take_values(arguments, "paths.runs", "port")
    if unknown:
        raise UserError(
            f"watch {' '.join(unknown)}: it takes paths.runs=FOLDER and port=N; take the rest out"
        )
    if port and not (port.isdecimal() and int(port) <= _MAX_PORT):
        raise UserError(f"port={port}: give a number up to {_MAX_PORT}, or leave it out")
    folder = Path(runs or PathsConfig().runs)
    try:
        server = serve(folder, int(port or 0))
    except OSError as error:
        raise UserError(
            f"port={port}: it cannot be used ({error.strerror}); choose another, or leave it out"
        ) from error
    os.nice(_NICENESS)
    with server, suppress(KeyboardInterrupt):
        address = f"http://{ADDRESS}:{server.server_port}/"
        print(f"{address} shows what is in {folder}; Ctrl-C ends it.", flush=True)
        server.serve_forever()
