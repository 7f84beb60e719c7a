//! Amounts with their units: durations, sizes, rates.
