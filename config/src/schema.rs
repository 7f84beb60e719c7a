//! JSON Schemas of both documents, for editors. They know shapes and units; what one section may say about
//! another, only [`crate::gateway::parse`] and [`crate::node::parse`] know.
//!
//! The files in `config/schema/` are their output; `tests/schema.rs` compares them and can write them anew.

use serde_json::{Map, Value, json};

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The schema of the gateway document.
pub fn gateway() -> Value {
    let name = "^[a-z0-9][a-z0-9._-]{0,63}$";
    let sections = [
        ("upstreams", named(name, upstream()), "Where requests go."),
        ("issuers", named(name, issuer()), "Whose tokens are believed."),
        ("quotas", named(name, quota()), "How much, for whom."),
        (
            "plans",
            named(name, object(&[], [("limits", limits(), "Quota → amount.")])),
            "Amounts to subscribe to.",
        ),
        ("tenants", named("^[!-~]{1,128}$", tenant()), "Tenants known by name."),
        ("flags", named("^[a-z][a-z0-9._-]{0,63}$", flag()), "For whom upstreams do something else."),
        (
            "routes",
            json!({"type": "array", "items": route(), "maxItems": 10_000}),
            "Which request goes where.",
        ),
    ];
    document("quorumgate: gateway document", object(&["upstreams", "routes"], sections))
}

/// The schema of the node file.
pub fn node() -> Value {
    let files = [
        ("ca", text(), "The cluster's CA."),
        ("certificate", text(), "This node's certificate; its DNS name is the node's name."),
        ("key", text(), "This node's private key."),
    ];
    let cluster = [
        ("listen", text(), "Where peers' connections are accepted, as address:port."),
        ("advertise", text(), "host:port under which peers reach this node; without it, `listen`."),
        ("peers", json!({"type": "object", "additionalProperties": text()}), "Other nodes → host:port."),
        ("tls", object(&["ca", "certificate", "key"], files), "PEM files of mutual TLS."),
        ("plaintext", boolean(), "No TLS, on loopback addresses alone."),
    ];
    let networks = || json!({"anyOf": [text(), {"type": "array", "items": text(), "maxItems": 256}]});
    let proxy_protocol = [("from", networks(), "Networks such as 10.0.0.0/8.")];
    let http = [
        ("listen", text(), "Where requests come in without TLS, as address:port."),
        ("workers", integer(1, 1024), "Data-plane threads; without it, one a core."),
        ("trusted_proxies", networks(), "Networks whose forwarded fields are believed."),
        (
            "proxy_protocol",
            object(&["from"], proxy_protocol),
            "Whose connections, to any port, begin with a PROXY header of version 1 or 2.",
        ),
    ];
    let certificate =
        [("certificate", text(), "A certificate, then intermediates."), ("key", text(), "Its private key.")];
    let certificate = object(&["certificate", "key"], certificate);
    let https = [
        ("listen", text(), "Where requests come in over TLS, as address:port."),
        (
            "certificates",
            json!({"type": "array", "items": certificate, "minItems": 1, "maxItems": 1000}),
            "PEM files; the client's SNI chooses by their DNS names, and without a match it is the first.",
        ),
        ("strict", boolean(), "Refuses clients whose SNI matches none."),
        ("client_ca", text(), "CAs of clients' certificates; without it, clients are not asked for any."),
        (
            "client_certificate",
            json!({"enum": ["required", "optional"]}),
            "Whether a client has to show one.",
        ),
        ("min_version", json!({"enum": ["tls1.2", "tls1.3"]}), "The oldest version that is spoken."),
    ];
    let http2 = [
        ("streams_max", integer(1, 10_000), "Streams at once, of one connection."),
        (
            "stream_window_bytes",
            size(),
            "Bytes of a stream's body that may be sent before they are read, 1KiB or more.",
        ),
        (
            "connection_window_bytes",
            size(),
            "The same of all streams together: stream_window_bytes times streams_max, which it is if not given, or more.",
        ),
        ("frame_bytes_max", size(), "The longest frame that is taken, 16KiB or more."),
        (
            "send_buffer_bytes_max",
            size(),
            "Bytes of a stream's answer that wait for the client, 1KiB or more.",
        ),
        (
            "resets_pending_max",
            integer(1, 10_000),
            "Streams that a client resets before they are looked at, until its connection is closed.",
        ),
        (
            "resets_local_max",
            integer(1, 100_000),
            "Streams that are reset because of what a client did to them, until its connection is closed.",
        ),
        ("ping_interval", duration(), "How often a client is asked whether it is still there."),
        ("ping_timeout", duration(), "How long it has to answer."),
    ];
    let limits = [
        ("connections_max", integer(1, 1_000_000), "Client connections at once."),
        ("head_bytes_max", size(), "A request's head, 8KiB or more."),
        ("headers_max", integer(1, 1_000), "Header fields of a request."),
        ("body_bytes_max", size(), "A request's body."),
        ("head_timeout", duration(), "Until a request's head is complete."),
        ("body_idle_timeout", duration(), "Longest silence of a client inside its body."),
        ("body_rate_min", size(), "Bytes a second of a client in a body, either way; 0: any number."),
        ("idle_timeout", duration(), "A connection without a request is closed after this."),
        ("tls_handshakes_max", integer(1, 100_000), "TLS handshakes at once."),
        ("tls_handshake_timeout", duration(), "Until a TLS handshake is done."),
        ("drain_timeout", duration(), "How long connections may finish at shutdown."),
        ("waiters_max", integer(1, 1_000_000), "Requests that wait for quota tokens at once."),
        ("keys_max", integer(1, 100_000_000), "Lease cells held at once."),
        ("tokens_cached_max", integer(1, 10_000_000), "Verified tokens remembered at once."),
        ("http2", object(&[], http2), "Of one client's HTTP/2 connection."),
        (
            "mirrors_max",
            integer(1, 100_000),
            "Copies of requests under way at once, on each data-plane thread.",
        ),
    ];
    let log = [
        ("filter", text(), "Such as `info`, or `info,quorumgate=debug`."),
        ("format", json!({"enum": ["text", "json"]}), "Text, or JSON lines."),
    ];
    let debug = [
        ("stamp_admissions", boolean(), "Adds the admission instant to requests for the upstream."),
        ("snapshot_after_entries", integer(8, 1_000_000), "Log entries after which a snapshot is made."),
    ];
    let sections = [
        ("name", json!({"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,63}$"}), "This node."),
        ("data", text(), "The folder of everything this node keeps."),
        ("cluster", object(&["listen"], cluster), "How the node meets its peers."),
        ("http", object(&[], http), "The clients' side; it says where to listen unless `https` does."),
        ("https", object(&["listen", "certificates"], https), "The clients' side, over TLS."),
        ("admin", object(&[], [("listen", text(), "A loopback address:port.")]), "The operators' side."),
        ("limits", object(&[], limits), "Explicit limits of the process."),
        ("log", object(&[], log), "How much is logged, and as what."),
        ("debug", object(&[], debug), "For measuring, never in production."),
    ];
    document("quorumgate: node file", object(&["name", "data", "cluster"], sections))
}

/// A schema with a title, as editors show it.
pub fn document(title: &str, mut schema: Value) -> Value {
    schema["$schema"] = DRAFT.into();
    schema["title"] = title.into();
    schema
}

/// A map with these keys and no others.
pub fn object<const N: usize>(required: &[&str], fields: [(&str, Value, &str); N]) -> Value {
    let mut properties = Map::new();
    for (name, mut schema, description) in fields {
        schema["description"] = description.into();
        properties.insert(name.to_owned(), schema);
    }
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

/// A map whose keys fit `pattern`.
fn named(pattern: &str, value: Value) -> Value {
    json!({"type": "object", "propertyNames": {"pattern": pattern}, "additionalProperties": value})
}

/// Any text but the empty one.
pub fn text() -> Value {
    json!({"type": "string", "minLength": 1})
}

fn boolean() -> Value {
    json!({"type": "boolean"})
}

/// A whole number between two.
pub fn integer(low: u64, high: u64) -> Value {
    json!({"type": "integer", "minimum": low, "maximum": high})
}

fn texts() -> Value {
    json!({"anyOf": [text(), {"type": "array", "items": text(), "minItems": 1}]})
}

fn duration() -> Value {
    json!({"type": "string", "pattern": "^[0-9]+(ms|s|m|min|h|d)$"})
}

fn size() -> Value {
    json!({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)?$"}]})
}

/// Such as `100/s`.
pub fn rate() -> Value {
    json!({"type": "string", "pattern": "^[0-9]+ ?(/| per ) ?([0-9]+(ms|s|m|min|h|d)|s|m|min|h|d)$"})
}

/// An amount in any of its forms.
fn amount() -> Value {
    let burst = || integer(1, u64::from(u32::MAX));
    let bound = json!({"type": "string", "pattern": "^[0-9]+ in any [0-9]+(ms|s|m|min|h|d)$"});
    let at_most = [
        ("at_most", bound, "Such as `10 in any 1h`."),
        ("burst", burst(), "Below the bound; without it, half of the bound."),
    ];
    let by_rate =
        [("rate", rate(), "Such as `100/s`."), ("burst", burst(), "Without it, the rate's tokens.")];
    json!({"anyOf": [rate(), object(&["rate"], by_rate), object(&["at_most"], at_most)]})
}

fn limits() -> Value {
    json!({"type": "object", "additionalProperties": amount()})
}

fn upstream() -> Value {
    let tls = [
        ("ca", text(), "PEM file of the certificates that may sign endpoints'."),
        ("server_name", text(), "The name in endpoints' certificates; without it, the endpoint's host."),
        ("certificate", text(), "PEM file of the gateway's own certificate, for endpoints that want one."),
        ("key", text(), "PEM file of its private key."),
    ];
    let fields = [
        ("endpoints", texts(), "Such as `http://10.0.0.1:8080`, or all with `https`; requests take turns."),
        ("connect_timeout", duration(), "Until a new connection is up; without it, 1s."),
        (
            "response_timeout",
            duration(),
            "From the request's last byte until the response's head; without it, 10s.",
        ),
        ("body_idle_timeout", duration(), "Longest silence inside a body; without it, 30s."),
        ("idle_timeout", duration(), "An unused connection is closed after this; without it, 60s."),
        (
            "tunnel_idle_timeout",
            duration(),
            "A connection that has switched protocols is closed after so much silence; without it, 5m.",
        ),
        ("connections_max", integer(1, 65_536), "At once, on each data-plane thread; without it, 256."),
        ("protocol", json!({"enum": ["http1", "http2"]}), "What all endpoints speak; without it, `http1`."),
        ("streams_max", integer(1, 1_000), "Requests at once on one HTTP/2 connection; without it, 100."),
        ("tls", object(&["ca"], tls), "How endpoints with `https` are known. Files are those of each node."),
    ];
    object(&["endpoints"], fields)
}

fn issuer() -> Value {
    let place = |fields| object(&[], fields);
    let secret =
        [("file", text(), "A file on each node."), ("env", text(), "A variable of each node's environment.")];
    let public = [("file", text(), "A PEM file that `apply` reads."), ("pem", text(), "The PEM text.")];
    let key = [
        ("kid", text(), "As the token's header names it."),
        ("algorithm", json!({"enum": ["HS256", "RS256", "ES256", "EdDSA"]}), "The only one for this key."),
        ("secret", place(secret), "For HS256: where each node finds it."),
        ("public_key", place(public), "For all others."),
    ];
    let keys = json!({"type": "array", "items": object(&["algorithm"], key), "minItems": 1, "maxItems": 64});
    let fields = [
        ("issuer", text(), "The `iss` claim, compared byte by byte."),
        ("audiences", texts(), "The token's `aud` must hold one of them."),
        ("types", texts(), "Accepted `typ` header values; without it, absent or JWT."),
        ("keys", keys, "All symmetric, or all public."),
        ("leeway", duration(), "Allowance for clocks, at most 30s; without it, 10s."),
        ("lifetime_max", duration(), "Longest accepted `exp − iat`."),
        ("tenant_claim", text(), "Claim that names the tenant; without it, `tenant`."),
        ("client_claim", text(), "Claim that names the client; without it, `sub`."),
        ("scope_claim", text(), "Claim with the scopes; without it, `scope`."),
    ];
    object(&["issuer", "audiences", "keys"], fields)
}

fn quota() -> Value {
    let part = json!({"enum": ["tenant", "client", "route", "address"]});
    let key = json!({"anyOf": [part, {"const": "all"}, {"type": "array", "items": part, "minItems": 1, "uniqueItems": true}]});
    let fields = [
        ("key", key, "What it counts by; `all`: one bucket for everything."),
        ("limit", amount(), "The amount where no plan and no tenant says otherwise."),
        ("burst", integer(1, u64::from(u32::MAX)), "Stands for `burst` inside of `limit`."),
        ("wait", duration(), "How long a request may wait for tokens, at most 10s."),
        ("on_quorum_loss", json!({"enum": ["deny", "local-share"]}), "What to do without a quorum."),
    ];
    object(&["key", "limit"], fields)
}

fn tenant() -> Value {
    let fields = [
        ("plan", text(), "The plan it is on."),
        ("limits", limits(), "Its own; they stand over the plan's."),
    ];
    object(&[], fields)
}

/// A prefix, or one kind of path by its name.
fn path() -> Value {
    let below = || json!({"type": "string", "pattern": "^/"});
    let pattern = json!({"type": "string", "pattern": "^/", "maxLength": 512});
    json!({"anyOf": [
        below(),
        object(&["prefix"], [("prefix", below(), "This path and all below it, by whole segments.")]),
        object(&["exact"], [("exact", below(), "This path alone.")]),
        object(&["template"], [("template", below(), "Such as `/users/{user}` or `/files/{rest*}`.")]),
        object(&["regex"], [("regex", pattern, "What the whole path fits.")]),
    ]})
}

/// What the values of names must be like.
fn conditions() -> Value {
    let pattern = json!({"type": "string", "minLength": 1, "maxLength": 512});
    let condition = json!({"anyOf": [
        {"type": "string", "maxLength": 512},
        object(&["regex"], [("regex", pattern, "What a whole value fits.")]),
        object(&["present"], [("present", boolean(), "Whether there is a value, or none.")]),
    ]});
    json!({"type": "object", "additionalProperties": condition, "minProperties": 1, "maxProperties": 16})
}

/// A new path: at most one of the three is given.
fn new_path() -> [(&'static str, Value, &'static str); 3] {
    let path = || json!({"type": "string", "pattern": "^/", "maxLength": 1024});
    [
        ("path", path(), "The whole new path."),
        ("prefix", path(), "In place of the matched prefix; only with a prefix."),
        ("template", path(), "Made of the captures of the matched template, such as `/u/{user}`."),
    ]
}

fn redirect() -> Value {
    let [path, prefix, template] = new_path();
    let fields = [
        ("status", json!({"enum": [301, 302, 303, 307, 308]}), "Whether for good, and with which method."),
        ("scheme", json!({"enum": ["http", "https"]}), "Without it, an absolute location is `http`."),
        ("host", text(), "In lower case; without it, the one that was asked for."),
        ("port", integer(1, 65_535), "Without it, the scheme's own."),
        path,
        prefix,
        template,
    ];
    object(&["status"], fields)
}

fn respond() -> Value {
    let fields = [
        ("status", integer(200, 599), "Of the answer."),
        ("body", json!({"type": "string", "minLength": 1, "maxLength": 64 << 10}), "Of the answer."),
        ("content_type", text(), "Of the body; without it, `text/plain; charset=utf-8`."),
    ];
    object(&["status"], fields)
}

fn split() -> Value {
    let branch = [
        ("upstream", text(), "Where its requests go."),
        ("weight", integer(0, 1000), "Its share of all weights."),
    ];
    let branch = object(&["upstream", "weight"], branch);
    let chosen = json!({"anyOf": [
        object(&["header"], [("header", text(), "A field's name in lower case.")]),
        object(&["cookie"], [("cookie", text(), "A cookie's name.")]),
    ]});
    let fields = [
        (
            "by",
            json!({"enum": ["tenant", "client", "address", "request"]}),
            "What is alike in this goes to the same branch.",
        ),
        (
            "branches",
            json!({"type": "array", "items": branch, "minItems": 2, "maxItems": 8}),
            "Upstreams and their weights.",
        ),
        ("override", chosen, "Names the branch's upstream itself: for testers, no authorization."),
    ];
    object(&["by", "branches"], fields)
}

fn partition() -> Value {
    let by = json!({"anyOf": [
        {"const": "tenant"},
        object(&["claim"], [("claim", text(), "A claim's name.")]),
        object(&["header"], [("header", text(), "A field's name in lower case.")]),
    ]});
    let upstreams =
        json!({"type": "object", "additionalProperties": text(), "minProperties": 1, "maxProperties": 1000});
    let fields = [
        ("by", by, "What names a request's part."),
        ("upstreams", upstreams, "Part → upstream."),
        ("otherwise", text(), "The upstream of all others; without it, they are refused."),
    ];
    object(&["by", "upstreams"], fields)
}

/// Changes of header fields, carried out in the order remove, set, add.
fn edits() -> Value {
    let values = || {
        let value = json!({"type": "string", "maxLength": 1024});
        json!({"type": "object", "additionalProperties": value, "maxProperties": 32})
    };
    let fields = [
        ("remove", texts(), "Names of fields that go."),
        ("set", values(), "Field → its only value."),
        ("add", values(), "Field → one more value."),
    ];
    object(&[], fields)
}

/// Such as `10%`.
fn part() -> Value {
    json!({"type": "string", "pattern": "^[0-9]+([.][0-9]{1,4})?%$"})
}

fn mirror() -> Value {
    let fields = [
        ("upstream", text(), "Where copies go."),
        ("share", part(), "Of all requests, such as `10%`."),
        ("body_bytes_max", size(), "Requests with longer bodies are not copied; without it, 64KiB."),
        ("timeout", duration(), "From the request's head to the end of the copy's answer; without it, 5s."),
    ];
    object(&["upstream", "share"], fields)
}

fn flag() -> Value {
    let fields = [
        ("tenants", json!({"anyOf": [text(), {"type": "array", "items": text()}]}), "On for these."),
        ("share", part(), "On for this share of tenants, and of addresses where there is no tenant."),
        ("header", text(), "On for whoever names the flag in this header field."),
    ];
    object(&[], fields)
}

fn lifecycle() -> Value {
    let instant = || json!({"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}(T.*)?$"});
    let address = || json!({"type": "string", "pattern": "^https?://", "maxLength": 1024});
    let fields = [
        ("version", text(), "What it is called in metrics and by operators."),
        ("deprecated", instant(), "Since when nobody should begin to use it: a date, or with a time."),
        ("sunset", instant(), "When it ends."),
        ("info", address(), "What tells people of both."),
        ("successor", address(), "The version that takes its place."),
    ];
    object(&["version"], fields)
}

fn claims() -> Value {
    json!({"type": "object", "additionalProperties": texts(), "minProperties": 1, "maxProperties": 16})
}

fn route() -> Value {
    let matches = [
        ("path", path(), "Path prefix by whole segments, or a map that says its kind."),
        ("methods", texts(), "In capitals; without it, all."),
        ("hosts", texts(), "In lower case, without a port, or `*.` before a host; without it, all."),
        ("headers", conditions(), "Field name in lower case → condition."),
        ("query", conditions(), "Parameter name → condition."),
        ("cookies", conditions(), "Cookie name → condition."),
        ("sources", texts(), "Networks of the client's address, such as 10.0.0.0/8; without it, all."),
        ("claims", claims(), "Claim of the token → its text, or several of which it has one."),
    ];
    let token = [
        ("issuers", texts(), "One of them."),
        ("scopes", json!({"anyOf": [text(), {"type": "array", "items": text()}]}), "All of them."),
        (
            "serve_stale_for",
            duration(),
            "How long a node without contact serves the route as it last knew it, beyond its view's 5 s; without it, 0s.",
        ),
    ];
    let access = json!({"anyOf": [{"const": "public"}, object(&["issuers"], token)]});
    let charge =
        [("quota", text(), "Which quota."), ("cost", integer(1, 1 << 20), "Tokens a request costs.")];
    let charges =
        json!({"type": "array", "items": {"anyOf": [text(), object(&["quota"], charge)]}, "maxItems": 8});
    let [path, prefix, template] = new_path();
    let rewrite = [path, prefix, template, ("host", text(), "The `Host` field; without it, the endpoint.")];
    let headers = [
        ("request", edits(), "On the way to the upstream."),
        ("response", edits(), "Of all answers but refusals."),
    ];
    let fields = [
        ("name", text(), "Its name in logs and metrics."),
        ("match", object(&["path"], matches), "Which requests it takes."),
        (
            "priority",
            json!({"type": "integer", "minimum": -1000, "maximum": 1000}),
            "Of routes that take the same request, the highest wins; without it, 0.",
        ),
        ("upstream", text(), "Where they go."),
        ("redirect", redirect(), "Where their clients are sent; in place of `upstream`."),
        ("respond", respond(), "How they are answered; in place of `upstream`."),
        ("split", split(), "Which upstreams share them; in place of `upstream`."),
        ("partition", partition(), "Which upstream holds their part; in place of `upstream`."),
        ("access", access, "Who may send them."),
        ("quotas", charges, "What counts them."),
        ("timeout", duration(), "Until the response's head; stands over the upstream's."),
        (
            "strip_prefix",
            boolean(),
            "Whether the matched prefix is cut off before forwarding; only with a prefix.",
        ),
        ("rewrite", object(&[], rewrite), "What an upstream sees instead."),
        (
            "upgrades",
            texts(),
            "Protocols that a client may switch to, such as `websocket`; without it, none.",
        ),
        ("headers", object(&[], headers), "Header fields that are changed."),
        ("mirror", mirror(), "Who else gets a copy of them."),
        ("lifecycle", lifecycle(), "Where its version stands in its life."),
        (
            "flags",
            json!({"anyOf": [text(), {"type": "array", "items": text(), "maxItems": 16}]}),
            "Flags of which the upstream is told whether they are on.",
        ),
    ];
    let mut route = object(&["name", "match", "access"], fields);
    let one = |key: &str| json!({"required": [key]});
    route["oneOf"] =
        json!([one("upstream"), one("redirect"), one("respond"), one("split"), one("partition")]);
    route
}
