//! Field values that are made for each request, without an allocation for each.
//!
//! A value is written into a buffer of the thread and shares its memory; the buffer is renewed when it is used up. So a
//! value that is kept for long keeps up to [`BUFFER_BYTES`] alive: this is for messages under way.

use std::cell::RefCell;
use std::fmt::{self, Write as _};

use bytes::BytesMut;
use http::HeaderValue;

const BUFFER_BYTES: usize = 4096;

thread_local! {
    static BUFFER: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// The value that `write` writes; none: it is no field value.
pub fn value(write: impl FnOnce(&mut BytesMut) -> fmt::Result) -> Option<HeaderValue> {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        if buffer.capacity() < BUFFER_BYTES / 8 {
            buffer.reserve(BUFFER_BYTES);
        }
        write(buffer).ok()?;
        HeaderValue::from_maybe_shared(buffer.split().freeze()).ok()
    })
}

/// A number in 32 lower-case hexadecimal digits.
pub fn hexadecimal(number: u128) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 32];
    for (place, byte) in number.to_be_bytes().into_iter().enumerate() {
        text[place * 2] = DIGITS[usize::from(byte >> 4)];
        text[place * 2 + 1] = DIGITS[usize::from(byte & 15)];
    }
    value(|buffer| {
        buffer.extend_from_slice(&text);
        Ok(())
    })
    .expect("hexadecimal digits are a field value")
}

/// `{}` of anything.
pub fn display(shown: impl fmt::Display) -> Option<HeaderValue> {
    value(|buffer| write!(buffer, "{shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_do_not_touch_each_other() {
        // given many values, some longer than the buffer
        let long = "x".repeat(BUFFER_BYTES * 2);
        let values: Vec<_> = (0..1000).map(display).collect();
        let large = display(&long);
        // then each is what was written
        for (number, value) in values.into_iter().enumerate() {
            assert_eq!(value.expect("digits"), number.to_string().as_str());
        }
        assert_eq!(large.expect("letters"), long.as_str());
    }

    #[test]
    fn what_is_no_field_value_is_none_and_leaves_nothing_behind() {
        assert_eq!(display("a\nb"), None);
        assert_eq!(display("c").expect("a letter"), "c");
        assert_eq!(hexadecimal(0xab), "000000000000000000000000000000ab");
    }
}
