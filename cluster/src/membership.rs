//! Members: found, join, catch up, vote.
