//! The plugin as Docker manages plugins: in a container of its own, that passes Docker's questions on to the node's daemon.
//!
//! Volumes stay where they are, mounted by the daemon: ending or upgrading the plugin disturbs none. Docker looks for a managed
//! plugin's volumes below one directory of the plugin's, from which mounts reach the node; so each one is shown there again while
//! somebody uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Method, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

/// Where the plugin finds things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayPlaces {
    /// The daemon's socket for Docker, as it is seen in the plugin.
    pub socket: PathBuf,
    /// A directory of the node, and where the plugin sees it.
    pub node: (PathBuf, PathBuf),
    /// Where volumes are shown.
    pub volumes: PathBuf,
}

/// Passes questions on.
pub struct Relay {
    places: RelayPlaces,
    /// Who uses the volumes that are shown; each is locked for as long as it is changed.
    shown: Mutex<BTreeMap<String, Users>>,
}

/// Docker's ids of a volume's users.
type Users = Arc<Mutex<BTreeSet<String>>>;

/// The routes: every question is passed on.
pub fn routes(places: RelayPlaces) -> Router {
    let relay = Arc::new(Relay { places, shown: Mutex::default() });
    Router::new()
        .fallback(async |State(relay): State<Arc<Relay>>, uri: Uri, body: Bytes| match relay.answer(uri.path(), &body).await {
            Ok(answer) => reply(&answer),
            Err(error) => reply(&json!({ "Err": format!("the node's daemon cannot be asked: {error}; does it run?") })),
        })
        .with_state(relay)
}

impl Relay {
    async fn answer(&self, question: &str, body: &[u8]) -> io::Result<Value> {
        let asked: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |key: &str| asked.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (name, user) = (text("Name"), text("ID"));
        let mut told = match question {
            "/VolumeDriver.Mount" if is_plain(&name) => self.mount(&name, user, body).await?,
            "/VolumeDriver.Unmount" if is_plain(&name) => {
                let users = self.users(&name).await;
                let mut users = users.lock().await;
                users.remove(&user);
                if users.is_empty() {
                    // Before the daemon's own: as long as it is shown here, the device is in use.
                    self.hide(&name);
                }
                self.pass_on(question, body).await?
            }
            _ => self.pass_on(question, body).await?,
        };
        self.translate(&mut told);
        Ok(told)
    }

    async fn mount(&self, name: &str, user: String, body: &[u8]) -> io::Result<Value> {
        let users = self.users(name).await;
        let mut users = users.lock().await;
        let told = self.pass_on("/VolumeDriver.Mount", body).await?;
        if !failure(&told).is_empty() {
            return Ok(told);
        }
        let from = told.get("Mountpoint").and_then(Value::as_str).unwrap_or_default();
        if users.is_empty()
            && let Err(error) = self.show(name, Path::new(from))
        {
            // Docker does not unmount what it could not mount.
            self.pass_on("/VolumeDriver.Unmount", body).await?;
            return Ok(json!({ "Err": format!("{from} cannot be shown to Docker: {error}") }));
        }
        users.insert(user);
        Ok(told)
    }

    async fn users(&self, name: &str) -> Users {
        let mut shown = self.shown.lock().await;
        shown.retain(|_, users| Arc::strong_count(users) > 1 || users.try_lock().is_ok_and(|users| !users.is_empty()));
        shown.entry(name.to_owned()).or_default().clone()
    }

    /// Mounts a volume's directory once more, where Docker looks for it.
    fn show(&self, name: &str, from: &Path) -> io::Result<()> {
        let (on_node, here) = &self.places.node;
        let from = from.strip_prefix(on_node).map_err(|_| io::Error::other(format!("it is not below {}", on_node.display())))?;
        let at = self.places.volumes.join(name);
        // Of a plugin that was killed.
        self.hide(name);
        std::fs::create_dir_all(&at)?;
        Ok(mount_bind(here.join(from), &at)?)
    }

    fn hide(&self, name: &str) {
        let at = self.places.volumes.join(name);
        while unmount(&at, UnmountFlags::DETACH).is_ok() {}
        // It may never have been there.
        let _ = std::fs::remove_dir(&at);
    }

    /// Puts the places that Docker knows for those that the daemon knows.
    fn translate(&self, told: &mut Value) {
        let place =
            |name: &str| Some(self.places.volumes.join(name)).filter(|at| is_plain(name) && at.is_dir()).unwrap_or_default();
        let one = |volume: &mut Value| {
            let name = volume.get("Name").and_then(Value::as_str).unwrap_or_default().to_owned();
            if let Some(at) = volume.get_mut("Mountpoint") {
                *at = json!(place(&name));
            }
        };
        told.get_mut("Volumes").and_then(Value::as_array_mut).into_iter().flatten().for_each(one);
        told.get_mut("Volume").into_iter().for_each(one);
        // Answers to Mount and Path do not say whose they are: that is what the daemon's directories are named by.
        let named = |at: &str| Some(Path::new(at).parent()?.file_name()?.to_str()?.to_owned());
        if let Some(at) = told.get_mut("Mountpoint") {
            *at = json!(at.as_str().and_then(named).map(|name| place(&name)).unwrap_or_default());
        }
    }

    async fn pass_on(&self, question: &str, body: &[u8]) -> io::Result<Value> {
        let stream = UnixStream::connect(&self.places.socket).await?;
        let (mut ask, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let connection = tokio::spawn(connection);
        let request = Request::builder().method(Method::POST).uri(question).header(header::HOST, "blkrep");
        let request = request.body(Body::from(body.to_vec())).map_err(io::Error::other)?;
        let answer = ask.send_request(request).await.map_err(io::Error::other)?;
        let bytes = answer.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        connection.abort();
        Ok(serde_json::from_slice(&bytes)?)
    }
}

fn failure(told: &Value) -> &str {
    told.get("Err").and_then(Value::as_str).unwrap_or_default()
}

/// Whether a name is that of a directory here: whatever else it is, the daemon refuses it.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && name != "." && name != ".."
}

/// Docker reads what went wrong only from answers that did not succeed.
fn reply(answer: &Value) -> Response {
    let status = if failure(answer).is_empty() { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    (status, [(header::CONTENT_TYPE, "application/vnd.docker.plugins.v1.2+json")], answer.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(volumes: &Path) -> Relay {
        let node = ("/run".into(), "/host/run".into());
        let places = RelayPlaces { socket: "/none".into(), node, volumes: volumes.into() };
        Relay { places, shown: Mutex::default() }
    }

    #[test]
    fn docker_is_told_of_places_that_it_knows() {
        let volumes = tempfile::tempdir().unwrap();
        let shown = volumes.path().join("web");
        std::fs::create_dir(&shown).unwrap();
        let told = |mut value: Value| {
            relay(volumes.path()).translate(&mut value);
            value
        };
        let at = "/run/blkrep/docker/web/data";
        assert_eq!(told(json!({ "Mountpoint": at })), json!({ "Mountpoint": shown }));
        assert_eq!(told(json!({ "Mountpoint": "" })), json!({ "Mountpoint": "" }));
        assert_eq!(told(json!({ "Volume": { "Name": "web", "Mountpoint": at } }))["Volume"]["Mountpoint"], json!(shown));
        // What others have mounted is none of Docker's.
        let listed = told(json!({ "Volumes": [{ "Name": "db", "Mountpoint": "/run/blkrep/docker/db/data" }] }));
        assert_eq!(listed["Volumes"][0]["Mountpoint"], "");
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_there_is_an_error_in_words() {
        assert!(relay(Path::new("/none")).answer("/VolumeDriver.List", b"{}").await.is_err());
        assert!(!is_plain("..") && !is_plain("a/b") && !is_plain("") && is_plain("a.b"));
    }
}
