"""moto's server with conditional writes that are atomic: HOST PORT. By itself moto looks whether a name is taken and writes it in two
steps, between which another thread may come: of 16 creations at once two may win, rarely, on a machine with much to do."""

import sys
import threading

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

application = DomainDispatcherApplication(create_backend_app)
one_at_a_time = threading.Lock()


def atomic(environ, start_response):
    if environ["REQUEST_METHOD"] == "PUT" and "HTTP_IF_NONE_MATCH" in environ:
        with one_at_a_time:
            return application(environ, start_response)
    return application(environ, start_response)


run_simple(sys.argv[1], int(sys.argv[2]), atomic, threaded=True)
