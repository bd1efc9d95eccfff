//! The control plane's shell.

pub mod consensus;
