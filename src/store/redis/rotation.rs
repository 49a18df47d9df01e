//! Sealing everything anew, once every instance has the new key.
//!
//! Nobody can see from here which keys other instances have, so no key is made: the operator gives
//! the new one to all of them first (`docs/operations.md`), and then what is sealed with an older
//! one is sealed anew here. Versions stay, and a refresh that comes between wins.

use super::Server;
use super::grants::{self, Change};
use crate::engine::TenantName;
use crate::secret::KeyId;
use crate::store::journal::Journal;
use crate::store::{KeyRotation, RotateError, StoreError};

/// Seals everything anew with the first key of the key file.
pub(super) async fn rotate(server: &Server, journal: &Journal) -> Result<KeyRotation, RotateError> {
    let keys = server.keys.load_full();
    let given_up = keys.older();
    if given_up.is_empty() {
        return Err(RotateError::KeyFile(
            "several instances may share this store, and each must have a new key before any \
             seals with it. Put a new key (`ctct-proxy keygen`) in a second line of every \
             instance's key file and restart them one by one; then make it the first line of each \
             and restart them again; then rotate"
                .to_owned(),
        ));
    }
    let mut sealed_anew = 0;
    for tenant in stale(server).await? {
        let Some(grant) = grants::one(server, &tenant).await? else { continue };
        let change = Change::seal(server, &tenant, &grant.tokens);
        sealed_anew += u64::from(grants::change(server, &tenant, grant.version, &change).await?);
    }
    journal.seal_anew().await?;
    if let Some(tenant) = stale(server).await?.first() {
        return Err(RotateError::KeyFile(format!(
            "the tokens of tenant {tenant} were just sealed with an older key: an instance still \
             has that in the first line of its key file; change it, restart it and rotate again"
        )));
    }
    let note = "take the older keys out of every instance's key file (all lines but the first)";
    Ok(KeyRotation {
        key_id: keys.key_id(),
        given_up,
        sealed_anew,
        resumed: true,
        still_in_file: Some(note.to_owned()),
    })
}

/// Tenants whose tokens are not sealed with the current key.
async fn stale(server: &Server) -> Result<Vec<TenantName>, StoreError> {
    let current = Some(server.keys.load().key_id());
    let heads = grants::heads(server).await?.into_iter();
    let stale =
        heads.filter(|(_, head)| head.sealed.iter().any(|s| KeyId::of_sealed(s) != current));
    Ok(stale.map(|(tenant, _)| tenant).collect())
}
