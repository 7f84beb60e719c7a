//! A request's path and what a route makes of it in, a path out that has one reading. Pure.

use std::fmt::Write as _;

use config::action::NewPath;
use config::path::{Path, Segment, Template};

/// The path that stands in place of a request's.
///
/// Begins with one `/`, and holds no byte that must be percent-encoded: neither a location nor a request line can be
/// broken by it, nor can it name another host.
///
/// - `matched`: what the route takes. `path`: a path that it takes.
pub fn renewed(new: &NewPath, matched: &Path, path: &str) -> String {
    match (new, matched) {
        (NewPath::Prefix(new), Path::Prefix(old)) => {
            let rest = if old == "/" { path } else { path.strip_prefix(old.as_str()).unwrap_or(path) };
            rooted(&format!("{}{rest}", new.trim_end_matches('/')))
        }
        (NewPath::Template(new), Path::Template(old)) => rooted(&filled(new, old, path)),
        (NewPath::Path(new) | NewPath::Prefix(new), _) => rooted(new),
        // Documents are checked for what a template is made of.
        (NewPath::Template(_), _) => rooted(path),
    }
}

/// The path itself, with the same promise.
pub fn rooted(path: &str) -> String {
    let mut out = String::with_capacity(path.len() + 1);
    out.push('/');
    encode(path.trim_start_matches('/'), &mut out);
    out
}

/// Appends `text`, and percent-encodes what is no part of a path or a query (RFC 3986 sections 3.3 and 3.4). What is encoded
/// already stays.
pub fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%?".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
}

/// `new` with what `old` captures of `path`.
fn filled(new: &Template, old: &Template, path: &str) -> String {
    let mut captured = Vec::new();
    let mut rest = path.strip_prefix('/').unwrap_or(path);
    for segment in old.segments() {
        let (this, behind) = rest.split_once('/').unwrap_or((rest, ""));
        match segment {
            Segment::Literal(_) => {}
            Segment::Capture(name) => captured.push((name, this)),
            Segment::Rest(name) => captured.push((name, rest)),
        }
        rest = behind;
    }
    let mut out = String::new();
    for segment in new.segments() {
        let text = match segment {
            Segment::Literal(text) => Some(text),
            Segment::Capture(name) | Segment::Rest(name) => {
                captured.iter().find(|(held, _)| *held == name).map(|(_, text)| *text)
            }
        };
        if let Some(text) = text {
            out.push('/');
            out.push_str(text);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_replaced_at_a_segment() {
        let cases = [
            ("/old", "/new", "/old/a/b", "/new/a/b"),
            ("/old", "/new", "/old", "/new"),
            ("/old", "/new", "/old/", "/new/"),
            ("/old", "/", "/old/a", "/a"),
            ("/old", "/", "/old", "/"),
            ("/", "/new", "/a", "/new/a"),
            ("/", "/", "/a", "/a"),
        ];
        for (old, new, path, wanted) in cases {
            let found = renewed(&NewPath::Prefix(new.into()), &Path::Prefix(old.into()), path);
            assert_eq!(found, wanted, "{old} {new} {path}");
        }
    }

    #[test]
    fn a_template_is_filled_with_what_another_captures() {
        let old = |text| Path::Template(Template::parse(text).expect("a template"));
        let new = |text| NewPath::Template(Template::parse_new(text).expect("a template"));
        let users = "/users/{user}/orders/{order}";
        let path = "/users/%C3%A4/orders/7;x=1";
        assert_eq!(renewed(&new("/u/{user}"), &old(users), path), "/u/%C3%A4");
        assert_eq!(renewed(&new("/{order}/of/{user}"), &old(users), path), "/7;x=1/of/%C3%A4");
        assert_eq!(renewed(&new("/f/{rest*}"), &old("/files/{rest*}"), "/files/a/b/"), "/f/a/b/");
    }

    #[test]
    fn whatever_the_path_the_result_has_one_reading() {
        // given paths that no request has after its check, and some that one may have
        let nasty = [
            "//evil",
            "///evil",
            "/\\evil",
            "\\\\evil",
            "/a\r\nx: y",
            "/a\"<>`{}|^",
            "/ä",
            "",
            "/\0",
            "/a b#c",
        ];
        for path in nasty {
            let news = [
                NewPath::Path("//evil".into()),
                NewPath::Prefix("/".into()),
                NewPath::Prefix("//evil".into()),
            ];
            let all =
                news.iter().map(|new| renewed(new, &Path::Prefix("/".into()), path)).chain([rooted(path)]);
            for found in all {
                // then each begins with one slash, and is plain
                assert!(found.starts_with('/') && !found.starts_with("//"), "{path:?} became {found:?}");
                let plain = |b: u8| b.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&b);
                assert!(found.bytes().all(plain), "{path:?} became {found:?}");
            }
        }
        assert_eq!(rooted("/a%2fb%0d"), "/a%2fb%0d");
    }
}
