//! A place where a test build can make a part of the node panic. In any other build there is nothing here.

/// Panics if a test has asked for it. Costs nothing without the feature `test-hooks`, which nothing but a build can turn on.
#[inline(always)]
pub fn panic_point(part: &'static str) {
    #[cfg(feature = "test-hooks")]
    armed::pass(part);
    #[cfg(not(feature = "test-hooks"))]
    let _ = part;
}

#[cfg(feature = "test-hooks")]
pub use armed::arm;

#[cfg(feature = "test-hooks")]
mod armed {
    use std::collections::BTreeMap;

    use parking_lot::Mutex;

    /// Part → how many times it is yet to panic.
    static ARMED: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());

    /// Makes `part` panic at its next steps.
    pub fn arm(part: String, times: u32) {
        ARMED.lock().insert(part, times);
    }

    pub(super) fn pass(part: &'static str) {
        let panics = {
            let mut armed = ARMED.lock();
            let left = armed.get_mut(part).filter(|left| **left > 0);
            left.map(|left| *left -= 1).is_some()
        };
        if panics {
            panic!("{part} was told to panic");
        }
    }
}
