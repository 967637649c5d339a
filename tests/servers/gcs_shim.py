"""A shim, and NOT Google Cloud Storage: it translates the few headers in which the XML interface of GCS differs from S3, and
hands everything else to moto. What it cannot show: Google's own behaviour, its signatures, its speed.

    x-goog-if-generation-match: 0   becomes   If-None-Match: *
    (answer)                        gains     x-goog-generation: 1

With a third word, `deaf`, it drops the condition instead: an S3 server that does not honour it.
"""

import http.client
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, behind = map(int, sys.argv[1:3])
deaf = sys.argv[3:] == ["deaf"]


class Shim(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def pass_on(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        headers = {}
        for name, value in self.headers.items():
            lower = name.lower()
            if lower == "x-goog-if-generation-match":
                assert value == "0", value
                headers["If-None-Match"] = "*"
            elif deaf and lower == "if-none-match":
                continue
            elif lower in ("host", "connection", "authorization", "content-length"):
                continue
            elif lower.startswith("x-goog-"):
                headers["x-amz-" + lower[7:]] = value
            else:
                headers[name] = value
        headers["Content-Length"] = str(length)
        # moto tells S3 from other services by the signature, and checks nothing of it.
        headers["Authorization"] = "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
        connection = http.client.HTTPConnection("127.0.0.1", behind, timeout=60)
        connection.request(self.command, self.path, body=body, headers=headers)
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                self.send_header(name, value)
        self.send_header("x-goog-generation", "1")
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        connection.close()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on


ThreadingHTTPServer.request_queue_size = 128
ThreadingHTTPServer(("127.0.0.1", port), Shim).serve_forever()
