//! Docker's questions to a plugin whose daemon is not there: what it answers of itself, and what it refuses before it asks anybody.

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;
use crate::api::Client;
use crate::api::setup::Root;

async fn ask(path: &str, body: Value) -> (StatusCode, Value) {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::new(directory.path());
    let service = Arc::new(Client::unix(root.api_socket()));
    let plugin = Plugin::new(&root, "alpha".parse().unwrap(), service, BTreeMap::new()).unwrap();
    let request = Request::post(path).body(Body::from(body.to_string())).unwrap();
    let response = routes(Arc::new(plugin)).oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn docker_learns_what_the_plugin_is() {
    let (status, told) = ask("/Plugin.Activate", json!({})).await;
    assert_eq!((status, &told["Implements"]), (StatusCode::OK, &json!(["VolumeDriver"])));
    let (_, told) = ask("/VolumeDriver.Capabilities", json!({})).await;
    assert_eq!(told["Capabilities"]["Scope"], "global");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_in_words() {
    for (path, body, word) in [
        ("/VolumeDriver.Create", json!({ "Name": "v", "Opts": { "sise": "1" } }), "sise"),
        ("/VolumeDriver.Create", json!({ "Name": "un/fit" }), "un/fit"),
        ("/VolumeDriver.Mount", json!({ "ID": "1" }), "name"),
        ("/VolumeDriver.Get", json!({ "Name": "v" }), "api.sock"),
        ("/VolumeDriver.Nothing", json!({}), "/VolumeDriver.Nothing"),
    ] {
        let (status, told) = ask(path, body).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
        let told = told["Err"].as_str().unwrap();
        assert!(told.to_lowercase().contains(&word.to_lowercase()), "{path}: {told}");
    }
}
