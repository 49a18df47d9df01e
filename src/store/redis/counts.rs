//! What counts for an API key: its days and its token lane; and which API keys are held.
//!
//! Days and lanes are forgotten by the server when nobody needs them any more. Moments of the lane
//! are the server's: clocks of instances differ.

use std::collections::BTreeSet;
use std::time::Duration;

use super::fields::damaged;
use super::names::mark;
use super::{Server, scripts};
use crate::engine::{ApiKeyName, Day};
use crate::store::{
    Changed, DAYS_KEPT, DayCount, Forgotten, LaneLease, LaneTerms, LaneTurn, StoreError,
};

/// Days that nobody has counted in for so long are forgotten.
pub(super) const DAYS_SECS: u64 = 5 * 24 * 60 * 60;
/// Longest time until whoever waits for a lane that is held asks again: it may be left early.
const RETRY_MS_MAX: u64 = 250;

/// Takes up to `want` calls of `day`, or of the one after it once that has begun.
pub(super) async fn reserve(
    server: &Server,
    api_key: &ApiKeyName,
    day: Day,
    want: u32,
    limit: u64,
) -> Result<DayCount, StoreError> {
    let mut call = scripts::RESERVE.prepare_invoke();
    call.key(server.names.days(api_key));
    call.arg(day.number()).arg(want).arg(limit).arg(DAYS_KEPT).arg(DAYS_SECS);
    let (day, granted, total): (u32, u32, u64) =
        server.link.run("reserve calls of the day", &call).await?;
    Ok(DayCount { day: Day::new(day), granted, total })
}

/// Gives calls of `day` back.
pub(super) async fn release(
    server: &Server,
    api_key: &ApiKeyName,
    day: Day,
    count: u32,
) -> Result<(), StoreError> {
    let mut call = scripts::RELEASE.prepare_invoke();
    call.key(server.names.days(api_key)).arg(day.number()).arg(count);
    server.link.run("release calls of the day", &call).await
}

/// Takes the lane.
pub(super) async fn take_lane(
    server: &Server,
    api_key: &ApiKeyName,
    terms: LaneTerms,
) -> Result<LaneTurn, StoreError> {
    let mut call = scripts::LANE.prepare_invoke();
    call.key(server.names.lane(api_key)).arg("take").arg(millis(terms.hold));
    call.arg(millis(terms.rest_max)).arg(RETRY_MS_MAX);
    let (taken, number): (bool, u64) = server.link.run("take the token lane", &call).await?;
    Ok(if taken {
        LaneTurn::Yours(LaneLease { fence: number })
    } else {
        LaneTurn::Busy { retry: Duration::from_millis(number) }
    })
}

/// Keeps the lane for `hold` from now; `false` when it is lost.
pub(super) async fn keep_lane(
    server: &Server,
    api_key: &ApiKeyName,
    lease: LaneLease,
    hold: Duration,
    forgotten: Forgotten,
) -> Result<bool, StoreError> {
    let mut call = scripts::LANE.prepare_invoke();
    call.key(server.names.lane(api_key)).arg("keep").arg(lease.fence).arg(millis(hold));
    call.arg(u8::from(forgotten == Forgotten::IsKept));
    server.link.run("keep the token lane", &call).await
}

/// Leaves the lane to rest.
pub(super) async fn leave_lane(
    server: &Server,
    api_key: &ApiKeyName,
    lease: LaneLease,
    rest: Duration,
) -> Result<(), StoreError> {
    let mut call = scripts::LANE.prepare_invoke();
    call.key(server.names.lane(api_key)).arg("leave").arg(lease.fence).arg(millis(rest));
    server.link.run::<bool>("leave the token lane", &call).await.map(drop)
}

/// Holds or releases an API key.
pub(super) async fn pause(
    server: &Server,
    api_key: &ApiKeyName,
    paused: bool,
) -> Result<(), StoreError> {
    let names = &server.names;
    let mut call = scripts::PAUSE_API_KEY.prepare_invoke();
    call.key(names.paused()).key(names.revision()).key(names.changes());
    call.arg(api_key.as_str()).arg(mark(&Changed::ApiKey(api_key.clone())));
    call.arg(names.channel()).arg(u8::from(paused));
    server.link.run("pause an API key", &call).await
}

/// The API keys that are held.
pub(super) async fn paused(server: &Server) -> Result<BTreeSet<ApiKeyName>, StoreError> {
    let mut get = redis::cmd("SMEMBERS");
    get.arg(server.names.paused());
    let names: Vec<String> = server.link.ask("read the paused API keys", &get).await?;
    let parsed = names.iter().map(|name| name.parse()).collect::<Result<_, _>>();
    parsed.map_err(|_| damaged("a stored name of an API key".to_owned()))
}

/// Whole milliseconds, rounded up: a rest is never shorter than asked for.
fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)
}
