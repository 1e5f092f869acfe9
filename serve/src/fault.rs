use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::json;

/// A request that is refused, or has failed: a status and the error in OpenAI's form.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// The status.
    pub status: StatusCode,
    /// What is wrong, and what would be right.
    pub message: String,
    /// The field that is wrong.
    pub param: Option<&'static str>,
}

impl Fault {
    /// A fault of the request in the field `param`.
    pub fn of(param: &'static str, message: impl Into<String>) -> Self {
        Self { param: Some(param), ..Self::new(StatusCode::BAD_REQUEST, message) }
    }

    /// A fault that is not in one field.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None }
    }

    fn kind(&self) -> (&'static str, Option<&'static str>) {
        match self.status {
            StatusCode::UNAUTHORIZED => ("authentication_error", Some("invalid_api_key")),
            StatusCode::FORBIDDEN => ("permission_error", None),
            StatusCode::NOT_FOUND if self.param == Some("model") => ("invalid_request_error", Some("model_not_found")),
            StatusCode::SERVICE_UNAVAILABLE => ("server_error", Some("unavailable")),
            status if status.is_server_error() => ("server_error", None),
            _ => ("invalid_request_error", None),
        }
    }

    /// The body.
    pub fn body(&self) -> impl Serialize {
        let (kind, code) = self.kind();
        json!({"error": {"message": self.message, "type": kind, "param": self.param, "code": code}})
    }

    /// The response.
    pub fn response(&self) -> Response<Body> {
        let mut response = reply(self.status, &self.body());
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// A response in JSON.
pub fn reply(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    let mut response = Response::new(Body::from(ltm::json::line(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
