//! What each path answers.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use log::info;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::accept::MetricsFormat;
use super::bitmap::bitmap;
use super::body::{EventStream, ImageBody, ResponseBody};
use super::connections::Service;
use super::guard::{Access, Refusal};
use super::metrics::Snapshot;
use super::settings::Preview;
use super::state::State;
use crate::output::commands::{CommandProcessor, MAX_COMMAND_BYTES, parse};

/// How often a command that takes its time is asked for its answer.
const ANSWER_CHECK_INTERVAL: Duration = Duration::from_millis(20);
const PLAIN: &str = "text/plain; charset=utf-8";

#[derive(Clone, Copy)]
enum Route {
    Page,
    Life,
    Readiness,
    Metrics,
    Events,
    Image,
    Command,
}

impl Route {
    fn of(path: &str) -> Option<Route> {
        Some(match path {
            "/" => Route::Page,
            "/healthz" => Route::Life,
            "/readyz" => Route::Readiness,
            "/metrics" => Route::Metrics,
            "/events" => Route::Events,
            "/image" => Route::Image,
            "/command" => Route::Command,
            _ => return None,
        })
    }

    fn access(self) -> Access {
        match self {
            Route::Page => Access::Page,
            Route::Life => Access::Life,
            Route::Readiness | Route::Metrics | Route::Events | Route::Image | Route::Command => Access::Private,
        }
    }

    fn method(self) -> Method {
        match self {
            Route::Command => Method::POST,
            _ => Method::GET,
        }
    }
}

/// Answers one request. `is_stream` is set if the answer has no end.
pub async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
    allowed: Service,
    is_stream: Arc<AtomicBool>,
) -> Result<Response<ResponseBody>, Infallible> {
    let mut response = route(&state, request, allowed, &is_stream).await;
    let headers = response.headers_mut();
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("content-security-policy", state.policy.clone());
    Ok(response)
}

async fn route(
    state: &Arc<State>,
    request: Request<Incoming>,
    allowed: Service,
    is_stream: &AtomicBool,
) -> Response<ResponseBody> {
    // An unknown path tells nothing to those who may not ask.
    let route = Route::of(request.uri().path());
    let access = route.map_or(Access::Private, Route::access);
    if let Err(refusal) = state.guard.check(request.headers(), access) {
        return refuse(refusal);
    }
    let Some(route) = route else {
        let paths =
            "there is nothing here: the paths are /, /events, /image, /command, /metrics, /healthz and /readyz\n";
        return text(StatusCode::NOT_FOUND, PLAIN, paths);
    };
    if allowed == Service::HealthOnly && !matches!(route, Route::Life | Route::Readiness) {
        return busy(
            "too many connections: close some; /healthz and /readyz are still answered\n",
            "2",
        );
    }
    let method = route.method();
    if *request.method() != method && !(method == Method::GET && *request.method() == Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, PLAIN, format!("use {method}\n"));
        let allowed = if method == Method::POST { "POST" } else { "GET, HEAD" };
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        return response;
    }
    match route {
        Route::Page => text(StatusCode::OK, "text/html; charset=utf-8", state.html.clone()),
        Route::Life => text(StatusCode::OK, PLAIN, "ok\n"),
        Route::Readiness => readiness(state),
        Route::Metrics => metrics(state, MetricsFormat::of(request.headers())),
        Route::Events => events(state, is_stream),
        Route::Image => image(state),
        Route::Command => command(state, request.into_body()).await,
    }
}

fn text(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Text(Some(body.into())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn refuse(refusal: Refusal) -> Response<ResponseBody> {
    let mut response = text(refusal.status(), PLAIN, format!("{}\n", refusal.reason()));
    if refusal == Refusal::Token {
        let scheme = HeaderValue::from_static("Bearer realm=\"affectd\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
    }
    response
}

/// The client may try again after so many seconds.
fn busy(reason: &'static str, retry_after: &'static str) -> Response<ResponseBody> {
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, reason);
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from_static(retry_after));
    response
}

fn readiness(state: &State) -> Response<ResponseBody> {
    match (state.why_not_ready(), state.problem()) {
        (Some(why), _) => text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("not ready: {why}\n")),
        (None, Some(problem)) => text(StatusCode::OK, PLAIN, format!("ready; {problem}\n")),
        (None, None) => text(StatusCode::OK, PLAIN, "ready\n"),
    }
}

fn metrics(state: &State, format: MetricsFormat) -> Response<ResponseBody> {
    let snapshot = Snapshot::of(&state.context, state.uptime(), state.outputs(), state.last_estimate());
    let (metrics, media_type) = snapshot.encode(format);
    text(StatusCode::OK, media_type, metrics)
}

fn events(state: &State, is_stream: &AtomicBool) -> Response<ResponseBody> {
    let Some(stream) = state.connections.admit_stream() else {
        return busy("too many pages are open: close one\n", "10");
    };
    is_stream.store(true, Ordering::Relaxed);
    // Subscribed before the greeting is made, so that no event is lost in between.
    let events = state.subscribe();
    let body = ResponseBody::Events(EventStream::new(state.greeting(), events, stream));
    let mut response = Response::new(body);
    let media_type = HeaderValue::from_static("text/event-stream; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}

/// What the camera sees, if the settings allow it.
fn image(state: &State) -> Response<ResponseBody> {
    if state.preview != Preview::Image {
        let reason = "there is no image: status.preview does not allow it\n";
        return text(StatusCode::NOT_FOUND, PLAIN, reason);
    }
    let paused = state.context.pause.is_paused();
    match state.context.image.ask().filter(|_| !paused) {
        Some(image) => {
            let body = ImageBody::new(bitmap(&image), Arc::clone(&state.context.pause));
            let mut response = Response::new(ResponseBody::Image(body));
            let media_type = HeaderValue::from_static("image/bmp");
            response.headers_mut().insert(CONTENT_TYPE, media_type);
            response
        }
        None => {
            let reason = "no image yet: ask again in a second; see /readyz if none comes\n";
            busy(reason, "1")
        }
    }
}

/// Executes one command, written as on a serial line. The answer is the same, too.
async fn command(state: &State, body: Incoming) -> Response<ResponseBody> {
    let Some(line) = read(body).await else {
        let reason = format!("a command has at most {MAX_COMMAND_BYTES} bytes, and must be sent whole");
        return in_json(StatusCode::PAYLOAD_TOO_LARGE, &json!({ "error": reason }));
    };
    let Some(parsed) = parse(&line) else {
        let reason = "no command: send one as on a serial line, for example pause";
        return in_json(StatusCode::BAD_REQUEST, &json!({ "error": reason }));
    };
    if let Ok(command) = &parsed {
        info!("status page: a client requests {command:?}");
    }
    // Each request has a processor of its own: if the client leaves, nobody waits for the answer.
    let context = &state.context;
    let mut commands = CommandProcessor::new(
        context.controls.clone(),
        context.live_health.clone(),
        Arc::clone(&context.pause),
    )
    .opened_at(state.started);
    let mut answer = state.with_rate(|rate| commands.execute(parsed, (), rate));
    while answer.is_none() {
        sleep(ANSWER_CHECK_INTERVAL).await;
        answer = commands.late_answer();
    }
    let body = answer.map(|answer| answer.body).unwrap_or_default();
    let status = match body.get("error") {
        Some(_) => StatusCode::CONFLICT,
        None => StatusCode::OK,
    };
    in_json(status, &body)
}

fn in_json(status: StatusCode, body: &Value) -> Response<ResponseBody> {
    text(status, "application/json", format!("{body}\n"))
}

/// The body of a request. `None` if it is longer than a command, or broken off.
async fn read(mut body: Incoming) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        if let Ok(data) = frame.ok()?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > MAX_COMMAND_BYTES {
            return None;
        }
    }
    Some(bytes)
}
