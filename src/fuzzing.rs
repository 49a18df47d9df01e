//! What must hold of anything that others send, for the fuzz targets in `fuzz/`.
//!
//! Each function takes any bytes and asserts more than that nothing panics. Readers are private, so
//! what is said of them stands beside them; here it only gets a name. All this is compiled for
//! tests and fuzzing alone. `cargo test` reads `fuzz/seeds`, where an input that failed once stays.

mod canary;
mod config;
mod jwt;

pub(crate) use canary::{CANARY, with_canary};
pub use config::config;
pub use jwt::jwt;

pub use crate::cli::tenant::fuzzing::import;
pub use crate::proxy::fuzzing::{preferences, target};

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Every seed of the target, read by `read`.
    fn read_seeds(target: &str, read: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let mut paths: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert!(paths.len() >= 5, "{target} has {} seeds", paths.len());
        for path in paths {
            println!("{}", path.display());
            read(&fs::read(path).unwrap());
        }
    }

    #[test]
    fn what_is_promised_of_a_configuration_holds_for_every_seed() {
        read_seeds("config", super::config);
    }

    #[test]
    fn what_is_promised_of_a_file_of_grants_holds_for_every_seed() {
        read_seeds("import", super::import);
    }

    #[test]
    fn what_is_promised_of_a_token_holds_for_every_seed() {
        read_seeds("jwt", super::jwt);
    }

    #[test]
    fn what_is_promised_of_preferences_holds_for_every_seed() {
        read_seeds("preferences", super::preferences);
    }

    #[test]
    fn what_is_promised_of_a_target_holds_for_every_seed() {
        read_seeds("target", super::target);
    }
}
