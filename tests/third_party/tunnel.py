"""A WebSocket over one HTTP/2 stream (RFC 8441): wsproto's frames in h2's."""

import socket
import ssl

import h2.config
import h2.connection
import h2.events
import h2.settings
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, TextMessage

AHEAD = 64


def echo(gateway, tls, text, messages):
    """Sends `messages`, some ahead of their answers, and compares each that comes back."""
    raw = socket.create_connection(("127.0.0.1", gateway.https if tls else gateway.http), timeout=60)
    if tls:
        context = ssl.create_default_context(cafile=gateway.folder / "ca.pem")
        context.set_alpn_protocols(["h2"])
        raw = context.wrap_socket(raw, server_hostname="localhost")
        if raw.selected_alpn_protocol() != "h2":
            raise AssertionError(f"ALPN chose {raw.selected_alpn_protocol()}, wanted h2")
    with raw:
        return _echo(raw, tls, text, messages)


def _echo(raw, tls, text, messages):
    http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    frames = Connection(ConnectionType.CLIENT)
    http.initiate_connection()
    raw.sendall(http.data_to_send())
    stream, opened, sent, came, part, waiting = None, False, 0, 0, "", b""
    while came < messages:
        data = raw.recv(1 << 16)
        if not data:
            raise AssertionError(f"the connection ended after {came} messages")
        for event in http.receive_data(data):
            if isinstance(event, h2.events.RemoteSettingsChanged) and stream is None:
                if not event.changed_settings.get(h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL):
                    raise AssertionError("the gateway does not offer extended CONNECT")
                stream = http.get_next_available_stream_id()
                http.send_headers(stream, [
                    (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https" if tls else "http"),
                    (":path", "/socket"), (":authority", "localhost"), ("sec-websocket-version", "13"),
                ])
            elif isinstance(event, h2.events.ResponseReceived):
                status = dict(event.headers)[":status"]
                if status != "200":
                    raise AssertionError(f"extended CONNECT was answered {status}")
                opened = True
            elif isinstance(event, h2.events.DataReceived):
                http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                frames.receive_data(event.data)
                for message in frames.events():
                    part += message.data
                    if message.message_finished:
                        if part != text(came):
                            raise AssertionError(f"message {came} came back as {part[:80]!r}")
                        came, part = came + 1, ""
            elif isinstance(event, (h2.events.StreamReset, h2.events.StreamEnded, h2.events.ConnectionTerminated)):
                raise AssertionError(f"after {came} messages: {event}")
        while opened and sent < min(messages, came + AHEAD) and len(waiting) < 1 << 16:
            waiting += frames.send(TextMessage(data=text(sent)))
            sent += 1
        while opened and waiting:
            room = min(http.local_flow_control_window(stream), http.max_outbound_frame_size, len(waiting))
            if not room:
                break
            http.send_data(stream, waiting[:room])
            waiting = waiting[room:]
        raw.sendall(http.data_to_send())
    http.send_data(stream, frames.send(CloseConnection(code=1000)), end_stream=True)
    raw.sendall(http.data_to_send())
    ended = False
    while not ended and (data := raw.recv(1 << 16)):
        ended = any(isinstance(event, h2.events.StreamEnded) for event in http.receive_data(data))
    if not ended:
        raise AssertionError("the stream did not end behind the Close frame")
    return f"{messages} messages came back in order"
