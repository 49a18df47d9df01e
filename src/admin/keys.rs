//! The encryption key of the store: which it is, and rotating it.
//!
//! Keys are named by their ids, which say nothing about them. A rotation runs to its end also when
//! the operator goes away, and one that was broken off goes on when it is asked for again.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::errors::{AdminError, Kind};
use super::{AUDIT, Desk};
use crate::secret::KeyId;
use crate::store::RotateError;

/// `GET /v1/key`
pub(super) async fn show(State(shared): Desk) -> Result<Json<Value>, AdminError> {
    let ids = shared.parts.store.key_ids();
    let Some((current, older)) = ids.split_first() else {
        return Err(RotateError::NothingSealed.into());
    };
    Ok(Json(json!({ "key_id": current.to_string(), "older_key_ids": texts(older) })))
}

/// `POST /v1/key/rotate`
pub(super) async fn rotate(State(shared): Desk) -> Result<Json<Value>, AdminError> {
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
        Ok(Json(json!({
            "key_id": done.key_id.to_string(),
            "given_up": given_up,
            "sealed_anew": done.sealed_anew,
            "resumed": done.resumed,
            "note": done.still_in_file,
        })))
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
