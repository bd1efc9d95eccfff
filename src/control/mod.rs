//! The control plane's shell.
