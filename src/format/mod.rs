//! On-disk metadata (pure).
