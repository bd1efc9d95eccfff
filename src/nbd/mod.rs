//! The NBD protocol (pure).
