//! One JSON object a line.

use serde_json::{Map, Value};

use super::{FIELDS, Line, Raw, Row};

/// Reads all lines; empty ones are passed over.
pub(super) fn read(content: &[u8]) -> Vec<Line> {
    (1_u64..)
        .zip(content.split(|byte| *byte == b'\n'))
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .map(|(number, line)| Line { number, row: object(line).and_then(|it| row(&it)) })
        .collect()
}

fn object(line: &[u8]) -> Result<Map<String, Value>, String> {
    match serde_json::from_slice(line) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err("is no JSON object".to_owned()),
        Err(error) if error.is_eof() => {
            Err("is no whole JSON object; each object must stand on one line".to_owned())
        }
        Err(error) => Err(format!("is no JSON: mistake at column {}", error.column())),
    }
}

fn row(fields: &Map<String, Value>) -> Result<Row, String> {
    if let Some(unknown) = fields.keys().find(|key| !FIELDS.contains(&key.as_str())) {
        return Err(format!("{}; there are {}", super::unknown(unknown), FIELDS.join(", ")));
    }
    let text = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) if name == "weight" => Ok(number.to_string()),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Err(format!("{name} is no text"))
        }
    };
    let values = FIELDS.map(|name| text(name).map(zeroize::Zeroizing::new));
    let [tenant, api_key, refresh_token, access_token, weight] = values;
    Row::read(&Raw {
        tenant: tenant?.as_str(),
        api_key: api_key?.as_str(),
        refresh_token: refresh_token?.as_str(),
        access_token: access_token?.as_str(),
        weight: weight?.as_str(),
    })
}
