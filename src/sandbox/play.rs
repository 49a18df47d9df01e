//! What will become of a request, and how a fault changes it.
//!
//! A fault stands in place of serving the call, or around it: then the call has its effect, tokens
//! rotate and contacts change, whatever the caller gets to see.

use std::time::Duration;

use http::StatusCode;

use super::answer::{Answer, FailureForm, quota_exceeded, throttled, unauthorized};
use super::fault::FaultKind;
use super::oauth;

/// What will become of a request.
#[derive(Debug)]
pub(super) enum Play {
    /// It is answered.
    Answer(Answer),
    /// It is answered, but the connection breaks amid the body.
    Cut(Answer),
    /// The connection is closed.
    Close,
    /// Nothing, until somebody gives up.
    Hang,
}

impl Play {
    /// The status that goes out; 0 when none does.
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Answer(answer) | Self::Cut(answer) => answer.status.as_u16(),
            Self::Close | Self::Hang => 0,
        }
    }
}

/// Plays a fault around, or in place of, serving a call; also says how much later the answer comes.
pub(super) fn stage(
    fault: Option<FaultKind>,
    form: FailureForm,
    serve: impl FnOnce() -> Answer,
) -> (Play, Duration) {
    let mut delay = Duration::ZERO;
    let play = match fault {
        None => Play::Answer(serve()),
        Some(FaultKind::Delay { ms }) => {
            delay = Duration::from_millis(ms);
            Play::Answer(serve())
        }
        Some(FaultKind::LostAnswer) => {
            serve();
            Play::Close
        }
        Some(FaultKind::Cut) => Play::Cut(serve()),
        Some(FaultKind::Hang) => Play::Hang,
        Some(FaultKind::Close) => Play::Close,
        Some(FaultKind::Empty) => Play::Answer(Answer::empty()),
        Some(FaultKind::Html { status }) => Play::Answer(Answer::html(status_of(status))),
        Some(FaultKind::Status { status, retry_after, body }) => {
            let mut answer = Answer::failure(status_of(status), form);
            if let Some(secs) = retry_after {
                answer = answer.retry_after(secs);
            }
            if let Some(body) = body {
                answer.body = body.into();
            }
            Play::Answer(answer)
        }
        Some(FaultKind::Throttled) => Play::Answer(match form {
            FailureForm::Api => throttled(),
            FailureForm::Token => oauth::too_many_requests(),
        }),
        Some(FaultKind::QuotaExceeded) => Play::Answer(quota_exceeded()),
        Some(FaultKind::Denied) => Play::Answer(oauth::access_denied()),
        Some(FaultKind::Unauthorized) => Play::Answer(match form {
            FailureForm::Api => unauthorized(),
            FailureForm::Token => oauth::invalid_client(),
        }),
    };
    (play, delay)
}

fn status_of(status: u16) -> StatusCode {
    StatusCode::from_u16(status).expect("faults and failures are checked when they are set")
}
