//! The contract of the store port (`src/store.rs`), held against every store.
//!
//! `contract` is the suite that all stores pass; `sqlite`, `journal` and `process` add what only a
//! store on a disk promises: files, keys, locks, steps of refreshes, a killed process, a full disk.
//! `redis…`, `lanes` and `changes` add what only a shared server does: it hangs, comes back older,
//! forgets; `redis_cluster` what a cluster does. `whole` and `copies` are about taking everything
//! elsewhere. A new store joins by one more module of `every_store!`.

#[path = "store_contract/authorizations.rs"]
mod authorizations;
#[path = "store_contract/changes.rs"]
mod changes;
#[path = "store_contract/clients.rs"]
mod clients;
#[path = "support/redis_cluster.rs"]
mod cluster_process;
#[path = "store_contract/contract.rs"]
mod contract;
#[path = "store_contract/copies.rs"]
mod copies;
#[path = "store_contract/journal.rs"]
mod journal;
#[path = "store_contract/keys.rs"]
mod keys;
#[path = "store_contract/lanes.rs"]
mod lanes;
#[path = "store_contract/process.rs"]
mod process;
#[path = "store_contract/redis_cluster.rs"]
mod redis_cluster;
#[path = "store_contract/redis_doors.rs"]
mod redis_doors;
#[path = "store_contract/redis_journal.rs"]
mod redis_journal;
#[path = "store_contract/redis_keys.rs"]
mod redis_keys;
#[path = "support/redis.rs"]
mod redis_process;
#[path = "store_contract/redis.rs"]
mod redis_server;
#[path = "store_contract/sqlite.rs"]
mod sqlite_files;
#[path = "store_contract/support.rs"]
mod support;
#[path = "store_contract/whole.rs"]
mod whole;

macro_rules! every_store {
    (
        $suite:ident, $memory:ident, $sqlite:ident, $redis:ident, $cluster:ident:
        $($sentence:ident),* $(,)?
    ) => {
        mod $memory {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $sentence() {
                    super::$suite::$sentence(super::support::memory()).await;
                }
            )*
        }

        mod $sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $sentence() {
                    let place = super::support::Place::new();
                    super::$suite::$sentence(place.open()).await;
                }
            )*
        }

        mod $redis {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $sentence() {
                    let place = super::support::SharedPlace::new();
                    super::$suite::$sentence(place.open().await).await;
                }
            )*
        }

        mod $cluster {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $sentence() {
                    let place = super::support::ClusterPlace::new();
                    super::$suite::$sentence(place.open("refreshes").await).await;
                }
            )*
        }
    };
}

every_store![
    contract, memory, sqlite, redis, cluster:
    a_hundred_tasks_never_get_more_than_the_limit,
    a_reservation_grants_what_is_left_and_reads_without_taking,
    a_limit_that_falls_below_the_count_grants_nothing,
    a_later_day_wins_over_a_clock_that_was_set_back,
    days_too_far_ahead_are_moved_back_and_added,
    the_newest_four_days_are_kept,
    a_release_gives_back_at_most_what_was_taken,
    api_keys_count_apart,
    a_new_grant_is_ready_and_read_back,
    grants_come_in_the_order_of_their_names,
    a_replaced_grant_keeps_pause_use_and_weight,
    a_version_is_never_used_twice,
    a_refresh_begins_and_ends_with_new_tokens,
    an_aborted_refresh_leaves_everything_as_it_was,
    a_stale_version_changes_nothing,
    one_of_many_refreshes_of_a_version_wins,
    a_repeated_finish_is_ok,
    a_dead_grant_stays_dead_until_new_tokens_come,
    use_and_pause_do_not_touch_the_tokens,
    the_later_use_stays,
    paused_api_keys_are_remembered,
    a_dropped_call_harms_nobody,
    a_closed_store_refuses_and_closes_twice,
];

every_store![
    clients, memory_clients, sqlite_clients, redis_clients, cluster_clients:
    clients_are_unique_by_name_and_key,
    a_clients_keys_change_and_nothing_else_of_it,
    a_client_that_expires_is_added_as_it_is,
    the_later_use_of_a_client_stays,
];

every_store![
    authorizations, memory_authorizations, sqlite_authorizations, redis_authorizations,
    cluster_authorizations:
    an_authorization_comes_back_as_it_was,
    an_authorization_is_taken_once_however_many_ask,
    a_late_authorization_is_told_from_none_and_then_forgotten,
    a_removed_tenant_takes_its_authorizations_with_it,
    authorizations_are_bounded,
];

every_store![
    whole, memory_whole, sqlite_whole, redis_whole, cluster_whole:
    a_grant_is_written_as_it_is,
    a_written_grant_has_a_version_above_all_before,
    a_grant_is_written_over_nothing_but_what_is_named,
    a_client_is_written_over_nothing_but_what_is_named,
    days_are_raised_and_never_go_down,
];
