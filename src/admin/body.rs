//! What a request says: the name in its path and the JSON object in its body.
//!
//! A body is read up to a limit, parsed, and taken apart field by field, so that a mistake is named
//! by its place or its field and never by the value that was sent: that value may be a token. The
//! fields that a body may have are those of the type that describes it in the document.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::request::Parts;
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::document;
use super::errors::{AdminError, Kind};
use crate::engine::NameError;
use crate::secret::Secret;

/// Longest body. A grant is some 4 kB, a client with a thousand tenants some 20.
const BODY_LEN_MAX: usize = 64 * 1024;
/// Longest time for a body to come.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest field name that an error repeats; what is longer may be a value in the wrong place.
const FIELD_LEN_MAX: usize = 32;

/// The name in the path.
pub(super) struct Named<T>(pub(super) T);

impl<S: Send + Sync, T: FromStr<Err = NameError>> FromRequestParts<S> for Named<T> {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AdminError> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        let name = text.ok().and_then(|Path(text)| text.parse().ok());
        name.map(Self).ok_or_else(|| {
            AdminError::bad_request(format!("the path holds a name that is none: {NameError}"))
        })
    }
}

/// The fields of a body that have not been taken yet.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body that is a JSON object with no other fields than `B` describes.
    pub(super) async fn read<B: ToSchema>(
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Self, AdminError> {
        check_type(headers)?;
        let content = collect(body).await?;
        match serde_json::from_slice(&content) {
            Ok(Value::Object(fields)) => Self(fields).among(&document::fields::<B>()),
            Ok(_) => Err(AdminError::bad_request("the body must be a JSON object")),
            Err(error) => Err(AdminError::bad_request(format!(
                "the body is no JSON{}: mistake at line {}, column {}",
                if error.is_eof() { ", it ends too early" } else { "" },
                error.line(),
                error.column()
            ))),
        }
    }

    /// The same, where no body at all is an object without fields.
    pub(super) async fn read_or_none<B: ToSchema>(
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Self, AdminError> {
        if body.is_end_stream() {
            return Ok(Self(Map::new()));
        }
        Self::read::<B>(headers, body).await
    }

    fn among(self, known: &[String]) -> Result<Self, AdminError> {
        let Some(unknown) = self.0.keys().find(|name| !known.contains(name)) else {
            return Ok(self);
        };
        let (what, known) = (unknown_name(unknown), known.join(", "));
        Err(AdminError::bad_request(format!("{what}; known are {known}")))
    }

    /// Takes a field; `null` counts as absent.
    pub(super) fn take(&mut self, field: &str) -> Option<Value> {
        self.0.remove(field).filter(|value| !value.is_null())
    }

    /// Takes a field that must be a name.
    pub(super) fn name<T: FromStr<Err = NameError>>(
        &mut self,
        field: &str,
    ) -> Result<T, AdminError> {
        match self.take(field) {
            Some(Value::String(text)) => text.parse().map_err(|error: NameError| {
                AdminError::bad_request(format!("{field} is no name: {error}"))
            }),
            Some(_) => Err(AdminError::bad_request(format!("{field} must be text"))),
            None => Err(AdminError::bad_request(format!("the field {field} is missing"))),
        }
    }

    /// Takes a field that may hold a secret text.
    pub(super) fn secret(&mut self, field: &str) -> Result<Option<Secret<String>>, AdminError> {
        match self.take(field) {
            Some(Value::String(text)) => Ok(Some(Secret::new(text))),
            Some(_) => Err(AdminError::bad_request(format!("{field} must be text"))),
            None => Ok(None),
        }
    }

    /// Takes a field that is a number of whole seconds within `allowed`.
    pub(super) fn seconds(
        &mut self,
        field: &str,
        allowed: RangeInclusive<u64>,
    ) -> Result<Option<Duration>, AdminError> {
        let Some(value) = self.take(field) else { return Ok(None) };
        let secs = whole(&value).filter(|secs| allowed.contains(secs));
        secs.map(|secs| Some(Duration::from_secs(secs))).ok_or_else(|| {
            let (least, most) = allowed.into_inner();
            AdminError::bad_request(format!(
                "{field} must be a whole number of seconds from {least} to {most}"
            ))
        })
    }
}

/// A whole number, also one that is written with a point as 1.0 is: to JSON Schema they are one.
pub(super) fn whole(value: &Value) -> Option<u64> {
    let written = || {
        let number = value.as_f64().filter(|number| number.fract() == 0.0)?;
        format!("{number:.0}").parse().ok()
    };
    value.as_u64().or_else(written)
}

async fn collect(body: Body) -> Result<Bytes, AdminError> {
    let whole = Limited::new(body, BODY_LEN_MAX).collect();
    match tokio::time::timeout(BODY_TIME_MAX, whole).await {
        Ok(Ok(content)) => Ok(content.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(AdminError::new(
            Kind::PayloadTooLarge,
            format!("the body is longer than {BODY_LEN_MAX} bytes"),
        )),
        Ok(Err(_)) => Err(AdminError::bad_request("the body broke off before its end")),
        Err(_) => Err(AdminError::bad_request("the body did not come to its end in time")),
    }
}

/// Says that a field or parameter is unknown, by its name when that is safe to repeat.
pub(super) fn unknown_name(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if name.len() <= FIELD_LEN_MAX && name.bytes().all(plain) {
        format!("{name} is unknown")
    } else {
        "one with a long or odd name is unknown".to_owned()
    }
}

/// A form, which a browser sends across sites without asking, is no JSON.
fn check_type(headers: &HeaderMap) -> Result<(), AdminError> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let media_type = value.to_str().ok().and_then(|value| value.split(';').next());
    if media_type.is_some_and(|it| it.trim().eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    Err(AdminError::new(
        Kind::UnsupportedMediaType,
        "the body must be JSON; send it with Content-Type: application/json",
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_whole_number_may_be_written_with_a_point() {
        for (value, number) in [
            (json!(7), Some(7)),
            (json!(7.0), Some(7)),
            (json!(u64::MAX), Some(u64::MAX)),
            (json!(1e3), Some(1_000)),
            (json!(7.5), None),
            (json!(-1.0), None),
            (json!(1e300), None),
            (json!("7"), None),
        ] {
            assert_eq!(whole(&value), number, "{value}");
        }
    }
}
