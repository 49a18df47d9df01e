//! What people and verifiers open: the pages of consent and activation, the key set, and nothing.

use http::StatusCode;
use http::request::Parts;

use super::Model;
use crate::engine::Now;
use crate::sandbox::answer::{Answer, forbidden};
use crate::sandbox::device;
use crate::sandbox::fault::{FaultKind, Target};
use crate::sandbox::grants::Mint;
use crate::sandbox::log::Verdict;
use crate::sandbox::oauth::{self, Authorize};

impl Model {
    /// The consent page.
    pub(in crate::sandbox) fn authorize(&mut self, now: Now, parts: &Parts) -> Answer {
        let query = parts.uri.query().unwrap_or_default();
        let answer = match Authorize::read(&parts.method, query, &self.options.clients) {
            Authorize::Answered(answer) => answer,
            Authorize::Consented { consent, state } => {
                let redirect_uri = consent.redirect_uri.clone();
                if let Some(fault) = self.faults.take(Target::Authorize, Some(&consent.account)) {
                    return self.not_consented(now, parts, &fault, &redirect_uri, &state);
                }
                let mut mint = Mint { options: &self.options, rng: &mut self.rng, now };
                let code = self.grants.code(consent, &mut mint);
                oauth::redirect(&redirect_uri, "code", &code, &state)
            }
        };
        self.aside(now, parts, Verdict::Authorize, answer)
    }

    /// The page where an owner types a device's code in, and consents at once.
    pub(in crate::sandbox) fn activate(&mut self, now: Now, parts: &Parts) -> Answer {
        let answer = match device::read_activation(parts) {
            Err(answer) => answer,
            Ok((user_code, account)) => {
                let account = account.as_deref().unwrap_or(oauth::DEFAULT_ACCOUNT);
                let denied = account == oauth::DENYING_ACCOUNT
                    || self.faults.take(Target::Authorize, Some(account)).is_some();
                if self.devices.decide(&user_code, (!denied).then_some(account)) {
                    Answer::html(StatusCode::OK)
                } else {
                    Answer::html(StatusCode::NOT_FOUND)
                }
            }
        };
        self.aside(now, parts, Verdict::Authorize, answer)
    }

    /// A consent that a fault keeps from being given.
    fn not_consented(
        &mut self,
        now: Now,
        parts: &Parts,
        fault: &FaultKind,
        redirect_uri: &str,
        state: &str,
    ) -> Answer {
        let denied = *fault == FaultKind::Denied;
        let error = if denied { "access_denied" } else { "server_error" };
        let answer = oauth::redirect(redirect_uri, "error", error, state);
        self.aside(now, parts, Verdict::Authorize, answer)
    }

    /// The key set.
    pub(in crate::sandbox) fn keys(&mut self, now: Now, parts: &Parts) -> Answer {
        self.aside(now, parts, Verdict::Authorize, oauth::keys(&parts.method))
    }

    /// A path that the upstream does not have.
    pub(in crate::sandbox) fn outside(&mut self, now: Now, parts: &Parts) -> Answer {
        self.aside(now, parts, Verdict::Forbidden, forbidden())
    }
}
