//! The data plane's shell.
