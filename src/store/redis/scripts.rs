//! The scripts. Each is one operation, which happens whole or not at all; what one does stands at
//! its head.

use std::sync::LazyLock;

use redis::Script;

/// A script whose changes other instances are told.
macro_rules! telling {
    ($file:literal) => {
        LazyLock::new(|| Script::new(concat!(include_str!("tell.lua"), include_str!($file))))
    };
}

macro_rules! silent {
    ($file:literal) => {
        LazyLock::new(|| Script::new(include_str!($file)))
    };
}

pub(super) static BEGIN_HISTORY: LazyLock<Script> = telling!("begin_history.lua");
pub(super) static PUT_GRANT: LazyLock<Script> = telling!("put_grant.lua");
pub(super) static RESTORE_GRANT: LazyLock<Script> = telling!("restore_grant.lua");
pub(super) static CHANGE_GRANT: LazyLock<Script> = telling!("change_grant.lua");
pub(super) static REMOVE_GRANT: LazyLock<Script> = telling!("remove_grant.lua");
pub(super) static PAUSE_GRANT: LazyLock<Script> = telling!("pause_grant.lua");
pub(super) static PAUSE_API_KEY: LazyLock<Script> = telling!("pause_api_key.lua");
pub(super) static ADD_CLIENT: LazyLock<Script> = telling!("add_client.lua");
pub(super) static CHANGE_CLIENT_KEYS: LazyLock<Script> = telling!("change_client_keys.lua");
pub(super) static REMOVE_CLIENT: LazyLock<Script> = telling!("remove_client.lua");
pub(super) static WRITE_GRANT: LazyLock<Script> = telling!("write_grant.lua");
pub(super) static WRITE_CLIENT: LazyLock<Script> = telling!("write_client.lua");
pub(super) static RECORD_USE: LazyLock<Script> = silent!("record_use.lua");
pub(super) static BEGIN_AUTHORIZATION: LazyLock<Script> = silent!("begin_authorization.lua");
pub(super) static TAKE_AUTHORIZATION: LazyLock<Script> = silent!("take_authorization.lua");
pub(super) static RESERVE: LazyLock<Script> = silent!("reserve.lua");
pub(super) static RELEASE: LazyLock<Script> = silent!("release.lua");
pub(super) static RAISE_DAYS: LazyLock<Script> = silent!("raise_days.lua");
pub(super) static LANE: LazyLock<Script> = silent!("lane.lua");
pub(super) static CHANGES: LazyLock<Script> = telling!("changes.lua");
pub(super) static LAST_TOLD: LazyLock<Script> = silent!("last_told.lua");
