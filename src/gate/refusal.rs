//! The scheduler's refusals in the words of an answer.

use std::time::Duration;

use crate::engine::ApiKeyName;
use crate::engine::scheduler::Refusal;
use crate::rejection::{Reason, Rejection};

pub(super) fn rejection(why: &Refusal, api_key: &ApiKeyName) -> Rejection {
    match why {
        Refusal::QueueFull { retry } => Rejection::new(
            Reason::QueueFull,
            format!(
                "the queue of API key {api_key} is full (queue.capacity); send the call again later"
            ),
        )
        .retry_after(*retry),
        Refusal::TenantQueueFull { retry } => Rejection::new(
            Reason::QueueFull,
            "this tenant has as many calls waiting as it may (queue.capacity_per_tenant); \
             send the call again later",
        )
        .retry_after(*retry),
        Refusal::WaitTooLong { estimate } => Rejection::new(
            Reason::WaitTooLong,
            format!(
                "the call would wait about {}, longer than it may; send it again later, or with a \
                 larger Prefer: wait=SECONDS",
                seconds(*estimate)
            ),
        )
        .retry_after(*estimate),
        Refusal::WaitExpired { estimate } => Rejection::new(
            Reason::WaitExpired,
            "the call waited for as long as it may and was not served; send it again later, or \
             with a larger Prefer: wait=SECONDS",
        )
        .retry_after(*estimate),
        Refusal::DaySpent => Rejection::new(
            Reason::DayQuotaSpent,
            format!(
                "API key {api_key} has no calls left in this quota day; the RateLimit header says \
                 when the next begins"
            ),
        ),
        Refusal::DayKept => Rejection::new(
            Reason::DayQuotaSpent,
            format!(
                "what is left of this quota day of API key {api_key} is kept for interactive \
                 calls: the reserve (limits.reserve), and what other programs are likely to use; \
                 the RateLimit header says when the next day begins"
            ),
        ),
        Refusal::StoreUnavailable => Rejection::new(
            Reason::StoreUnavailable,
            "the call was not sent because its count could not be stored; send it again later",
        ),
        Refusal::NeedsAuthorization { reason } => Rejection::new(
            Reason::TenantNeedsAuthorization,
            format!("the account's owner must connect it again: {reason}"),
        ),
        Refusal::TokenUnavailable { retry } => Rejection::new(
            Reason::TokenUnavailable,
            "this tenant has no valid access token, and the token endpoint did not give one in \
             time; send the call again later",
        )
        .retry_after(*retry),
        Refusal::TenantRemoved => {
            Rejection::new(Reason::TenantUnknown, "the tenant was removed; connect it again")
        }
        Refusal::ApiKeyRemoved => Rejection::new(
            Reason::TenantUnknown,
            format!("API key {api_key} was removed from the configuration, and the tenant with it"),
        ),
        Refusal::Stopping => Rejection::new(
            Reason::ShuttingDown,
            "the proxy is being stopped and did not send the call; send it again",
        ),
    }
}

fn seconds(span: Duration) -> String {
    let secs = span.as_secs() + u64::from(span.subsec_nanos() > 0);
    format!("{secs} s")
}
