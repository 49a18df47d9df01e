//! Lists in pieces: `{items, next_cursor}`, with `limit` and `cursor` in the query.
//!
//! A cursor is the last name that was seen, so that a list which changes between two pieces neither
//! repeats nor skips what was there all the time. Things are given in the order of their names.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use utoipa::openapi::path::ParameterIn;
use utoipa::{IntoParams, ToSchema};

use super::body::unknown_name;
use super::errors::AdminError;

/// Things in one answer when the query does not say.
const LIMIT_DEFAULT: usize = 100;
/// Most things in one answer.
const LIMIT_MAX: usize = 1_000;

/// A piece of a list.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    /// Where the next piece begins; `null` at the end.
    #[schema(required)]
    pub(super) next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// The same piece of other things.
    pub(super) fn map<U>(self, to: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(to).collect(), next_cursor: self.next_cursor }
    }
}

/// Which piece of a list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes what `Query` reads")]
pub(super) struct Piece {
    /// Most things in the answer; 100 when it is not given.
    #[param(minimum = 1, maximum = 1_000)]
    limit: Option<u16>,
    /// The `next_cursor` of the answer before.
    cursor: Option<String>,
}

/// What a query asks for.
#[derive(Debug)]
pub(super) struct Query {
    limit: usize,
    after: Option<String>,
    filters: BTreeMap<String, String>,
}

impl Query {
    /// Reads a query that names a piece and nothing else.
    pub(super) fn read(query: Option<&str>) -> Result<Self, AdminError> {
        Self::among(query, &names::<Piece>())
    }

    /// Reads a query that may have filters beside those of [`Piece`].
    pub(super) fn filtered<F: IntoParams>(query: Option<&str>) -> Result<Self, AdminError> {
        Self::among(query, &[names::<Piece>(), names::<F>()].concat())
    }

    fn among(query: Option<&str>, known: &[String]) -> Result<Self, AdminError> {
        let mut given = read(query, known)?;
        let limit = match given.remove("limit") {
            None => LIMIT_DEFAULT,
            Some(text) => limit(&text)?,
        };
        let after = given.remove("cursor").map(|text| open(&text)).transpose()?;
        Ok(Self { limit, after, filters: given })
    }

    /// A filter's value.
    pub(super) fn filter<T: FromStr<Err: Display>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, AdminError> {
        let value = self.filters.get(name).map(|text| text.parse());
        value.transpose().map_err(|why| AdminError::bad_request(format!("query: {name}: {why}")))
    }

    /// The piece that is asked for, of things in the order of their names.
    pub(super) fn cut<T>(
        &self,
        things: impl IntoIterator<Item = T>,
        name: impl Fn(&T) -> &str,
    ) -> Page<T> {
        let after = self.after.as_deref();
        let mut rest =
            things.into_iter().skip_while(|thing| after.is_some_and(|after| name(thing) <= after));
        let items: Vec<T> = rest.by_ref().take(self.limit).collect();
        let more = rest.next().is_some();
        let last = items.last().filter(|_| more);
        let next_cursor = last.map(|last| URL_SAFE_NO_PAD.encode(name(last)));
        Page { items, next_cursor }
    }
}

/// Reads a query that may have the parameters that `P` describes, each once.
pub(super) fn parameters<P: IntoParams>(
    query: Option<&str>,
) -> Result<BTreeMap<String, String>, AdminError> {
    read(query, &names::<P>())
}

fn names<P: IntoParams>() -> Vec<String> {
    let described = P::into_params(|| Some(ParameterIn::Query));
    described.into_iter().map(|parameter| parameter.name).collect()
}

fn read(query: Option<&str>, known: &[String]) -> Result<BTreeMap<String, String>, AdminError> {
    let mut given = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if !known.iter().any(|known| *known == name) {
            let (what, known) = (unknown_name(&name), known.join(", "));
            return Err(AdminError::bad_request(format!("query: {what}; known are {known}")));
        }
        if given.contains_key(&*name) {
            return Err(AdminError::bad_request(format!("query: {name} is given twice")));
        }
        given.insert(name.into_owned(), value.into_owned());
    }
    Ok(given)
}

fn limit(text: &str) -> Result<usize, AdminError> {
    let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| {
        AdminError::bad_request(format!("query: limit is a whole number from 1 to {LIMIT_MAX}"))
    })
}

fn open(cursor: &str) -> Result<String, AdminError> {
    let name = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|name| String::from_utf8(name).ok());
    name.ok_or_else(|| {
        AdminError::bad_request("query: cursor is the next_cursor of the answer before")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(IntoParams)]
    #[expect(dead_code, reason = "it describes what is read")]
    struct Filter {
        state: String,
    }

    fn cut(query: &str) -> Page<&'static str> {
        Query::read(Some(query)).unwrap().cut(["a", "b", "c"], |name| name)
    }

    #[test]
    fn a_list_ends_with_no_cursor_also_when_its_last_piece_is_full() {
        let first = cut("limit=2");
        assert_eq!(first.items, ["a", "b"]);
        let next = format!("limit=1&cursor={}", first.next_cursor.unwrap());
        assert_eq!(cut(&next), Page { items: vec!["c"], next_cursor: None });
        assert_eq!(cut("limit=3").next_cursor, None);
        assert_eq!(cut("").items.len(), 3);
    }

    #[test]
    fn a_cursor_whose_thing_is_gone_goes_on_behind_its_name() {
        let cursor = URL_SAFE_NO_PAD.encode("aa");
        assert_eq!(cut(&format!("cursor={cursor}")).items, ["b", "c"]);
    }

    #[test]
    fn a_query_that_makes_no_sense_is_refused() {
        for query in [
            "limit=0",
            "limit=1001",
            "limit=x",
            "cursor=!",
            "limit=1&limit=2",
            "other=1",
            "cursor=_w",
        ] {
            assert!(Query::filtered::<Filter>(Some(query)).is_err(), "{query}");
        }
        assert!(Query::filtered::<Filter>(Some("state=ready")).is_ok());
        assert!(Query::read(Some("state=ready")).is_err());
    }
}
