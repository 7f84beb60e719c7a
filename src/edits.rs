//! Header fields that a route changes, compiled. Pure.

use config::action::Edits;
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Changes, carried out in the order remove, set, add.
#[derive(Debug, Default)]
pub struct FieldEdits {
    remove: Box<[HeaderName]>,
    set: Box<[(HeaderName, HeaderValue)]>,
    add: Box<[(HeaderName, HeaderValue)]>,
}

impl FieldEdits {
    /// # Errors
    /// What is wrong, if a field may not be changed, or is none.
    pub fn compile(edits: &Edits) -> Result<Self, String> {
        // In lower case, whatever the document writes.
        let name = |text: &String, may: fn(&str) -> bool| {
            let name = HeaderName::from_bytes(text.as_bytes()).ok().filter(|name| may(name.as_str()));
            name.ok_or_else(|| format!("found the field {text:?}, wanted one that a route may change"))
        };
        let pair = |(text, value): (&String, &String)| {
            let name = name(text, Edits::may_set)?;
            let value = HeaderValue::from_bytes(value.as_bytes());
            Ok((name, value.map_err(|_| format!("found a bad value for the field {text}"))?))
        };
        Ok(Self {
            remove: edits
                .remove
                .iter()
                .map(|text| name(text, Edits::may_remove))
                .collect::<Result<_, _>>()?,
            set: edits.set.iter().map(pair).collect::<Result<_, String>>()?,
            add: edits.add.iter().map(pair).collect::<Result<_, String>>()?,
        })
    }

    /// Carries them out.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits(remove: &[&str], set: &[(&str, &str)], add: &[(&str, &str)]) -> Edits {
        let pairs = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        Edits { remove: remove.iter().map(|it| (*it).to_owned()).collect(), set: pairs(set), add: pairs(add) }
    }

    #[test]
    fn fields_are_removed_then_set_then_added() {
        let edits = edits(&["a", "b"], &[("b", "1"), ("c", "1")], &[("a", "2"), ("c", "2")]);
        let mut headers = HeaderMap::new();
        for name in ["a", "b", "c", "d"] {
            headers.append(name, HeaderValue::from_static("0"));
            headers.append(name, HeaderValue::from_static("00"));
        }
        FieldEdits::compile(&edits).expect("good").apply(&mut headers);
        let values = |name: &str| {
            headers.get_all(name).iter().map(|it| it.to_str().expect("text")).collect::<Vec<_>>()
        };
        assert_eq!((values("a"), values("b")), (vec!["2"], vec!["1"]));
        assert_eq!((values("c"), values("d")), (vec!["1", "2"], vec!["0", "00"]));
    }

    #[test]
    fn what_a_route_may_not_change_is_refused_again() {
        for name in [
            "host",
            "content-length",
            "Content-Length",
            "Host",
            "te",
            "quorumgate-charges",
            "x-request-id",
            "a b",
            "",
        ] {
            assert!(FieldEdits::compile(&edits(&[name], &[], &[])).is_err(), "{name}");
            assert!(FieldEdits::compile(&edits(&[], &[(name, "1")], &[])).is_err(), "{name}");
        }
        assert!(FieldEdits::compile(&edits(&["authorization"], &[], &[])).is_ok());
        assert!(FieldEdits::compile(&edits(&[], &[], &[("authorization", "x")])).is_err());
        assert!(FieldEdits::compile(&edits(&[], &[("a", "b\r\nc: d")], &[])).is_err());
    }
}
