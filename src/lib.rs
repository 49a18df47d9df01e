//! `ctct-proxy`: one place through which all calls of a company to the Constant Contact API go.
//!
//! The modules in reading order, inside to outside; each may use only those above it
//! (`docs/architecture.md` has the picture, `tests/tidy.rs` holds the rule):
//!
//! | layer | modules |
//! | --- | --- |
//! | pure machines | [`engine`] |
//! | base | [`clock`], [`secret`], [`rejection`], [`config`], [`phase`] |
//! | ports | [`store`], [`upstream`], [`telemetry`], [`listen`], [`issuer`] |
//! | shells | [`clients`], [`gate`], [`tokens`] |
//! | flows | [`connect`] |
//! | faces | [`proxy`], [`admin`] |
//! | roots | [`app`], [`lifecycle`], [`cli`] |
//! | aside | [`sandbox`], the model of the upstream that tests and the demo run against |
//!
//! `fuzzing`, which is there for tests and fuzz targets alone, says what must hold of any input.

pub mod engine;

pub mod clock;
pub mod config;
pub mod phase;
pub mod rejection;
pub mod secret;

pub mod issuer;
pub mod listen;
pub mod store;
pub mod telemetry;
pub mod upstream;

pub mod clients;
pub mod gate;
pub mod tokens;

pub mod connect;

pub mod admin;
pub mod proxy;

pub mod app;
pub mod cli;
pub mod lifecycle;

pub mod sandbox;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
