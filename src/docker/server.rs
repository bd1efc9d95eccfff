//! Docker's questions as HTTP: a POST with JSON for each, answered with JSON whose `Err` is empty or says what went wrong.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::plugin::Plugin;
use crate::api::{ApiError, Code};
use crate::units::Name;

/// The plugin's routes.
pub fn routes(plugin: Arc<Plugin>) -> Router {
    Router::new()
        .route("/Plugin.Activate", post(async || answer(Ok(json!({ "Implements": ["VolumeDriver"] })))))
        .route("/VolumeDriver.Capabilities", post(async || answer(Ok(json!({ "Capabilities": { "Scope": "global" } })))))
        .route(
            "/VolumeDriver.Create",
            post(async |State(plugin): State<Arc<Plugin>>, body: Bytes| answer(create(&plugin, &body).await)),
        )
        .route(
            "/VolumeDriver.Remove",
            post(async |State(plugin): State<Arc<Plugin>>, body: Bytes| answer(remove(&plugin, &body).await)),
        )
        .route(
            "/VolumeDriver.Get",
            post(async |State(plugin): State<Arc<Plugin>>, body: Bytes| answer(inspect(&plugin, &body).await)),
        )
        .route("/VolumeDriver.List", post(async |State(plugin): State<Arc<Plugin>>| answer(list(&plugin).await)))
        .route(
            "/VolumeDriver.Path",
            post(async |State(plugin): State<Arc<Plugin>>, body: Bytes| answer(path(&plugin, &body).await)),
        )
        .route(
            "/VolumeDriver.Mount",
            post(async |State(plugin): State<Arc<Plugin>>, body: Bytes| answer(mount(&plugin, &body).await)),
        )
        .route(
            "/VolumeDriver.Unmount",
            post(async |State(plugin): State<Arc<Plugin>>, body: Bytes| answer(unmount(&plugin, &body).await)),
        )
        .fallback(async |uri: Uri| answer(Err(ApiError::new(Code::NotFound, format_args!("there is no {} here", uri.path())))))
        .with_state(plugin)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    name: String,
    #[serde(default, rename = "ID")]
    id: String,
    #[serde(default)]
    opts: Option<BTreeMap<String, String>>,
}

async fn create(plugin: &Plugin, body: &[u8]) -> Result<Value, ApiError> {
    let (name, asked) = named(body)?;
    plugin.create(&name, &asked.opts.unwrap_or_default()).await?;
    Ok(json!({}))
}

async fn remove(plugin: &Plugin, body: &[u8]) -> Result<Value, ApiError> {
    plugin.remove(&named(body)?.0).await?;
    Ok(json!({}))
}

async fn inspect(plugin: &Plugin, body: &[u8]) -> Result<Value, ApiError> {
    Ok(json!({ "Volume": plugin.inspect(&named(body)?.0).await? }))
}

async fn list(plugin: &Plugin) -> Result<Value, ApiError> {
    Ok(json!({ "Volumes": plugin.list().await? }))
}

async fn path(plugin: &Plugin, body: &[u8]) -> Result<Value, ApiError> {
    Ok(mountpoint(plugin.path(&named(body)?.0).await?.unwrap_or_default()))
}

async fn mount(plugin: &Plugin, body: &[u8]) -> Result<Value, ApiError> {
    let (name, asked) = named(body)?;
    Ok(mountpoint(plugin.mount(&name, &asked.id).await?))
}

async fn unmount(plugin: &Plugin, body: &[u8]) -> Result<Value, ApiError> {
    let (name, asked) = named(body)?;
    plugin.unmount(&name, &asked.id).await?;
    Ok(json!({}))
}

fn mountpoint(path: PathBuf) -> Value {
    json!({ "Mountpoint": path })
}

fn named(body: &[u8]) -> Result<(Name, Named), ApiError> {
    let asked: Named = read(body)?;
    let name = asked.name.parse().map_err(|error: crate::units::NameError| {
        ApiError::new(Code::BadRequest, format_args!("'{}' cannot be a volume's name: {error}", asked.name))
    })?;
    Ok((name, asked))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::new(Code::BadRequest, format_args!("the request cannot be read: {error}")))
}

/// Docker shows its user what `Err` says; it has no place for a hint of its own.
fn answer(result: Result<Value, ApiError>) -> Response {
    let (status, body) = match result {
        Ok(mut value) => {
            value["Err"] = json!("");
            (StatusCode::OK, value)
        }
        Err(error) => {
            let hint = if error.hint.is_empty() { String::new() } else { format!("; {}", error.hint) };
            (StatusCode::INTERNAL_SERVER_ERROR, json!({ "Err": format!("{error}{hint}") }))
        }
    };
    (status, [(header::CONTENT_TYPE, "application/vnd.docker.plugins.v1.1+json")], body.to_string()).into_response()
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
