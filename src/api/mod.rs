//! HTTP/JSON types, routes and client.
