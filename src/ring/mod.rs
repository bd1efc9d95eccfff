//! io_uring and aligned buffers.

#![allow(unsafe_code)]
