//! The Docker volume plugin: Docker's questions, answered from the API.
//!
//! | file | what it is |
//! |---|---|
//! | [`options`] | what `docker volume create -o` takes |
//! | [`plugin`] | what each question does |
//! | [`counts`] | which containers use a volume on this node, kept across restarts |
//! | [`server`] | the questions as HTTP |
//! | [`relay`] | the plugin as Docker manages plugins, which passes them on |
//!
//! Every node answers for the same volumes (scope *global*): Docker may ask any of them to mount any volume.

pub mod counts;
pub mod options;
pub mod plugin;
pub mod relay;
pub mod server;
