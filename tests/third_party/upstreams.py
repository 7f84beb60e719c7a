"""Services behind the gateway: grpcio and websockets as others would run them, and a plain one for bodies and events."""

import asyncio
import threading
import time
from concurrent import futures

import grpc
import websockets.asyncio.server

EVENT_EVERY_S = 0.1


class Echo(grpc.GenericRpcHandler):
    """All four kinds of call; messages are bytes."""

    def service(self, call):
        service, method = call.method.rsplit("/", 1)
        return {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Down": grpc.unary_stream_rpc_method_handler(self.down),
            "Up": grpc.stream_unary_rpc_method_handler(self.up),
            "Both": grpc.stream_stream_rpc_method_handler(self.both),
        }.get(method) if service in ("/echo.Echo", "/secure.Echo") else None

    def unary(self, message, context):
        context.set_trailing_metadata((("served-by", "echo"), ("bytes", str(len(message)))))
        if message == b"fail":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked: \u00e4")
        return message

    def down(self, message, context):
        """`N`: N messages; `N!`: breaks off after them."""
        for number in range(int(message.rstrip(b"!"))):
            yield str(number).encode()
        if message.endswith(b"!"):
            context.set_trailing_metadata((("broke-off", "yes"),))
            context.abort(grpc.StatusCode.DATA_LOSS, "broke off in the middle")

    def up(self, messages, context):
        return str(sum(len(message) for message in messages)).encode()

    def both(self, messages, context):
        for message in messages:
            if message == b"fail":
                context.abort(grpc.StatusCode.ABORTED, "in the middle")
            yield message


def serve_grpc(key_and_chain):
    """Two ports of 127.0.0.1, in the clear and with TLS, and the server."""
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    secure_port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([key_and_chain]))
    server.start()
    return port, secure_port, server


async def _echo(socket):
    async for message in socket:
        await socket.send(message)


async def _plain(reader, writer):
    """HTTP/1.1 as far as the gateway speaks it: `GET /download/BYTES`, `POST /upload`, `GET /events/COUNT`."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            line, *fields = head.decode().splitlines()
            method, path, _ = line.split(" ")
            fields = dict(field.lower().split(": ", 1) for field in fields if ": " in field)
            if method == "POST":
                count = await _read_body(reader, fields)
                body = str(count).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
            elif path.startswith("/download/"):
                left = int(path.removeprefix("/download/"))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % left)
                piece = bytes(1 << 18)
                while left:
                    writer.write(piece[:left])
                    left -= min(left, len(piece))
                    await writer.drain()
            else:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
                for _ in range(int(path.removeprefix("/events/"))):
                    event = b"data: %.6f\n\n" % time.monotonic()
                    writer.write(b"%x\r\n%s\r\n" % (len(event), event))
                    await writer.drain()
                    await asyncio.sleep(EVENT_EVERY_S)
                writer.write(b"0\r\n\r\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _read_body(reader, fields):
    """How many bytes it has."""
    if "content-length" in fields:
        left = total = int(fields["content-length"])
        while left:
            left -= len(await reader.readexactly(min(left, 1 << 18)))
        return total
    total = 0
    while size := int(await reader.readline(), 16):
        await reader.readexactly(size + 2)
        total += size
    await reader.readexactly(2)
    return total


def serve_plain_and_sockets():
    """Two ports of 127.0.0.1: the plain service, and an echo of WebSocket messages. They end with the process."""
    ports = futures.Future()

    async def main():
        plain = await asyncio.start_server(_plain, "127.0.0.1", 0, limit=1 << 20)
        sockets = await websockets.asyncio.server.serve(_echo, "127.0.0.1", 0, max_size=None)
        ports.set_result(tuple(server.sockets[0].getsockname()[1] for server in (plain, sockets)))
        await asyncio.Future()

    threading.Thread(target=asyncio.run, args=(main(),), daemon=True).start()
    return ports.result(timeout=60)
