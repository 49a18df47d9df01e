//! A secret that an input can put where it likes, and that must be seen nowhere.
//!
//! A byte that no text holds stands for it, so that a fuzzer moves it around whole and never writes
//! it by chance.

/// No name, no unknown field that would be repeated: it is too long and has a sign of neither.
pub(crate) const CANARY: &str = "c4nary+c4nary+c4nary+c4nary+c4nary";
/// The byte that stands for it.
const PLACE: u8 = 1;

/// `input` with the secret in its places.
pub(crate) fn with_canary(input: &[u8]) -> Vec<u8> {
    input.split(|byte| *byte == PLACE).collect::<Vec<_>>().join(CANARY.as_bytes())
}
