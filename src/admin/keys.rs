//! The encryption key of the store: which it is, and rotating it.
//!
//! Keys are named by their ids, which say nothing about them. A rotation runs to its end also when
//! the operator goes away, and one that was broken off goes on when it is asked for again.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use tracing::{info, warn};
use utoipa::ToSchema;

use super::errors::{AdminError, Kind};
use super::{AUDIT, Desk, answers};
use crate::secret::KeyId;
use crate::store::RotateError;

/// The encryption keys of the store.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Keys)]
pub(super) struct KeysView {
    /// The one that seals.
    key_id: String,
    /// Those that open what was sealed before.
    older_key_ids: Vec<String>,
}

/// What a rotation did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Rotation)]
pub(super) struct RotationView {
    /// The new key.
    key_id: String,
    /// Keys that open nothing any more.
    given_up: Vec<String>,
    /// Tenants whose tokens were sealed anew.
    sealed_anew: u64,
    /// Whether it went on with one that was broken off.
    resumed: bool,
    /// What is left to do, in words.
    #[schema(required)]
    note: Option<String>,
}

/// Names the encryption keys of the store
///
/// Their ids say nothing about the keys. A store that seals nothing has none: 409.
#[utoipa::path(
    get,
    path = "/v1/key",
    operation_id = "show_key",
    tag = "custody",
    responses((status = 200, description = "The ids.", body = KeysView), answers::Contended)
)]
pub(super) async fn show(State(shared): Desk) -> Result<Json<KeysView>, AdminError> {
    let ids = shared.parts.store.key_ids();
    let Some((current, older)) = ids.split_first() else {
        return Err(RotateError::NothingSealed.into());
    };
    Ok(Json(KeysView { key_id: current.to_string(), older_key_ids: texts(older) }))
}

/// Makes a new encryption key and seals everything with it
///
/// All goes on meanwhile. Keep a copy of the key file afterwards.
#[utoipa::path(
    post,
    path = "/v1/key/rotate",
    operation_id = "rotate_key",
    tag = "custody",
    responses(
        (status = 200, description = "The key is rotated.", body = RotationView),
        answers::Contended,
        answers::Kept
    )
)]
pub(super) async fn rotate(State(shared): Desk) -> Result<Json<RotationView>, AdminError> {
    let whole = shared.clone();
    let change = async move {
        info!(target: AUDIT, "an operator rotates the encryption key");
        let done = shared.parts.store.rotate_key().await?;
        let given_up = texts(&done.given_up);
        info!(
            target: AUDIT,
            key_id = %done.key_id, given_up = given_up.join(" "), sealed_anew = done.sealed_anew,
            "the encryption key was rotated; keep a copy of the key file"
        );
        if let Some(note) = &done.still_in_file {
            warn!("{note}");
        }
        Ok(Json(RotationView {
            key_id: done.key_id.to_string(),
            given_up,
            sealed_anew: done.sealed_anew,
            resumed: done.resumed,
            note: done.still_in_file,
        }))
    };
    whole.change(change).await
}

fn texts(ids: &[KeyId]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

impl From<RotateError> for AdminError {
    fn from(fault: RotateError) -> Self {
        match fault {
            RotateError::NothingSealed | RotateError::UnderWay => {
                Self::new(Kind::Conflict, fault.to_string())
            }
            RotateError::KeyFile(why) => {
                warn!(%why, "the encryption key was not rotated");
                Self::new(Kind::Conflict, why)
            }
            RotateError::Store(fault) => fault.into(),
        }
    }
}
