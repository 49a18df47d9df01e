//! Consents that were asked for: records by their state, which the server forgets by itself when
//! nobody asks for long.
//!
//! A record is the tenant, a NUL and JSON; its verifier is sealed. Whoever reads the server learns
//! no state, only digests.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::fields::{damaged, millis};
use super::{Server, scripts};
use crate::engine::{TenantName, Unix};
use crate::secret::StateDigest;
use crate::store::sealed::{open_verifier, seal_verifier};
use crate::store::{
    AUTHORIZATIONS_KEPT, AUTHORIZATIONS_KEPT_PER_TENANT, Authorization, StoreError,
};

/// How long all are kept when nobody begins another: whoever is late by less is told so.
const KEPT_SECS: u64 = 24 * 60 * 60;

#[derive(Serialize, Deserialize)]
struct Record {
    api_key: String,
    redirect_uri: String,
    verifier: Option<String>,
    return_to: Option<String>,
    expires_at: u64,
}

/// Remembers one, and forgets those that are too late or too many.
pub(super) async fn begin(
    server: &Server,
    new: &Authorization,
    now: Unix,
) -> Result<(), StoreError> {
    let seal = |verifier| STANDARD.encode(seal_verifier(&server.keys.load(), &new.state, verifier));
    let record = Record {
        api_key: new.api_key.as_str().to_owned(),
        redirect_uri: new.redirect_uri.clone(),
        verifier: new.verifier.as_ref().map(seal),
        return_to: new.return_to.clone(),
        expires_at: millis(new.expires_at),
    };
    let record = serde_json::to_string(&record)
        .map_err(|_| damaged("an authorization cannot be written down".to_owned()))?;
    let life = millis(new.expires_at).saturating_sub(millis(now)) / 1_000;
    let mut call = scripts::BEGIN_AUTHORIZATION.prepare_invoke();
    call.key(&server.names.authorizations());
    call.arg(text_of(&new.state)).arg(new.tenant.as_str()).arg(format!("{}\0{record}", new.tenant));
    call.arg(millis(new.expires_at)).arg(millis(now));
    call.arg(AUTHORIZATIONS_KEPT).arg(AUTHORIZATIONS_KEPT_PER_TENANT);
    call.arg(KEPT_SECS.saturating_add(life));
    server.link.run("remember an authorization", &call).await
}

/// Takes the one of `state`.
pub(super) async fn take(
    server: &Server,
    state: &StateDigest,
) -> Result<Option<Authorization>, StoreError> {
    let mut call = scripts::TAKE_AUTHORIZATION.prepare_invoke();
    call.key(&server.names.authorizations()).arg(text_of(state));
    let taken: Option<String> = server.link.run("take an authorization", &call).await?;
    taken.map(|record| read(server, state, &record)).transpose()
}

fn read(server: &Server, state: &StateDigest, text: &str) -> Result<Authorization, StoreError> {
    let bad = || damaged("an authorization".to_owned());
    let (tenant, json) = text.split_once('\0').ok_or_else(bad)?;
    let tenant: TenantName = tenant.parse().map_err(|_| bad())?;
    let record: Record = serde_json::from_str(json).map_err(|_| bad())?;
    let open = |sealed: String| {
        let sealed = STANDARD.decode(sealed).map_err(|_| bad())?;
        open_verifier(&server.keys.load(), state, &sealed)
            .map_err(|e| damaged(format!("the verifier of an authorization: {e}")))
    };
    Ok(Authorization {
        state: *state,
        tenant,
        api_key: record.api_key.parse().map_err(|_| bad())?,
        redirect_uri: record.redirect_uri,
        verifier: record.verifier.map(open).transpose()?,
        return_to: record.return_to,
        expires_at: Unix::new(std::time::Duration::from_millis(record.expires_at)),
    })
}

/// A state's digest as the scripts have it.
fn text_of(state: &StateDigest) -> String {
    URL_SAFE_NO_PAD.encode(state.as_bytes())
}
