//! Strict JSON: a member that occurs twice is an error at any depth.
//!
//! RFC 7515 section 4 and RFC 7519 section 4 let a reader take the last of two equal members. Two readers who take
//! different ones see different tokens, so here such a text has no reading at all.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Reads `text` as one JSON object. None: it is not JSON, not an object, or has a member twice.
pub fn object(text: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice::<Strict>(text) {
        Ok(Strict(Value::Object(members))) => Some(members),
        Ok(_) | Err(_) => None,
    }
}

/// A value without repeated members.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated members")
    }
    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E: Error>(self, found: bool) -> Result<Value, E> {
        Ok(Value::Bool(found))
    }
    fn visit_i64<E: Error>(self, found: i64) -> Result<Value, E> {
        Ok(Value::from(found))
    }
    fn visit_u64<E: Error>(self, found: u64) -> Result<Value, E> {
        Ok(Value::from(found))
    }
    fn visit_f64<E: Error>(self, found: f64) -> Result<Value, E> {
        Ok(Value::from(found))
    }
    fn visit_str<E: Error>(self, found: &str) -> Result<Value, E> {
        Ok(Value::from(found))
    }
    fn visit_string<E: Error>(self, found: String) -> Result<Value, E> {
        Ok(Value::String(found))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((name, Strict(value))) = members.next_entry::<String, Strict>()? {
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom("a member occurs twice"));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_as_it_is() {
        let read = object(br#"{"a": [1, -2, 0.5, null, true, "x"], "b": {"a": 1}}"#).expect("JSON");
        assert_eq!(
            Value::Object(read),
            serde_json::json!({"a": [1, -2, 0.5, null, true, "x"], "b": {"a": 1}})
        );
    }

    #[test]
    fn a_member_that_occurs_twice_is_refused_at_any_depth_and_however_it_is_written() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"b":{"a":1,"a":2}}"#,
            r#"{"b":[{"a":1,"a":2}]}"#,
            r#"{"a":1,"\u0061":2}"#,
        ] {
            assert_eq!(object(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_is_not_one_object_is_refused() {
        for text in ["", "1", "[]", "null", "{", "{} {}", "{\"a\":1e999}", "\u{feff}{}", "{\"a\":NaN}"] {
            assert_eq!(object(text.as_bytes()), None, "{text}");
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}"), None);
    }
}
