//! Names as the document describes them: what `engine::ids` takes, and nothing else.
//!
//! They are types of their own because the engine knows nothing of documents, and because a reader
//! of the document is to see which name goes where.

use std::borrow::Cow;

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

macro_rules! names {
    ($($name:ident: $about:literal, $example:literal;)+) => {$(
        #[doc = $about]
        pub(super) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                describe($about, $example)
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }
        }
    )+};
}

names! {
    ApiKeyName: "The configured name of a Constant Contact application.", "default";
    TenantName: "The name of a connected account.", "acme";
    ClientName: "The name of a program that calls.", "crm";
}

fn describe(about: &str, example: &str) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(about))
        .pattern(Some("^[A-Za-z0-9][A-Za-z0-9._~:@-]*$"))
        .min_length(Some(1))
        .max_length(Some(128))
        .examples([example])
        .into()
}
