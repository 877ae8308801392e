"""The pages of a network that lets nobody out who has not been at its portal.

In clear, every page leads to the portal, at whose address /accept lets everybody out: it takes the rules away that
keep them in. Over TLS there is the API of RFC 8908.
"""

import http.server
import json
import socket
import socketserver
import ssl
import subprocess
import sys
import threading

PORTAL = "portal.cafe.test"


class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.headers.get("Host").split(":")[0] != PORTAL:
            self.send_response(302)
            self.send_header("Location", f"http://{PORTAL}/login?from={self.headers.get('Host')}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path == "/accept":
            subprocess.run(["nft", "delete table inet captive"], check=True)
        answer(self, "text/plain", f"{self.path} is welcome\n")


class Api(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        told = {"captive": True, "user-portal-url": f"https://{PORTAL}/told-by-api"}
        answer(self, "application/captive+json", json.dumps(told))


def answer(handler, kind, text):
    handler.send_response(200)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(text)))
    handler.end_headers()
    handler.wfile.write(text.encode())


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6

    def __init__(self, port, pages, tls=None):
        super().__init__(("::", port), pages)
        self.tls = tls

    def server_bind(self):
        # Not that of HTTP servers, which asks for the name of its address.
        socketserver.TCPServer.server_bind(self)

    def finish_request(self, request, client_address):
        if self.tls:
            try:
                request = self.tls.wrap_socket(request, server_side=True)
            except OSError as error:
                print(f"no handshake: {error}", flush=True)
                return
        super().finish_request(request, client_address)


tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(sys.argv[1], sys.argv[2])
for port in [80, 8080, 8880]:
    threading.Thread(target=Server(port, Pages).serve_forever).start()
api = Server(8443, Api, tls)
print("the pages are there", flush=True)
api.serve_forever()
