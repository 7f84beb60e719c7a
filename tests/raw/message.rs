//! The strictest reader of requests: what it does not understand in exactly one way is odd.

/// One request, as its bytes say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The request line, without its end.
    pub line: Vec<u8>,
    /// `name: value`, in the order of the wire.
    pub fields: Vec<Vec<u8>>,
    /// Without chunks.
    pub body: Vec<u8>,
}

impl Message {
    /// One more line of a message that is written down line by line. Whether the next one is of its body.
    pub fn read_line(so_far: &mut Option<Self>, line: Vec<u8>, in_body: bool) -> bool {
        match so_far {
            None => *so_far = Some(Self { line, fields: Vec::new(), body: Vec::new() }),
            Some(message) if in_body => message.body.extend(line),
            Some(_) if line.is_empty() => return true,
            Some(message) => message.fields.push(line),
        }
        in_body
    }
}

/// What bytes turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Reading {
    /// The beginning of a message; its head, if that is there, and what there is of its body.
    Part(Option<Message>),
    /// A message, and how many bytes it was.
    Whole(Message, usize),
    /// No message.
    Odd(&'static str),
}

pub fn read(bytes: &[u8]) -> Reading {
    let Some(head_end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Reading::Part(None);
    };
    let (head, rest) = (&bytes[..head_end], &bytes[head_end + 4..]);
    let mut lines = split_lines(head).into_iter();
    let line = lines.next().unwrap_or_default();
    let fields: Vec<Vec<u8>> = lines.collect();
    if let Err(why) = check_line(&line).and_then(|()| fields.iter().try_for_each(|field| check_field(field)))
    {
        return Reading::Odd(why);
    }
    let values = |name: &str| -> Vec<&[u8]> {
        let begin = format!("{name}: ");
        fields.iter().filter_map(|field| field.strip_prefix(begin.as_bytes())).collect()
    };
    if values("host").len() != 1 {
        return Reading::Odd("not one host");
    }
    let body = match (values("content-length").as_slice(), values("transfer-encoding").as_slice()) {
        ([], []) => Ok((Vec::new(), Some(0))),
        ([length], []) => of_length(rest, length),
        ([], [coding]) if *coding == b"chunked" => of_chunks(rest),
        _ => Err("more than one end of the body"),
    };
    match body {
        Ok((body, Some(used))) => Reading::Whole(Message { line, fields, body }, head_end + 4 + used),
        Ok((body, None)) => Reading::Part(Some(Message { line, fields, body })),
        Err(why) => Reading::Odd(why),
    }
}

fn split_lines(mut head: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    while let Some(end) = head.windows(2).position(|window| window == b"\r\n") {
        lines.push(head[..end].to_vec());
        head = &head[end + 2..];
    }
    lines.push(head.to_vec());
    lines
}

fn check_line(line: &[u8]) -> Result<(), &'static str> {
    let parts: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    match parts.as_slice() {
        [method, target, b"HTTP/1.1"]
            if is_token(method)
                && target.first() == Some(&b'/')
                && target.iter().all(u8::is_ascii_graphic) =>
        {
            Ok(())
        }
        _ => Err("the request line is not method, path, version"),
    }
}

fn check_field(field: &[u8]) -> Result<(), &'static str> {
    let colon = field.iter().position(|b| *b == b':').ok_or("a field without a colon")?;
    let lower = field[..colon].iter().all(|b| !b.is_ascii_uppercase());
    if !is_token(&field[..colon]) || !lower {
        return Err("a field's name is no lower-case token");
    }
    let value = field[colon + 1..].strip_prefix(b" ").ok_or("no space behind a colon")?;
    let blank = |b: Option<&u8>| b.is_some_and(|b| matches!(b, b' ' | b'\t'));
    if blank(value.first())
        || blank(value.last())
        || !value.iter().all(|b| matches!(b, b'\t' | b' '..=b'~' | 0x80..))
    {
        return Err("a field's value is none");
    }
    Ok(())
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

type Body = (Vec<u8>, Option<usize>);

fn of_length(rest: &[u8], digits: &[u8]) -> Result<Body, &'static str> {
    let plain =
        !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) && (digits == b"0" || digits[0] != b'0');
    let length: Option<usize> = plain.then(|| String::from_utf8_lossy(digits).parse().ok()).flatten();
    let length = length.ok_or("the length is no plain number")?;
    Ok(match rest.get(..length) {
        Some(body) => (body.to_vec(), Some(length)),
        None => (rest.to_vec(), None),
    })
}

fn of_chunks(rest: &[u8]) -> Result<Body, &'static str> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(end) = rest[at..].windows(2).position(|window| window == b"\r\n") else {
            return Ok((body, None));
        };
        let digits = &rest[at..at + end];
        let plain = (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
        let size = plain.then(|| usize::from_str_radix(&String::from_utf8_lossy(digits), 16).ok()).flatten();
        let size = size.ok_or("a chunk's size is no plain number")?;
        at += end + 2;
        let there = &rest[at..rest.len().min(at + size)];
        body.extend_from_slice(there);
        match rest.get(at + size..at + size + 2) {
            _ if there.len() < size => return Ok((body, None)),
            None => return Ok((body, None)),
            Some(b"\r\n") if size == 0 => return Ok((body, Some(at + 2))),
            Some(b"\r\n") => at += size + 2,
            Some(_) => return Err("a chunk does not end, or has trailers"),
        }
    }
}

#[test]
fn the_strict_reader_takes_what_is_plain_and_nothing_else() {
    let plain =
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET";
    let Reading::Whole(message, used) = read(plain) else { panic!("it is a message") };
    assert_eq!((message.body.as_slice(), used), (&b"hello"[..], plain.len() - 3));
    for part in [&plain[..20], &plain[..used - 1], &plain[..used - 8]] {
        assert!(matches!(read(part), Reading::Part(_)));
    }
    for odd in [
        "GET /a HTTP/1.1\r\nhost: a\nx: y\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        "GET  /a HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\n.",
        "GET /a HTTP/1.1\r\nhost: a\r\n x: y\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;a\r\nhello\r\n0\r\n\r\n",
    ] {
        assert!(matches!(read(odd.as_bytes()), Reading::Odd(_)), "{odd:?}");
    }
}
