//! The PROXY protocol, versions 1 and 2: who is behind a proxy that passes bytes on as they are.
//!
//! It stands before everything else, TLS too, and is read to its last byte and no further. It is believed from the node
//! file's sources, and those have to send it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, command, family, length.
const HEAD_BYTES: usize = 16;
/// The longest line of version 1, with its end.
const LINE_BYTES_MAX: usize = 107;
/// `PROXY UNKNOWN` with its end: no line is shorter.
const LINE_BYTES_MIN: usize = 15;
/// Addresses, and what else a proxy wants to tell, of version 2.
const REST_BYTES_MAX: usize = 4096;

/// What the bytes so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parsed {
    /// At least so many more belong to it.
    More(usize),
    /// It is complete. None: the proxy speaks for itself, or for somebody without an internet address.
    Done(Option<SocketAddr>),
    /// It is none.
    Bad,
}

/// Reads the header; yields whom it names.
///
/// # Errors
/// What is wrong, for figures: it is none, or did not come in time.
pub(super) async fn hear(
    stream: &mut (impl AsyncRead + Unpin),
    within: Duration,
) -> Result<Option<SocketAddr>, &'static str> {
    let read = async {
        let mut bytes = Vec::with_capacity(LINE_BYTES_MAX);
        loop {
            match parse(&bytes) {
                Parsed::Done(source) => return Ok(source),
                Parsed::Bad => return Err("proxy-header"),
                Parsed::More(count) => {
                    let begin = bytes.len();
                    bytes.resize(begin + count, 0);
                    let read = stream.read_exact(&mut bytes[begin..]).await;
                    read.map_err(|_| "proxy-header")?;
                }
            }
        }
    };
    timeout(within, read).await.unwrap_or(Err("proxy-header-late"))
}

/// Pure.
fn parse(bytes: &[u8]) -> Parsed {
    let same = |start: &[u8]| bytes.iter().zip(start).all(|(found, wanted)| found == wanted);
    if same(SIGNATURE) && bytes.first() != Some(&b'P') {
        if bytes.len() < LINE_BYTES_MIN {
            return Parsed::More(LINE_BYTES_MIN - bytes.len());
        }
        return parse_binary(bytes);
    }
    if !same(b"PROXY ") {
        return Parsed::Bad;
    }
    parse_line(bytes)
}

/// Version 1.
fn parse_line(bytes: &[u8]) -> Parsed {
    if bytes.len() < LINE_BYTES_MIN {
        return Parsed::More(LINE_BYTES_MIN - bytes.len());
    }
    if bytes.last() != Some(&b'\n') {
        return if bytes.len() < LINE_BYTES_MAX { Parsed::More(1) } else { Parsed::Bad };
    }
    let line = bytes.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok());
    let Some(line) = line.filter(|line| !line.contains(['\r', '\n'])) else { return Parsed::Bad };
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Parsed::Done(None);
    }
    let words: Vec<&str> = words.collect();
    let [source, target, source_port, target_port] = words[..] else { return Parsed::Bad };
    let is_of_family = |address: &IpAddr| match family {
        Some("TCP4") => address.is_ipv4(),
        Some("TCP6") => address.is_ipv6(),
        _ => false,
    };
    let address = |text: &str| text.parse::<IpAddr>().ok().filter(is_of_family);
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| port.to_string() == text);
    match (address(source), address(target), port(source_port), port(target_port)) {
        (Some(source), Some(_), Some(port), Some(_)) => Parsed::Done(Some(SocketAddr::new(source, port))),
        _ => Parsed::Bad,
    }
}

/// Version 2. What follows the addresses is passed over.
fn parse_binary(bytes: &[u8]) -> Parsed {
    if bytes.len() < HEAD_BYTES {
        return Parsed::More(HEAD_BYTES - bytes.len());
    }
    let (command, family) = (bytes[12], bytes[13]);
    let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if length > REST_BYTES_MAX || !matches!(command, LOCAL | PROXY) {
        return Parsed::Bad;
    }
    let rest = &bytes[HEAD_BYTES..];
    if rest.len() < length {
        return Parsed::More(length - rest.len());
    }
    let port = |at: usize| Some(u16::from_be_bytes(*rest.get(at..)?.first_chunk()?));
    let source = match (command, family) {
        (LOCAL, _) => return Parsed::Done(None),
        (_, TCP4) if length >= 12 => {
            rest.first_chunk::<4>().zip(port(8)).map(|(ip, port)| (Ipv4Addr::from(*ip).into(), port))
        }
        (_, TCP6) if length >= 36 => {
            rest.first_chunk::<16>().zip(port(32)).map(|(ip, port)| (Ipv6Addr::from(*ip).into(), port))
        }
        (_, UNSPECIFIED | UNIX) => return Parsed::Done(None),
        _ => None,
    };
    source.map_or(Parsed::Bad, |(ip, port): (IpAddr, u16)| Parsed::Done(Some(SocketAddr::new(ip, port))))
}

/// Version 2, and what it is about.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
/// Families.
const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const UNIX: u8 = 0x31;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [SIGNATURE.as_slice(), &[command, family], &length, rest].concat()
    }

    /// Version 2 of 192.0.2.7:4660, with more behind it.
    fn tcp4() -> Vec<u8> {
        binary(PROXY, TCP4, &[192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x34, 0, 80, 3, 0, 4, 1, 2, 3, 4])
    }

    fn source(text: &str) -> Parsed {
        Parsed::Done(Some(text.parse().expect("an address")))
    }

    #[test]
    fn both_versions_name_whom_they_are_about() {
        let mut six = Ipv6Addr::LOCALHOST.octets().to_vec();
        six.extend([0; 16]);
        six.extend([0x12, 0x34, 0, 80]);
        let good = [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 80\r\n".to_vec(), source("192.0.2.7:4660")),
            (b"PROXY TCP6 ::1 :: 4660 80\r\n".to_vec(), source("[::1]:4660")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Parsed::Done(None)),
            (b"PROXY UNKNOWN ff:: :: 1 2 and more\r\n".to_vec(), Parsed::Done(None)),
            (tcp4(), source("192.0.2.7:4660")),
            (binary(PROXY, TCP6, &six), source("[::1]:4660")),
            (binary(LOCAL, TCP4, &[1, 2]), Parsed::Done(None)),
            (binary(PROXY, UNSPECIFIED, &[]), Parsed::Done(None)),
            (binary(PROXY, UNIX, &[0; 216]), Parsed::Done(None)),
        ];
        for (bytes, wanted) in good {
            assert_eq!(parse(&bytes), wanted);
            // and no shorter piece of it is one, or asks for more than there is
            for length in 0..bytes.len() {
                let Parsed::More(more) = parse(&bytes[..length]) else { panic!("{length}") };
                assert!((1..=bytes.len() - length).contains(&more), "{length} and {more}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let long = format!("PROXY UNKNOWN {}", "x".repeat(100));
        let bad = [
            b"GET / HTTP/1.1\r\nhost".to_vec(),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\0\0\0\0\0\0".to_vec(),
            b"PROXY TCP4 ::1 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 01 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 2\r\n".to_vec(),
            b"PROXY TCP4  192.0.2.7 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n".to_vec(),
            b"PROXY TCP5 192.0.2.7 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\n".to_vec(),
            long.into_bytes(),
            binary(0x11, TCP4, &[0; 12]),
            binary(0x22, TCP4, &[0; 12]),
            binary(PROXY, TCP4, &[0; 11]),
            binary(PROXY, 0x12, &[0; 12]),
            [SIGNATURE.as_slice(), &[PROXY, TCP4, 0xff, 0xff]].concat(),
        ];
        for bytes in bad {
            assert_eq!(parse(&bytes), Parsed::Bad, "{:?}", String::from_utf8_lossy(&bytes));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_is_read_to_its_last_byte_in_time_or_not_at_all() {
        let within = Duration::from_secs(5);
        for header in [tcp4(), b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 80\r\n".to_vec()] {
            let (mut client, mut stream) = tokio::io::duplex(1 << 10);
            client.write_all(&[&header, b"GET".as_slice()].concat()).await.expect("open");
            let source = hear(&mut stream, within).await;
            assert_eq!(source, Ok(Some("192.0.2.7:4660".parse().expect("an address"))));
            let mut next = [0; 3];
            stream.read_exact(&mut next).await.expect("what comes after it");
            assert_eq!(&next, b"GET");
            // and half of it is late, or cut off
            let (mut client, mut stream) = tokio::io::duplex(1 << 10);
            client.write_all(&header[..20]).await.expect("open");
            assert_eq!(hear(&mut stream, within).await, Err("proxy-header-late"));
            let (mut client, mut stream) = tokio::io::duplex(1 << 10);
            client.write_all(&header[..20]).await.expect("open");
            drop(client);
            assert_eq!(hear(&mut stream, within).await, Err("proxy-header"));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_to_an_end(
            start in prop::sample::select(vec![b"".to_vec(), b"PROXY ".to_vec(), b"PROXY TCP4 1.1.1.1 ".to_vec(), SIGNATURE.to_vec(), tcp4()]),
            rest in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let bytes = [start, rest].concat();
            // given a reader that takes what is asked for, then it never asks for more than the longest header
            let mut length = 0;
            while let Parsed::More(more) = parse(&bytes[..length]) {
                prop_assert!(more > 0);
                length += more;
                prop_assert!(length <= HEAD_BYTES + REST_BYTES_MAX);
                if length > bytes.len() {
                    break;
                }
            }
        }

        #[test]
        fn what_a_proxy_writes_is_read(source: SocketAddr, target: SocketAddr) {
            prop_assume!(source.is_ipv4() == target.is_ipv4());
            let source = SocketAddr::new(source.ip(), source.port());
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), target.ip());
            let line = format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), target.port());
            prop_assert_eq!(parse(line.as_bytes()), Parsed::Done(Some(source)));
        }
    }
}
