"""An HTTP server of a test, in a thread of its own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer


@contextmanager
def serving_in_a_thread(server: ThreadingHTTPServer) -> Iterator[None]:
    """It answers inside the block. Afterwards its thread and its socket are closed."""
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    with server:
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
