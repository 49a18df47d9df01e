//! What became of a call that left, as far as the limits care.

/// The end of a call that was sent, or was about to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The upstream answered, whatever it said about the call itself.
    Answered(Health),
    /// 429 `throttled`: too many calls in a second.
    Throttled,
    /// 429 `quota_exceeded`: the day is spent.
    QuotaExceeded,
    /// Another 429 in JSON: a limit behind the gateway, such as the activities that an account may
    /// have queued.
    Capped,
    /// 403, 429 or 503 that is not JSON: an edge in front of the API refuses the key or the
    /// address.
    Edge,
    /// Sent, but no answer came: it may have been counted, executed, both or neither.
    Lost,
    /// Certainly not sent: no byte left.
    NotSent,
}

/// Whether an answer counts among a tenant's errors, and whether its token was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Status below 400.
    Good,
    /// 401: the token was refused.
    Unauthorized,
    /// 403: the token was read and does not allow the call.
    Forbidden,
    /// Any other status of 400 or above.
    Error,
}
