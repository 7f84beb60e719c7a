//! Grant sizing on the leader.
