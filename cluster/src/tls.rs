//! rustls above raw streams.
