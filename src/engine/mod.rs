//! The replication state machine (pure).
