//! Messages between peers (pure).
