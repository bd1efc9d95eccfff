//! The Raft-replicated model (pure).
