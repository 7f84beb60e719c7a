"""Real clients through a real gateway to real services: what others wrote understands what we write.

    python tests/third_party/run.py --binary target/release/quorumgate [--full]

gRPC with grpcio, WebSocket with websockets (HTTP/1.1) and wsproto over h2 (HTTP/2, RFC 8441), bodies and server-sent
events with curl. `--full`: 1 GiB bodies and a minute of events. Everything is on loopback, and ends with this process.
"""

import argparse
import asyncio
import os
import pathlib
import socket
import ssl
import subprocess
import sys
import tempfile
import time

import grpc
import trustme
import websockets.asyncio.client

import tunnel
import upstreams

MIB = 1 << 20
# Longer than a loaded machine needs for anything here; every wait ends at once when its condition holds.
PATIENCE_S = 60


def free_ports(count):
    """That were free a moment ago, below the range from which the kernel takes ports for outgoing connections."""
    found = []
    for port in range(10_000 + os.getpid() % 15_000, 30_000):
        with socket.socket() as it:
            it.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                it.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"found {len(found)} free ports, wanted {count}")


class Gateway:
    """One node with a plain port and one for TLS, and its document."""

    def __init__(self, binary, folder, certificate, plain_port, socket_port, grpc_port, secure_port):
        self.http, self.https, self.admin, peers = free_ports(4)
        self.folder = folder
        certificate.private_key_and_cert_chain_pem.write_to_path(folder / "both.pem")
        (folder / "node.yaml").write_text(f"""
name: node-1
data: ./data
cluster: {{listen: "127.0.0.1:{peers}", plaintext: true}}
http: {{listen: "127.0.0.1:{self.http}"}}
https: {{listen: "127.0.0.1:{self.https}", certificates: [{{certificate: both.pem, key: both.pem}}]}}
admin: {{listen: "127.0.0.1:{self.admin}"}}
limits: {{body_bytes_max: 2GiB}}
""")
        (folder / "gateway.yaml").write_text(f"""
upstreams:
  plain: {{endpoints: ["http://127.0.0.1:{plain_port}"]}}
  sockets: {{endpoints: ["http://127.0.0.1:{socket_port}"]}}
  calls: {{endpoints: ["http://127.0.0.1:{grpc_port}"], protocol: http2}}
  secure-calls: {{endpoints: ["https://127.0.0.1:{secure_port}"], protocol: http2, tls: {{ca: ca.pem, server_name: localhost}}}}
quotas:
  few: {{key: route, limit: {{rate: 1/min, burst: 3}}}}
routes:
  - {{name: echo, match: {{path: /echo.Echo}}, upstream: calls, access: public}}
  - {{name: secure, match: {{path: /secure.Echo}}, upstream: secure-calls, access: public}}
  - {{name: limited, match: {{path: /few.Few}}, upstream: calls, access: public, quotas: [few]}}
  - {{name: sockets, match: {{path: /socket}}, upstream: sockets, access: public, upgrades: [websocket]}}
  - {{name: plain, match: {{path: /}}, upstream: plain, access: public}}
""")
        self.log = open(folder / "log", "w")
        self.process = subprocess.Popen(
            [binary, "run", "--config", folder / "node.yaml"], stdout=self.log, stderr=self.log, cwd=folder
        )
        try:
            self.wait_until_it_listens()
            self.command(binary, "cluster", "init", "--admin", f"127.0.0.1:{self.admin}", "--apply", folder / "gateway.yaml")
        except Exception:
            self.process.kill()
            print((folder / "log").read_text()[-4000:], flush=True)
            raise

    def wait_until_it_listens(self):
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self.admin), timeout=PATIENCE_S).close()
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"the gateway does not listen, its exit code is {self.process.poll()}") from error
            time.sleep(0.1)

    def command(self, *words):
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S)
        if done.returncode:
            raise RuntimeError(f"{words}: {done.stdout}{done.stderr}")

    def ports(self):
        """Name, scheme and port of both kinds."""
        return [("plain", "http", self.http), ("tls", "https", self.https)]

    def memory_kib(self):
        """The most that the process has held."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])

    def end(self):
        self.process.terminate()
        self.process.wait(timeout=60)


def wanted(what, found, right):
    if found != right:
        raise AssertionError(f"{what}: found {found!r}, wanted {right!r}")


def failure(call):
    """The status that a call ends with."""
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call succeeded, wanted it to fail")


def calls(gateway, tls):
    """Unary and all three kinds of stream, trailers, errors before, in and after messages, and a limit."""
    if tls:
        roots = (gateway.folder / "ca.pem").read_bytes()
        channel = grpc.secure_channel(f"localhost:{gateway.https}", grpc.ssl_channel_credentials(roots))
    else:
        channel = grpc.insecure_channel(f"127.0.0.1:{gateway.http}")
    with channel:
        for service in ("secure", "echo"):
            unary = channel.unary_unary(f"/{service}.Echo/Unary")
            for size in (0, 1, 70_000, 2 * MIB):
                answer, call = unary.with_call(bytes(size), timeout=PATIENCE_S)
                wanted("unary", len(answer), size)
                wanted("trailers", dict(call.trailing_metadata())["bytes"], str(size))
        error = failure(lambda: unary(b"fail", timeout=PATIENCE_S))
        wanted("status", error.code(), grpc.StatusCode.FAILED_PRECONDITION)
        wanted("message", error.details(), "as asked: \u00e4")
        wanted("trailers of a failure", dict(error.trailing_metadata())["served-by"], "echo")
        down = channel.unary_stream("/echo.Echo/Down")
        wanted("down", [int(it) for it in down(b"1000", timeout=PATIENCE_S)], list(range(1000)))
        came = []
        error = failure(lambda: came.extend(down(b"10!", timeout=PATIENCE_S)))
        wanted("before the failure", len(came), 10)
        wanted("status in the middle", error.code(), grpc.StatusCode.DATA_LOSS)
        wanted("trailers in the middle", dict(error.trailing_metadata())["broke-off"], "yes")
        up = channel.stream_unary("/echo.Echo/Up")
        wanted("up", up((bytes(1000) for _ in range(1000)), timeout=PATIENCE_S), b"1000000")
        both = channel.stream_stream("/echo.Echo/Both")
        wanted("both", list(both((b"%d" % it for it in range(1000)), timeout=PATIENCE_S)), [b"%d" % it for it in range(1000)])
        error = failure(lambda: list(both(iter([b"a", b"fail", b"b"]), timeout=PATIENCE_S)))
        wanted("status of both", error.code(), grpc.StatusCode.ABORTED)
        limited = channel.unary_unary("/few.Few/Ask")
        # A call that nobody decided, for the machine stood still, is neither.
        codes, begun = [], time.monotonic()
        while codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) < 2 and len(codes) < 20:
            codes.append(failure(lambda: limited(b"", timeout=PATIENCE_S)).code())
        admitted, most = codes.count(grpc.StatusCode.UNIMPLEMENTED), 3 + int((time.monotonic() - begun) * 1.001 / 60)
        unknown = channel.unary_unary("/echo.Echo/None")
        wanted("unknown", failure(lambda: unknown(b"", timeout=PATIENCE_S)).code(), grpc.StatusCode.UNIMPLEMENTED)
    if codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) < 2 or admitted > most:
        raise AssertionError(f"of calls of a route that takes 3 at once: {codes}")
    return f"6 kinds of call, one to an upstream with TLS, {admitted} within the limit, those over it told RESOURCE_EXHAUSTED"


async def sockets(gateway, tls, messages):
    """An echo of many messages, of all sizes now and then."""
    context = ssl.create_default_context(cafile=gateway.folder / "ca.pem") if tls else None
    uri = f"wss://localhost:{gateway.https}/socket" if tls else f"ws://127.0.0.1:{gateway.http}/socket"
    async with websockets.asyncio.client.connect(uri, ssl=context, max_size=None, open_timeout=PATIENCE_S) as connection:
        async def send():
            for number in range(messages):
                await connection.send(text(number))
        sending = asyncio.create_task(send())
        for number in range(messages):
            wanted("echo", await asyncio.wait_for(connection.recv(), PATIENCE_S), text(number))
        await sending
    return f"{messages} messages came back in order"


def text(number):
    return f"{number} " * (2_000 if number % 500 == 0 else 1)


def curl(gateway, scheme, port, version, path, *more, timeout_s):
    """Its output; its own figures with `-w`."""
    host = "localhost" if scheme == "https" else "127.0.0.1"
    words = ["curl", "-sS", "--fail", version, "--cacert", gateway.folder / "ca.pem", "--max-time", str(timeout_s)]
    done = subprocess.run([*words, *more, f"{scheme}://{host}:{port}{path}"], capture_output=True, timeout=timeout_s + 5)
    if done.returncode:
        raise AssertionError(f"curl {version} {path}: {done.returncode}: {done.stderr.decode()}")
    return done.stdout


def bodies(gateway, scheme, port, version, size):
    """Both ways, with the memory that it took."""
    before = gateway.memory_kib()
    down = curl(gateway, scheme, port, version, f"/download/{size}", "-o", "/dev/null", "-w", "%{size_download} %{http_version}", timeout_s=300)
    came, spoken = down.decode().split()
    wanted("download", int(came), size)
    wanted("version", spoken, "2" if "2" in version else "1.1")
    big = gateway.folder / "big"
    if not big.exists():
        with open(big, "wb") as file:
            file.truncate(size)
    up = curl(gateway, scheme, port, version, "/upload", "-X", "POST", "-T", big, timeout_s=300)
    wanted("upload", int(up), size)
    grown = (gateway.memory_kib() - before) // 1024
    if grown > 32:
        raise AssertionError(f"the process grew by {grown} MiB for bodies of {size // MIB} MiB, wanted 32 at most")
    return f"{size // MIB} MiB each way; the most memory held grew by {grown} MiB to {gateway.memory_kib() // 1024}"


def events(gateway, scheme, port, version, count):
    """All come, each when it is sent, not when a buffer is full."""
    host = "localhost" if scheme == "https" else "127.0.0.1"
    seconds = count * upstreams.EVENT_EVERY_S
    words = ["curl", "-sSN", "--fail", version, "--cacert", gateway.folder / "ca.pem", "--max-time", str(seconds + PATIENCE_S)]
    with subprocess.Popen([*words, f"{scheme}://{host}:{port}/events/{count}"], stdout=subprocess.PIPE) as client:
        late = [time.monotonic() - float(line.split()[1]) for line in client.stdout if line.startswith(b"data:")]
    wanted("exit code", client.returncode, 0)
    wanted("events", len(late), count)
    late.sort()
    # A buffer that waits to be full would hold hundreds of events back.
    if late[count // 2] > 5 * upstreams.EVENT_EVERY_S:
        raise AssertionError(f"half of {count} events came later than {late[count // 2]:.3f} s")
    return f"{count} events, half of them within {late[count // 2] * 1000:.1f} ms"


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--binary", type=pathlib.Path, required=True)
    options.add_argument("--full", action="store_true")
    options = options.parse_args()
    size, count = (1024 * MIB, 600) if options.full else (64 * MIB, 30)
    plain_port, socket_port = upstreams.serve_plain_and_sockets()
    ca = trustme.CA()
    certificate = ca.issue_cert("localhost", "127.0.0.1")
    chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
    grpc_port, secure_port, _server = upstreams.serve_grpc((certificate.private_key_pem.bytes(), chain))
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        ca.cert_pem.write_to_path(folder / "ca.pem")
        ports = (plain_port, socket_port, grpc_port, secure_port)
        gateway = Gateway(options.binary.resolve(), folder, certificate, *ports)
        steps = []
        for name, scheme, port in gateway.ports():
            tls = scheme == "https"
            steps += [
                (f"gRPC, {name}", lambda tls=tls: calls(gateway, tls)),
                (f"WebSocket over HTTP/1.1, {name}", lambda tls=tls: asyncio.run(sockets(gateway, tls, 10_000))),
                (f"WebSocket over HTTP/2, {name}", lambda tls=tls: tunnel.echo(gateway, tls, text, 10_000)),
            ]
            for version in ("--http1.1", "--http2" if tls else "--http2-prior-knowledge"):
                named = f"HTTP/{'2' if '2' in version else '1.1'}, {name}"
                arguments = (gateway, scheme, port, version)
                steps += [
                    (f"bodies over {named}", lambda it=arguments: bodies(*it, size)),
                    (f"events over {named}", lambda it=arguments: events(*it, count)),
                ]
        try:
            for name, step in steps:
                begun = time.monotonic()
                try:
                    print(f"ok      {name}: {step()} ({time.monotonic() - begun:.1f} s)", flush=True)
                except Exception as error:  # whatever went wrong, the others are worth a try
                    failed += 1
                    print(f"FAILED  {name}: {type(error).__name__}: {error}", flush=True)
            assert gateway.process.poll() is None, "the gateway has ended"
        finally:
            gateway.end()
            if failed:
                print((folder / "log").read_text()[-4000:])
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
