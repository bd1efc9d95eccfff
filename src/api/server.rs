//! What every route does alike: read a request that cannot be trusted, and refuse in JSON.

use std::time::Duration;

use axum::Router;
use axum::extract::{Query, Request};
use axum::http::{Method, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::de::DeserializeOwned;

use super::client::Stream;
use super::error::{ApiError, Code};

/// The largest request, in bytes. The largest real one, a resource with every option set, has about 500.
const LARGEST_REQUEST: usize = 64 * 1024;

/// How long a client may take to send the head of a request, the idle time between two included.
const HEADER_PATIENCE: Duration = Duration::from_secs(60);

/// Serves `router` to whoever is at the other end of `stream`, until that one hangs up. Unix sockets, TLS sessions and pipes
/// between tasks are all streams.
///
/// # Errors
/// When the other end does not speak HTTP, or breaks off in the middle.
pub async fn serve_connection(router: Router, stream: impl Stream + 'static) -> hyper::Result<()> {
    let service = TowerToHyperService::new(router);
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_PATIENCE)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

/// The request of an operation: from the query of a `GET`, from the JSON body of anything else (an empty one counts as `{}`).
pub(super) async fn read<T: DeserializeOwned>(request: Request) -> Result<T, ApiError> {
    if request.method() == Method::GET {
        let query = Query::<T>::try_from_uri(request.uri());
        return query.map(|Query(asked)| asked).map_err(|error| unreadable(error.body_text()));
    }
    let body = Limited::new(request.into_body(), LARGEST_REQUEST).collect().await;
    let bytes = body.map_err(|error| cut_off(&*error))?.to_bytes();
    let json: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(json).map_err(unreadable)
}

/// Answers a path that is not in the table.
pub(super) async fn no_such_path(uri: Uri) -> ApiError {
    ApiError::new(Code::NotFound, format_args!("there is no operation at {}", uri.path())).hint("GET /v1 lists the operations")
}

/// Answers a method that the operation does not have.
pub(super) async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(Code::BadRequest, format_args!("{} cannot be asked with {method}", uri.path()))
        .hint("reads are GET, changes are POST; GET /v1 lists the operations")
}

fn unreadable(why: impl std::fmt::Display) -> ApiError {
    ApiError::new(Code::BadRequest, format_args!("the request cannot be read: {why}"))
        .hint("the program that asks may be of another version; `blkrep server-version` tells the daemon's")
}

fn cut_off(error: &(dyn std::error::Error + 'static)) -> ApiError {
    if error.is::<LengthLimitError>() {
        ApiError::new(Code::BadRequest, format_args!("the request has over {LARGEST_REQUEST} bytes"))
    } else {
        ApiError::new(Code::BadRequest, format_args!("the request ended early: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Json;
    use axum::routing::{get, post};
    use serde_json::{Value, json};

    use super::*;
    use crate::api::{AddNode, Client, Connecting, Connector, ListAssignments, OPERATIONS, Ping, Service, routes};

    /// Leads to a router within this process.
    struct InMemory(Router);

    impl Connector for InMemory {
        fn connect(&self) -> Connecting<'_> {
            let (near, far) = tokio::io::duplex(1000);
            tokio::spawn(serve_connection(self.0.clone(), far));
            Box::pin(async { Ok(Box::new(near) as Box<dyn Stream>) })
        }

        fn target(&self) -> String {
            "the test".to_owned()
        }

        fn remedy(&self, _: &std::io::Error) -> String {
            String::new()
        }
    }

    /// A client of the table's routes, served by a client of `router`: what a node does that forwards to the leader.
    fn forwarded(router: Router) -> Client {
        Client::new(InMemory(routes(Arc::new(Client::new(InMemory(router))))))
    }

    #[tokio::test]
    async fn reads_and_changes_arrive_as_they_were_asked() {
        let client = forwarded(
            Router::new()
                .route(
                    "/v1/assignments",
                    get(async |uri: Uri| match uri.query() {
                        Some("node=beta") => Json(json!([])),
                        other => Json(json!({ "unexpected": other })),
                    }),
                )
                .route(
                    "/v1/nodes/add",
                    post(async |Json(asked): Json<Value>| {
                        assert_eq!(
                            asked,
                            json!({ "name": "beta", "address": "10.0.0.2", "port": null, "witness": false, "valid_for": 60 })
                        );
                        Json(json!({ "node": "beta", "contact": "10.0.0.1:6999", "token": "t", "expires_in": 60 }))
                    }),
                ),
        );
        let asked = ListAssignments { node: Some("beta".parse().unwrap()), resource: None };
        assert_eq!(client.list_assignments(asked).await, Ok(Vec::new()));
        let (name, address) = ("beta".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let ticket = client.add_node(AddNode { name, address, port: None, witness: false, valid_for: Some(60) }).await.unwrap();
        assert_eq!((ticket.token.as_str(), ticket.expires_in), ("t", 60));
    }

    #[tokio::test]
    async fn a_refusal_arrives_whole_through_every_hop() {
        let refusal = ApiError::new(Code::NoQuorum, "no leader").hint("start a second node");
        let sent = refusal.clone();
        let client = forwarded(Router::new().route("/v1/ping", get(async || -> ApiError { sent })));
        assert_eq!(client.ping(Ping {}).await, Err(refusal));
    }

    #[tokio::test]
    async fn what_is_not_in_the_table_is_refused_in_json() {
        let client = Client::new(InMemory(routes(Arc::new(Client::unix("/nonexistent")))));
        let ask = async |method: Method, path: &str, request: Value| client.call::<Value, Value>(method, path, &request).await;
        let code = |answer: Result<Value, ApiError>| answer.unwrap_err().code;
        assert_eq!(code(ask(Method::GET, "/v1/nowhere", json!({})).await), Code::NotFound);
        assert_eq!(code(ask(Method::POST, "/v1/nodes", json!({})).await), Code::BadRequest);
        assert_eq!(code(ask(Method::POST, "/v1/nodes/add", json!({ "name": "-bad", "address": "::1" })).await), Code::BadRequest);
        let surplus = json!({ "resource": "web", "volume": 0, "frce": true });
        assert!(ask(Method::POST, "/v1/volumes/remove", surplus).await.unwrap_err().message.contains("frce"));
        let large = json!({ "name": "n".repeat(LARGEST_REQUEST) });
        assert!(ask(Method::POST, "/v1/nodes/add", large).await.unwrap_err().message.contains("over 65536 bytes"));
        assert_eq!(code(ask(Method::GET, "/v1/ping", json!({})).await), Code::Unreachable);
        let table = ask(Method::GET, "/v1", json!({})).await.unwrap();
        assert_eq!(table.as_array().unwrap().len(), OPERATIONS.len());
    }
}
