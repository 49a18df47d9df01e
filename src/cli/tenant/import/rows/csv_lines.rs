//! CSV with a header line.

use anyhow::bail;
use csv::{ByteRecord, ErrorKind, Position, ReaderBuilder, Trim};

use super::{FIELDS, FIELDS_REQUIRED, Line, Raw, Row};

/// Separators that spreadsheets write in some countries, and what they are called.
const OTHER_SEPARATORS: [(char, &str); 3] =
    [(';', "semicolons"), ('\t', "tabs"), ('|', "vertical bars")];

/// Where each of [`FIELDS`] stands in a record.
struct Header {
    places: [Option<usize>; FIELDS.len()],
    columns: usize,
}

/// Reads all records; empty ones are passed over.
pub(super) fn read(content: &[u8]) -> anyhow::Result<Vec<Line>> {
    let mut reader =
        ReaderBuilder::new().trim(Trim::All).flexible(true).has_headers(false).from_reader(content);
    let mut records = reader.byte_records();
    let header = loop {
        match records.next() {
            Some(Ok(record)) if is_empty(&record) => {}
            Some(Ok(record)) => break Header::read(&record)?,
            Some(Err(_)) | None => bail!("the file has no header line: {}", FIELDS.join(",")),
        }
    };
    let mut counter = LineCounter { content, at: 0, line: 1 };
    let mut lines = Vec::new();
    for record in records {
        let (position, row) = match record {
            Ok(record) if is_empty(&record) => continue,
            Ok(record) => (record.position().map(Position::byte), header.row(&record)),
            Err(error) => (
                error.position().map(Position::byte),
                Err(match error.kind() {
                    ErrorKind::Utf8 { .. } => "is not UTF-8".to_owned(),
                    _ => "is no CSV".to_owned(),
                }),
            ),
        };
        lines.push(Line { number: counter.line_of(position.unwrap_or_default()), row });
    }
    Ok(lines)
}

impl Header {
    fn read(record: &ByteRecord) -> anyhow::Result<Self> {
        let Ok(names) = record.iter().map(std::str::from_utf8).collect::<Result<Vec<_>, _>>()
        else {
            bail!("the header line is not UTF-8");
        };
        let wanted = FIELDS.join(",");
        if let [only] = names[..]
            && let Some((_, name)) = OTHER_SEPARATORS
                .iter()
                .find(|(sign, _)| only.contains(*sign) && FIELDS.iter().any(|f| only.contains(f)))
        {
            bail!("the header line is separated by {name}; write commas: {wanted}");
        }
        if !names.iter().any(|name| FIELDS.contains(name)) {
            // a file without header has a token where a name belongs, so none is repeated
            bail!(
                "the first line is no header: none of its {} columns is one of {wanted}",
                names.len()
            );
        }
        for (column, name) in names.iter().enumerate() {
            if !FIELDS.contains(name) {
                let what = super::unknown(name);
                bail!("the header line: column {}: {what}; there are {wanted}", column + 1);
            }
            if names.iter().filter(|other| *other == name).count() > 1 {
                bail!("the header line has two columns {name}");
            }
        }
        let places = FIELDS.map(|field| names.iter().position(|name| *name == field));
        for (field, place) in FIELDS.iter().zip(places).take(FIELDS_REQUIRED) {
            if place.is_none() {
                bail!("the header line has no column {field}; there must be {wanted}");
            }
        }
        Ok(Self { places, columns: names.len() })
    }

    fn row(&self, record: &ByteRecord) -> Result<Row, String> {
        if record.len() != self.columns {
            return Err(format!("has {} columns, the header {}", record.len(), self.columns));
        }
        let field = |place: Option<usize>| {
            let bytes = place.and_then(|at| record.get(at)).unwrap_or_default();
            std::str::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
        };
        let [tenant, api_key, refresh_token, access_token, weight] = self.places.map(field);
        Row::read(&Raw {
            tenant: tenant?,
            api_key: api_key?,
            refresh_token: refresh_token?,
            access_token: access_token?,
            weight: weight?,
        })
    }
}

/// A line of nothing but separators, as spreadsheets leave them.
fn is_empty(record: &ByteRecord) -> bool {
    record.iter().all(<[u8]>::is_empty)
}

/// Counts lines up to a place. The reader's own count names the empty lines before a record.
struct LineCounter<'a> {
    content: &'a [u8],
    at: usize,
    line: u64,
}

impl LineCounter<'_> {
    /// The line of the record that begins at `byte` or after the line ends there; never before the
    /// last one asked for.
    fn line_of(&mut self, byte: u64) -> u64 {
        let byte = usize::try_from(byte).unwrap_or(usize::MAX);
        while let Some(found) = self.content.get(self.at)
            && (self.at < byte || matches!(found, b'\r' | b'\n'))
        {
            // `\n`, `\r` or both end a line
            let ends = match found {
                b'\n' => true,
                b'\r' => self.content.get(self.at + 1) != Some(&b'\n'),
                _ => false,
            };
            self.line += u64::from(ends);
            self.at += 1;
        }
        self.line
    }
}
