//! One call from the caller's request to the answer: waiting, sending, and sending again.
//!
//! Every repeat goes back to the front of its tenant's queue and takes a new slot and a new count.
//! A call is sent again when that is certain to be harmless (it was refused, or never left) or when
//! its method is safe, and only while the caller's wait lasts.

use std::time::Duration;

use http::header::{AUTHORIZATION, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use tracing::debug;

use super::answer::AnswerBody;
use super::exchange::{Sending, Sent, is_unwell};
use super::identify::{self, Caller};
use super::intake::{self, Taken};
use super::record::Record;
use super::target::Target;
use super::{Inner, headers, strangers};
use crate::engine::outcome::Outcome;
use crate::engine::scheduler::{Arrival, CallId, Entry};
use crate::engine::{Class, Mono};
use crate::gate::{Permit, Ticket};
use crate::phase::Phase;
use crate::rejection::{Reason, Rejection};
use crate::tokens::Bearer;
use crate::upstream::{ConnectError, Connection, OutBody};

/// First wait after a connection could not be made; each further one doubles it.
const RECONNECT_MIN: Duration = Duration::from_millis(100);
/// Longest wait after a connection could not be made.
const RECONNECT_MAX: Duration = Duration::from_secs(2);

/// A caller that will not wait still gives the proxy the time to look.
const WAIT_MIN: Duration = Duration::from_millis(100);

/// A request that has been taken in and may be sent.
struct Call<'a> {
    proxy: &'a Inner,
    caller: Caller,
    /// Its first place in the queue, which its repeats take again.
    first: CallId,
    class: Class,
    deadline: Mono,
    method: Method,
    target: PathAndQuery,
    headers: HeaderMap,
    body: Taken,
    upstream_timeout: Duration,
}

/// What may be done once only.
#[derive(Default)]
struct Chances {
    /// A new token was asked for.
    token: bool,
    /// A safe call was sent again because the upstream was not well.
    safe: bool,
    /// Connections that could not be made since one could.
    connects: u32,
    /// Why the last one could not.
    no_connection: Option<Rejection>,
}

/// What follows a sending.
enum Next {
    Answer(Response<AnswerBody>),
    /// Send it again; if it gets no slot, the refusal is the answer.
    Again,
    /// Send it again; if it gets no slot, this is the answer.
    AgainOr(Response<AnswerBody>),
    /// Send it again with a token newer than this version; if there is none, this is the answer.
    AgainWithNewer(u64, Response<AnswerBody>),
}

/// Serves a request; a refusal before its body is needed leaves the body there.
pub(super) async fn serve(
    proxy: &Inner,
    request: &mut Request<Option<Incoming>>,
    record: &mut Record,
) -> Result<Response<AnswerBody>, Rejection> {
    let settings = proxy.settings.load_full();
    let target = Target::of(request)?;
    let in_path = target.tenant.as_ref();
    if proxy.news.is_followed()
        && strangers::are_named_by(request, in_path, &proxy.clients, &proxy.tokens)
    {
        proxy.news.look().await;
    }
    let caller = identify::identify(proxy, &settings, request, target.tenant)?;
    record.is_from(&caller);
    if proxy.phase.get() == Phase::Draining {
        return Err(stopping());
    }
    if let Some(own) = &caller.own {
        own.check_signature(proxy, &settings).await?;
    }
    let class = identify::class(request.headers());
    let wait = identify::wait(request.headers(), &settings);
    let deadline = record.started().plus(wait.max(WAIT_MIN));
    let path = target.path_and_query.path();
    let plan = intake::plan(request.body_mut(), path, &settings, &proxy.kept)?;
    let entry = if plan.is_to_be_read() { Entry::WhenPrepared } else { Entry::Back };
    let arrival = Arrival { tenant: caller.tenant.clone(), class, deadline, entry };
    let mut ticket = caller.enqueue(arrival);
    let first = ticket.call();
    let body = if entry == Entry::WhenPrepared {
        let taken = tokio::select! {
            biased;
            taken = Box::pin(plan.take_in()) => taken?,
            refusal = ticket.refused() => return Err(refusal),
        };
        ticket.prepared();
        taken
    } else {
        plan.take_in().await?
    };
    let mut headers = std::mem::take(request.headers_mut());
    headers::for_upstream(&mut headers, target.path_and_query.path());
    let permit = granted(ticket, record).await?;
    let call = Call {
        proxy,
        caller,
        first,
        class,
        deadline,
        method: request.method().clone(),
        target: target.path_and_query,
        headers,
        body,
        upstream_timeout: settings.upstream_timeout,
    };
    // what follows is large and short-lived; what waited above is small
    Box::pin(call.run(permit, record)).await
}

async fn granted(ticket: Ticket, record: &mut Record) -> Result<Permit, Rejection> {
    let permit = ticket.granted().await?;
    record.waited(permit.waited());
    Ok(permit)
}

impl Call<'_> {
    async fn run(
        mut self,
        mut permit: Permit,
        record: &mut Record,
    ) -> Result<Response<AnswerBody>, Rejection> {
        let mut chances = Chances::default();
        let mut refused = None;
        loop {
            let next = match refused.take() {
                Some((version, answer)) if !self.has_newer(version) => Next::Answer(answer),
                Some(_) | None => self.attempt(permit, &mut chances, record).await?,
            };
            let in_hand = match next {
                Next::Answer(answer) => return Ok(answer),
                Next::Again => None,
                Next::AgainOr(answer) => Some(answer),
                Next::AgainWithNewer(version, answer) => {
                    refused = Some((version, answer));
                    None
                }
            };
            permit = match (granted(self.enqueue_again(), record).await, in_hand) {
                (Ok(permit), _) => permit,
                (Err(_), Some(answer)) => return Ok(answer),
                // its tenant's calls are held by now: what the API said is the better answer
                (Err(refusal), None) if refusal.reason() == Reason::WaitTooLong => {
                    return refused.map_or(Err(refusal), |(_, answer)| Ok(answer));
                }
                // what kept the call from being sent is a better answer than that its time is over
                (Err(refusal), None) if refusal.reason() == Reason::WaitExpired => {
                    return Err(chances.no_connection.unwrap_or(refusal));
                }
                (Err(refusal), None) => return Err(refusal),
            };
        }
    }

    fn enqueue_again(&self) -> Ticket {
        self.caller.enqueue(Arrival {
            tenant: self.caller.tenant.clone(),
            class: self.class,
            deadline: self.deadline,
            entry: Entry::Again { first: self.first },
        })
    }

    /// Uses one permit.
    async fn attempt(
        &mut self,
        permit: Permit,
        chances: &mut Chances,
        record: &mut Record,
    ) -> Result<Next, Rejection> {
        let Some(bearer) = self.bearer()? else {
            // it went bad between grant and now; the permit goes back unspent
            self.caller.key.token_refused(&self.caller.tenant);
            return Ok(Next::Again);
        };
        let connection = match self.proxy.upstream.connection().await {
            Ok(connection) => connection,
            Err(error) => {
                drop(permit);
                return self.no_connection(&error, chances).await;
            }
        };
        (chances.connects, chances.no_connection) = (0, None);
        let body =
            self.body.body().ok_or_else(|| unreachable(&"the body went with the first try"))?;
        let sent = self.send(permit, connection, &bearer, body, record).await;
        match sent {
            Sent::Answer { answer, outcome } => self.answered(answer, outcome, &bearer, chances),
            Sent::Unsent(body) => {
                if let Taken::Once(place) = &mut self.body {
                    *place = Some(body);
                }
                Ok(Next::Again)
            }
            Sent::Broken(error)
                if self.is_safe() && !std::mem::replace(&mut chances.safe, true) =>
            {
                debug!(%error, "a safe call's connection broke: sending it again");
                Ok(Next::Again)
            }
            Sent::Broken(error) => Err(broken(&error)),
            Sent::TimedOut => Err(Rejection::new(
                Reason::UpstreamTimeout,
                format!(
                    "the API did not answer within {:?} (upstream.timeout); whether it carried \
                     the call out is not known",
                    self.upstream_timeout
                ),
            )),
        }
    }

    /// The token to send; `None` when the tenant has none now.
    fn bearer(&self) -> Result<Option<Bearer>, Rejection> {
        if let Some(own) = &self.caller.own {
            own.check_end(self.proxy.clock.now().unix)?;
            return Ok(Some(Bearer { header: own.header.clone(), version: 0 }));
        }
        let home = self.proxy.tokens.tenant(self.caller.tenant.as_str());
        if home.is_none_or(|view| view.api_key != *self.caller.key.name()) {
            return Err(Rejection::new(
                Reason::TenantUnknown,
                "the tenant was removed, or moved to another API key, while the call waited",
            ));
        }
        Ok(self.proxy.tokens.bearer(&self.caller.tenant))
    }

    async fn send(
        &self,
        permit: Permit,
        connection: Connection,
        bearer: &Bearer,
        body: OutBody,
        record: &mut Record,
    ) -> Sent {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(self.target.clone());
        let mut headers = self.headers.clone();
        headers.insert(HOST, self.proxy.upstream.host().clone());
        headers.insert(AUTHORIZATION, bearer.header.clone());
        *request.headers_mut() = headers;
        let started = self.proxy.clock.mono();
        let sending = Sending {
            permit,
            connection,
            request,
            timeout: self.upstream_timeout,
            key: self.caller.key.clone(),
            clock: self.proxy.clock.clone(),
        };
        let sent = sending.start(&self.proxy.tracker).await;
        record.sent(self.proxy.clock.mono().since(started));
        sent
    }

    fn answered(
        &self,
        answer: Response<AnswerBody>,
        outcome: Outcome,
        bearer: &Bearer,
        chances: &mut Chances,
    ) -> Result<Next, Rejection> {
        let replayable = self.body.is_replayable();
        match outcome {
            Outcome::Throttled if replayable => Ok(Next::Again),
            Outcome::QuotaExceeded => Err(Rejection::new(
                Reason::DayQuotaSpent,
                "the API says that the calls of this quota day are used up; the RateLimit header \
                 says when the next begins",
            )),
            // a token of the caller's own is the caller's to renew
            _ if answer.status() == StatusCode::UNAUTHORIZED && self.caller.own.is_none() => {
                self.unauthorized(bearer);
                let first = !std::mem::replace(&mut chances.token, true);
                Ok(if first && replayable {
                    Next::AgainWithNewer(bearer.version, answer)
                } else {
                    Next::Answer(answer)
                })
            }
            _ if answer.status().is_informational() => Err(Rejection::new(
                Reason::UpstreamUnreachable,
                "the API answered with an upgrade that nobody asked for",
            )),
            _ if is_unwell(outcome, answer.status()) && self.is_safe() => {
                let first = !std::mem::replace(&mut chances.safe, true);
                Ok(if first { Next::AgainOr(answer) } else { Next::Answer(answer) })
            }
            Outcome::Answered(_)
            | Outcome::Throttled
            | Outcome::Capped
            | Outcome::Edge
            | Outcome::Lost
            | Outcome::NotSent => Ok(Next::Answer(answer)),
        }
    }

    /// The API refused the token: a new one is asked for, unless there is one already.
    fn unauthorized(&self, bearer: &Bearer) {
        let tenant = &self.caller.tenant;
        if !self.has_newer(bearer.version) {
            self.proxy.tokens.rejected(tenant, bearer.version);
            self.caller.key.token_refused(tenant);
        }
    }

    fn has_newer(&self, version: u64) -> bool {
        let bearer = self.proxy.tokens.bearer(&self.caller.tenant);
        bearer.is_some_and(|bearer| bearer.version > version)
    }

    fn is_safe(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }

    /// Waits a little before the next try, or gives up when the caller's wait would be over by
    /// then.
    async fn no_connection(
        &self,
        error: &ConnectError,
        chances: &mut Chances,
    ) -> Result<Next, Rejection> {
        debug!(%error, "no connection to the upstream");
        let doubled = RECONNECT_MIN.saturating_mul(1 << chances.connects.min(8));
        chances.connects += 1;
        let next = self.proxy.clock.mono().plus(doubled.min(RECONNECT_MAX));
        if next >= self.deadline {
            return Err(unreachable(error));
        }
        chances.no_connection = Some(unreachable(error));
        self.proxy.clock.sleep_until(next).await;
        Ok(Next::Again)
    }
}

pub(super) fn stopping() -> Rejection {
    Rejection::new(Reason::ShuttingDown, "the proxy is being stopped; send the call again")
}

fn unreachable(error: &dyn std::fmt::Display) -> Rejection {
    Rejection::new(
        Reason::UpstreamUnreachable,
        format!("the API could not be reached; the call was not sent: {error}"),
    )
}

/// The upstream's connection broke, or the caller's body did.
fn broken(error: &hyper::Error) -> Rejection {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(body) = error.downcast_ref::<crate::upstream::BodyError>() {
            return intake::unreadable(body);
        }
        cause = error.source();
    }
    Rejection::new(
        Reason::UpstreamUnreachable,
        "the connection to the API broke before an answer came; whether it carried the call out \
         is not known",
    )
}
