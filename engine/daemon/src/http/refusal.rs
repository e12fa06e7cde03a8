//! The one shape of every error: a status, the field that is wrong where one is, and a reason that says what to do.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// Why a request is not carried out.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    field: Option<String>,
    reason: String,
    retry_after_s: Option<u64>,
}

/// The body of every answer of 400 and above.
#[derive(Serialize, ToSchema)]
pub struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Serialize, ToSchema)]
struct ErrorDetail {
    /// The field of the request that is wrong, e.g. `agentConfig.stt`; null where none is.
    field: Option<String>,
    /// What is wrong, and what to do.
    reason: String,
}

impl Refusal {
    /// A request that is wrong in one field: 400.
    pub fn field(field: &str, reason: impl Into<String>) -> Self {
        Self::of(StatusCode::BAD_REQUEST, reason).at(field)
    }

    /// Nothing there: 404.
    pub fn unknown(field: &str, reason: impl Into<String>) -> Self {
        Self::of(StatusCode::NOT_FOUND, reason).at(field)
    }

    /// Any other reason, which no field is to blame for.
    pub fn of(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, field: None, reason: reason.into(), retry_after_s: None }
    }

    /// Names what is wrong.
    pub fn at(self, field: &str) -> Self {
        Self { field: Some(field.to_owned()), ..self }
    }

    /// True where there is nothing.
    pub fn is_unknown(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    /// Says when to come again.
    pub fn retry_after_s(self, seconds: u64) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(ErrorBody { error: ErrorDetail { field: self.field, reason: self.reason } })).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}
